//! The metrics, as a real Prometheus takes them.

#![expect(clippy::expect_used, clippy::panic, reason = "tests panic, they do not return errors")]

mod promtool;
mod queries;
mod server;
