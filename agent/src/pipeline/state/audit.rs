//! Audit records: whose they are, and what is told of them.

use tellwire_ebpf::wire::{Header, Ids, Kind, Ring, Subject, VERSION};

use super::{State, bursts};
use crate::{
    audit::Record,
    books::Books,
    lines::build::{self, Reporter},
    pipeline::Outbox,
    rules::What,
};

/// The kernel's stamp of an audit record is by its coarse clock, which lags behind by a tick: 10 ms at the most.
const TICK: u64 = 20_000_000;

/// A record with the process that wrote it.
#[derive(Debug)]
pub(crate) struct Reported {
    pub(super) record: Record,
    pub(super) header: Header,
    /// The process is in the table.
    is_known: bool,
    /// The account is a user's, or may be told whatever it is.
    is_user: bool,
}

impl State {
    /// Takes an audit record, after all records of the rings that were there before it.
    ///
    /// `is_user` says whether its account may be told, see [`crate::pam::KnownUsers::is_shown`].
    pub(crate) fn audit(&mut self, record: Record, is_user: bool, outbox: &mut Outbox, books: &Books) {
        let time = self.clock.boot(record.time);
        let known = self
            .processes
            .subject(record.pid, record.pid)
            // The process id can belong to another process by now.
            .filter(|subject| subject.start <= time.saturating_add(TICK));
        if self.scoped && known.is_none() {
            Books::count(&books.audit.out_of_scope);
            return;
        }
        let mut subject = known.unwrap_or_else(|| stranger(&record));
        subject.login_uid = record.login_uid.unwrap_or(u32::MAX);
        subject.session_id = record.session_id.unwrap_or(u32::MAX);
        let reported =
            Reported { record, header: header(&subject, time), is_known: known.is_some(), is_user };
        self.merge_audit(reported, outbox, books);
    }

    /// Tells what nobody else reports.
    pub(super) fn tell_audit(&mut self, from: Reported, outbox: &mut Outbox, books: &Books) {
        let Reported { record, header, is_known, is_user } = from;
        Books::count(&books.audit.told);
        let action = record.kind.action;
        Books::add(&books.derived, action as usize);
        self.attempted(bursts::of_record(&record, is_user, &header), outbox, books);
        let is_routine = record.kind.is_routine() && record.message.is_success == Some(true);
        if is_routine && let Some(why) = outbox.selection.routine_left_out(action) {
            return books.leave_out(action, why);
        }
        let reporter = Reporter { record, is_known, is_user };
        let what = What::reported(action, reporter.record.message.is_success);
        self.line(Ring::Urgent, &header, what, outbox, books, |frame, _, users| {
            build::audit(frame, reporter, users)
        });
    }
}

/// The header of a record that came by no ring.
pub(super) fn header(subject: &Subject, time: u64) -> Header {
    Header {
        len: 0,
        version: VERSION,
        kind: Kind::Exit as u8,
        flags: 0,
        time,
        sequence: 0,
        cpu: 0,
        redacted: 0,
        subject: *subject,
    }
}

/// A process of which there is nothing but its audit record.
fn stranger(record: &Record) -> Subject {
    let uid = record.uid.unwrap_or(u32::MAX);
    let name = record.message.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).unwrap_or_default();
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    let gid = u32::MAX;
    Subject {
        tgid: record.pid,
        tid: record.pid,
        start: 0,
        parent_tgid: 0,
        exec_id: 0,
        parent_start: 0,
        ids: Ids { uid, gid, suid: uid, sgid: gid, euid: uid, egid: gid, fsuid: uid, fsgid: gid },
        cgroup_v2: 0,
        cgroup_v1: 0,
        comm,
        login_uid: u32::MAX,
        session_id: u32::MAX,
    }
}
