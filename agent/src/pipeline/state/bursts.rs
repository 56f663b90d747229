//! Failed authentications, and the lines of their bursts.

use tellwire_ebpf::wire::{Header, Ring};

use super::{State, audit::reported};
use crate::{
    audit::Record,
    auth::{
        attempts::{Attempt, Outcome, Report},
        bursts::{self, Burst, Key},
    },
    books::Books,
    config::{self, UnknownUserNames},
    events::action::Action,
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

    /// Counts what a record says of an attempt; tells the bursts that this makes certain.
    pub(super) fn attempted(&mut self, record: &Record, header: &Header, outbox: &mut Outbox, books: &Books) {
        let Some(report) = report(record) else { return };
        let message = &record.message;
        let attempt = Attempt {
            time: header.time,
            source: message.address.as_deref().and_then(|address| address.parse().ok()),
            user: message.account.as_deref().map(Into::into),
            subject: header.subject,
        };
        for outcome in self.attempts.take(report, attempt).into_iter().flatten() {
            let told = match &outcome {
                Outcome::Failed(attempt) => self.bursts.failed(attempt),
                Outcome::Succeeded(attempt) => self.bursts.succeeded(attempt),
            };
            self.tell_bursts(told.into_iter().flatten(), header.time, outbox, books);
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
                Books::add(&books.bursts, usize::from(matches!(burst.key, Key::User(_))));
            }
            let header = reported(&burst.subject, time);
            let times = (self.clock.text(burst.first), self.clock.text(burst.last));
            let shows_unknown_users = self.shows_unknown_users;
            let what = What::reported(Action::AuthBruteforce, Some(burst.succeeded));
            self.line(Ring::Urgent, &header, what, outbox, books, |frame, _, users| {
                build::bruteforce(frame, burst, times, shows_unknown_users, users)
            });
        }
    }
}

/// What a record says of an attempt, if anything.
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
