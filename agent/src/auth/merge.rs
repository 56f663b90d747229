//! One attempt that libpam's caller shows and that libpam itself reports is one event.
//!
//! libpam writes its audit record within the call (`op=PAM:authentication` within `pam_authenticate`), in the same
//! process and with the same result, so the two are found by these; which of them comes first, nobody can say. Each waits
//! a moment for the other one. What finds no partner is told alone.
//!
//! A proof that failed takes longer: libpam writes its record, and then has the caller wait for some seconds before the call
//! returns (`_pam_await_timer`, `libpam/pam_auth.c` of Linux-PAM 1.5.2). So the record waits for the call, or for the
//! process's end.

use std::collections::VecDeque;

/// The call that can return late.
pub(crate) const AUTHENTICATION: &str = "authentication";

/// What waits at the most; beyond, the oldest is told at once.
const WAITING: usize = 1024;

/// How long one waits, in nanoseconds: the kernel hands records over by a thread of its own, late on a busy machine.
const PATIENCE: u64 = 1_000_000_000;

/// How long the record of a proof that failed waits, while its process runs.
const FAILED: u64 = 10_000_000_000;

/// Two reports of one call have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) tgid: u32,
    /// The audit record's name of the call: `authentication`.
    pub(crate) operation: &'static str,
    pub(crate) is_success: bool,
}

/// What is certain now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told<P, A> {
    Both(P, A),
    Pam(P),
    Audit(A),
}

#[derive(Debug)]
enum Report<P, A> {
    Pam(P),
    Audit(A),
}

#[derive(Debug)]
struct Waiting<P, A> {
    key: Key,
    since: u64,
    report: Report<P, A>,
}

/// What waits for its partner, the oldest first.
#[derive(Debug)]
pub(crate) struct Merge<P, A>(VecDeque<Waiting<P, A>>);

impl<P, A> Default for Merge<P, A> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<P, A> Merge<P, A> {
    /// Takes a call of libpam; `now` is when it came, CLOCK_BOOTTIME in nanoseconds.
    pub(crate) fn pam(&mut self, key: Key, call: P, now: u64) -> Option<Told<P, A>> {
        let is_partner = |other: &Waiting<P, A>| other.key == key && matches!(other.report, Report::Audit(_));
        match self.partner(is_partner) {
            Some(Report::Audit(record)) => Some(Told::Both(call, record)),
            _ => self.wait(key, Report::Pam(call), now),
        }
    }

    /// Takes an audit record of libpam.
    pub(crate) fn audit(&mut self, key: Key, record: A, now: u64) -> Option<Told<P, A>> {
        let is_partner = |other: &Waiting<P, A>| other.key == key && matches!(other.report, Report::Pam(_));
        match self.partner(is_partner) {
            Some(Report::Pam(call)) => Some(Told::Both(call, record)),
            _ => self.wait(key, Report::Audit(record), now),
        }
    }

    /// What has waited long enough at `now`, or everything. `has_ended` tells it of a process.
    pub(crate) fn due(&mut self, now: Option<u64>, has_ended: impl Fn(u32) -> bool) -> Option<Told<P, A>> {
        let is_due = |waiting: &Waiting<P, A>| {
            let Some(now) = now else { return true };
            let waited = now.saturating_sub(waiting.since);
            waited >= PATIENCE && (waited >= FAILED || !waiting.returns_late() || has_ended(waiting.key.tgid))
        };
        let at = self.0.iter().position(is_due)?;
        self.0.remove(at).map(Waiting::told)
    }

    /// Takes out the oldest that is one.
    fn partner(&mut self, is_partner: impl Fn(&Waiting<P, A>) -> bool) -> Option<Report<P, A>> {
        let at = self.0.iter().position(is_partner)?;
        self.0.remove(at).map(|waiting| waiting.report)
    }

    fn wait(&mut self, key: Key, report: Report<P, A>, now: u64) -> Option<Told<P, A>> {
        let oldest = if self.0.len() >= WAITING { self.0.pop_front() } else { None };
        self.0.push_back(Waiting { key, since: now, report });
        oldest.map(Waiting::told)
    }
}

impl<P, A> Waiting<P, A> {
    fn returns_late(&self) -> bool {
        matches!(self.report, Report::Audit(_))
            && self.key.operation == AUTHENTICATION
            && !self.key.is_success
    }

    fn told(self) -> Told<P, A> {
        match self.report {
            Report::Pam(call) => Told::Pam(call),
            Report::Audit(record) => Told::Audit(record),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Numbers = Merge<u32, u32>;

    fn key(tgid: u32) -> Key {
        Key { tgid, operation: "authentication", is_success: false }
    }

    #[test]
    fn two_reports_of_one_call_are_one_whichever_comes_first() {
        let mut merge = Numbers::default();
        assert_eq!(merge.pam(key(7), 1, 0), None);
        assert_eq!(merge.audit(key(7), 2, 0), Some(Told::Both(1, 2)));
        assert_eq!(merge.audit(key(7), 3, 0), None);
        assert_eq!(merge.pam(key(7), 4, 0), Some(Told::Both(4, 3)));
        assert_eq!(merge.due(None, |_| false), None);
    }

    #[test]
    fn another_process_operation_or_result_is_another_call() {
        let mut merge = Numbers::default();
        merge.pam(key(7), 1, 0);
        assert_eq!(merge.audit(key(8), 2, 0), None);
        assert_eq!(merge.audit(Key { operation: "accounting", ..key(7) }, 3, 0), None);
        assert_eq!(merge.audit(Key { is_success: true, ..key(7) }, 4, 0), None);
        let alone = std::iter::from_fn(|| merge.due(None, |_| false));
        assert_eq!(alone.collect::<Vec<_>>(), [Told::Pam(1), Told::Audit(2), Told::Audit(3), Told::Audit(4)]);
    }

    #[test]
    fn what_finds_no_partner_is_told_after_a_moment() {
        let mut merge = Numbers::default();
        merge.pam(key(7), 1, 1000);
        assert_eq!(merge.due(Some(1000 + PATIENCE - 1), |_| true), None);
        assert_eq!(merge.due(Some(1000 + PATIENCE), |_| false), Some(Told::Pam(1)));
        assert_eq!(merge.audit(key(7), 2, 1000 + PATIENCE), None);
    }

    #[test]
    fn a_failed_proof_waits_for_its_call_or_for_the_end_of_its_process() {
        let mut merge = Numbers::default();
        merge.audit(key(7), 1, 0);
        merge.audit(key(8), 2, 0);
        merge.audit(key(9), 3, 0);
        assert_eq!(merge.due(Some(3_000_000_000), |tgid| tgid == 8), Some(Told::Audit(2)));
        assert_eq!(merge.due(Some(3_000_000_000), |tgid| tgid == 8), None);
        assert_eq!(merge.pam(key(7), 4, 3_000_000_000), Some(Told::Both(4, 1)));
        assert_eq!(merge.due(Some(FAILED), |_| false), Some(Told::Audit(3)));
    }

    #[test]
    fn several_tries_of_one_process_are_paired_in_their_order() {
        let mut merge = Numbers::default();
        for number in [1, 2, 3] {
            merge.pam(key(7), number, 0);
        }
        let pairs = [4, 5, 6].map(|number| merge.audit(key(7), number, 0));
        assert_eq!(pairs, [(1, 4), (2, 5), (3, 6)].map(|(call, record)| Some(Told::Both(call, record))));
    }

    #[test]
    fn where_there_is_no_room_the_oldest_is_told() {
        let mut merge = Numbers::default();
        for number in 0..1024 {
            assert_eq!(merge.pam(key(number), number, 0), None);
        }
        assert_eq!(merge.pam(key(5000), 5000, 0), Some(Told::Pam(0)));
    }

    proptest! {
        #[test]
        fn everything_is_told_once(reports in proptest::collection::vec((any::<bool>(), 0_u32..5, 0_u64..100), 0..300)) {
            let mut merge = Numbers::default();
            let (mut now, mut pam, mut audit) = (0, 0, 0);
            let mut count = |told: Option<Told<u32, u32>>| match told {
                Some(Told::Both(..)) => (pam, audit) = (pam + 1, audit + 1),
                Some(Told::Pam(_)) => pam += 1,
                Some(Told::Audit(_)) => audit += 1,
                None => {}
            };
            let calls = reports.iter().filter(|(is_pam, ..)| *is_pam).count();
            let records = reports.len() - calls;
            for (is_pam, tgid, gap) in reports {
                now += gap * 10_000_000;
                while let Some(told) = merge.due(Some(now), |_| false) {
                    count(Some(told));
                }
                count(if is_pam { merge.pam(key(tgid), 0, now) } else { merge.audit(key(tgid), 0, now) });
            }
            while let Some(told) = merge.due(None, |_| false) {
                count(Some(told));
            }
            prop_assert_eq!((pam, audit), (calls, records));
        }
    }
}
