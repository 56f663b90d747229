//! A node: systemd as the first process, the agent and a containerd as its services, both as their packages set them up.
//!
//! Ignored but in the emulated machine of `cargo xtask vm --configuration systemd`: it is the machine's first process that is
//! asked. Nothing is scoped there, for the machine is the tests' own.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests panic, they do not return errors")]
#![expect(clippy::print_stdout, reason = "figures that were measured are told beside the outcome")]

mod pods;
mod service;
mod unit;
