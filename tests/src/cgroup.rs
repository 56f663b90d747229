//! A cgroup of a test's own, in the unified hierarchy.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{limit, within};

/// Made at the top of the hierarchy; removed with this value, and what still runs in it is killed.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    processes: File,
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Cgroup {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tellwire-test-{}-{}", process::id(), COUNT.fetch_add(1, Relaxed));
        let path = root().join(name);
        fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("tests need root and a cgroup: {}: {error}", path.display()));
        let processes = OpenOptions::new().write(true).open(path.join("cgroup.procs")).expect("cgroup.procs");
        Self { path, processes }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling process here.
    pub(crate) fn enter(&self) -> io::Result<()> {
        (&self.processes).write_all(b"0")
    }

    /// A descriptor to move a process by, for a child between fork and exec.
    pub(crate) fn door(&self) -> File {
        self.processes.try_clone().expect("another descriptor")
    }

    /// Kills what still runs in it, and waits until nothing does.
    pub(crate) fn kill(&self) {
        let _some_stay = within(limit(), || {
            kill(&self.path);
            processes(&self.path).next().is_none().then_some(())
        });
    }

    /// Removes the cgroup; the second time there is nothing to do.
    pub(crate) fn remove(&self) {
        let removed = || match remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => None,
            _ => Some(()),
        };
        // A cgroup that stays is untidy, and no reason to fail.
        let _stays = within(limit(), removed);
    }
}

/// Removes the cgroup and those below it. Whoever is in there was started by the test.
fn remove(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    kill(cgroup);
    fs::remove_dir(cgroup)
}

fn kill(cgroup: &Path) {
    for pid in processes(cgroup) {
        let _ended = kill_process(pid, Signal::KILL);
    }
}

fn processes(cgroup: &Path) -> impl Iterator<Item = Pid> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let pids: Vec<_> =
        processes.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw).collect();
    pids.into_iter()
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Where the unified hierarchy is mounted.
fn root() -> PathBuf {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.join("cgroup.controllers").exists())
        .expect("a mounted cgroup v2 hierarchy")
}
