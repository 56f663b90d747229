//! What the records of the family `network` do: connects, connects that are told together, connects without an outcome.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tellwire_ebpf::{
    attempt::Attempt,
    close::Close,
    network::{Connect, Outcome, Tuple},
    wire::{Header, Kind, Ring, VERSION},
};

use super::{State, Told};
use crate::{
    books::Books,
    enrich::who::Who,
    events::action::Action,
    kernel::pending::Swept,
    lines::{
        build::{self, Frame},
        clock::boot_now,
    },
    pipeline::{
        LeftOut, Outbox,
        folds::{self, Verdict},
    },
    redact::Redactor,
    rules::{Marks, What},
};

impl State {
    pub(super) fn connect(
        &mut self,
        ring: Ring,
        header: &Header,
        connect: &Connect,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        let is_established = connect.outcome == Outcome::Established as u32;
        if is_established {
            self.histograms.handshake.observe(Duration::from_nanos(connect.duration).as_secs_f64());
        }
        // The subject is as it was when the handshake began.
        let begun = header.time.saturating_sub(connect.duration);
        self.meet(ring, header, begun, outbox, books);
        if !outbox.wants(Action::Connect, books) {
            return;
        }
        let who = Who::new(&header.subject, &self.processes, &self.containers);
        let what = What::connect(connect);
        let Self { judge, folds, users, .. } = self;
        let may_fold = is_established && outbox.selection.folds();
        // To the rules, connects of one fold are one and the same.
        let hash = folds::hash(&who, &connect.tuple);
        let like_another = if may_fold { folds.judged(hash, &who, &connect.tuple) } else { None };
        let known = like_another.filter(|judged| judge.knows(judged, &who, users));
        let is_new = known.is_none();
        let marks = match known {
            Some(judged) => judge.judge_known(judged, what, books),
            None => judge.judge(what, &who, None, users, books),
        };
        let Some(marks) = marks else { return };
        // What a rule sampled stands for several already.
        if may_fold && marks.sampled.is_none() {
            let judged = is_new.then(|| judge.judged(&who, users));
            if folds.connect(hash, header, &who, connect, &marks, judged) == Verdict::Folded {
                return books.leave_out(Action::Connect, LeftOut::Folded);
            }
        }
        let told = Told { ring, header, action: Action::Connect, who: &who, marks };
        self.make(told, outbox, books, |frame, _, users| build::connect(frame, connect, users));
    }

    /// Tells connects together that are due at `now`; all of them at the end.
    pub(crate) fn tell_folded(&mut self, now: Option<u64>, outbox: &mut Outbox, books: &Books) {
        let Self { folds, users, clock, origin, timestamp, .. } = self;
        let mut first = String::new();
        folds.due(now, |fold| {
            clock.write(fold.first, &mut first);
            clock.write(fold.header.time, timestamp);
            let frame = Frame {
                header: &fold.header,
                who: &fold.who,
                origin,
                profile: outbox.selection.profile,
                timestamp,
            };
            let mut line = build::connects(&frame, fold, &first, users);
            line.mark(Marks { tags: fold.tags.clone(), sampled: None });
            books.summaries.fetch_add(1, Relaxed);
            outbox.put(
                Action::Connect,
                &line,
                Ring::Network,
                (boot_now(), clock.wall(fold.header.time)),
                books,
            );
        });
    }

    /// The end of a connection: what it carried is told with the connects that repeat, too.
    pub(super) fn close(
        &mut self,
        ring: Ring,
        header: &Header,
        close: &Close,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        if outbox.selection.folds() {
            let who = Who::new(&header.subject, &self.processes, &self.containers);
            self.folds.close(&who, &close.tuple, close.sent, close.received);
        }
        self.line(ring, header, What::close(close), outbox, books, |frame, _, users| {
            build::close(frame, close, users)
        });
    }

    /// Tells a connect that was taken out of the kernel's maps, since its outcome never came.
    pub(crate) fn swept(&mut self, swept: &Swept, redactor: &Redactor, outbox: &mut Outbox, books: &Books) {
        books.swept_connects.fetch_add(1, Relaxed);
        let now = boot_now();
        let (subject, tuple, duration, outcome) = match swept {
            Swept::Handshake(pending) => {
                (Some(pending.subject), pending.tuple, now.saturating_sub(pending.time), Outcome::Unknown)
            }
            Swept::Attempt { tid, attempt } => {
                let tuple = Tuple {
                    remote: attempt.remote,
                    local: [0; 16],
                    remote_port: attempt.remote_port,
                    local_port: 0,
                    reserved: 0,
                };
                let outcome =
                    if attempt.state == Attempt::CLOSED { Outcome::Aborted } else { Outcome::Failed };
                (self.processes.subject(attempt.tgid, *tid), tuple, 0, outcome)
            }
        };
        let Some(mut subject) = subject else {
            books.swept_lost.fetch_add(1, Relaxed);
            return;
        };
        redactor.comm(&mut subject);
        let header = Header {
            len: 0,
            version: VERSION,
            kind: Kind::Connect as u8,
            flags: 0,
            time: now,
            sequence: 0,
            cpu: 0,
            redacted: 0,
            subject,
        };
        let connect = Connect { tuple, outcome: outcome as u32, error: 0, duration };
        self.line(Ring::Network, &header, What::connect(&connect), outbox, books, |frame, _, users| {
            let mut line = build::connect(frame, &connect, users);
            // It came by no ring.
            build::without_sequence(&mut line);
            line
        });
    }
}
