//! Programs that refuse whom libpam accepted: sudo, of a user who may not.
//!
//! libpam is not told of it. What is seen is that a proof was accepted, that no session was opened in its transaction, and
//! that the program then ended with a code that says failure.

use std::collections::VecDeque;

use tellwire_ebpf::pam::{Call, Service};

use crate::{enrich::processes::ProcessKey, events::pam::Pam, events::text::text};

/// Proofs that wait for a session or for the end of their process, most of them for some milliseconds. Beyond, the oldest
/// is forgotten.
const WAITING: usize = 256;

/// A proof that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The handle, and when `pam_start` returned.
    pub(crate) transaction: (u64, u64),
    pub(crate) service: String,
    /// The user that it is about, and who asked.
    pub(crate) user: String,
    pub(crate) remote_user: String,
    pub(crate) terminal: String,
}

/// Proofs that were accepted, and nothing came of it yet.
#[derive(Debug, Default)]
pub(crate) struct Refusals(VecDeque<(ProcessKey, Proof)>);

impl Refusals {
    /// Takes a call of libpam.
    pub(crate) fn call(&mut self, process: ProcessKey, pam: &Pam<'_>) {
        let transaction = (pam.wire.handle, pam.wire.transaction);
        // Of others it is not known that they open a session for whom they let in: databases, screen lockers.
        let opens_sessions = Service::from_number(pam.wire.service_class)
            .is_some_and(|service| !matches!(service, Service::Other));
        if transaction.1 == 0 || !opens_sessions || pam.is_success() != Some(true) {
            return;
        }
        match pam.call {
            Call::Authenticate => {
                self.0.retain(|(key, _)| *key != process);
                if self.0.len() >= WAITING {
                    self.0.pop_front();
                }
                let text = |bytes: &[u8]| text(bytes).into_owned();
                let proof = Proof {
                    transaction,
                    service: text(pam.service),
                    user: text(pam.user),
                    remote_user: text(pam.remote_user),
                    terminal: text(pam.terminal),
                };
                self.0.push_back((process, proof));
            }
            // In whatever process: a forked child has the same handle.
            Call::SessionOpen => self.0.retain(|(_, proof)| proof.transaction != transaction),
            Call::Account | Call::Setcred | Call::SessionClose | Call::Chauthtok => {}
        }
    }

    /// Takes the end of a process, with its wait status: the proof in spite of which it failed, if there is one.
    pub(crate) fn exit(&mut self, process: ProcessKey, status: u32) -> Option<Proof> {
        let at = self.0.iter().position(|(key, _)| *key == process)?;
        let (_, proof) = self.0.remove(at)?;
        // Who is killed has refused nobody.
        let (signal, code) = (status & 0x7f, status >> 8 & 0xff);
        (signal == 0 && code != 0).then_some(proof)
    }
}

#[cfg(test)]
mod tests {
    use tellwire_ebpf::pam::Pam as Wire;
    use zerocopy::FromZeros as _;

    use super::*;

    const SUDO: ProcessKey = ProcessKey { tgid: 7, start: 70 };
    /// Wait statuses: it returned 1, it returned 0, SIGKILL.
    const FAILED: u32 = 0x100;
    const WENT_WELL: u32 = 0;
    const KILLED: u32 = 9;

    fn call(call: Call, handle: u64) -> Pam<'static> {
        let mut wire = Wire::new_zeroed();
        (wire.handle, wire.transaction, wire.service_class) = (handle, 5, Service::Sudo as u32);
        Pam {
            wire,
            call,
            service: b"sudo",
            user: b"somebody",
            remote_host: b"",
            remote_user: b"somebody",
            terminal: b"",
        }
    }

    fn after(calls: &[Pam<'_>], status: u32) -> Option<String> {
        let mut refusals = Refusals::default();
        for call in calls {
            refusals.call(SUDO, call);
        }
        let refused = refusals.exit(SUDO, status).map(|proof| proof.user);
        assert_eq!(refusals.exit(SUDO, status), None);
        refused
    }

    #[test]
    fn a_failure_behind_a_proof_is_a_refusal() {
        let calls = [call(Call::Authenticate, 1), call(Call::Account, 1)];
        assert_eq!(after(&calls, FAILED), Some("somebody".into()));
        assert_eq!(after(&calls, WENT_WELL), None);
        assert_eq!(after(&calls, KILLED), None);
    }

    #[test]
    fn what_fails_in_a_session_is_no_refusal() {
        let calls = [call(Call::Authenticate, 1), call(Call::SessionOpen, 1)];
        assert_eq!(after(&calls, FAILED), None);
        // One of another transaction says nothing of this one.
        let calls = [call(Call::Authenticate, 1), call(Call::SessionOpen, 2)];
        assert_eq!(after(&calls, FAILED), Some("somebody".into()));
    }

    #[test]
    fn a_session_that_a_forked_child_opens_is_one() {
        let mut refusals = Refusals::default();
        refusals.call(SUDO, &call(Call::Authenticate, 1));
        refusals.call(ProcessKey { tgid: 8, start: 80 }, &call(Call::SessionOpen, 1));
        assert_eq!(refusals.exit(SUDO, FAILED), None);
    }

    #[test]
    fn a_proof_that_failed_or_is_not_known_is_none() {
        let mut refused = call(Call::Authenticate, 1);
        refused.wire.result = 7;
        let mut unseen = call(Call::Authenticate, 1);
        unseen.wire.flags = Wire::FLAG_NO_RESULT;
        let mut untracked = call(Call::Authenticate, 1);
        untracked.wire.transaction = 0;
        let mut other = call(Call::Authenticate, 1);
        other.wire.service_class = Service::Other as u32;
        for call in [refused, unseen, untracked, other] {
            assert_eq!(after(&[call], FAILED), None);
        }
    }

    #[test]
    fn a_storm_has_the_oldest_forgotten() {
        let mut refusals = Refusals::default();
        let key = |number: usize| ProcessKey { tgid: u32::try_from(number).unwrap(), start: 1 };
        (0..=WAITING).for_each(|number| refusals.call(key(number), &call(Call::Authenticate, number as u64)));
        assert_eq!(refusals.exit(key(0), FAILED), None);
        assert!(refusals.exit(key(1), FAILED).is_some());
        assert_eq!(refusals.0.len(), WAITING - 1);
    }
}
