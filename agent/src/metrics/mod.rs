//! Metrics: what the kernel counted, what the agent counted, and whether the two agree.
//!
//! Nothing is stored here. A scrape reads the kernel's maps and the parts' own counters, so that the
//! numbers are those of that moment, whatever became of the records.

mod agent;
mod audit;
mod auth;
mod encode;
mod node;
mod process;
mod rules;
mod workloads;

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::histogram::{Histogram, exponential_buckets},
    registry::Registry,
};
use tellwire_ebpf::wire::{Kind, Ring};

use self::encode::Sink;
use crate::{
    books::{Audit, Books},
    http::MetricsSource,
    kernel::{
        Attached, filter::KernelFilter, ledger::KernelBooks, mapping::Positions, possible_cpus, program_info,
    },
    outputs,
    pam::PamBooks,
    rules::RuleBooks,
    runtimes::RuntimeBooks,
};

/// The smallest record, ring header included: what a ring holds at the most is its size over this.
pub(crate) const SMALLEST_RECORD: u64 = 152;

/// Programs that one CPU can be in the middle of: task, softirq, hardirq, NMI.
pub(crate) const NESTING: u64 = 4;

/// Everything that is read for a scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
}

/// The parts that are asked.
pub(crate) struct Parts {
    pub(crate) kernel: Arc<KernelBooks>,
    pub(crate) filter: Arc<KernelFilter>,
    pub(crate) rules: Arc<RuleBooks>,
    pub(crate) books: Arc<Books>,
    pub(crate) pam: Arc<PamBooks>,
    pub(crate) runtimes: Arc<RuntimeBooks>,
    pub(crate) outputs: outputs::Registry,
    pub(crate) probes: Vec<Attached>,
    /// Programs of the probes: statistics are asked from the kernel.
    pub(crate) programs: Vec<(&'static str, OwnedFd)>,
    pub(crate) rings: Vec<(Ring, u64, Positions)>,
    /// Capacity of maps by name.
    pub(crate) capacities: Vec<(&'static str, u64)>,
    /// The output of `uname -r`.
    pub(crate) kernel_release: String,
    pub(crate) histograms: Histograms,
}

/// Distributions that are observed where the event is.
#[derive(Clone, Debug)]
pub(crate) struct Histograms {
    /// By ring: from the kernel's time of the event to the end of its write, in seconds.
    pub(crate) delivery: [Histogram; Ring::COUNT],
    /// From SYN_SENT to established, in seconds.
    pub(crate) handshake: Histogram,
}

impl Default for Histograms {
    fn default() -> Self {
        let delivery = || Histogram::new(exponential_buckets(0.001, 4.0, 8));
        Self {
            delivery: [delivery(), delivery(), delivery()],
            handshake: Histogram::new(exponential_buckets(0.000_05, 4.0, 10)),
        }
    }
}

impl Metrics {
    pub(crate) fn new(parts: Parts) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(parts));
        Self { registry }
    }
}

impl MetricsSource for Metrics {
    fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Collector for Parts {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut sink = Sink { encoder, samples: 0 };
        // The order of the readings matters, see `Audit`: received, ledger, counts, ledger, received.
        let received = self.books.received();
        let Ok(before) = self.kernel.ledgers() else { return unreadable(&mut sink) };
        let Ok(totals) = self.kernel.totals() else { return unreadable(&mut sink) };
        let Ok(after) = self.kernel.ledgers() else { return unreadable(&mut sink) };
        let audit = Audit {
            before,
            received,
            after,
            received_after: self.books.received(),
            in_programs: possible_cpus() * NESTING,
            in_rings: self.rings.iter().map(|(_, bytes, _)| bytes / SMALLEST_RECORD).sum(),
        };
        self.events(&mut sink, &totals, &after)?;
        self.ledger(&mut sink, &after, &audit)?;
        self.node(&mut sink, &totals)?;
        self.auth(&mut sink, &totals)?;
        self.agent(&mut sink, &totals)?;
        self.audit(&mut sink)?;
        rules::encode(&self.rules, &self.filter, &mut sink)?;
        process::encode(&mut sink)?;
        self.runtimes(&mut sink)?;
        self.workloads(&mut sink, &totals)
    }
}

impl Parts {
    /// Figures of the loaded programs, by probe.
    fn program_stats(&self) -> Vec<(&'static str, program_info::ProgramStats)> {
        self.programs
            .iter()
            .filter_map(|(probe, program)| Some((*probe, program_info::stats(program.as_fd()).ok()?)))
            .collect()
    }
}

/// A map that cannot be read is said, not shown as zero.
fn unreadable(sink: &mut Sink<'_>) -> Result<(), std::fmt::Error> {
    tracing::error!("the kernel's counters cannot be read");
    sink.gauge("tellwire_ledger_balanced", "Whether every record is accounted for.", &[(&[], 0.0)])?;
    process::encode(sink)
}

/// The name of a record kind, as `action` label of the kernel's ledger.
fn kinds() -> impl Iterator<Item = (usize, &'static str)> {
    Kind::ALL.iter().map(|kind| (*kind as usize, kind.name()))
}
