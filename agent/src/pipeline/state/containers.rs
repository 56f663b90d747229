//! Containers as events: what runs at the start, what starts and stops, and names that come after the first line.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use rustc_hash::FxHashSet;
use tellwire_ebpf::wire::{Header, Kind, Ring, Subject, VERSION};
use zerocopy::FromZeros as _;

use super::{State, Told as Line};
use crate::{
    books::Books,
    enrich::{
        cgroup_path::{Certainty, ContainerPath},
        container::{Container, FirstLine, Start},
        who::Who,
    },
    events::action::Action,
    lines::{build, clock::boot_now},
    pipeline::Outbox,
    rules::What,
    runtimes::{Asks, Found, Told},
};

/// What runs at the start is told without its names where no runtime answers for so long, in nanoseconds.
const PATIENCE: u64 = 2_000_000_000;

/// Containers that ran when the agent started, until they are told.
#[derive(Debug)]
pub(crate) struct Inventory {
    containers: Vec<Arc<Container>>,
    /// Runtimes that have not given their first list.
    waits_for: usize,
    /// When they are told in any case, by boot time.
    due: u64,
}

impl State {
    /// Notes which containers run, to be told once the runtimes have named them. `scope` are the cgroups that are
    /// looked at, where not all are.
    pub(crate) fn take_inventory(&mut self, asks: Asks, scope: Option<&FxHashSet<(u64, u64)>>) {
        use tellwire_ebpf::settings::CgroupKey;
        let mut seen = FxHashSet::default();
        let mut containers = Vec::new();
        for (container, (v2, v1)) in self.processes.containers() {
            let is_looked_at = scope.is_none_or(|scope| {
                scope.contains(&(CgroupKey::V2, v2)) || scope.contains(&(CgroupKey::V1, v1))
            });
            if seen.insert(Arc::as_ptr(container)) {
                container.begin();
                if is_looked_at {
                    containers.push(Arc::clone(container));
                }
            }
        }
        containers.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let waits_for = asks.len();
        self.inventory = Some(Inventory { containers, waits_for, due: boot_now() + PATIENCE });
        self.asks = asks;
    }

    /// Tells what ran already, if it is time; `None` for the end of the run.
    pub(crate) fn tell_inventory(&mut self, now: Option<u64>, outbox: &mut Outbox, books: &Books) {
        let is_due = self
            .inventory
            .as_ref()
            .is_some_and(|inventory| inventory.waits_for == 0 || now.is_none_or(|now| now >= inventory.due));
        if !is_due {
            return;
        }
        let Some(inventory) = self.inventory.take() else { return };
        for container in inventory.containers.iter().filter(|container| container.is_started()) {
            self.tell_container(Action::ContainerRunning, container, outbox, books);
        }
    }

    /// A cgroup was made; asks for the names of its container, if that is a new one.
    pub(super) fn cgroup_made(&mut self, hierarchy: u64, id: u64, path: &str) {
        let Some(container) = self.containers.made(hierarchy, id, path) else { return };
        if let Some(places) = &self.places {
            places.placed((hierarchy, id), &container);
        }
        if container.is_known() && container.names().is_none() {
            self.asks.ask(&container.id);
        }
    }

    /// A cgroup was removed; tells the container's end if it was the last one.
    pub(super) fn cgroup_removed(
        &mut self,
        hierarchy: u64,
        id: u64,
        time: u64,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        if let Some(container) = self.containers.removed(hierarchy, id, time)
            && container.end()
        {
            self.tell_container_at(time, Action::ContainerStopped, &container, outbox, books);
        }
    }

    /// A program was executed; tells the container's start if it is the first one there, and its end where that was read before.
    pub(super) fn container_begun(
        &mut self,
        ring: Ring,
        header: &Header,
        who: &Who,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        let Some(container) = &who.container else { return };
        let Some(start) = container.begin() else { return };
        self.tell_start(ring, header, who, outbox, books);
        if let Start::Gone(time) = start {
            self.tell_container_at(time, Action::ContainerStopped, container, outbox, books);
        }
    }

    fn tell_start(&mut self, ring: Ring, header: &Header, who: &Who, outbox: &mut Outbox, books: &Books) {
        Books::add(&books.derived, Action::ContainerStarted as usize);
        if !outbox.wants(Action::ContainerStarted, books) {
            return;
        }
        let what = What::success(Action::ContainerStarted);
        let Some(marks) = self.judge.judge(what, who, None, &mut self.users, books) else { return };
        let told = Line { ring, header, action: Action::ContainerStarted, who, marks };
        self.make(told, outbox, books, |frame, _, users| build::container_started(frame, users));
    }

    /// Takes in what a runtime tells.
    pub(crate) fn runtime_told(&mut self, told: Told, outbox: &mut Outbox, books: &Books) {
        match told {
            Told::Found(found) => self.name(&found, outbox, books),
            Told::Created(found) => {
                self.name(&found, outbox, books);
                // Without a cgroup nobody knows whether it is one of those that are looked at.
                if !self.scoped {
                    let container = match self.containers.by_id(&found.id) {
                        Some(container) => Arc::clone(container),
                        None => Arc::new(to_come(&found)),
                    };
                    self.tell_container(Action::ContainerCreated, &container, outbox, books);
                }
            }
            Told::Removed(id) => self.containers.unnamed(&id),
            Told::Listed => {
                if let Some(inventory) = &mut self.inventory {
                    inventory.waits_for = inventory.waits_for.saturating_sub(1);
                }
            }
        }
    }

    fn name(&mut self, Found { id, names }: &Found, outbox: &mut Outbox, books: &Books) {
        let Some(container) = self.containers.named(id, names) else { return };
        if container.take_unnamed() {
            Books::count(&books.named_late);
            self.tell_container(Action::ContainerNamed, &container, outbox, books);
        }
    }

    fn tell_container(
        &mut self,
        action: Action,
        container: &Arc<Container>,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        self.tell_container_at(boot_now(), action, container, outbox, books);
    }

    /// Makes a line about a container that no process of it gave rise to.
    fn tell_container_at(
        &mut self,
        time: u64,
        action: Action,
        container: &Arc<Container>,
        outbox: &mut Outbox,
        books: &Books,
    ) {
        Books::add(&books.derived, action as usize);
        if !outbox.wants(action, books) {
            return;
        }
        // What is read of the header are its time and its subject, which is nobody.
        let header = Header {
            len: 0,
            version: VERSION,
            kind: Kind::CgroupMkdir as u8,
            flags: 0,
            time,
            sequence: 0,
            cpu: 0,
            redacted: 0,
            subject: Subject::new_zeroed(),
        };
        let mut who = Who::new(&header.subject, &self.processes, &self.containers);
        who.name = "".into();
        who.container = Some(Arc::clone(container));
        let Some(marks) = self.judge.judge(What::success(action), &who, None, &mut self.users, books) else {
            return;
        };
        let told = Line { ring: Ring::Urgent, header: &header, action, who: &who, marks };
        self.make(told, outbox, books, |frame, _, users| build::container(frame, action, users));
    }
}

/// A container that has no cgroup yet, as its runtime tells it.
fn to_come(found: &Found) -> Container {
    let container = Container::new(ContainerPath {
        id: found.id.to_string(),
        runtime: None,
        pod: None,
        certainty: Certainty::Known,
    });
    container.name(&found.names);
    container
}

/// Counts whether a container's first line has its names.
pub(super) fn count_names(container: &Container, books: &Books) {
    if !container.is_known() {
        return;
    }
    if container.on_line() == Some(FirstLine::Named) {
        books.named_at_once.fetch_add(1, Relaxed);
    }
}
