//! Failed authentications, and the lines of their bursts.

use tellwire_ebpf::{
    pam::Call,
    wire::{Header, Ring},
};

use super::{State, audit};
use crate::{
    audit::Record,
    auth::{
        attempts::{Attempt, Outcome, Report},
        bursts::{self, Burst, Key},
    },
    books::Books,
    config::{self, UnknownUserNames},
    enrich::who::Who,
    events::{action::Action, pam::Pam, text::text},
    lines::{build, clock::boot_now},
    pipeline::Outbox,
    rules::What,
};

impl State {
    /// Takes over what the configuration says of authentication.
    pub(crate) fn configure_auth(&mut self, auth: &config::Auth) {
        self.shows_unknown_users = auth.unknown_user_names == UnknownUserNames::Show;
        self.bursts.set(auth.burst_failures.get(), auth.burst_window.get());
    }

    /// Counts what was reported of an attempt, if anything; tells the bursts that this makes certain.
    pub(super) fn attempted(
        &mut self,
        reported: Option<(Report, Attempt)>,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        let Some((report, mut attempt)) = reported else { return };
        let who = Who::new(&attempt.subject, &self.processes, &self.containers);
        attempt.container = who.container.map(|container| container.id.as_str().into());
        let time = attempt.time;
        for outcome in self.attempts.take(report, attempt).into_iter().flatten() {
            let told = match &outcome {
                Outcome::Failed(attempt) => self.bursts.failed(attempt),
                Outcome::Succeeded(attempt) => self.bursts.succeeded(attempt),
            };
            self.tell_bursts(told.into_iter().flatten(), time, outbox, books);
        }
    }

    /// Decides attempts whose outcome no report tells, and tells bursts that are over: at `now`, or all.
    pub(crate) fn settle_attempts(&mut self, now: Option<u64>, outbox: &mut Outbox, books: &Books) {
        let time = now.unwrap_or_else(boot_now);
        let processes = &self.processes;
        let failed = self.attempts.decide(time, |key| now.is_none() || processes.has_ended(key));
        for attempt in failed {
            let told = self.bursts.failed(&attempt);
            self.tell_bursts(told.into_iter().flatten(), attempt.time, outbox, books);
        }
        let ended = self.bursts.ended(now);
        self.tell_bursts(ended.into_iter(), time, outbox, books);
    }

    fn tell_bursts(
        &mut self,
        bursts: impl Iterator<Item = Burst>,
        time: u64,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        for burst in bursts {
            Books::add(&books.derived, Action::AuthBruteforce as usize);
            if burst.state == bursts::State::Begun {
                Books::add(&books.bursts, usize::from(matches!(burst.key, Key::User { .. })));
            }
            let header = audit::header(&burst.subject, time);
            let times = (self.clock.text(burst.first), self.clock.text(burst.last));
            let shows_unknown_users = self.shows_unknown_users;
            let what = What::reported(Action::AuthBruteforce, Some(burst.succeeded));
            self.line(Ring::Urgent, &header, what, outbox, books, |frame, _, users| {
                build::bruteforce(frame, burst, times, shows_unknown_users, users)
            });
        }
    }
}

/// What an audit record says of an attempt, if anything.
pub(super) fn of_record(record: &Record, is_known: bool, header: &Header) -> Option<(Report, Attempt)> {
    let message = &record.message;
    let attempt = Attempt {
        time: header.time,
        source: message.address.as_deref().and_then(|address| address.parse().ok()),
        user: message.account.as_deref().map(Into::into),
        is_known,
        container: None,
        subject: header.subject,
    };
    Some((report(record)?, attempt))
}

/// What a call of libpam says of an attempt, if anything.
pub(super) fn of_pam(pam: &Pam<'_>, header: &Header) -> Option<(Report, Attempt)> {
    let source = str::from_utf8(pam.remote_host).ok().and_then(|host| host.parse().ok());
    let report = match (pam.call, pam.is_success()?) {
        (Call::Authenticate, false) => Report::ProofFailed,
        (Call::Account, false) => Report::LoginFailed,
        (Call::Authenticate, true) => Report::Succeeded,
        // A session of cron's is no login.
        (Call::SessionOpen, true) if source.is_some() => Report::Succeeded,
        _ => return None,
    };
    let user = (!pam.user.is_empty()).then(|| text(pam.user).into());
    // A name that nobody knows has been taken out of the record by now.
    let attempt =
        Attempt { time: header.time, source, user, is_known: true, container: None, subject: header.subject };
    Some((report, attempt))
}

fn report(record: &Record) -> Option<Report> {
    let message = &record.message;
    let is_key = || message.op.as_deref().is_some_and(|op| op.contains("key") || op.contains("hostbased"));
    match (record.kind.action, message.is_success?) {
        // The OpenSSH of some distributions reports each key.
        (Action::UserAuth, false) if is_key() => Some(Report::LoginFailed),
        (Action::UserAuth | Action::GroupAuth, false) => Some(Report::ProofFailed),
        (Action::UserLogin | Action::UserAccount, false) => Some(Report::LoginFailed),
        (Action::UserAuth | Action::UserLogin, true) => Some(Report::Succeeded),
        // A session of cron's is no login; one from elsewhere is, and of a key nothing else tells.
        (Action::UserSessionStart, true) if message.address.is_some() => Some(Report::Succeeded),
        _ => None,
    }
}
