//! Credentials: calls that change them, and changes that none explains.

use tellwire_ebpf::{
    privilege::{Call, Credentials},
    wire::{Header, Ids, Ring, Subject},
};

use super::State;
use crate::{
    books::Books,
    enrich::{credentials::Privileges, processes::Keys as _},
    events::{action::Action, exec::Exec},
    lines::build,
    pipeline::Outbox,
    rules::What,
};

impl State {
    pub(super) fn credentials(
        &mut self,
        ring: Ring,
        header: &Header,
        call: Call,
        record: &Credentials,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        let subject = &header.subject;
        // What the thread had before its call is held against what it should have had.
        let before = Subject { ids: record.old, ..*subject };
        let before = Header { subject: before, ..*header };
        self.meet(ring, &before, header.time.saturating_sub(1), outbox, books);
        if let Some(process) = self.processes.get_mut(subject.key()) {
            process.expected.set(subject.tid, subject.tid == subject.tgid, subject.ids, header.time);
        }
        if is_unchanged(subject, record)
            && let Some(why) = outbox.selection.unchanged_left_out()
        {
            return books.leave_out(Action::of_call(call), why);
        }
        self.line(
            ring,
            header,
            What::call(Action::of_call(call), record.error),
            outbox,
            books,
            |frame, _, users| build::credentials(frame, call, record, users),
        );
    }

    /// Compares the ids of a process that is in the table with what they should be; tells a change by nothing that was seen.
    pub(super) fn compare(
        &mut self,
        ring: Ring,
        header: &Header,
        at: u64,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        let Subject { tid, tgid, ids, .. } = header.subject;
        let Some(process) = self.processes.get_mut(header.subject.key()) else { return };
        if let Some(old) = process.expected.check(tid, tid == tgid, ids, at) {
            self.tell_changed(ring, header, old, None, outbox, books);
        }
    }

    /// The same of an exec, which is in the table, and of the privileges that the process had `before`.
    pub(super) fn compare_exec(
        &mut self,
        ring: Ring,
        header: &Header,
        exec: &Exec<'_>,
        before: Option<Privileges>,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        let subject = &header.subject;
        // A set-id program changes ids by right; any other must not.
        let is_by_right = exec.is_set_id() || exec.has(tellwire_ebpf::exec::Exec::FLAG_SECURE);
        let Some(process) = self.processes.get_mut(subject.key()) else { return };
        let old = process.expected.check_exec(exec.wire.caller_tid, subject.ids, header.time);
        let old = old.filter(|_| !is_by_right);
        process.expected.exec(subject.ids, header.time);
        let now = privileges(exec);
        let gained = before.filter(|before| now.are_beyond(*before)).map(|before| (before, now));
        if old.is_some() || gained.is_some() {
            self.tell_changed(ring, header, old.unwrap_or(subject.ids), gained, outbox, books);
        }
    }

    fn tell_changed(
        &mut self,
        ring: Ring,
        header: &Header,
        old: Ids,
        gained: Option<(Privileges, Privileges)>,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        Books::add(&books.derived, Action::CredentialsChanged as usize);
        let what = What::success(Action::CredentialsChanged);
        self.line(ring, header, what, outbox, books, |frame, _, users| {
            build::credentials_changed(frame, old, gained, users)
        });
    }
}

pub(super) const fn privileges(exec: &Exec<'_>) -> Privileges {
    Privileges {
        effective: exec.wire.capabilities.effective,
        bounding: exec.wire.capabilities.bounding,
        user_namespace: exec.wire.namespaces.user,
    }
}

/// Whether a call succeeded and left everything as it was.
fn is_unchanged(after: &Subject, record: &Credentials) -> bool {
    record.error == 0
        && record.old == after.ids
        // Of groups the number is known, and as many can be others.
        && (record.call != Call::Setgroups as u32 || record.old_groups + record.new_groups == 0)
        && record.old_capabilities == record.new_capabilities
}
