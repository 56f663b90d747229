//! The agent's own lines: a notice with the agent as the process that acts.

use tellwire_ebpf::wire::{Header, Kind, Ring, Subject, VERSION};

use super::State;
use crate::{
    books::Books,
    config::Profile,
    enrich::who::Who,
    lines::{
        build::Frame,
        clock::boot_now,
        own::{self, Notice},
    },
    pipeline::Outbox,
};

impl State {
    /// Makes the line of a notice, if it is wanted. `reason` is why the agent stops.
    pub(crate) fn tell(
        &mut self,
        subject: &Subject,
        notice: Notice,
        reason: Option<&str>,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        let action = notice.action();
        Books::add(&books.derived, action as usize);
        if !outbox.wants(action, books) {
            return;
        }
        let now = boot_now();
        // No record stands behind it; what is read of this one are its time and its subject.
        let header = Header {
            len: 0,
            version: VERSION,
            kind: Kind::Exit as u8,
            flags: 0,
            time: now,
            sequence: 0,
            cpu: 0,
            redacted: 0,
            subject: *subject,
        };
        let who = Who::new(subject, &self.processes, &self.containers);
        self.clock.write(now, &mut self.timestamp);
        let frame = Frame {
            header: &header,
            who: &who,
            origin: &self.origin,
            // They are few, and by them a reader knows the run and the host.
            profile: Profile::Full,
            timestamp: &self.timestamp,
        };
        let line = own::line(&frame, notice, reason, &mut self.users);
        outbox.put(action, &line, Ring::Urgent, (now, self.clock.wall(now)), books);
    }
}
