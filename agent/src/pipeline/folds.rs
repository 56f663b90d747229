//! Connects that repeat: the first is a line at once, those that follow within the window are one.
//!
//! One entry for each container, executable and destination. Nothing is lost: an entry that finds no room leaves
//! its connects lines of their own, and what is folded is counted.

use std::{hash::BuildHasher as _, sync::Arc, time::Duration};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use tellwire_ebpf::{
    network::{Connect, Tuple},
    wire::Header,
};

use super::judge::Judged;
use crate::{enrich::who::Who, rules::Marks};

/// Entries at the most: some 500 bytes each.
const MAX: usize = 8192;

/// Connects of one container and executable to one destination.
#[derive(Debug)]
pub(crate) struct Fold {
    /// Who connected last.
    pub(crate) who: Who,
    /// The last connect's.
    pub(crate) header: Header,
    pub(crate) tuple: Tuple,
    /// When the window began, CLOCK_BOOTTIME in nanoseconds.
    begun: u64,
    /// Connects since then that made no line.
    pub(crate) count: u64,
    /// Of these, when the first was established.
    pub(crate) first: u64,
    /// What the rules said of the last one.
    pub(crate) tags: Vec<Arc<str>>,
    /// What the rules found of one of them.
    judged: Judged,
    /// What the connections carried that were closed since then, in bytes.
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// All entries.
#[derive(Debug)]
pub(crate) struct Folds {
    entries: HashTable<Fold>,
    /// Nanoseconds from an entry's first connect to the line of those that followed, and from there on.
    window: u64,
}

/// What becomes of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the first of its kind, or there is no room: it makes a line.
    Tell,
    Folded,
}

impl Folds {
    pub(crate) fn new(window: Duration) -> Self {
        let mut folds = Self { entries: HashTable::new(), window: 0 };
        folds.set_window(window);
        folds
    }

    /// Another window, for those that are open too.
    pub(crate) fn set_window(&mut self, window: Duration) {
        self.window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    }

    /// What the rules found of an established connect like this.
    pub(crate) fn judged(&self, hash: u64, who: &Who, tuple: &Tuple) -> Option<&Judged> {
        let fold = self.entries.find(hash, |fold| fold.is_of(who, tuple))?;
        Some(&fold.judged)
    }

    /// Takes an established connect, with its [`hash`]. `judged` says what the rules found, where that must be
    /// remembered.
    pub(crate) fn connect(
        &mut self,
        hash: u64,
        header: &Header,
        who: &Who,
        connect: &Connect,
        marks: &Marks,
        judged: Option<Judged>,
    ) -> Verdict {
        let tuple = &connect.tuple;
        if let Some(fold) = self.entries.find_mut(hash, |fold| fold.is_of(who, tuple)) {
            if fold.count == 0 {
                fold.first = header.time;
            }
            fold.count += 1;
            fold.header = *header;
            fold.who.clone_from(who);
            fold.tags.clone_from(&marks.tags);
            if let Some(judged) = judged {
                fold.judged = judged;
            }
            return Verdict::Folded;
        }
        if self.entries.len() < MAX {
            let fold = Fold {
                who: who.clone(),
                header: *header,
                tuple: *tuple,
                begun: header.time,
                count: 0,
                first: 0,
                tags: marks.tags.clone(),
                sent: 0,
                received: 0,
                judged: judged.unwrap_or_default(),
            };
            self.entries.insert_unique(hash, fold, |fold| self::hash(&fold.who, &fold.tuple));
        }
        Verdict::Tell
    }

    /// Takes the end of a connection: what it carried.
    pub(crate) fn close(&mut self, who: &Who, tuple: &Tuple, sent: u64, received: u64) {
        if let Some(fold) = self.entries.find_mut(hash(who, tuple), |fold| fold.is_of(who, tuple)) {
            fold.sent += sent;
            fold.received += received;
        }
    }

    /// Hands on what is due at `now`, or everything, and forgets entries to which nothing was added.
    pub(crate) fn due(&mut self, now: Option<u64>, mut tell: impl FnMut(&Fold)) {
        self.entries.retain(|fold| {
            if now.is_some_and(|now| now.saturating_sub(fold.begun) < self.window) {
                return true;
            }
            if fold.count == 0 {
                return false;
            }
            tell(fold);
            fold.begun = now.unwrap_or(fold.header.time);
            (fold.count, fold.sent, fold.received) = (0, 0, 0);
            true
        });
        if self.entries.is_empty() {
            self.entries.shrink_to_fit(|fold| hash(&fold.who, &fold.tuple));
        }
    }
}

impl Fold {
    fn is_of(&self, who: &Who, tuple: &Tuple) -> bool {
        self.tuple.remote_port == tuple.remote_port
            && self.tuple.remote == tuple.remote
            && self.who.executable == who.executable
            && container(&self.who) == container(who)
    }
}

fn container(who: &Who) -> Option<&str> {
    who.container.as_ref().map(|container| &*container.id)
}

/// Of what connects are told together by.
pub(crate) fn hash(who: &Who, tuple: &Tuple) -> u64 {
    let executable: Option<&Arc<str>> = who.executable.as_ref();
    FxBuildHasher.hash_one((tuple.remote, tuple.remote_port, executable, container(who)))
}

#[cfg(test)]
mod tests {
    use tellwire_ebpf::wire::Subject;
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::enrich::{containers::Containers, processes::Processes};

    const WINDOW: u64 = 60_000_000_000;

    fn folds() -> Folds {
        Folds::new(Duration::from_mins(1))
    }

    fn who(executable: &str) -> Who {
        let processes = Processes::new("boot".into(), 8, 0);
        let mut who = Who::new(&Subject::new_zeroed(), &processes, &Containers::default());
        who.executable = Some(executable.into());
        who
    }

    fn header(time: u64) -> Header {
        let mut header = Header::new_zeroed();
        header.time = time;
        header
    }

    fn connect(folds: &mut Folds, time: u64, who: &Who, port: u16) -> Verdict {
        let to = to(port);
        folds.connect(hash(who, &to.tuple), &header(time), who, &to, &Marks::default(), None)
    }

    fn to(port: u16) -> Connect {
        let mut connect = Connect::new_zeroed();
        connect.tuple.remote_port = port;
        connect
    }

    /// Count, first and last time, and bytes of what is due.
    fn due(folds: &mut Folds, now: Option<u64>) -> Vec<(u64, u64, u64, u64, u64)> {
        let mut told = Vec::new();
        folds.due(now, |fold| {
            told.push((fold.count, fold.first, fold.header.time, fold.sent, fold.received));
        });
        told
    }

    #[test]
    fn the_first_is_told_and_those_that_follow_are_one_line_a_minute() {
        let mut folds = folds();
        let curl = who("/usr/bin/curl");
        assert_eq!(connect(&mut folds, 1, &curl, 80), Verdict::Tell);
        for time in 2..=4 {
            assert_eq!(connect(&mut folds, time, &curl, 80), Verdict::Folded);
            folds.close(&curl, &to(80).tuple, 10, 100);
        }
        assert_eq!(due(&mut folds, Some(WINDOW)), []);
        assert_eq!(due(&mut folds, Some(WINDOW + 1)), [(3, 2, 4, 30, 300)]);
        assert_eq!(connect(&mut folds, WINDOW + 9, &curl, 80), Verdict::Folded);
        assert_eq!(due(&mut folds, Some(2 * WINDOW + 1)), [(1, WINDOW + 9, WINDOW + 9, 0, 0)]);
    }

    #[test]
    fn after_a_quiet_minute_the_next_is_the_first_again() {
        let mut folds = folds();
        let curl = who("/usr/bin/curl");
        assert_eq!(connect(&mut folds, 1, &curl, 80), Verdict::Tell);
        assert_eq!(due(&mut folds, Some(WINDOW + 1)), []);
        assert_eq!(connect(&mut folds, WINDOW + 2, &curl, 80), Verdict::Tell);
    }

    #[test]
    fn another_destination_or_executable_is_told() {
        let mut folds = folds();
        let curl = who("/usr/bin/curl");
        assert_eq!(connect(&mut folds, 1, &curl, 80), Verdict::Tell);
        assert_eq!(connect(&mut folds, 2, &curl, 81), Verdict::Tell);
        assert_eq!(connect(&mut folds, 3, &who("/usr/bin/wget"), 80), Verdict::Tell);
    }

    #[test]
    fn what_finds_no_room_is_told_each_time() {
        let mut folds = folds();
        let curl = who("/usr/bin/curl");
        for port in 0..=u16::try_from(MAX).unwrap() {
            assert_eq!(connect(&mut folds, 1, &curl, port), Verdict::Tell);
        }
        assert_eq!(connect(&mut folds, 2, &curl, 8192), Verdict::Tell);
        assert_eq!(connect(&mut folds, 2, &curl, 8191), Verdict::Folded);
    }

    #[test]
    fn at_the_end_everything_is_told() {
        let mut folds = folds();
        let curl = who("/usr/bin/curl");
        connect(&mut folds, 1, &curl, 80);
        connect(&mut folds, 2, &curl, 80);
        assert_eq!(due(&mut folds, None), [(1, 2, 2, 0, 0)]);
        assert_eq!(due(&mut folds, None), []);
    }
}
