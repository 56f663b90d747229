//! From the first record to the last line: until a signal, or for the duration given.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{last::Last, tasks::summarise};
use crate::{
    books::Books,
    http::Readiness,
    kernel::ledger::KernelBooks,
    lines::clock::boot_now,
    pipeline::{Order, Outbox},
};

/// What is queued for outputs when the agent stops is written within this time, or counted as dropped.
const CLOSE: Duration = Duration::from_secs(5);

/// The state file is waited for so long.
const NOTED: Duration = Duration::from_secs(2);

/// An agent that looks.
pub(super) struct Running {
    pub(super) duration: Option<Duration>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) cancel: CancellationToken,
    pub(super) pipeline: JoinHandle<Outbox>,
    pub(super) notes: JoinHandle<Last>,
    pub(super) reloads: JoinHandle<()>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) kernel: Arc<KernelBooks>,
    pub(super) books: Arc<Books>,
}

impl Running {
    /// Waits, stops and drains; tells whether the books balance at the end.
    pub(super) async fn until_the_end(self, signals: Signals) -> anyhow::Result<bool> {
        let Self { duration, orders, cancel, mut pipeline, notes, reloads, readiness, kernel, books } = self;
        let outbox = tokio::select! {
            reason = signals.wait(duration) => {
                let _sent = orders.send(Order::Stop(reason)).await;
                cancel.cancel();
                pipeline.await
            }
            ended = &mut pipeline => ended,
        };
        let stopped = boot_now();
        if outbox.is_err() {
            readiness.fail("the pipeline ended by a panic".into());
        }
        let outbox = outbox.context("the pipeline ended by a panic")?;
        outbox.into_fanout().close(CLOSE).await;
        // It can wait for an output that does not open.
        reloads.abort();
        // A disk that stands still does not keep the agent from ending: the next run then takes it for killed.
        let noted = async { notes.await.map(|last| last.stop(stopped)) };
        if let Ok(Ok(noted)) = timeout(NOTED, noted).await {
            let _late = timeout(NOTED, noted).await;
        }
        summarise(&kernel, &books)
    }
}

/// The signals that stop the agent.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns when the agent is to stop, with the reason.
    async fn wait(self, duration: Option<Duration>) -> &'static str {
        let Self { mut terminate, mut interrupt } = self;
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = over => "duration",
        }
    }
}
