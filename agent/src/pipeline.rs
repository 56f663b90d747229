//! The pipeline: takes records from the rings and gives lines to the outputs.
//!
//! One task owns all state as plain `&mut`: there is no lock on the way, and it waits for nothing but
//! its timer. A record is redacted before anything else sees it. What it then means for the tables is in
//! [`State::record`], in the order of the line: decode, enrich, choose, encode.

pub(crate) mod folds;
mod judge;
mod outbox;
mod recording;
#[cfg(test)]
mod replay;
mod selection;
mod state;

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    folds::Folds,
    judge::Judge,
    outbox::Outbox,
    recording::Recorder,
    selection::{LeftOut, Selection},
    state::State,
};
use crate::{
    audit::{Feed, Record},
    books::Books,
    config::{self, Config},
    http::Readiness,
    kernel::{
        Kernel, Wake,
        pending::{PendingConnects, Sizes},
        ring::Rings,
    },
    lines::{clock::boot_now, own::Notice},
    outputs::Swap,
    own::{Desk, Own},
    pam::KnownUsers,
    redact::Redactor,
    rules::Rules,
    runtimes,
};

/// How often what is old is looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// The longest that the reader sleeps when nothing happens.
const IDLE: Duration = Duration::from_millis(100);

/// Audit records that are taken in one cycle at the most.
const REPORTED: usize = 1024;

/// The same of what runtimes tell.
const TOLD: usize = 256;

/// A removed cgroup, for whoever harvests its counters: hierarchy and id.
pub(crate) type Removed = (u64, u64);

/// What the pipeline is told from outside, in between two cycles.
#[derive(Debug)]
pub(crate) enum Order {
    /// Make a line of this.
    Tell(Notice),
    Change(Box<Change>),
    /// Why it will be cancelled.
    Stop(&'static str),
}

/// Another configuration, as far as it is the pipeline's. It was checked, and the kernel side has it already.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) config: Config,
    pub(crate) redactor: Redactor,
    /// Where they are others.
    pub(crate) rules: Option<Rules>,
    pub(crate) outputs: Option<Swap>,
    /// What is told of it, by the new rules.
    pub(crate) notice: Notice,
}

/// Everything that the pipeline task owns.
pub(crate) struct Pipeline {
    pub(crate) rings: Rings,
    pub(crate) wake: Wake,
    pub(crate) pending: PendingConnects,
    pub(crate) redactor: Redactor,
    /// Which names are users.
    pub(crate) known: KnownUsers,
    pub(crate) state: State,
    pub(crate) outbox: Outbox,
    pub(crate) books: Arc<Books>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) removed: mpsc::Sender<Removed>,
    pub(crate) audit: Feed,
    /// What container runtimes tell.
    pub(crate) runtimes: runtimes::Feed,
    pub(crate) own: Own,
    pub(crate) orders: mpsc::Receiver<Order>,
    /// How often the rings are read under traffic.
    pub(crate) poll_interval: Duration,
    /// Where the records go as they come, for the replay tests.
    pub(crate) recorder: Option<Recorder>,
}

impl Pipeline {
    /// Runs until cancelled; then detaches the programs, takes what is left in the rings, and gives the outbox back.
    pub(crate) async fn run(mut self, mut kernel: Kernel, cancel: CancellationToken) -> Outbox {
        let mut pause = self.poll_interval;
        let mut housekeeping = Instant::now() + HOUSEKEEPING;
        let wakers = Wakers::new(&self.rings);
        self.arm();
        let mut reason = "the agent stops";
        // What is there already comes before the first event.
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order, &mut reason);
        }
        while !cancel.is_cancelled() {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = sleep(pause) => {}
                // The program that woke the reader has disarmed itself.
                () = wakers.woken() => self.arm(),
                Some(order) = self.orders.recv() => self.obey(order, &mut reason),
            }
            self.readiness.beat();
            let taken = self.cycle();
            pause =
                if taken > 0 { self.poll_interval } else { (pause * 2).min(IDLE.max(self.poll_interval)) };
            if Instant::now() >= housekeeping {
                housekeeping = Instant::now() + HOUSEKEEPING;
                self.keep_house();
            }
            if taken > 0 {
                // A storm must not keep the other tasks of this thread from running.
                tokio::task::yield_now().await;
            }
        }
        kernel.detach();
        while self.cycle() > 0 {}
        for record in self.audit.rest().await {
            self.audit(record);
        }
        self.state.tell_inventory(None, &mut self.outbox, &self.books);
        self.state.settle_merging(None, &mut self.outbox, &self.books);
        self.sweep(None);
        self.publish();
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order, &mut reason);
        }
        let (own, mut desk) = self.own();
        own.end(reason, &mut desk);
        self.outbox.flush();
        if let Some(Err(error)) = self.recorder.map(Recorder::finish) {
            tracing::error!(%error, "recording not finished");
        }
        self.outbox
    }

    fn cycle(&mut self) -> usize {
        // What an audit record tells of was in the rings before it: they are emptied first, so that its process is known.
        let mut reported = Vec::new();
        while reported.len() < REPORTED
            && let Some(record) = self.audit.next()
        {
            reported.push(record);
        }
        // Names first: what is in the rings came after they were asked for.
        let named = self.hear_runtimes();
        let taken = self.drain() + reported.len() + named;
        for record in reported {
            self.audit(record);
        }
        let Self { state, outbox, books, .. } = self;
        let now = boot_now();
        state.settle_merging(Some(now), outbox, books);
        state.tell_inventory(Some(now), outbox, books);
        outbox.flush();
        taken
    }

    /// Takes in what runtimes tell, so much in one cycle that a full list does not hold the rings up.
    fn hear_runtimes(&mut self) -> usize {
        let Self { runtimes, state, outbox, books, .. } = self;
        let mut heard = 0;
        while heard < TOLD
            && let Some(told) = runtimes.next()
        {
            state.runtime_told(told, outbox, books);
            heard += 1;
        }
        heard
    }

    fn audit(&mut self, record: Record) {
        let Self { redactor, known, state, outbox, books, .. } = self;
        let name = record.message.account.as_deref().unwrap_or_default();
        let is_user = known.is_shown(record.mount_namespace, name.as_bytes(), &mut state.users);
        let record = record.redacted(redactor);
        state.audit(record, is_user, outbox, books);
    }

    fn drain(&mut self) -> usize {
        let Self { rings, redactor, known, state, outbox, books, removed, recorder, .. } = self;
        state.users.set_time(std::time::Instant::now());
        rings.cycle(|ring, bytes| {
            // First of all: nothing behind these lines has seen a secret.
            let screened = known.screen(bytes, &mut state.users);
            let bytes = screened.as_deref().unwrap_or(bytes);
            let redacted = redactor.record(bytes, books);
            let bytes = redacted.as_deref().unwrap_or(bytes);
            if let Some(Err(error)) = recorder.as_mut().map(|recorder| recorder.put(ring, bytes)) {
                tracing::error!(%error, "record not written to the recording, which ends here");
                *recorder = None;
            }
            state.record(ring, bytes, outbox, books, removed);
        })
    }

    fn obey(&mut self, order: Order, reason: &mut &'static str) {
        let notice = match order {
            Order::Stop(why) => {
                *reason = why;
                return;
            }
            Order::Tell(notice) => notice,
            Order::Change(change) => self.change(*change),
        };
        let (own, mut desk) = self.own();
        own.tell(notice, None, &mut desk);
        self.outbox.flush();
    }

    /// Takes over another configuration.
    fn change(&mut self, change: Change) -> Notice {
        let Change { config, redactor, rules, outputs, notice } = change;
        if let Some(rules) = rules {
            let State { judge, containers, .. } = &mut self.state;
            judge.replace(rules, containers);
        }
        self.outbox.change(Selection::new(&config.agent), outputs);
        self.redactor = redactor;
        self.known.set_policy(config.auth.unknown_user_names);
        self.state.command_line = config.agent.command_line;
        self.state.folds.set_window(config.agent.fold_window.get());
        self.state.configure_auth(&config.auth);
        self.poll_interval = config.kernel.poll_interval.get();
        let config::Processes { max, keep_exited } = &config.processes;
        let kept = u64::try_from(keep_exited.get().as_nanos()).unwrap_or(u64::MAX);
        self.state.processes.limit(max.get() as usize, kept);
        self.books.processes_max.store(max.get().into(), Relaxed);
        notice
    }

    /// The agent's own lines, and where they go.
    fn own(&mut self) -> (&mut Own, Desk<'_>) {
        let Self { own, state, outbox, books, .. } = self;
        (own, Desk { state, outbox, books })
    }

    fn arm(&mut self) {
        if let Err(error) = self.wake.arm() {
            // Then the timer alone wakes the reader.
            tracing::debug!(%error, "wake-ups not armed");
        }
    }

    fn keep_house(&mut self) {
        // A wake-up can have come together with the timer, unseen.
        self.arm();
        let now = boot_now();
        self.sweep(Some(now));
        self.state.expire(now);
        self.publish();
        let was_set = self.state.clock.refresh();
        let (own, mut desk) = self.own();
        if let Some(facts) = was_set {
            tracing::warn!(step = facts.step_seconds, "the wall clock was set");
            own.tell(Notice::Clock(Box::new(facts)), None, &mut desk);
        }
        own.look(now, &mut desk);
        self.outbox.flush();
    }

    /// Tells connects whose outcome never came, and those that are told together: what is due at `now`, or all.
    fn sweep(&mut self, now: Option<u64>) {
        let Self { pending, redactor, state, outbox, books, .. } = self;
        if let Err(error) = pending.sweep(now, |swept| state.swept(&swept, redactor, outbox, books)) {
            tracing::warn!(%error, "pending connects not swept");
        }
        state.tell_folded(now, outbox, books);
        state.settle_attempts(now, outbox, books);
        outbox.flush();
    }

    /// Copies the sizes of the tables to where they are scraped.
    fn publish(&self) {
        self.state.publish(&self.books);
        let Sizes { handshakes, open } = self.pending.sizes();
        self.books.pending_connects.store(handshakes, Relaxed);
        self.books.open_connections.store(open, Relaxed);
    }
}

/// Wakes the reader before its timer where a ring is half full.
struct Wakers(Vec<AsyncFd<OwnedFd>>);

impl Wakers {
    fn new(rings: &Rings) -> Self {
        let watched = rings.readers().into_iter().filter_map(|(ring, reader)| {
            match reader.as_fd().try_clone_to_owned().and_then(watch) {
                Ok(waker) => Some(waker),
                Err(error) => {
                    tracing::warn!(ring = ring.name(), %error, "no early wake-up");
                    None
                }
            }
        });
        Self(watched.collect())
    }

    /// Returns when any ring asks for its reader; never without rings.
    async fn woken(&self) {
        let [urgent, process, network] = self.0.as_slice() else { return std::future::pending().await };
        let guard = tokio::select! {
            guard = urgent.readable() => guard,
            guard = process.readable() => guard,
            guard = network.readable() => guard,
        };
        match guard {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}

#[expect(unsafe_code, reason = "the descriptor must stay the same while it is registered")]
fn watch(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is one and the same until it is dropped with the registration.
    unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }.map_err(Into::into)
}
