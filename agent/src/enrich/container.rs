//! A container: what its cgroup's path says, the names that its runtime gives it, and what was told of it.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
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
    /// A program ran in it since the last time it had no cgroup.
    started: AtomicBool,
    first_line: AtomicU8,
}

/// What the first line of a container knew of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstLine {
    Named,
    Unnamed,
}

const NO_LINE: u8 = 0;
const NAMED: u8 = 1;
const UNNAMED: u8 = 2;

impl Container {
    pub(crate) fn new(path: ContainerPath) -> Self {
        Self {
            path,
            names: OnceLock::new(),
            cgroups: AtomicU32::new(0),
            started: AtomicBool::new(false),
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

    /// A cgroup of it was made.
    pub(super) fn cgroup_made(&self) {
        self.cgroups.fetch_add(1, Relaxed);
    }

    /// A cgroup of it was removed; tells whether it was the last one.
    pub(super) fn cgroup_removed(&self) -> bool {
        let before = self.cgroups.load(Relaxed);
        self.cgroups.store(before.saturating_sub(1), Relaxed);
        before == 1
    }

    /// Whether it has a cgroup.
    pub(crate) fn is_there(&self) -> bool {
        self.cgroups.load(Relaxed) > 0
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Relaxed)
    }

    /// Notes that it runs, or does not; tells whether that is news.
    pub(crate) fn set_started(&self, started: bool) -> bool {
        self.started.swap(started, Relaxed) != started
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
