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

use bytes::Bytes;
use rustix::fd::AsFd;
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::queue::Queued;
use super::{Batch, Observer};

/// A target that failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// A target that would block, because someone made it non-blocking, is tried again after this time.
const AGAIN: Duration = Duration::from_millis(10);

/// What lines are written to.
pub(super) trait Target: Send {
    /// Writes `bytes` from index `from` on and says up to where it came. Goes back to the start of
    /// a line if the part before it was lost.
    fn write(&mut self, bytes: &[u8], from: usize) -> (usize, Result<(), Trouble>);
}

/// Why not everything was written.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It would block.
    Again,
    /// It may work later.
    Retry(io::Error),
    /// It will never work again.
    Gone(io::Error),
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
    closing: CancellationToken,
    give_up: CancellationToken,
    observer: Option<Observer>,
    state: State,
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
    /// `stop` are the tokens that say that no more lines will come, and that time is up.
    pub(super) fn start(
        name: Arc<str>,
        target: Box<dyn Target>,
        queued: Queued,
        stop: (CancellationToken, CancellationToken),
        observer: Option<Observer>,
    ) -> io::Result<Self> {
        let thread = Thread::start(&name, target)?;
        let (closing, give_up) = stop;
        Ok(Self { name, queued, thread, closing, give_up, observer, state: State::Works })
    }

    /// Until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        let give_up = self.give_up.clone();
        while let Some(batch) = self.queued.next().await {
            let is_written = tokio::select! {
                biased;
                () = give_up.cancelled() => {
                    self.end("stopped before all lines were written");
                    false
                }
                is_written = self.write(&batch) => is_written,
            };
            if is_written {
                self.queued.written(&batch);
                if let Some(observer) = &self.observer {
                    observer(&batch.times);
                }
            } else {
                self.queued.lost(&batch);
            }
        }
    }

    /// Whether all of the batch was written. If not, no later one is: they would follow half a line.
    async fn write(&mut self, batch: &Batch) -> bool {
        let mut done = 0;
        while self.state != State::Over {
            let (upto, result) = self.thread.write(batch.bytes.clone(), done).await;
            done = upto;
            match result {
                Ok(()) => {
                    self.recover();
                    return true;
                }
                Err(Trouble::Again) => sleep(AGAIN).await,
                Err(Trouble::Retry(error)) => {
                    self.fail(&error);
                    if self.closing.is_cancelled() {
                        self.end("stopped while the output failed");
                        break;
                    }
                    // At the end, one attempt more.
                    tokio::select! {
                        () = sleep(RETRY) => {}
                        () = self.closing.cancelled() => {}
                    }
                }
                Err(Trouble::Gone(error)) => {
                    error!(output = &*self.name, %error, "output is gone, its lines are lost");
                    self.state = State::Over;
                    self.queued.stats.failed.store(true, Relaxed);
                }
            }
        }
        false
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

    fn end(&mut self, why: &'static str) {
        if self.state != State::Over {
            self.state = State::Over;
            error!(output = &*self.name, "{why}");
        }
    }
}

type Reply = (usize, Result<(), Trouble>);

/// Writes one batch at a time.
struct Thread {
    work: SyncSender<(Bytes, usize)>,
    replies: mpsc::Receiver<Reply>,
}

impl Thread {
    fn start(name: &str, mut target: Box<dyn Target>) -> io::Result<Self> {
        let (work, orders) = sync_channel::<(Bytes, usize)>(1);
        let (reply, replies) = mpsc::channel(1);
        thread::Builder::new().name(format!("out-{name}")).spawn(move || {
            for (bytes, from) in orders {
                if reply.blocking_send(target.write(&bytes, from)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { work, replies })
    }

    async fn write(&mut self, bytes: Bytes, from: usize) -> Reply {
        // There is room: the thread has answered before it is asked again.
        let reply = match self.work.try_send((bytes, from)) {
            Ok(()) => self.replies.recv().await,
            Err(_) => None,
        };
        reply.unwrap_or_else(|| (from, Err(Trouble::Gone(io::Error::other("its thread has ended")))))
    }
}
