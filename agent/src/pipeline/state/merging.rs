//! Calls of libpam and what libpam reports of them: one event.

use std::sync::atomic::Ordering::Relaxed;

use tellwire_ebpf::{
    pam::Call,
    wire::{Header, Ring},
};

use super::{State, audit::Reported, bursts};
use crate::{
    auth::merge::{AUTHENTICATION, Key, Merge, Told},
    books::Books,
    enrich::processes::Keys as _,
    events::{self, Event, action::Action, pam::Pam},
    lines::clock::boot_now,
    pipeline::Outbox,
};

/// A record of the ring that waits for its audit record, as it came.
#[derive(Debug)]
pub(crate) struct Held {
    ring: Ring,
    bytes: Box<[u8]>,
}

pub(crate) type Merging = Merge<Held, Box<Reported>>;

impl State {
    /// Takes a call of libpam: tells it at once, or when it is known whether libpam reports it as well.
    pub(super) fn merge_pam(
        &mut self,
        ring: Ring,
        (header, pam, bytes): (&Header, &Pam<'_>, &[u8]),
        outbox: &mut Outbox,
        books: &Books,
    ) {
        self.meet(ring, header, header.time, outbox, books);
        self.refusals.call(header.subject.key(), pam);
        let is_reported = books.audit.connected.load(Relaxed) && books.audit.enabled.load(Relaxed);
        let Some(is_success) = pam.is_success().filter(|_| is_reported) else {
            return self.tell_pam(ring, header, pam, None, outbox, books);
        };
        let key = Key { tgid: header.subject.tgid, operation: operation(pam.call), is_success };
        let told = self.merging.pam(key, Held { ring, bytes: bytes.into() }, boot_now());
        self.tell_merged(told, outbox, books);
    }

    /// Takes an audit record: tells it at once, or when it is known whether its call was seen.
    pub(super) fn merge_audit(&mut self, reported: Reported, outbox: &mut Outbox, books: &Books) {
        let message = &reported.record.message;
        let name = message.op.as_deref().and_then(|op| op.strip_prefix("PAM:"));
        let operation =
            Call::ALL.iter().map(|call| operation(*call)).find(|operation| name == Some(operation));
        let (Some(operation), Some(is_success), true) = (operation, message.is_success, self.sees_libpam())
        else {
            if self.is_told_already(&reported) {
                return Books::count(&books.audit.merged);
            }
            return self.tell_audit(reported, outbox, books);
        };
        let key = Key { tgid: reported.record.pid, operation, is_success };
        let told = self.merging.audit(key, Box::new(reported), boot_now());
        self.tell_merged(told, outbox, books);
    }

    /// A program reports that a login failed, of which its call of libpam told: sshd and login do, by `USER_LOGIN`.
    fn is_told_already(&mut self, reported: &Reported) -> bool {
        let is_login = reported.record.kind.action == Action::UserLogin;
        let has_failed = reported.record.message.is_success == Some(false);
        is_login && has_failed && self.sees_libpam() && self.attempts.answers(&reported.header.subject)
    }

    /// Tells what has waited long enough at `now`, or everything.
    pub(crate) fn settle_merging(&mut self, now: Option<u64>, outbox: &mut Outbox, books: &Books) {
        let next = |state: &mut Self| {
            let processes = &state.processes;
            state.merging.due(now, |tgid| processes.is_gone(tgid))
        };
        while let Some(told) = next(self) {
            self.tell_merged(Some(told), outbox, books);
        }
    }

    /// Whether any libpam is probed.
    fn sees_libpam(&self) -> bool {
        self.libraries.as_ref().is_some_and(|libraries| libraries.files.load(Relaxed) > 0)
    }

    fn tell_merged(&mut self, told: Option<Told<Held, Box<Reported>>>, outbox: &mut Outbox, books: &Books) {
        let (held, reported) = match told {
            None => return,
            Some(Told::Audit(reported)) => return self.tell_audit(*reported, outbox, books),
            Some(Told::Pam(held)) => (held, None),
            Some(Told::Both(held, reported)) => (held, Some(reported)),
        };
        // It was decoded when it came.
        let Ok((header, Event::Pam(pam))) = events::decode(&held.bytes) else { return };
        let record = reported.map(|reported| {
            Books::count(&books.audit.merged);
            reported.record
        });
        self.tell_pam(held.ring, &header, &pam, record, outbox, books);
    }

    pub(super) fn count_pam(
        &mut self,
        (header, pam): (&Header, &Pam<'_>),
        record: Option<&crate::audit::Record>,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        let reported = match record {
            // A name that nobody knows has been taken out of the call's record.
            Some(record) => bursts::of_record(record, !pam.user.is_empty(), header),
            None => bursts::of_pam(pam, header),
        };
        self.attempted(reported, outbox, books);
    }
}

/// As libpam's audit records have it: `_pam_auditlog`, `libpam/pam_audit.c` of Linux-PAM 1.5.2.
const fn operation(call: Call) -> &'static str {
    match call {
        Call::Authenticate => AUTHENTICATION,
        Call::Account => "accounting",
        Call::Setcred => "setcred",
        Call::SessionOpen => "session_open",
        Call::SessionClose => "session_close",
        Call::Chauthtok => "chauthtok",
    }
}
