//! Authentication: attempts and sessions, counted in the kernel; and the libraries that are probed for it.

use std::{fmt::Error, sync::atomic::Ordering::Relaxed};

use tellwire_ebpf::{
    counters::{AUTH, PAM_CALLS, PAM_REFUSED, PAM_UNTRACKED, SESSIONS_CLOSED, SESSIONS_OPENED},
    pam::{Call, Outcome, Service},
};

use super::{
    Parts,
    encode::{Sink, float},
};
use crate::{events::action::Action, kernel::ledger::Totals, pam};

impl Totals {
    /// Calls of libpam of an action; `None` for what is none.
    pub(super) fn pam_calls(&self, action: Action) -> Option<u64> {
        let call = Call::ALL.iter().find(|call| Action::of_pam(**call) == action)?;
        Some(self.at(PAM_CALLS + *call as u32))
    }
}

impl Parts {
    pub(super) fn auth(&self, sink: &mut Sink<'_>, totals: &Totals) -> Result<(), Error> {
        let mut attempts = Vec::new();
        for service in Service::ALL {
            for outcome in Outcome::ALL {
                let labels = [("service", service.name()), ("outcome", outcome.name())];
                attempts.push((labels, totals.at(AUTH + *service as u32 * 4 + *outcome as u32)));
            }
        }
        let samples: Vec<_> = attempts.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_auth_attempts_total",
            "Attempts to authenticate by PAM, counted in the kernel: proofs that were accepted (success) or not \
             (failure), and accounts that were refused whatever the proof (denied). A key that sshd accepts is no attempt \
             here: it shows as a session.",
            &samples,
        )?;
        let sessions: Vec<_> = Service::ALL
            .iter()
            .zip(&self.pam.sessions_ended)
            .map(|(service, ended)| {
                let closed = totals.at(SESSIONS_CLOSED + *service as u32) + ended.load(Relaxed);
                let open = totals.at(SESSIONS_OPENED + *service as u32).saturating_sub(closed);
                ([("service", service.name())], float(open))
            })
            .collect();
        let samples: Vec<_> = sessions.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.gauge(
            "tellwire_auth_sessions",
            "PAM sessions that were opened since the agent started and that are open, counted in the kernel; one whose \
             process has ended without closing it is taken off within seconds.",
            &samples,
        )?;
        let opened: Vec<_> = Service::ALL
            .iter()
            .map(|service| ([("service", service.name())], totals.at(SESSIONS_OPENED + *service as u32)))
            .collect();
        let samples: Vec<_> = opened.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_auth_sessions_opened_total",
            "PAM sessions that were opened, with or without a proof, counted in the kernel.",
            &samples,
        )?;
        sink.counter(
            "tellwire_auth_untracked_total",
            "PAM calls that are told without names: their transaction began before the agent, or had no room.",
            &[
                (&[("reason", "not_seen")], totals.at(PAM_UNTRACKED)),
                (&[("reason", "no_room")], totals.at(PAM_REFUSED)),
            ],
        )?;
        self.libraries(sink)
    }

    fn libraries(&self, sink: &mut Sink<'_>) -> Result<(), Error> {
        sink.gauge(
            "tellwire_libraries_attached",
            "Files of libpam that are probed; one that several containers share counts once.",
            &[(&[], float(self.pam.files.load(Relaxed)))],
        )?;
        sink.gauge(
            "tellwire_library_roots",
            "Root directories, of the host and of containers, that were looked into for libraries.",
            &[(&[], float(self.pam.roots.load(Relaxed)))],
        )?;
        let outcomes: Vec<_> = pam::Outcome::ALL
            .iter()
            .map(|outcome| ([("outcome", outcome.name())], self.pam.outcome(*outcome)))
            .collect();
        let samples: Vec<_> = outcomes.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_library_attachments_total",
            "What became of files of libpam: attached, moved to the path of another container that shares the file, \
             released with the last one that has it, or refused; and no_room for root directories that are too many.",
            &samples,
        )
    }
}
