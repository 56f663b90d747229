//! Audit records and bursts of failures.

use std::{fmt::Error, sync::atomic::Ordering::Relaxed};

use super::{Parts, encode::Sink};

impl Parts {
    pub(super) fn audit(&self, sink: &mut Sink<'_>) -> Result<(), Error> {
        let books = &self.books.audit;
        let flag = |on: bool| f64::from(u8::from(on));
        sink.gauge(
            "tellwire_audit_connected",
            "Whether the agent reads the kernel's audit records: 1 yes, 0 no.",
            &[(&[], flag(books.connected.load(Relaxed)))],
        )?;
        sink.gauge(
            "tellwire_audit_enabled",
            "Whether auditing is on in the kernel; if not, it drops what programs report: 1 yes, 0 no.",
            &[(&[], flag(books.enabled.load(Relaxed)))],
        )?;
        sink.counter(
            "tellwire_audit_received_total",
            "Audit records read from the kernel.",
            &[(&[], books.received.load(Relaxed))],
        )?;
        let outcomes = books.outcomes().map(|(name, value)| ([("outcome", name)], value));
        let samples: Vec<_> = outcomes.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_audit_records_total",
            "What became of the audit records: the outcomes add up to tellwire_audit_received_total, but for records \
             that wait. `merged` are told together with the call of libpam that they report, or say once more that it failed; `out_of_scope` are of processes that are not chosen by `--cgroup`.",
            &samples,
        )?;
        sink.counter(
            "tellwire_audit_overruns_total",
            "Audit records that found no room in the socket's buffer: auth.audit-buffer-bytes.",
            &[(&[], books.socket_full.load(Relaxed))],
        )?;
        sink.counter(
            "tellwire_audit_kernel_lost_total",
            "Audit records that the kernel's audit subsystem lost since boot, by its own count: its backlog was full, or its rate limit reached.",
            &[(&[], books.kernel_lost.load(Relaxed))],
        )?;
        let bursts = &self.books.bursts;
        sink.counter(
            "tellwire_auth_bursts_total",
            "Bursts of failed authentications, by what the failures had in common.",
            &[(&[("by", "source")], bursts[0].load(Relaxed)), (&[("by", "user")], bursts[1].load(Relaxed))],
        )
    }
}
