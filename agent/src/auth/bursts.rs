//! Bursts: many failures from one source, or for one user, within a window.
//!
//! The window slides in twelfths of itself: what is counted is what failed in the last eleven to twelve of them. Memory is
//! fixed ([`super::table`]): an address that fails often outlives a million that fail once.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use tellwire_ebpf::wire::Subject;

use super::{
    attempts::Attempt,
    table::{Table, Worth},
};

/// Sources, and as many users, that are counted at one time.
const ENTRIES: usize = 4096;

/// Parts of a window.
const PARTS: usize = 12;

/// Different users of a source, or sources of a user, that are told apart.
const DISTINCT: usize = 64;

/// What the failures have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// An IPv4 address, or a network of IPv6 of 64 bits: who has one has all of it.
    Source(IpAddr),
    /// A user of one container, by the container's id, or of the host.
    User { name: Arc<str>, container: Option<Arc<str>> },
}

impl Key {
    fn user(attempt: &Attempt) -> Option<Self> {
        Some(Self::User { name: attempt.user.clone()?, container: attempt.container.clone() })
    }
}

/// What became of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Begun,
    /// Somebody got in. Told once a burst.
    Succeeded,
    Ended,
}

/// A burst, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    pub(crate) key: Key,
    pub(crate) state: State,
    /// Since it began, and those that made it one.
    pub(crate) failures: u64,
    /// The other side: users of a source, sources of a user, up to 64.
    pub(crate) distinct: usize,
    /// CLOCK_BOOTTIME in nanoseconds.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) succeeded: bool,
    /// Somebody found out that there is such a user.
    pub(crate) is_known: bool,
    /// The process that reported the last failure.
    pub(crate) subject: Subject,
}

#[derive(Debug)]
struct Entry {
    /// Failures by part of the window, and the part that each is of.
    counts: [(u64, u32); PARTS],
    total: u64,
    distinct: Vec<u64>,
    first: u64,
    last: u64,
    /// It is a burst; with the process that reported the last failure.
    burst: Option<Box<Subject>>,
    succeeded: bool,
    is_known: bool,
}

/// All that is counted.
#[derive(Debug)]
pub(crate) struct Bursts {
    table: Table<Key, Entry>,
    failures: u64,
    /// Both in nanoseconds.
    window: u64,
    part: u64,
}

impl Bursts {
    /// `failures` within `window` are a burst.
    pub(crate) fn new(failures: u32, window: Duration) -> Self {
        let mut bursts = Self { table: Table::new(2 * ENTRIES), failures: 0, window: 0, part: 1 };
        bursts.set(failures, window);
        bursts
    }

    /// Another measure, for what is counted already too.
    pub(crate) fn set(&mut self, failures: u32, window: Duration) {
        self.failures = failures.into();
        self.window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        self.part = (self.window / PARTS as u64).max(1);
    }

    /// Takes a failure. Gives the bursts that begin with it.
    pub(crate) fn failed(&mut self, attempt: &Attempt) -> [Option<Burst>; 2] {
        let source = attempt.source.map(network);
        let by_source = source.map(|source| (Key::Source(source), attempt.user.as_deref().map(hash)));
        let by_user = Key::user(attempt).map(|user| (user, source.map(hash)));
        [by_source, by_user].map(|counted| counted.and_then(|(key, other)| self.count(&key, other, attempt)))
    }

    /// Takes a success. Gives the bursts that go on at the time, where it is the first one.
    pub(crate) fn succeeded(&mut self, attempt: &Attempt) -> [Option<Burst>; 2] {
        let keys = [attempt.source.map(|source| Key::Source(network(source))), Key::user(attempt)];
        keys.map(|key| {
            let key = key?;
            let entry = self.table.get_mut(&key)?;
            if entry.burst.is_none() || entry.succeeded {
                return None;
            }
            entry.succeeded = true;
            entry.burst(&key, State::Succeeded)
        })
    }

    /// Gives the bursts that are over at `now`, and forgets whatever did not fail for a window.
    pub(crate) fn ended(&mut self, now: Option<u64>) -> Vec<Burst> {
        let mut ended = Vec::new();
        let window = self.window;
        self.table.retain(|key, entry| {
            if now.is_some_and(|now| now.saturating_sub(entry.last) < window) {
                return true;
            }
            ended.extend(entry.burst(key, State::Ended));
            false
        });
        ended
    }

    fn count(&mut self, key: &Key, other: Option<u64>, attempt: &Attempt) -> Option<Burst> {
        let time = attempt.time;
        let part = time / self.part;
        let entry = self.table.entry(key.clone(), || Entry::new(time))?;
        if entry.burst.is_none() && time.saturating_sub(entry.last) >= self.window {
            *entry = Entry::new(time);
        }
        let index = usize::try_from(part % PARTS as u64).unwrap_or_default();
        if let Some((of, count)) = entry.counts.get_mut(index) {
            if *of != part {
                (*of, *count) = (part, 0);
            }
            *count = count.saturating_add(1);
        }
        entry.total += 1;
        entry.last = entry.last.max(time);
        entry.is_known |= attempt.is_known;
        if let Some(other) = other
            && entry.distinct.len() < DISTINCT
            && !entry.distinct.contains(&other)
        {
            entry.distinct.push(other);
        }
        if let Some(subject) = &mut entry.burst {
            **subject = attempt.subject;
            return None;
        }
        let recent: u64 = entry
            .counts
            .iter()
            .filter(|(of, _)| part.saturating_sub(*of) < PARTS as u64)
            .map(|(_, count)| u64::from(*count))
            .sum();
        if recent < self.failures {
            return None;
        }
        entry.burst = Some(Box::new(attempt.subject));
        entry.total = recent;
        entry.first = entry.first.max(time.saturating_sub(self.window));
        entry.burst(key, State::Begun)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.len()
    }
}

impl Entry {
    fn new(time: u64) -> Self {
        Self {
            counts: [(0, 0); PARTS],
            total: 0,
            distinct: Vec::new(),
            first: time,
            last: time,
            burst: None,
            succeeded: false,
            is_known: false,
        }
    }

    /// As far as it has come, if it is one.
    fn burst(&self, key: &Key, state: State) -> Option<Burst> {
        let Self { total, first, last, succeeded, is_known, .. } = *self;
        let subject = **self.burst.as_ref()?;
        let (key, distinct) = (key.clone(), self.distinct.len());
        Some(Burst { key, state, failures: total, distinct, first, last, succeeded, is_known, subject })
    }
}

impl Worth for Entry {
    fn worth(&self) -> (bool, u64, u64) {
        (self.burst.is_some(), self.total, self.last)
    }
}

/// Of IPv6 the network of 64 bits.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

fn hash<T: Hash>(value: T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "bursts_tests.rs"]
mod tests;
