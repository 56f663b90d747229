//! Small tasks and hands beside the pipeline.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::Context as _;
use rustc_hash::FxHashSet;
use tellwire_ebpf::wire::Kind;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    books::{Audit, Books},
    kernel::{Kernel, ledger::KernelBooks},
    metrics::Histograms,
    outputs::Observer,
    pipeline::{Outbox, Pipeline, Removed},
};

/// How often counters of removed cgroups are taken out of the kernel's map.
const HARVEST: Duration = Duration::from_secs(10);

/// Observes how long lines took from the kernel's event to the end of their write.
pub(super) fn observer(histograms: &Histograms) -> Observer {
    let histograms = histograms.clone();
    Arc::new(move |facts| {
        let now = crate::lines::clock::boot_now();
        for fact in facts {
            if let Some(histogram) = histograms.delivery.get(usize::from(fact.ring)) {
                histogram.observe(Duration::from_nanos(now.saturating_sub(fact.time)).as_secs_f64());
            }
        }
    })
}

/// Runs the pipeline on a thread and a runtime of its own.
///
/// It sleeps and wakes twenty times a second. In the runtime that the other tasks share, each time would wake
/// another thread too, to wait in its place: a tenth of what an exec costs the agent.
pub(super) fn on_a_thread(
    pipeline: Pipeline,
    kernel: Kernel,
    cancel: CancellationToken,
) -> anyhow::Result<JoinHandle<Outbox>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the pipeline's runtime")?;
    Ok(tokio::task::spawn_blocking(move || runtime.block_on(pipeline.run(kernel, cancel))))
}

/// Takes the counters of removed cgroups out of the kernel's map, now and then.
pub(super) async fn harvest(books: Arc<KernelBooks>, mut removed: mpsc::Receiver<Removed>) {
    let mut gone = FxHashSet::default();
    let mut tick = tokio::time::interval(HARVEST);
    loop {
        tick.tick().await;
        loop {
            match removed.try_recv() {
                Ok(cgroup) => {
                    gone.insert(cgroup);
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return,
            }
        }
        if gone.is_empty() {
            continue;
        }
        match books.sweep(|key| gone.contains(&(u64::from(key.hierarchy), key.cgroup))) {
            Ok(left) => {
                let done = gone.extract_if(|cgroup| !left.contains(cgroup)).collect();
                books.forget(&done);
            }
            Err(error) => tracing::warn!(%error, "counters of removed cgroups not harvested"),
        }
    }
}

/// Forwards the diagnostics of the kernel programs to the agent's log.
pub(super) fn kernel_log(kernel: &mut Kernel, cancel: &CancellationToken) {
    match kernel.kernel_log() {
        Ok(mut logger) => {
            let cancel = cancel.clone();
            tokio::spawn(async move {
                while !cancel.is_cancelled() {
                    logger.flush();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        Err(error) => tracing::warn!(%error, "no diagnostics of the kernel programs"),
    }
}

/// Says what became of every record, one line a kind; tells whether nothing is missing.
pub(super) fn summarise(kernel: &KernelBooks, books: &Books) -> anyhow::Result<bool> {
    let ledgers = kernel.ledgers()?;
    let received = books.received();
    for ((kind, ledger), received) in Kind::ALL.iter().zip(&ledgers).zip(received) {
        let tellwire_ebpf::counters::Ledger { seen, submitted, ring_full, filtered, throttled, state_lost } =
            *ledger;
        tracing::info!(
            action = kind.name(),
            seen,
            submitted,
            ring_full,
            filtered,
            throttled,
            state_lost,
            received,
            decode_errors =
                books.decode_errors.get(*kind as usize).map_or(0, |counter| counter.load(Relaxed)),
            "ledger"
        );
    }
    Ok(Audit::is_exact(&ledgers, &received))
}
