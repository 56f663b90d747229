//! What the kernel does not say in a record: the process's history, its container, its user's name.
//!
//! Everything here is owned by the pipeline task and answers from memory.

pub(crate) mod cgroup_path;
pub(crate) mod container;
pub(crate) mod containers;
pub(crate) mod credentials;
pub(crate) mod entity;
pub(crate) mod names;
pub(crate) mod processes;
pub(crate) mod users;
pub(crate) mod who;
pub(crate) mod workload;
