//! What the discovery of libraries counts; read when scraped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tellwire_ebpf::pam::Service;

/// What became of a file, or of a root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Attached = 0,
    /// Attached by the path of another container, since that of the first is gone.
    Moved = 1,
    /// The last container that had it is gone.
    Released = 2,
    /// It cannot be attached to.
    Refused = 3,
    /// There are too many root directories.
    NoRoom = 4,
}

impl Outcome {
    pub(crate) const ALL: [Self; 5] =
        [Self::Attached, Self::Moved, Self::Released, Self::Refused, Self::NoRoom];

    /// The name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Moved => "moved",
            Self::Released => "released",
            Self::Refused => "refused",
            Self::NoRoom => "no_room",
        }
    }
}

/// Counters of the discovery.
#[derive(Debug, Default)]
pub(crate) struct PamBooks {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Files that are attached to.
    pub(crate) files: AtomicU64,
    /// Root directories that are known.
    pub(crate) roots: AtomicU64,
    /// Sessions whose process ended without closing them, by service.
    pub(crate) sessions_ended: [AtomicU64; Service::ALL.len()],
    /// Transactions in the kernel's map.
    pub(crate) transactions: AtomicU64,
}

impl PamBooks {
    pub(crate) fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome as usize).map_or(0, |counter| counter.load(Relaxed))
    }
}
