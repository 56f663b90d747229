//! Probes on the functions of a library's file: attached and detached while the agent runs.
//!
//! The programs are loaded with the others. Each file gets a descriptor for each probe, which is all that holds it.

use std::{
    fmt,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use rustc_hash::FxHashMap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    Attached,
    hooks::Hook,
    uretprobe::{UprobeEvents, run_at},
};

/// Nothing is closed for so long after an attachment.
const HELD: Duration = Duration::from_millis(100);

/// Files that can wait for their probes to be taken away.
const LEAVING: usize = 1024;

/// All attachments of the agent. Clones are the same.
#[derive(Clone)]
pub(crate) struct Libraries(Arc<Mutex<Inner>>);

struct Inner {
    /// How the kernel names uprobes; why not where it has none.
    events: Result<UprobeEvents, String>,
    points: Vec<LibraryPoint>,
    attached: FxHashMap<Attachment, Vec<OwnedFd>>,
    next: u64,
    /// Closes what is let go of.
    reaper: Option<JoinHandle<()>>,
    leaving: Option<SyncSender<Vec<OwnedFd>>>,
    pace: Pace,
    /// Nothing is attached any more.
    closed: bool,
}

impl Inner {
    /// Closes descriptors where nobody waits for it.
    fn leave(&mut self, descriptors: Vec<OwnedFd>) {
        if self.reaper.is_none() {
            let (leaving, left) = sync_channel::<Vec<OwnedFd>>(LEAVING);
            self.leaving = Some(leaving);
            let pace = self.pace.clone();
            let reap = move || {
                for descriptor in left.into_iter().flatten() {
                    pace.wait();
                    drop(descriptor);
                }
            };
            self.reaper = Some(thread::spawn(reap));
        }
        if let Some(leaving) = &self.leaving
            && let Err(TrySendError::Full(descriptors) | TrySendError::Disconnected(descriptors)) =
                leaving.try_send(descriptors)
        {
            close(descriptors);
        }
    }
}

/// Keeps those who close from being in the way of those who attach: the kernel lets nobody attach while it waits until a
/// probe runs nowhere any more, which is tens of milliseconds for each.
#[derive(Clone, Default)]
struct Pace(Arc<(Mutex<Held>, Condvar)>);

#[derive(Default)]
struct Held {
    until: Option<Instant>,
    ended: bool,
}

impl Pace {
    /// Somebody attaches now, and others may soon.
    fn hold(&self) {
        self.held().until = Some(Instant::now() + HELD);
    }

    /// From now on nobody attaches any more.
    fn end(&self) {
        self.held().ended = true;
        self.0.1.notify_all();
    }

    /// Waits until nobody attaches.
    fn wait(&self) {
        let mut held = self.held();
        while !held.ended
            && let Some(left) = held.until.and_then(|until| until.checked_duration_since(Instant::now()))
        {
            held = self.0.1.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program for a function of the library.
struct LibraryPoint {
    function: &'static str,
    is_return: bool,
    program: OwnedFd,
}

/// Names what was attached to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attachment(u64);

impl Libraries {
    /// Of the programs that are loaded.
    pub(super) fn new(ebpf: &Ebpf, probes: &[Attached]) -> Self {
        let points = probes.iter().filter_map(|attached| attached.chosen).flat_map(|chosen| chosen.points);
        let points = points.filter_map(|point| {
            let (function, is_return) = match point.hook {
                Hook::Library(function) => (function, false),
                Hook::LibraryReturn(function) => (function, true),
                _ => return None,
            };
            let program = ebpf.program(point.program)?.fd().ok()?;
            let program = program.as_fd().try_clone_to_owned().ok()?;
            Some(LibraryPoint { function, is_return, program })
        });
        let mut points: Vec<_> = points.collect();
        if !points.is_empty() {
            allow_descriptors();
        }
        // Ends before beginnings: what has begun is forgotten at its end, or it stays.
        points.sort_by_key(|point| !point.is_return);
        Self(Arc::new(Mutex::new(Inner {
            events: UprobeEvents::detect().map_err(|error| format!("{error:#}")),
            points,
            attached: FxHashMap::default(),
            next: 0,
            reaper: None,
            leaving: None,
            pace: Pace::default(),
            closed: false,
        })))
    }

    /// The functions that there are programs for.
    pub(crate) fn functions(&self) -> Vec<&'static str> {
        let mut functions: Vec<_> = self.inner().points.iter().map(|point| point.function).collect();
        functions.sort_unstable();
        functions.dedup();
        functions
    }

    /// Attaches every program to its function in this file; `offset` tells where that stands, if it is there at all.
    ///
    /// The file is named by its descriptor: whatever happens to its path meanwhile, it is the one that was looked at.
    pub(crate) fn attach(
        &self,
        file: BorrowedFd<'_>,
        offset: impl Fn(&str) -> Option<u64>,
    ) -> anyhow::Result<Attachment> {
        let mut inner = self.inner();
        ensure!(!inner.closed, "the agent stops");
        let events = inner.events.clone().map_err(anyhow::Error::msg)?;
        inner.pace.hold();
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let mut descriptors = Vec::with_capacity(inner.points.len());
        for LibraryPoint { function, is_return, program } in &inner.points {
            let Some(offset) = offset(function) else { continue };
            let event = events
                .open(&path, offset, *is_return)
                .and_then(|event| run_at(&event, program.as_fd()).map(|()| event))
                .with_context(|| format!("attaching to {function}"))?;
            descriptors.push(event);
        }
        ensure!(!descriptors.is_empty(), "it has none of the functions");
        let attachment = Attachment(inner.next);
        inner.next += 1;
        inner.attached.insert(attachment, descriptors);
        Ok(attachment)
    }

    /// Takes the probes of a file away, in a while.
    pub(crate) fn detach(&self, attachment: Attachment) {
        let mut inner = self.inner();
        if let Some(descriptors) = inner.attached.remove(&attachment) {
            inner.leave(descriptors);
        }
    }

    /// Takes all probes away, for good.
    pub(crate) fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        let descriptors = std::mem::take(&mut inner.attached).into_values().flatten().collect();
        close(descriptors);
        // What is on its way out is waited for too: nothing of it may run when the books are closed.
        inner.leaving = None;
        inner.pace.end();
        if let Some(reaper) = inner.reaper.take() {
            let _ended = reaper.join();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing can panic halfway through a change of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each file takes a descriptor for each probe: as many as the agent may have, it does have.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "no more descriptors: some containers may not be seen into");
    }
}

/// The kernel waits for the programs that run at each of them; for all it takes no longer than for one.
fn close(descriptors: Vec<OwnedFd>) {
    let mut threads = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        threads.push(thread::spawn(move || drop(descriptor)));
    }
    for thread in threads {
        // It has nothing to say.
        let _closed = thread.join();
    }
}

impl fmt::Debug for Libraries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        formatter.debug_struct("Libraries").field("attached", &inner.attached.len()).finish_non_exhaustive()
    }
}
