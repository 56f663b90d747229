//! What the pipeline knows, and what a record does to it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde_json::value::{RawValue, to_raw_value};
use tellwire_ebpf::{
    cgroup::Cgroup,
    network::{Attempt, Connect, Outcome, Tuple},
    privilege,
    wire::{Header, Kind, Ring, Subject, VERSION},
};
use tokio::sync::mpsc;

use super::{Judge, Outbox, Removed};
use crate::{
    books::{Books, Sequences},
    enrich::{
        containers::Containers,
        processes::{Image, Keys as _, Processes},
        users::Users,
        who::Who,
    },
    events::{self, Event, action::Action, exec::Exec, text::text},
    kernel::pending::Swept,
    lines::{
        Line,
        build::{self, ExecTexts, Frame},
        clock::{Clock, boot_now},
        fields::Host,
    },
    metrics::Histograms,
    rules::What,
};

/// The tables, and what every line says of the host.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) processes: Processes,
    pub(crate) containers: Containers,
    pub(crate) users: Users,
    pub(crate) clock: Clock,
    /// The host's fields, as JSON.
    host: Box<RawValue>,
    /// The kernel's, in bytes.
    page_size: u64,
    /// What a process of this host can have at the most.
    all_capabilities: u64,
    histograms: Histograms,
    sequences: Sequences,
    timestamp: String,
    /// May be replaced at any time.
    pub(crate) judge: Judge,
}

impl State {
    pub(crate) fn new(
        processes: Processes,
        containers: Containers,
        users: Users,
        host: &Host,
        all_capabilities: u64,
        histograms: Histograms,
    ) -> serde_json::Result<Self> {
        Ok(Self {
            processes,
            containers,
            users,
            clock: Clock::new(),
            host: to_raw_value(host)?,
            page_size: rustix::param::page_size() as u64,
            all_capabilities,
            histograms,
            sequences: Sequences::default(),
            timestamp: String::new(),
            judge: Judge::default(),
        })
    }

    /// Takes one record.
    pub(crate) fn record(
        &mut self,
        ring: Ring,
        bytes: &[u8],
        outbox: &mut Outbox,
        books: &Books,
        removed: &mpsc::Sender<Removed>,
    ) {
        // The kind stands in the sixth byte, whatever else is wrong with the record.
        let kind = bytes.get(5).and_then(|kind| Kind::from_number(u32::from(*kind)));
        match kind {
            Some(kind) => Books::add(&books.received, kind as usize),
            None => {
                books.unknown_records.fetch_add(1, Relaxed);
            }
        }
        match events::decode(bytes) {
            Ok((header, event)) => {
                self.sequences.take(ring, &header);
                self.event(ring, &header, event, outbox, books, removed);
            }
            Err(error) => {
                tracing::debug!(%error, ring = ring.name(), "record not decoded");
                if let Some(kind) = kind {
                    Books::add(&books.decode_errors, kind as usize);
                }
            }
        }
    }

    fn event(
        &mut self,
        ring: Ring,
        header: &Header,
        event: Event<'_>,
        outbox: &mut Outbox,
        books: &Books,
        removed: &mpsc::Sender<Removed>,
    ) {
        let subject = &header.subject;
        match event {
            Event::CgroupMkdir(cgroup, path) => {
                self.containers.made(cgroup.hierarchy, cgroup.id, &text(path));
                self.judge.cgroup_made(cgroup.hierarchy, cgroup.id, &self.containers);
            }
            Event::CgroupRmdir(Cgroup { id, hierarchy, .. }) => {
                self.containers.removed(hierarchy, id, header.time);
                self.judge.cgroup_removed(hierarchy, id);
                // Where the queue is full the counters stay in the kernel's map, which can overflow but not lie.
                let _full = removed.try_send((hierarchy, id));
            }
            Event::Fork(fork) => self.processes.fork(subject, &fork, header.time, &self.containers),
            Event::Exec(exec) => self.exec(ring, header, &exec, outbox, books),
            Event::ExecFailed(failed) => {
                self.meet(ring, header, header.time, outbox, books);
                self.line(ring, header, What::exec_failed(), outbox, books, |frame, _, users| {
                    build::exec_failed(frame, &failed, users)
                });
            }
            Event::Exit(exit) => {
                self.meet(ring, header, header.time, outbox, books);
                self.line(ring, header, What::exit(), outbox, books, |frame, page_size, users| {
                    build::exit(frame, &exit, page_size, users)
                });
                self.processes.exit(subject.key(), header.time);
            }
            Event::Connect(connect) => {
                if connect.outcome == Outcome::Established as u32 {
                    self.histograms.handshake.observe(Duration::from_nanos(connect.duration).as_secs_f64());
                }
                // The subject is as it was when the handshake began.
                let begun = header.time.saturating_sub(connect.duration);
                self.meet(ring, header, begun, outbox, books);
                self.line(ring, header, What::connect(&connect), outbox, books, |frame, _, users| {
                    build::connect(frame, &connect, users)
                });
            }
            Event::Credentials(call, record) => self.credentials(ring, header, call, &record, outbox, books),
        }
    }

    fn exec(&mut self, ring: Ring, header: &Header, exec: &Exec<'_>, outbox: &mut Outbox, books: &Books) {
        let subject = &header.subject;
        if exec.args_truncated() {
            books.args_truncated.fetch_add(1, Relaxed);
        }
        if exec.has(tellwire_ebpf::exec::Exec::FLAG_PATH_TRUNCATED) {
            books.path_truncated.fetch_add(1, Relaxed);
        }
        let texts = ExecTexts {
            executable: exec.executable.to_text().into(),
            working_directory: exec.working_directory.to_text(),
            start: self.clock.text(subject.start),
        };
        let image = Image {
            executable: Arc::clone(&texts.executable),
            vpid: exec.wire.vpid,
            pid_namespace: exec.wire.namespaces.pid,
        };
        self.processes.exec(subject, &image, header.time, &self.containers);
        // A set-id program changes ids by right; any other must not.
        if exec.is_set_id() || exec.has(tellwire_ebpf::exec::Exec::FLAG_SECURE) {
            if let Some(process) = self.processes.get_mut(subject.key()) {
                process.expected.exec(subject.ids, header.time);
            }
        } else {
            self.compare(ring, header, header.time, outbox, books);
            if let Some(process) = self.processes.get_mut(subject.key()) {
                process.expected.exec(subject.ids, header.time);
            }
        }
        if !outbox.wants(Action::Exec, books) {
            return;
        }
        let who = Who::new(subject, &self.processes, &self.containers);
        let what = What::success(Action::Exec);
        let Some(marks) = self.judge.judge(what, &who, Some(exec), &mut self.users, books) else { return };
        count_enrichment(&who, books);
        self.clock.write(header.time, &mut self.timestamp);
        let frame = Frame { header, who: &who, host: &self.host, timestamp: &self.timestamp };
        let ancestors = build::ancestors(self.processes.ancestors(subject.parent_key()));
        let mut line = build::exec(&frame, exec, &texts, ancestors, self.all_capabilities, &mut self.users);
        line.mark(marks);
        outbox.put(Action::Exec, &line, ring, (header.time, self.clock.wall(header.time)), books);
    }

    fn credentials(
        &mut self,
        ring: Ring,
        header: &Header,
        call: privilege::Call,
        record: &privilege::Credentials,
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
        self.line(
            ring,
            header,
            What::call(Action::of_call(call), record.error),
            outbox,
            books,
            |frame, _, users| build::credentials(frame, call, record, users),
        );
    }

    /// Sees to it that the subject is in the table, and compares its ids with what they should be.
    fn meet(&mut self, ring: Ring, header: &Header, at: u64, outbox: &mut Outbox, books: &Books) {
        if self.processes.meet(&header.subject, at, &self.containers).is_some() {
            self.compare(ring, header, at, outbox, books);
        }
    }

    /// Tells ids that changed by nothing that was seen.
    fn compare(&mut self, ring: Ring, header: &Header, at: u64, outbox: &mut Outbox, books: &Books) {
        let Subject { tid, tgid, ids, .. } = header.subject;
        let Some(process) = self.processes.get_mut(header.subject.key()) else { return };
        let Some(old) = process.expected.check(tid, tid == tgid, ids, at) else { return };
        Books::add(&books.derived, Action::CredentialsChanged as usize);
        self.line(
            ring,
            header,
            What::success(Action::CredentialsChanged),
            outbox,
            books,
            |frame, _, users| build::credentials_changed(frame, old, users),
        );
    }

    /// Builds and encodes the line of what happened, if it is wanted.
    fn line(
        &mut self,
        ring: Ring,
        header: &Header,
        what: What,
        outbox: &mut Outbox,
        books: &Books,
        build: impl for<'f> FnOnce(&Frame<'f>, u64, &mut Users) -> Line<'f>,
    ) {
        let action = what.action;
        if !outbox.wants(action, books) {
            return;
        }
        let who = Who::new(&header.subject, &self.processes, &self.containers);
        let Some(marks) = self.judge.judge(what, &who, None, &mut self.users, books) else { return };
        count_enrichment(&who, books);
        self.clock.write(header.time, &mut self.timestamp);
        let frame = Frame { header, who: &who, host: &self.host, timestamp: &self.timestamp };
        let mut line = build(&frame, self.page_size, &mut self.users);
        line.mark(marks);
        outbox.put(action, &line, ring, (header.time, self.clock.wall(header.time)), books);
    }

    /// Tells a connect that was taken out of the kernel's maps, since its outcome never came.
    pub(crate) fn swept(&mut self, swept: &Swept, outbox: &mut Outbox, books: &Books) {
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
        let Some(subject) = subject else {
            books.swept_lost.fetch_add(1, Relaxed);
            return;
        };
        let header = Header {
            len: 0,
            version: VERSION,
            kind: Kind::Connect as u8,
            flags: 0,
            time: now,
            sequence: 0,
            cpu: 0,
            reserved: 0,
            subject,
        };
        let connect = Connect { tuple, outcome: outcome as u32, error: 0, duration };
        self.line(Ring::Network, &header, What::connect(&connect), outbox, books, |frame, _, users| {
            let mut line = build::connect(frame, &connect, users);
            // It came by no ring.
            line.event.sequence = None;
            line.tellwire.sequence_cpu = None;
            line.tellwire.sequence_ring = None;
            line
        });
    }

    /// Forgets what is old at `now`, and reads the wall clock's offset again.
    pub(crate) fn expire(&mut self, now: u64) {
        self.processes.expire(now);
        self.containers.expire(now);
        self.clock.refresh();
    }

    /// Copies sizes to where they are scraped.
    pub(crate) fn publish(&self, books: &Books) {
        books.sequence_gaps.store(self.sequences.gaps(), Relaxed);
        books.processes.store(self.processes.len() as u64, Relaxed);
        books.processes_refused.store(self.processes.refused, Relaxed);
        books.cgroups.store(self.containers.len() as u64, Relaxed);
        books.cgroups_refused.store(self.containers.refused, Relaxed);
    }
}

fn count_enrichment(who: &Who, books: &Books) {
    let counter = if who.container.is_some() { &books.enriched_container } else { &books.enriched_host };
    counter.fetch_add(1, Relaxed);
}
