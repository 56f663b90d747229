//! The task that reads audit records, and the pipeline's end of its queue.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    task::spawn_blocking,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    control::{Control, Switched},
    record::{NotARecord, Record},
    socket::{MESSAGE, Socket},
    source::{ABOUT, OFF},
};
use crate::{books::Books, host::HostRoot, http::Readiness};

/// How often it is asked whether auditing is on.
const LOOK: Duration = Duration::from_secs(10);

/// Records that are read before other tasks have their turn.
const TURN: usize = 256;

/// Records that one of them can be the same as: the kernel repeats itself at once or never.
const REMEMBERED: usize = 64;

/// What is read at the end of a run is waited for so long.
const LAST: Duration = Duration::from_secs(3);

/// All that the task has but its socket.
pub(super) struct Reader {
    pub(super) host: HostRoot,
    pub(super) control: Option<Arc<Control>>,
    pub(super) books: Arc<Books>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) sender: mpsc::Sender<Record>,
    /// Put back at the end.
    pub(super) switched: Option<Switched>,
}

impl Reader {
    /// Reads until it is cancelled and the socket is empty.
    pub(super) fn start(self, socket: Socket, cancel: CancellationToken) -> io::Result<()> {
        let ready = watch(socket.handle()?)?;
        tokio::spawn(self.run(socket, ready, cancel));
        Ok(())
    }

    async fn run(mut self, socket: Socket, ready: AsyncFd<OwnedFd>, cancel: CancellationToken) {
        let mut buffer = vec![0; MESSAGE];
        let mut recent = VecDeque::with_capacity(REMEMBERED);
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                guard = ready.readable() => {
                    let Ok(mut guard) = guard else { break };
                    if self.drain(&socket, &mut buffer, &mut recent, TURN) {
                        guard.clear_ready();
                    }
                    tokio::task::yield_now().await;
                }
                _ = look.tick() => self.look().await,
            }
        }
        self.drain(&socket, &mut buffer, &mut recent, usize::MAX);
        drop(socket.into_fd());
        self.books.audit.connected.store(false, Relaxed);
        if let Some(switched) = self.switched.take()
            && let Ok(Err(error)) = spawn_blocking(move || switched.off()).await
        {
            tracing::warn!(%error, "auditing could not be put back: it stays on");
        }
    }

    /// Reads what is there, up to so many; tells whether that was all.
    fn drain(
        &self,
        socket: &Socket,
        buffer: &mut [u8],
        recent: &mut VecDeque<(u64, u64, u16)>,
        most: usize,
    ) -> bool {
        for _ in 0..most {
            match socket.read(buffer) {
                Ok(Some(bytes)) => self.take(bytes, recent),
                Ok(None) => return true,
                // ENOBUFS: what follows is there to be read.
                Err(_) => {
                    if let Ok(drops) = socket.drops() {
                        self.books.audit.socket_full.store(drops, Relaxed);
                    }
                }
            }
        }
        false
    }

    fn take(&self, bytes: &[u8], recent: &mut VecDeque<(u64, u64, u16)>) {
        let books = &self.books.audit;
        books.received.fetch_add(1, Relaxed);
        let mut record = match Record::parse(bytes) {
            Ok(record) => record,
            Err(NotARecord::OtherType(_)) => {
                books.other_type.fetch_add(1, Relaxed);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "audit record not read");
                books.malformed.fetch_add(1, Relaxed);
                return;
            }
        };
        let identity = record.identity();
        if recent.contains(&identity) {
            books.duplicate.fetch_add(1, Relaxed);
            return;
        }
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(identity);
        // Whether a name that failed is a user's depends on where it was tried.
        if record.message.account.is_some() && record.message.is_success != Some(true) {
            record.mount_namespace = self.host.mount_namespace(record.pid);
        }
        if self.sender.try_send(record).is_err() {
            books.queue_full.fetch_add(1, Relaxed);
        }
    }

    /// Asks whether auditing is on: auditd or an administrator can have switched it.
    async fn look(&self) {
        let Some(control) = self.control.clone() else { return };
        let Ok(Ok(status)) = spawn_blocking(move || control.status()).await else { return };
        self.books.audit.kernel_lost.store(status.lost.into(), Relaxed);
        let is_on = status.enabled != 0;
        let was_on = self.books.audit.enabled.swap(is_on, Relaxed);
        self.readiness.note(ABOUT, (!is_on).then(|| OFF.to_owned()));
        if was_on && !is_on {
            tracing::warn!("auditing was switched off in the kernel");
        }
    }
}

/// The pipeline's end.
#[derive(Debug)]
pub(crate) struct Feed {
    receiver: mpsc::Receiver<Record>,
}

impl Feed {
    pub(super) fn new(receiver: mpsc::Receiver<Record>) -> Self {
        Self { receiver }
    }

    /// What is there, without waiting.
    pub(crate) fn next(&mut self) -> Option<Record> {
        self.receiver.try_recv().ok()
    }

    /// At the end of a run: what is still read, until the reader has put everything back.
    pub(crate) async fn rest(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        let all = async {
            while let Some(record) = self.receiver.recv().await {
                records.push(record);
            }
        };
        let _late = timeout(LAST, all).await;
        records
    }
}

#[expect(unsafe_code, reason = "the descriptor must stay the same while it is registered")]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is one and the same until it is dropped with the registration.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}
