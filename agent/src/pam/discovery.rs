//! The task that finds libraries, and cleans up behind processes that have ended.

use std::{
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustc_hash::{FxHashMap, FxHashSet};
use tellwire_ebpf::roots::{Notice, Root};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    task::block_in_place,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    books::PamBooks,
    host::HostLibraries,
    known::{NameHash, Names},
    mounts::{Changes, Mounts},
    root::{FileId, RootDirectory, RootId},
    table::{Seen, Table},
};
use crate::{
    host::HostRoot,
    http::Readiness,
    kernel::{
        libraries::Libraries,
        pam::{PamState, RootNotices},
    },
    scope::Scope,
};

/// How often all processes are looked at.
const RESCAN: Duration = Duration::from_secs(5);

/// What the readiness calls it.
const ABOUT: &str = "libpam";

/// Ticks of /proc/PID/stat in a second: `USER_HZ`, which is 100 on every architecture that is supported.
const TICK_NS: u64 = 10_000_000;

/// Whose root directories are looked into.
#[derive(Debug)]
pub(crate) enum Processes {
    All,
    /// Those of chosen cgroups.
    Of(watch::Receiver<Scope>),
}

/// Finds libraries and keeps what is attached to them.
pub(crate) struct Discovery {
    pub(crate) host: HostRoot,
    pub(crate) processes: Processes,
    pub(crate) notices: RootNotices,
    pub(crate) state: PamState,
    pub(crate) books: Arc<PamBooks>,
    pub(crate) readiness: Arc<Readiness>,
    /// Users of mount namespaces, for whoever withholds other names.
    pub(crate) names: mpsc::Sender<Names>,
    pub(crate) hash: NameHash,
    table: Table<Libraries>,
    /// Where containers to be are found; none where that is not asked for or cannot be.
    mounts: Option<Mounts>,
    /// The host's own root directory.
    own: Option<RootId>,
    known: FxHashMap<RootId, Known>,
}

/// What is kept of a root directory.
#[derive(Debug, Default)]
struct Known {
    /// A process in it.
    pid: u32,
    /// As the kernel names it.
    noticed: Vec<Root>,
    passwd: Option<FileId>,
    users: FxHashSet<u64>,
}

/// Everything that [`Discovery`] is made of.
pub(crate) struct Parts {
    pub(crate) host: HostRoot,
    pub(crate) processes: Processes,
    pub(crate) notices: RootNotices,
    pub(crate) state: PamState,
    pub(crate) libraries: Libraries,
    pub(crate) books: Arc<PamBooks>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) names: mpsc::Sender<Names>,
    pub(crate) hash: NameHash,
    pub(crate) watch_mounts: bool,
}

impl Discovery {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { host, processes, notices, state, libraries, books, readiness, names, hash, watch_mounts } =
            parts;
        let mounts = watch_mounts.then(|| Mounts::open(&host)).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "mounts are not watched: the first login of a container may be missed");
            None
        });
        Self {
            mounts,
            host,
            processes,
            notices,
            state,
            books,
            readiness,
            names,
            hash,
            table: Table::new(libraries),
            own: None,
            known: FxHashMap::default(),
        }
    }

    /// The host's mount namespace: that of its first process. Where that has capabilities that the agent lacks, it is
    /// the agent's own if that looks at the root directory that it has itself.
    pub(crate) fn host_namespace(host: &HostRoot) -> Option<u32> {
        let root = host.join("/");
        host.mount_namespace(1)
            .or_else(|| (root == Path::new("/")).then(|| host.mount_namespace(std::process::id())).flatten())
    }

    /// Looks at the host and at what runs already.
    pub(crate) fn begin(&mut self) -> HostLibraries {
        let found = self.look_at_host();
        self.rescan();
        found
    }

    /// Until it is cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let waker = match self.notices.as_fd().try_clone_to_owned().and_then(watch) {
            Ok(waker) => Some(waker),
            Err(error) => {
                tracing::warn!(%error, "new containers are found by looking for them only");
                None
            }
        };
        let mut tick = interval(RESCAN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first comes at once, and what it would find was found at the start.
        tick.tick().await;
        loop {
            let noticed = async {
                match &waker {
                    Some(waker) => waker.readable().await.map(|mut guard| guard.clear_ready()),
                    None => std::future::pending().await,
                }
            };
            let mounted = async {
                match &self.mounts {
                    Some(mounts) => mounts.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                Ok(()) = mounted => block_in_place(|| self.look_at_mounts()),
                Ok(()) = noticed => block_in_place(|| self.take_notices()),
                _ = tick.tick() => block_in_place(|| {
                    self.take_notices();
                    self.look_at_host();
                    self.rescan();
                    self.sweep();
                }),
            }
        }
    }

    fn look_at_host(&mut self) -> HostLibraries {
        let found = RootDirectory::open(&self.host.join("/"), true).map(|directory| {
            let id = directory.id(Self::host_namespace(&self.host).unwrap_or_default());
            self.own = Some(id);
            self.table.look(id, &directory, &self.books)
        });
        let found = HostLibraries(found.unwrap_or_default());
        self.readiness.degrade_for_now(ABOUT, found.fault());
        found
    }

    /// Looks into images that were mounted, before anything runs in them.
    fn look_at_mounts(&mut self) {
        let Some(mounts) = &mut self.mounts else { return };
        let Changes { new, gone } = match mounts.changes() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::debug!(%error, "the table of mounts is not read");
                return;
            }
        };
        for (mount, place) in new {
            // It may be gone again.
            let Ok(directory) = RootDirectory::mounted(&place) else { continue };
            let id = directory.id(0);
            let Seen { attached, refused } = self.table.look(id, &directory, &self.books);
            tracing::debug!(?place, ?attached, ?refused, "a new mount");
            mounts.is(mount, id);
        }
        for id in gone {
            self.table.gone(id, &self.books);
        }
    }

    fn take_notices(&mut self) {
        while let Some(Notice { root, tgid, changed }) = self.notices.take() {
            match self.enter(tgid, changed != 0) {
                Some(id) if Some(id) == self.own => {}
                Some(id) => {
                    if let Some(known) = self.known.get_mut(&id)
                        && !known.noticed.contains(&root)
                    {
                        known.noticed.push(root);
                    }
                }
                // It has ended already: the next one in there is told.
                None => self.notices.forget(&root),
            }
        }
    }

    /// Looks into the root directory of a process, if that is a new one or may be.
    fn enter(&mut self, pid: u32, is_new: bool) -> Option<RootId> {
        let directory = RootDirectory::open(&self.path(pid), false)
            .inspect_err(|error| tracing::debug!(pid, %error, "a root directory is not opened"))
            .ok()?;
        let id = directory.id(self.host.mount_namespace(pid)?);
        if Some(id) == self.own || (!is_new && self.known.contains_key(&id)) {
            return Some(id);
        }
        self.known.entry(id).or_default().pid = pid;
        // Users first: what is told from the moment of attaching on must know them.
        self.read_users(id, &directory);
        let Seen { attached, refused } = self.table.look(id, &directory, &self.books);
        tracing::debug!(pid, ?id, ?attached, ?refused, "a new root directory");
        Some(id)
    }

    fn path(&self, pid: u32) -> PathBuf {
        self.host.join(&format!("/proc/{pid}/root"))
    }

    /// Reads the users of a root directory, if its passwd file is another one than it was, and tells of them.
    fn read_users(&mut self, id: RootId, directory: &RootDirectory) {
        let passwd = directory.passwd_id();
        let Some(known) = self.known.get_mut(&id) else { return };
        if passwd.is_none() || known.passwd == passwd {
            return;
        }
        let mut users = FxHashSet::default();
        let read = directory.users(|name| {
            users.insert(self.hash.of(name));
        });
        if read.is_ok() {
            known.passwd = passwd;
            known.users = users;
            self.tell_users(id.namespace);
        }
    }

    /// Tells of the users of all root directories in a mount namespace.
    fn tell_users(&self, namespace: u32) {
        let mut of_it = self.known.iter().filter(|(id, _)| id.namespace == namespace).peekable();
        let users = of_it
            .peek()
            .is_some()
            .then(|| of_it.flat_map(|(_, known)| known.users.iter().copied()).collect());
        // Where there is no room names are withheld that could be shown, until the file changes.
        let _full = self.names.try_send(Names { namespace, users });
    }

    /// Looks at every process: roots that nobody told of, roots that are gone, libraries that were replaced.
    fn rescan(&mut self) {
        let mut there = FxHashSet::default();
        for pid in self.pids() {
            let Some(id) = self.root_of(pid) else { continue };
            if Some(id) == self.own || !there.insert(id) {
                continue;
            }
            match self.known.get_mut(&id) {
                Some(known) => known.pid = pid,
                None => {
                    self.enter(pid, true);
                }
            }
        }
        let gone: Vec<_> = self.known.keys().filter(|id| !there.contains(id)).copied().collect();
        for id in gone {
            let Some(known) = self.known.remove(&id) else { continue };
            for root in &known.noticed {
                self.notices.forget(root);
            }
            self.table.gone(id, &self.books);
            self.tell_users(id.namespace);
        }
        let ids: Vec<_> = self.known.keys().copied().collect();
        for id in ids {
            if let Some(directory) = self.open(id) {
                self.read_users(id, &directory);
                self.table.look(id, &directory, &self.books);
            }
        }
        let Self { table, host, known, own, books, .. } = self;
        table.move_on(
            |id| {
                if Some(id) == *own {
                    return RootDirectory::open(&host.join("/"), true).ok();
                }
                open_root(host, known, id)
            },
            books,
        );
    }

    /// Opens a root directory that is known, if it is still what it was.
    fn open(&self, id: RootId) -> Option<RootDirectory> {
        open_root(&self.host, &self.known, id)
    }

    /// The root directory of a process, without opening it.
    fn root_of(&self, pid: u32) -> Option<RootId> {
        let namespace = self.host.mount_namespace(pid)?;
        let root = fs::metadata(self.path(pid)).ok()?;
        Some(RootId { namespace, device: root.dev(), inode: root.ino() })
    }

    /// The processes that are looked at.
    fn pids(&self) -> Vec<u32> {
        match &self.processes {
            Processes::Of(scope) => scope.borrow().processes(),
            Processes::All => {
                let Ok(entries) = fs::read_dir(self.host.join("/proc")) else { return Vec::new() };
                entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
            }
        }
    }

    /// Cleans up behind processes that have ended.
    fn sweep(&mut self) {
        let Self { state, host, books, .. } = self;
        let started = |id: u32| {
            let stat = fs::read_to_string(host.join(&format!("/proc/{id}/stat"))).ok()?;
            start_of(&stat)
        };
        // Ticks are cut off, and the clock of one is not the other's to the nanosecond.
        let is_process =
            |pid: u32, start: u64| started(pid).is_some_and(|ticks| ticks.abs_diff(start / TICK_NS) <= 2);
        match state.sweep(is_process, |tid| started(tid).is_some()) {
            Ok(swept) => {
                for (counter, ended) in books.sessions_ended.iter().zip(swept.sessions) {
                    counter.fetch_add(ended, Relaxed);
                }
                books.transactions.store(swept.transactions, Relaxed);
            }
            Err(error) => tracing::warn!(%error, "PAM transactions of ended processes not swept"),
        }
    }
}

fn open_root(host: &HostRoot, known: &FxHashMap<RootId, Known>, id: RootId) -> Option<RootDirectory> {
    let pid = known.get(&id)?.pid;
    let directory = RootDirectory::open(&host.join(&format!("/proc/{pid}/root")), false).ok()?;
    (directory.id(host.mount_namespace(pid)?) == id).then_some(directory)
}

/// The start of a task in ticks since the boot: the 22nd field of /proc/PID/stat, where the second is a name in brackets.
fn start_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[expect(unsafe_code, reason = "the descriptor must stay the same while it is registered")]
fn watch(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is one and the same until it is dropped with the registration.
    unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::start_of;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 4711 1 2 3";
        assert_eq!(start_of(stat), Some(4711));
        assert_eq!(start_of("7 (a) S 1"), None);
    }
}
