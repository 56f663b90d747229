//! What became of audit records.
//!
//! `received = told + merged + other_type + malformed + duplicate + out_of_scope + queue_full`, up to those that wait for the
//! pipeline; what the socket had no room for was never received.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counters; the socket's task and the pipeline raise them.
#[derive(Debug, Default)]
pub(crate) struct AuditBooks {
    /// The agent is joined to the group.
    pub(crate) connected: AtomicBool,
    /// The kernel's auditing is on.
    pub(crate) enabled: AtomicBool,
    pub(crate) received: AtomicU64,
    /// Events, of which there may be lines.
    pub(crate) told: AtomicU64,
    /// Told together with the call of libpam that they report.
    pub(crate) merged: AtomicU64,
    /// They tell of other things than authentication and accounts.
    pub(crate) other_type: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) duplicate: AtomicU64,
    /// Of processes that `--cgroup` does not choose.
    pub(crate) out_of_scope: AtomicU64,
    /// The pipeline did not come after.
    pub(crate) queue_full: AtomicU64,
    /// The socket's buffer was full.
    pub(crate) socket_full: AtomicU64,
    /// The kernel's own count of what it could not keep for auditd or for itself. What is among it may have come here all the same.
    pub(crate) kernel_lost: AtomicU64,
}

impl AuditBooks {
    /// By outcome, for metrics.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 7] {
        let Self { told, merged, other_type, malformed, duplicate, out_of_scope, queue_full, .. } = self;
        [
            ("told", told),
            ("merged", merged),
            ("other_type", other_type),
            ("malformed", malformed),
            ("duplicate", duplicate),
            ("out_of_scope", out_of_scope),
            ("queue_full", queue_full),
        ]
        .map(|(name, counter)| (name, counter.load(Relaxed)))
    }

    /// Records that will never be lines, though they may have told of an authentication.
    pub(crate) fn lost(&self) -> u64 {
        [&self.socket_full, &self.queue_full, &self.malformed]
            .map(|counter| counter.load(Relaxed))
            .iter()
            .sum()
    }
}
