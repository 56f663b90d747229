//! The outputs that there are and were, by the names that metrics give them.
//!
//! An output that is closed keeps its counters, and one of the same kind that is opened later goes on counting
//! there: counters only grow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::OutputStats;

/// Shared by those who write, open, scrape and tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    stats: Arc<OutputStats>,
    /// Asks it to open again what it has; none once it is closed.
    reopen: Option<Arc<Notify>>,
}

impl Registry {
    /// Every output that ever was.
    pub(crate) fn all(&self) -> Vec<(Arc<str>, Arc<OutputStats>)> {
        self.entries().iter().map(|entry| (Arc::clone(&entry.name), Arc::clone(&entry.stats))).collect()
    }

    /// For SIGHUP: a log rotation that moved files away, a peer whose address has changed. Returns at once: each
    /// output does it when it has come that far.
    pub(crate) fn reopen(&self) {
        for reopen in self.entries().iter().filter_map(|entry| entry.reopen.as_ref()) {
            reopen.notify_one();
        }
    }

    /// A name for an output of this kind that is neither open nor in `taken`: `file`, `file_2`, short and in the
    /// order of the configuration. With it the counters that go by this name.
    pub(super) fn free_name(&self, kind: &str, taken: &[Arc<str>]) -> (Arc<str>, Arc<OutputStats>) {
        let entries = self.entries();
        let mut number = 1;
        loop {
            let name: Arc<str> = if number == 1 { kind.into() } else { format!("{kind}_{number}").into() };
            number += 1;
            if taken.contains(&name) {
                continue;
            }
            match entries.iter().find(|entry| entry.name == name) {
                None => return (name, Arc::default()),
                Some(entry) if entry.reopen.is_none() => return (name, Arc::clone(&entry.stats)),
                Some(_) => {}
            }
        }
    }

    pub(super) fn opened(&self, name: &Arc<str>, stats: &Arc<OutputStats>, reopen: &Arc<Notify>) {
        let mut entries = self.entries();
        match entries.iter_mut().find(|entry| entry.name == *name) {
            Some(entry) => entry.reopen = Some(Arc::clone(reopen)),
            None => entries.push(Entry {
                name: Arc::clone(name),
                stats: Arc::clone(stats),
                reopen: Some(Arc::clone(reopen)),
            }),
        }
    }

    pub(super) fn closed(&self, name: &Arc<str>) {
        if let Some(entry) = self.entries().iter_mut().find(|entry| entry.name == *name) {
            entry.reopen = None;
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Nothing can panic halfway through a change of the list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_free_again_goes_on_with_its_counters() {
        let registry = Registry::default();
        let open = || {
            let (name, stats) = registry.free_name("file", &[]);
            registry.opened(&name, &stats, &Arc::default());
            (name, stats)
        };
        let (first, stats) = open();
        let (second, _) = open();
        assert_eq!((&*first, &*second), ("file", "file_2"));
        registry.closed(&first);
        let (again, counters) = registry.free_name("file", &[]);
        assert_eq!(&*again, "file");
        assert!(Arc::ptr_eq(&stats, &counters));
        assert_eq!(&*registry.free_name("file", &[again]).0, "file_3");
        assert_eq!(registry.all().len(), 2);
    }
}
