//! A container: what its cgroup's path says, the names that its runtime gives it, and what was told of it.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    cgroup_path::{Certainty, ContainerPath},
    names::Names,
};

/// A container. It is written by the pipeline alone, and read by scrapes too.
#[derive(Debug)]
pub(crate) struct Container {
    path: ContainerPath,
    /// Set once: a container keeps its names for as long as it lives.
    names: OnceLock<Arc<Names>>,
    /// Cgroups of it that are there.
    cgroups: AtomicU32,
    /// When the last of them was removed, by boot time; 0 before.
    gone_at: AtomicU64,
    life: AtomicU8,
    first_line: AtomicU8,
}

/// What the first line of a container knew of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstLine {
    Named,
    Unnamed,
}

/// The start of a container, as its first program tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Runs,
    /// Records of programs can be read after those of cgroups: its last cgroup was removed at this time.
    Gone(u64),
}

/// No program ran in it since it had no cgroup.
const WAITS: u8 = 0;
const RUNS: u8 = 1;
/// It ran, and its last cgroup is gone. What is read of it later is no new start.
const ENDED: u8 = 2;

const NO_LINE: u8 = 0;
const NAMED: u8 = 1;
const UNNAMED: u8 = 2;

impl Container {
    pub(crate) fn new(path: ContainerPath) -> Self {
        Self {
            path,
            names: OnceLock::new(),
            cgroups: AtomicU32::new(0),
            gone_at: AtomicU64::new(0),
            life: AtomicU8::new(WAITS),
            first_line: AtomicU8::new(NO_LINE),
        }
    }

    /// Whether the path alone proves that there is a container.
    pub(crate) fn is_known(&self) -> bool {
        self.path.certainty == Certainty::Known
    }

    pub(crate) fn names(&self) -> Option<&Arc<Names>> {
        self.names.get()
    }

    /// Gives it names; `false` where it had some.
    pub(crate) fn name(&self, names: &Arc<Names>) -> bool {
        self.names.set(Arc::clone(names)).is_ok()
    }

    /// A cgroup of it was made. An engine can start a container again, under its id.
    pub(super) fn cgroup_made(&self) {
        if self.cgroups.fetch_add(1, Relaxed) == 0 {
            self.life.store(WAITS, Relaxed);
        }
    }

    /// A cgroup of it was removed at `time`; tells whether it was the last one.
    pub(super) fn cgroup_removed(&self, time: u64) -> bool {
        let before = self.cgroups.load(Relaxed);
        self.cgroups.store(before.saturating_sub(1), Relaxed);
        if before == 1 {
            self.gone_at.store(time, Relaxed);
        }
        before == 1
    }

    /// Whether it has a cgroup.
    pub(crate) fn is_there(&self) -> bool {
        self.cgroups.load(Relaxed) > 0
    }

    pub(crate) fn is_started(&self) -> bool {
        self.life.load(Relaxed) == RUNS
    }

    /// Notes that a program runs in it, if that is news.
    pub(crate) fn begin(&self) -> Option<Start> {
        if self.life.load(Relaxed) != WAITS {
            return None;
        }
        let (life, start) = match (self.is_there(), self.gone_at.load(Relaxed)) {
            (false, gone_at @ 1..) => (ENDED, Start::Gone(gone_at)),
            _ => (RUNS, Start::Runs),
        };
        self.life.store(life, Relaxed);
        Some(start)
    }

    /// Notes that it runs no more; tells whether it did.
    pub(crate) fn end(&self) -> bool {
        self.life.compare_exchange(RUNS, ENDED, Relaxed, Relaxed).is_ok()
    }

    /// Notes that a line is made that has it; tells what the line knows if it is the first.
    pub(crate) fn on_line(&self) -> Option<FirstLine> {
        if self.first_line.load(Relaxed) != NO_LINE {
            return None;
        }
        let (mark, found) = match self.names() {
            Some(_) => (NAMED, FirstLine::Named),
            None => (UNNAMED, FirstLine::Unnamed),
        };
        self.first_line.store(mark, Relaxed);
        Some(found)
    }

    /// Whether lines went out without names since they were not known; afterwards nobody asks again.
    pub(crate) fn take_unnamed(&self) -> bool {
        self.first_line.load(Relaxed) == UNNAMED && self.first_line.swap(NAMED, Relaxed) == UNNAMED
    }
}

impl Deref for Container {
    type Target = ContainerPath;

    fn deref(&self) -> &ContainerPath {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cgroup_path, Container, Start};

    fn container() -> Container {
        let path = format!("/docker/{}", "a1".repeat(32));
        Container::new(cgroup_path::parse(&path).unwrap())
    }

    #[test]
    fn a_container_starts_once_and_ends_once() {
        let container = container();
        container.cgroup_made();
        assert_eq!(container.begin(), Some(Start::Runs));
        assert_eq!(container.begin(), None);
        assert!(container.cgroup_removed(7) && container.end());
        // What its last programs did is read after its cgroup's end.
        assert_eq!(container.begin(), None);
        assert!(!container.end());
    }

    #[test]
    fn a_start_that_is_read_after_the_end_says_so() {
        let container = container();
        container.cgroup_made();
        assert!(container.cgroup_removed(7));
        assert!(!container.end(), "nothing has run there yet");
        assert_eq!(container.begin(), Some(Start::Gone(7)));
        assert!(!container.is_started());
        assert_eq!(container.begin(), None);
    }

    #[test]
    fn a_container_that_is_started_again_has_another_start() {
        let container = container();
        for time in [7, 9] {
            container.cgroup_made();
            assert_eq!(container.begin(), Some(Start::Runs));
            assert!(container.cgroup_removed(time) && container.end());
        }
    }
}
