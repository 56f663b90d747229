//! How it goes with each socket: for metrics, the log and the readiness.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::http::Readiness;

/// What the readiness calls it.
const ABOUT: &str = "container runtimes";

/// How a look-up went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Found = 0,
    /// The runtime does not know the container, or not yet.
    Unknown = 1,
    Failed = 2,
}

/// Of one socket.
#[derive(Debug)]
pub(crate) struct SocketBooks {
    /// Its path on the host.
    pub(crate) path: String,
    /// The configuration names it: its absence is a fault.
    is_expected: bool,
    pub(crate) is_up: AtomicBool,
    was_up: AtomicBool,
    /// By [`Outcome`].
    pub(crate) look_ups: [AtomicU64; 3],
    /// Entries of answers that made no sense.
    pub(crate) refused: AtomicU64,
    /// Why it is down.
    failure: Mutex<Option<String>>,
    changed: Arc<Notify>,
}

/// The names of look-ups in metrics.
pub(crate) const OUTCOMES: [&str; 3] = ["found", "unknown", "failed"];

impl SocketBooks {
    pub(super) fn new(path: String, is_expected: bool, changed: &Arc<Notify>) -> Self {
        Self {
            path,
            is_expected,
            is_up: AtomicBool::new(false),
            was_up: AtomicBool::new(false),
            look_ups: Default::default(),
            refused: AtomicU64::new(0),
            failure: Mutex::default(),
            changed: Arc::clone(changed),
        }
    }

    /// Whether it is worth a word: it is expected, or was there.
    pub(crate) fn is_shown(&self) -> bool {
        self.is_expected || self.was_up.load(Relaxed)
    }

    pub(super) fn looked_up(&self, outcome: Outcome) {
        if let Some(counter) = self.look_ups.get(outcome as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// It answers.
    pub(super) fn up(&self) {
        let was_up = self.was_up.swap(true, Relaxed);
        if !self.is_up.swap(true, Relaxed) {
            let again = if was_up { "again" } else { "now" };
            tracing::info!(socket = self.path, "container names are known {again}");
        }
        self.set(None);
    }

    /// It does not answer; said once for each reason.
    pub(super) fn down(&self, why: &str) {
        let was_up = self.is_up.swap(false, Relaxed);
        if self.is_shown() && self.set(Some(why.to_owned())) || was_up {
            tracing::warn!(
                socket = self.path,
                why,
                "container names are not known: the agent goes on without them"
            );
        }
    }

    fn set(&self, why: Option<String>) -> bool {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *failure != why;
        *failure = why;
        drop(failure);
        if is_news {
            self.changed.notify_one();
        }
        is_news
    }

    fn text(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|why| format!("{}: {why}", self.path))
    }
}

/// Of all sockets.
#[derive(Debug)]
pub(crate) struct RuntimeBooks {
    pub(crate) sockets: Vec<Arc<SocketBooks>>,
    readiness: Arc<Readiness>,
    /// A socket came or went.
    changed: Arc<Notify>,
}

impl RuntimeBooks {
    pub(super) fn new(
        sockets: Vec<Arc<SocketBooks>>,
        readiness: Arc<Readiness>,
        changed: Arc<Notify>,
    ) -> Self {
        Self { sockets, readiness, changed }
    }

    /// Says in the readiness what is down, for as long as it is.
    pub(super) async fn say(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = cancel.cancelled() => return,
            }
            let faults: Vec<String> = self.sockets.iter().filter_map(|socket| socket.text()).collect();
            self.readiness.degrade_for_now(
                ABOUT,
                (!faults.is_empty()).then(|| format!("container names: {}", faults.join("; "))),
            );
        }
    }
}
