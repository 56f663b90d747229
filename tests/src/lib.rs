//! The harness of the live tests: start the agent, do the thing, expect the event.
//!
//! Every workload runs in a cgroup of the agent that watches it (`--cgroup`), so that tests can run side by
//! side and nothing else on the machine is looked at. Workloads are closures in forked children and tiny
//! programs that are made here: a virtual machine with nothing but the test binaries can run them.
//!
//! `TELLWIRE_BIN` names the agent's binary; without it, it is looked for where cargo builds it.
//! `TELLWIRE_VM` says that this is the emulated machine of `cargo xtask vm`: everything may take longer.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests panic, they do not return errors"
)]

mod agent;
mod alone;
pub mod auditing;
pub mod bpf;
mod cgroup;
mod child;
pub mod compat;
pub mod containerd;
pub mod cri;
pub mod debian;
pub mod ecs;
mod http;
pub mod image;
mod lines;
mod log;
mod matching;
mod metrics;
pub mod net;
pub mod oci;
mod overlay;
pub mod private;
pub mod program;
pub mod raced;
pub mod runtime;
mod setup;
pub mod sys;
pub mod terminal;
pub mod uring;
mod wait;

pub use agent::{Agent, Stopped};
pub use alone::Alone;
pub use cgroup::Cgroup;
pub use child::{Child, exit_at_once, fork};
pub use http::get;
pub use log::Ledger;
pub use matching::{at, differences};
pub use metrics::Metrics;
pub use overlay::Overlay;
pub use setup::{Setup, attached_by, is_degraded, output, tellwire};
pub use wait::{in_vm, limit, until, until_moment, within_limit};
