//! What a PAM record does: it makes a line, and names the account that it is about.

use tellwire_ebpf::wire::{Header, Ring};

use super::State;
use crate::{
    audit::Record,
    books::Books,
    enrich::processes::ProcessKey,
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
        let transaction = (began != 0).then(|| {
            // The handle is the same in a forked child, and so is the time: the line's is a hash of the two, since an
            // address of a process is nobody's business.
            #[expect(clippy::cast_possible_truncation, reason = "the low half tells handles apart")]
            let key = ProcessKey { tgid: pam.wire.handle as u32, start: began };
            self.processes.entity_id(key).as_str().to_owned()
        });
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
}
