//! Reports of programs as attempts: one attempt is reported by several, and a key that is rejected is none yet.
//!
//! A wrong password at sshd is one `USER_AUTH` of libpam and one `USER_LOGIN` of sshd; a name that nobody has is three
//! `USER_LOGIN`; each key that a client offers before the right one is a `USER_LOGIN` (`audit_event`,
//! audit-linux.c of OpenSSH 9.2 and 10.0). So proofs that failed count at once. Logins that failed count as one, and
//! only when their process ends, or has done nothing else for a while, without having let anybody in.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use tellwire_ebpf::wire::Subject;

use crate::enrich::processes::{Keys as _, ProcessKey};

/// Processes that are remembered. The oldest is decided when one too many comes.
const PROCESSES: usize = 1024;

/// A login that failed is decided so long after, in nanoseconds, if its process still runs.
const PATIENCE: u64 = 10_000_000_000;

/// What one report says of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A password or the like was wrong.
    ProofFailed,
    /// Somebody was not let in, by whatever they offered.
    LoginFailed,
    /// Somebody is in.
    Succeeded,
}

/// Who tried to be whom, from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// CLOCK_BOOTTIME in nanoseconds.
    pub(crate) time: u64,
    pub(crate) source: Option<IpAddr>,
    /// The name that was given, whatever it is.
    pub(crate) user: Option<Arc<str>>,
    /// That there is such a user was found out: in the container's passwd file, say, or by a success.
    pub(crate) is_known: bool,
    /// Where it was tried: `root` in one container is not `root` in another. The container's id; `None` for the host.
    pub(crate) container: Option<Arc<str>>,
    /// The process that reported it.
    pub(crate) subject: Subject,
}

/// An attempt, and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Failed(Attempt),
    Succeeded(Attempt),
}

/// What a process reported so far.
#[derive(Debug)]
struct Reported {
    process: ProcessKey,
    parent: ProcessKey,
    proofs: u32,
    /// Proofs or a login: it failed at least once, and that is counted.
    counted: u32,
    /// Proofs of which the caller has not yet reported that the login failed.
    unanswered: u32,
    /// A login that failed, and that nothing is known of yet.
    pending: Option<Attempt>,
    last: u64,
}

/// Processes that reported lately.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    recent: VecDeque<Reported>,
}

impl Attempts {
    /// Takes a report. Gives what it makes certain.
    pub(crate) fn take(&mut self, report: Report, attempt: Attempt) -> [Option<Outcome>; 2] {
        let mut displaced = None;
        let (process, parent) = (attempt.subject.key(), attempt.subject.parent_key());
        let at = self.position(process, parent).unwrap_or_else(|| {
            if self.recent.len() == PROCESSES {
                displaced = self.recent.pop_front().and_then(|oldest| oldest.pending).map(Outcome::Failed);
            }
            let last = attempt.time;
            let (proofs, counted, unanswered, pending) = (0, 0, 0, None);
            self.recent.push_back(Reported { process, parent, proofs, counted, unanswered, pending, last });
            self.recent.len() - 1
        });
        let Some(known) = self.recent.get_mut(at) else { return [displaced, None] };
        known.last = known.last.max(attempt.time);
        let certain = match report {
            Report::ProofFailed => {
                known.pending = None;
                known.proofs += 1;
                known.unanswered += 1;
                (known.proofs > known.counted).then(|| {
                    known.counted = known.proofs;
                    Outcome::Failed(attempt)
                })
            }
            Report::LoginFailed => {
                if known.counted == 0 {
                    known.pending = Some(attempt);
                }
                None
            }
            Report::Succeeded => {
                known.pending = None;
                Some(Outcome::Succeeded(attempt))
            }
        };
        [displaced, certain]
    }

    /// Whether a login that failed is that of a proof that failed before, of which this is the first to say so.
    pub(crate) fn answers(&mut self, subject: &Subject) -> bool {
        let at = self.position(subject.key(), subject.parent_key());
        let Some(known) = at.and_then(|at| self.recent.get_mut(at)) else { return false };
        let is_answer = known.unanswered > 0;
        known.unanswered = known.unanswered.saturating_sub(1);
        is_answer
    }

    /// sshd has passwords checked in a process of its own, whose parent reports as well.
    fn position(&self, process: ProcessKey, parent: ProcessKey) -> Option<usize> {
        self.recent
            .iter()
            .rposition(|known| known.process == process || known.parent == process || known.process == parent)
    }

    /// Decides logins that failed, of processes that have ended or have been silent; forgets those with nothing pending.
    pub(crate) fn decide(&mut self, now: u64, has_ended: impl Fn(ProcessKey) -> bool) -> Vec<Attempt> {
        let mut failed = Vec::new();
        self.recent.retain_mut(|known| {
            let has_ended = has_ended(known.process);
            if !has_ended && now.saturating_sub(known.last) < PATIENCE {
                return true;
            }
            if let Some(attempt) = known.pending.take() {
                known.counted += 1;
                failed.push(attempt);
            }
            // One that still runs can report more of the same attempt.
            !has_ended && now.saturating_sub(known.last) < 6 * PATIENCE
        });
        failed
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn attempt(tgid: u32, parent: u32, time: u64) -> Attempt {
        let mut subject = Subject::new_zeroed();
        (subject.tgid, subject.parent_tgid) = (tgid, parent);
        Attempt { time, source: None, user: None, is_known: false, container: None, subject }
    }

    /// Failures that are certain after these reports, and after the end of all processes.
    fn failures(reports: &[(Report, u32, u32)]) -> (usize, usize) {
        let mut attempts = Attempts::default();
        let at_once = reports
            .iter()
            .flat_map(|(report, tgid, parent)| attempts.take(*report, attempt(*tgid, *parent, 5)))
            .filter(|outcome| matches!(outcome, Some(Outcome::Failed(_))))
            .count();
        (at_once, at_once + attempts.decide(6, |_| true).len())
    }

    use Report::{LoginFailed, ProofFailed, Succeeded};

    #[test]
    fn a_wrong_password_is_one_attempt_by_whomever_it_is_reported() {
        assert_eq!(failures(&[(ProofFailed, 7, 1), (LoginFailed, 7, 1)]), (1, 1));
        assert_eq!(failures(&[(LoginFailed, 7, 1), (ProofFailed, 7, 1), (LoginFailed, 7, 1)]), (1, 1));
        // In a child of the process that reports the login.
        assert_eq!(failures(&[(ProofFailed, 8, 7), (LoginFailed, 7, 1)]), (1, 1));
        assert_eq!(failures(&[(LoginFailed, 7, 1), (ProofFailed, 8, 7)]), (1, 1));
    }

    #[test]
    fn each_wrong_password_is_one_attempt() {
        let one = [(ProofFailed, 7, 1), (LoginFailed, 7, 1)];
        assert_eq!(failures(&[one, one, one].concat()), (3, 3));
    }

    #[test]
    fn a_login_that_failed_answers_one_proof_that_failed_before_it() {
        let mut attempts = Attempts::default();
        let login = |attempts: &mut Attempts| {
            let attempt = attempt(7, 1, 5);
            let is_answer = attempts.answers(&attempt.subject);
            attempts.take(LoginFailed, attempt);
            is_answer
        };
        // A key, a password, another key.
        assert!(!login(&mut attempts));
        attempts.take(ProofFailed, attempt(8, 7, 5));
        assert!(login(&mut attempts));
        assert!(!login(&mut attempts));
    }

    #[test]
    fn two_connections_of_one_daemon_are_two() {
        assert_eq!(failures(&[(LoginFailed, 7, 1), (LoginFailed, 8, 1)]), (0, 2));
    }

    #[test]
    fn keys_before_the_right_one_are_no_failure_and_keys_without_a_right_one_are_one() {
        let keys = [(LoginFailed, 7, 1); 5];
        assert_eq!(failures(&keys), (0, 1));
        assert_eq!(failures(&[&keys[..], &[(Succeeded, 7, 1)]].concat()), (0, 0));
    }

    #[test]
    fn a_process_that_goes_on_is_decided_after_a_while_and_once() {
        let mut attempts = Attempts::default();
        attempts.take(LoginFailed, attempt(7, 1, 5));
        assert_eq!(attempts.decide(PATIENCE, |_| false), []);
        assert_eq!(attempts.decide(PATIENCE + 5, |_| false), [attempt(7, 1, 5)]);
        assert_eq!(attempts.decide(PATIENCE + 6, |_| false), []);
        // What it reports then is more of the same.
        attempts.take(LoginFailed, attempt(7, 1, PATIENCE + 7));
        assert_eq!(attempts.decide(3 * PATIENCE, |_| true), []);
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_forgotten_uncounted() {
        let mut attempts = Attempts::default();
        let mut failed = 0;
        for tgid in 0..5000 {
            let outcomes = attempts.take(LoginFailed, attempt(tgid + 10, 1, 5));
            failed += outcomes.iter().flatten().count();
        }
        assert_eq!(attempts.recent.len(), PROCESSES);
        assert_eq!(failed + attempts.decide(6, |_| true).len(), 5000);
    }
}
