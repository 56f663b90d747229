//! What the pipeline knows, and what a record does to it.

mod audit;
mod auth;
mod bursts;
mod containers;
mod merging;
mod network;
mod own;
mod privilege;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tellwire_ebpf::{
    cgroup::Cgroup,
    wire::{Header, Kind, Ring},
};
use tokio::sync::mpsc;

use self::{containers::Inventory, merging::Merging, privilege::privileges};
use super::{Judge, Outbox, Removed, folds::Folds};
use crate::{
    auth::{attempts::Attempts, bursts::Bursts, refusals::Refusals},
    books::{Books, Sequences},
    enrich::{
        containers::Containers,
        processes::{Image, Keys as _, Processes},
        users::Users,
        who::Who,
    },
    events::{self, Event, action::Action, exec::Exec, text::text},
    lines::{
        Line,
        build::{self, ExecTexts, Frame, Lineage},
        clock::Clock,
        origin::Origin,
    },
    metrics::Histograms,
    pam::PamBooks,
    rules::{Marks, What},
    runtimes::Asks,
    workloads::Places,
};

/// The tables, and what every line says of the host.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) processes: Processes,
    pub(crate) containers: Containers,
    pub(crate) users: Users,
    /// Who is asked what containers are called.
    asks: Asks,
    inventory: Option<Inventory>,
    /// Who is told which cgroup is whose, for metrics.
    pub(crate) places: Option<Places>,
    pub(crate) clock: Clock,
    origin: Origin,
    /// Connects that repeat, where the profile tells them together.
    pub(crate) folds: Folds,
    /// Whether lines have the arguments in one piece as well.
    pub(crate) command_line: bool,
    /// Calls of libpam that wait for their audit records, and the other way round.
    merging: Merging,
    /// Which files of libpam are probed.
    pub(crate) libraries: Option<Arc<PamBooks>>,
    pub(crate) attempts: Attempts,
    refusals: Refusals,
    pub(crate) bursts: Bursts,
    /// Only chosen cgroups are looked at.
    pub(crate) scoped: bool,
    /// Whether lines have names of failed logins that no user of the host has.
    pub(crate) shows_unknown_users: bool,
    /// The kernel's, in bytes.
    page_size: u64,
    /// What a process of this host can have at the most.
    all_capabilities: u64,
    histograms: Histograms,
    sequences: Sequences,
    timestamp: String,
    /// The host's mount namespace, where it is known.
    pub(crate) host_mounts: Option<u32>,
    /// May be replaced at any time.
    pub(crate) judge: Judge,
}

impl State {
    pub(crate) fn new(
        processes: Processes,
        containers: Containers,
        users: Users,
        origin: Origin,
        all_capabilities: u64,
        histograms: Histograms,
    ) -> Self {
        Self {
            processes,
            containers,
            users,
            asks: Asks::default(),
            inventory: None,
            places: None,
            clock: Clock::new(),
            origin,
            folds: Folds::new(Duration::from_mins(1)),
            command_line: false,
            merging: Merging::default(),
            libraries: None,
            attempts: Attempts::default(),
            refusals: Refusals::default(),
            bursts: Bursts::new(10, Duration::from_mins(1)),
            scoped: false,
            shows_unknown_users: false,
            page_size: rustix::param::page_size() as u64,
            all_capabilities,
            histograms,
            sequences: Sequences::default(),
            timestamp: String::new(),
            host_mounts: None,
            judge: Judge::default(),
        }
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
                self.event(ring, &header, (event, bytes), outbox, books, removed);
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
        (event, bytes): (Event<'_>, &[u8]),
        outbox: &mut Outbox,
        books: &Books,
        removed: &mpsc::Sender<Removed>,
    ) {
        let subject = &header.subject;
        match event {
            Event::CgroupMkdir(cgroup, path) => {
                self.cgroup_made(cgroup.hierarchy, cgroup.id, &text(path));
                self.judge.cgroup_made(cgroup.hierarchy, cgroup.id, &self.containers);
            }
            Event::CgroupRmdir(Cgroup { id, hierarchy, .. }) => {
                self.cgroup_removed(hierarchy, id, header.time, outbox, books);
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
            Event::Exit(exit) => self.exit(ring, header, &exit, outbox, books),
            Event::Connect(connect) => self.connect(ring, header, &connect, outbox, books),
            Event::Close(close) => self.close(ring, header, &close, outbox, books),
            Event::Pam(pam) => self.merge_pam(ring, (header, &pam, bytes), outbox, books),
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
            command_line: self.command_line.then(|| command_line(exec).into()),
        };
        let image = Image {
            executable: Arc::clone(&texts.executable),
            command_line: texts.command_line.clone(),
            privileges: privileges(exec),
            vpid: exec.wire.vpid,
            pid_namespace: exec.wire.namespaces.pid,
        };
        let before = self.processes.exec(header, &image, &self.containers);
        let who = Who::new(subject, &self.processes, &self.containers);
        self.container_begun(ring, header, &who, outbox, books);
        self.compare_exec(ring, header, exec, before, outbox, books);
        if !outbox.wants(Action::Exec, books) {
            return;
        }
        let what = What::success(Action::Exec);
        let Some(marks) = self.judge.judge(what, &who, Some(exec), &mut self.users, books) else { return };
        count_enrichment(&who, books);
        self.clock.write(header.time, &mut self.timestamp);
        let frame = Frame {
            header,
            who: &who,
            origin: &self.origin,
            profile: outbox.selection.profile,
            timestamp: &self.timestamp,
        };
        let parent = subject.parent_key();
        let lineage = Lineage::new(
            self.processes.ancestors(parent),
            self.processes.get(parent).and_then(|parent| parent.privileges).map(|parent| parent.effective),
        );
        let mut line = build::exec(&frame, exec, &texts, lineage, self.all_capabilities, &mut self.users);
        line.tellwire.login = build::login(&frame, Action::Exec, &self.processes, &mut self.users);
        line.mark(marks);
        outbox.put(Action::Exec, &line, ring, (header.time, self.clock.wall(header.time)), books);
    }

    /// Sees to it that the subject is in the table, and compares its ids with what they should be.
    fn meet(&mut self, ring: Ring, header: &Header, at: u64, outbox: &mut Outbox, books: &Books) {
        if self.processes.meet(&header.subject, at, &self.containers).is_some() {
            self.compare(ring, header, at, outbox, books);
        }
    }

    /// Makes the line of what happened, if it is wanted.
    fn line(
        &mut self,
        ring: Ring,
        header: &Header,
        what: What,
        outbox: &mut Outbox,
        books: &Books,
        build: impl for<'f> FnOnce(&Frame<'f>, u64, &mut Users) -> Line<'f>,
    ) {
        if outbox.wants(what.action, books) {
            self.wanted_line(ring, header, what, outbox, books, build);
        }
    }

    /// The same of what is wanted.
    fn wanted_line(
        &mut self,
        ring: Ring,
        header: &Header,
        what: What,
        outbox: &mut Outbox,
        books: &Books,
        build: impl for<'f> FnOnce(&Frame<'f>, u64, &mut Users) -> Line<'f>,
    ) {
        let who = Who::new(&header.subject, &self.processes, &self.containers);
        let Some(marks) = self.judge.judge(what, &who, None, &mut self.users, books) else { return };
        let told = Told { ring, header, action: what.action, who: &who, marks };
        self.make(told, outbox, books, build);
    }

    /// Builds and encodes a line.
    fn make(
        &mut self,
        told: Told<'_>,
        outbox: &mut Outbox,
        books: &Books,
        build: impl for<'f> FnOnce(&Frame<'f>, u64, &mut Users) -> Line<'f>,
    ) {
        let Told { ring, header, action, who, marks } = told;
        count_enrichment(who, books);
        self.clock.write(header.time, &mut self.timestamp);
        let frame = Frame {
            header,
            who,
            origin: &self.origin,
            profile: outbox.selection.profile,
            timestamp: &self.timestamp,
        };
        let mut line = build(&frame, self.page_size, &mut self.users);
        line.tellwire.login = build::login(&frame, action, &self.processes, &mut self.users);
        line.mark(marks);
        outbox.put(action, &line, ring, (header.time, self.clock.wall(header.time)), books);
    }

    /// Forgets what is old at `now`.
    pub(crate) fn expire(&mut self, now: u64) {
        self.processes.expire(now);
        self.containers.expire(now);
    }

    /// Copies sizes to where they are scraped.
    pub(crate) fn publish(&self, books: &Books) {
        books.sequence_gaps.store(self.sequences.gaps(), Relaxed);
        books.processes.store(self.processes.len() as u64, Relaxed);
        books.processes_refused.store(self.processes.refused, Relaxed);
        books.cgroups.store(self.containers.len() as u64, Relaxed);
        books.cgroups_refused.store(self.containers.refused, Relaxed);
        books.never_named.store(self.containers.never_named, Relaxed);
    }
}

/// What is told, and who did it.
struct Told<'a> {
    ring: Ring,
    header: &'a Header,
    action: Action,
    who: &'a Who,
    marks: Marks,
}

fn command_line(exec: &Exec<'_>) -> String {
    let mut line = String::new();
    exec.command_line(&mut line);
    line
}

fn count_enrichment(who: &Who, books: &Books) {
    let counter = if who.container.is_some() { &books.enriched_container } else { &books.enriched_host };
    counter.fetch_add(1, Relaxed);
    if let Some(container) = &who.container {
        containers::count_names(container, books);
    }
}
