//! Metrics by workload: which cgroup is whose, and what happened there, within a budget of series.
//!
//! The kernel counts by cgroup. The pipeline tells which cgroup is which container's, by [`Places`]; the rest is
//! [`Series`], which a scrape and the harvester of counters bring up to date under the lock of the kernel's books.

mod series;

use std::sync::Arc;

use tokio::sync::mpsc;

pub(crate) use self::series::{FIELDS, Key, Series, Sums};
use crate::enrich::{container::Container, containers::Containers};

/// Cgroups that may wait to be taken in. Those beyond are counted as the host's.
const WAITING: usize = 4096;

/// A container's cgroup: hierarchy and id.
pub(crate) type Placed = ((u64, u64), Arc<Container>);

/// The pipeline's end: tells whose a cgroup is.
#[derive(Debug)]
pub(crate) struct Places(mpsc::Sender<Placed>);

impl Places {
    /// Begins with the cgroups that there are.
    pub(crate) fn new(containers: &Containers) -> (Self, mpsc::Receiver<Placed>) {
        let there: Vec<_> =
            containers.cgroups().map(|(cgroup, container)| (cgroup, Arc::clone(container))).collect();
        let (sender, receiver) = mpsc::channel(there.len() + WAITING);
        let places = Self(sender);
        for (cgroup, container) in there {
            places.placed(cgroup, &container);
        }
        (places, receiver)
    }

    /// A cgroup is a container's. Nothing is waited for.
    pub(crate) fn placed(&self, cgroup: (u64, u64), container: &Arc<Container>) {
        let _full = self.0.try_send((cgroup, Arc::clone(container)));
    }
}
