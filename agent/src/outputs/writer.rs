//! The task of an output, and the thread that writes for it.
//!
//! A write can block for as long as a disk or a reader likes, so it has a thread of its own. The
//! task owns everything else and can give up on the thread: a process that ends does not wait for
//! it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fd::AsFd;
use rustix::io::Errno;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::queue::Queued;
use super::{Batch, Counts, Observer};

/// A target that failed is tried again after this time, if it does not ask for another.
const RETRY: Duration = Duration::from_secs(1);

/// A target that would block, because someone made it non-blocking, is tried again after this time.
const AGAIN: Duration = Duration::from_millis(10);

/// How often a target that has nothing to write looks after itself.
const TICK: Duration = Duration::from_secs(2);

/// What lines are written to.
pub(super) trait Target: Send {
    /// Writes the lines from byte `from` on and says up to where it came. Goes back to the start of
    /// a line if the part before it was lost.
    fn write(&mut self, batch: &Batch, from: usize) -> Written;

    /// Whether it wants [`Self::tick`].
    fn ticks(&self) -> bool {
        false
    }

    /// Called now and then while there is nothing to write.
    fn tick(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    /// Closes what it has and opens it again.
    fn reopen(&mut self) -> Result<(), Trouble> {
        Ok(())
    }
}

/// What became of a write.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) upto: usize,
    /// Lines that the target can never take: they are passed over.
    pub(super) refused: Refused,
    pub(super) result: Result<(), Trouble>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Refused {
    pub(super) counts: Counts,
    pub(super) bytes: usize,
}

/// Why not everything was written.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It would block.
    Again,
    /// It may work later; after this time it is tried again.
    Retry(io::Error, Duration),
    /// It will never work again.
    Gone(io::Error),
}

impl Written {
    pub(super) fn new(upto: usize, result: Result<(), Trouble>) -> Self {
        Self { upto, refused: Refused::default(), result }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::Again,
            _ => Self::Retry(error, RETRY),
        }
    }
}

/// Writes as much as goes.
pub(super) fn write(file: impl AsFd, bytes: &[u8], mut from: usize) -> (usize, io::Result<()>) {
    while let Some(rest) = bytes.get(from..).filter(|rest| !rest.is_empty()) {
        match rustix::io::write(&file, rest) {
            Ok(0) => return (from, Err(io::ErrorKind::WriteZero.into())),
            Ok(len) => from += len,
            Err(Errno::INTR) => {}
            Err(error) => return (from, Err(error.into())),
        }
    }
    (from, Ok(()))
}

pub(super) struct Writer {
    name: Arc<str>,
    queued: Queued,
    thread: Thread,
    stop: Stop,
    observer: Option<Observer>,
    state: State,
}

/// What an output is told.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    /// No more lines will come.
    pub(super) closing: CancellationToken,
    /// Time is up.
    pub(super) give_up: CancellationToken,
    /// Close what is open and open it again.
    pub(super) reopen: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    /// Since the last attempt.
    Fails,
    /// Nothing more will be written.
    Over,
}

impl Writer {
    pub(super) fn start(
        name: Arc<str>,
        target: Box<dyn Target>,
        queued: Queued,
        stop: Stop,
        observer: Option<Observer>,
    ) -> io::Result<Self> {
        let thread = Thread::start(&name, target)?;
        Ok(Self { name, queued, thread, stop, observer, state: State::Works })
    }

    /// Until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lives = self.state != State::Over;
            let batch = tokio::select! {
                biased;
                () = stop.reopen.notified(), if lives => {
                    self.look_after(Order::Reopen).await;
                    continue;
                }
                batch = self.queued.next() => batch,
                _ = tick.tick(), if lives && self.thread.ticks => {
                    self.look_after(Order::Tick).await;
                    continue;
                }
            };
            let Some(batch) = batch else { break };
            let mut progress = Progress::default();
            tokio::select! {
                biased;
                () = stop.give_up.cancelled() => self.end("stopped before all lines were written"),
                () = self.write(&batch, &mut progress) => {}
            }
            let Progress { upto, refused } = progress;
            self.queued.done(&batch, upto, &refused);
            if upto == batch.bytes.len()
                && let Some(observer) = &self.observer
            {
                observer(&batch.facts);
            }
        }
    }

    /// Nothing follows what was not written whole: it would follow half a line.
    async fn write(&mut self, batch: &Batch, progress: &mut Progress) {
        while self.state != State::Over {
            let order = Order::Write(Box::new(batch.clone()), progress.upto);
            let Written { upto, refused, result } = self.thread.ask(order, progress.upto).await;
            progress.upto = upto;
            progress.refused.add(&refused);
            match result {
                Ok(()) => return self.recover(),
                Err(Trouble::Again) => sleep(AGAIN).await,
                Err(Trouble::Retry(error, after)) => {
                    self.fail(&error);
                    if self.stop.closing.is_cancelled() {
                        return self.end("stopped while the output failed");
                    }
                    // At the end, one attempt more.
                    tokio::select! {
                        () = sleep(after) => {}
                        () = self.stop.closing.cancelled() => {}
                        // A new attempt opens again what failed.
                        () = self.stop.reopen.notified() => {}
                    }
                }
                Err(Trouble::Gone(error)) => self.gone(&error),
            }
        }
    }

    /// Has the thread do what is no write. What fails is tried again with the next line or tick.
    async fn look_after(&mut self, order: Order) {
        let give_up = self.stop.give_up.clone();
        let written = tokio::select! {
            biased;
            () = give_up.cancelled() => return self.end("stopped while it was opened"),
            written = self.thread.ask(order, 0) => written,
        };
        match written.result {
            Ok(()) => self.recover(),
            Err(Trouble::Again) => {}
            Err(Trouble::Retry(error, _)) => self.fail(&error),
            Err(Trouble::Gone(error)) => self.gone(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        if self.state == State::Works {
            self.state = State::Fails;
            self.queued.stats.failed.store(true, Relaxed);
            error!(output = &*self.name, %error, "output fails, its lines wait until the queue is full");
        }
    }

    fn recover(&mut self) {
        if self.state == State::Fails {
            self.state = State::Works;
            self.queued.stats.failed.store(false, Relaxed);
            let dropped = self.queued.stats.dropped.load(Relaxed);
            info!(output = &*self.name, dropped, "output works again");
        }
    }

    fn gone(&mut self, error: &io::Error) {
        error!(output = &*self.name, %error, "output is gone, its lines are lost");
        self.state = State::Over;
        self.queued.stats.failed.store(true, Relaxed);
    }

    fn end(&mut self, why: &'static str) {
        if self.state != State::Over {
            self.state = State::Over;
            error!(output = &*self.name, "{why}");
        }
    }
}

/// How far a batch has come.
#[derive(Debug, Default)]
struct Progress {
    upto: usize,
    refused: Refused,
}

impl Refused {
    pub(super) fn line(&mut self, action: u8, bytes: usize) {
        self.counts.add(usize::from(action));
        self.bytes += bytes;
    }

    fn add(&mut self, more: &Self) {
        for (count, more) in self.counts.0.iter_mut().zip(more.counts.0) {
            *count += more;
        }
        self.bytes += more.bytes;
    }
}

enum Order {
    Write(Box<Batch>, usize),
    Tick,
    Reopen,
}

/// Obeys one order at a time.
struct Thread {
    orders: SyncSender<Order>,
    replies: mpsc::Receiver<Written>,
    ticks: bool,
}

impl Thread {
    fn start(name: &str, mut target: Box<dyn Target>) -> io::Result<Self> {
        let (order, orders) = sync_channel::<Order>(1);
        let (reply, replies) = mpsc::channel(1);
        let ticks = target.ticks();
        thread::Builder::new().name(format!("out-{name}")).spawn(move || {
            for order in orders {
                let written = match order {
                    Order::Write(batch, from) => target.write(&batch, from),
                    Order::Tick => Written::new(0, target.tick()),
                    Order::Reopen => Written::new(0, target.reopen()),
                };
                if reply.blocking_send(written).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { orders: order, replies, ticks })
    }

    /// `from` is how far the batch had come.
    async fn ask(&mut self, order: Order, from: usize) -> Written {
        // There is room: the thread has answered before it is asked again.
        let written = match self.orders.try_send(order) {
            Ok(()) => self.replies.recv().await,
            Err(_) => None,
        };
        let ended = || Trouble::Gone(io::Error::other("its thread has ended"));
        written.unwrap_or_else(|| Written::new(from, Err(ended())))
    }
}
