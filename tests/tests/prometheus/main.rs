//! The metrics, as a real Prometheus takes them.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests panic, they do not return errors"
)]

mod dashboards;
mod demonstration;
#[path = "../pam/helper.rs"]
#[expect(dead_code, reason = "the suite of PAM needs more of it")]
mod helper;
mod logql;
mod manual;
mod promtool;
mod protected;
mod queries;
mod server;
