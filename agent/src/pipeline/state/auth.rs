//! What a PAM record does: it makes a line, and names the account that it is about. And what a process's end does, which
//! may be all that tells that somebody was refused.

use tellwire_ebpf::{
    process::Exit,
    wire::{Header, Ring},
};

use super::State;
use crate::{
    audit::Record,
    books::Books,
    enrich::processes::{Keys as _, ProcessKey},
    events::{action::Action, pam::Pam},
    lines::build::{self, PamContext},
    pipeline::Outbox,
    rules::What,
};

impl State {
    /// Tells a call of libpam, with what libpam itself reported of it.
    pub(super) fn tell_pam(
        &mut self,
        ring: Ring,
        header: &Header,
        pam: &Pam<'_>,
        record: Option<Record>,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        self.count_pam((header, pam), record.as_ref(), outbox, books);
        let began = pam.wire.transaction;
        let transaction = (began != 0).then(|| self.transaction((pam.wire.handle, began)));
        let is_host = self.host_mounts.is_some_and(|host| host == pam.wire.mount_namespace);
        let context = PamContext { is_host, transaction };
        let what = What::reported(Action::of_pam(pam.call), pam.is_success());
        self.line(ring, header, what, outbox, books, |frame, _, users| {
            let mut line = build::pam(frame, pam, context, users);
            if let Some(record) = record {
                build::add_record(frame, &mut line, record);
            }
            line
        });
    }
    /// Tells the end of a process. Where it refused whom libpam had accepted, every profile has the line.
    pub(super) fn exit(
        &mut self,
        ring: Ring,
        header: &Header,
        exit: &Exit,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        self.meet(ring, header, header.time, outbox, books);
        let key = header.subject.key();
        if let Some(proof) = self.refusals.exit(key, exit.status) {
            if let Some(why) = outbox.selection.refusal_left_out() {
                books.leave_out(Action::Exit, why);
            } else {
                let what = What::reported(Action::Exit, Some(false));
                let transaction = self.transaction(proof.transaction);
                self.wanted_line(ring, header, what, outbox, books, |frame, page_size, users| {
                    let mut line = build::exit(frame, exit, page_size, users);
                    build::refused(&mut line, proof, transaction);
                    line
                });
            }
        } else {
            self.line(ring, header, What::exit(), outbox, books, |frame, page_size, users| {
                build::exit(frame, exit, page_size, users)
            });
        }
        self.processes.exit(key, header.time);
    }

    /// What lines say of a handle, and of when its transaction began.
    ///
    /// The handle is the same in a forked child, and so is the time: the line's is a hash of the two, since an address of
    /// a process is nobody's business.
    fn transaction(&self, (handle, began): (u64, u64)) -> String {
        #[expect(clippy::cast_possible_truncation, reason = "the low half tells handles apart")]
        let key = ProcessKey { tgid: handle as u32, start: began };
        self.processes.entity_id(key).as_str().to_owned()
    }
}
