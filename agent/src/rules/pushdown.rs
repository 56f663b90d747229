//! What the kernel can do by itself, see [`tellwire_ebpf::filter`].
//!
//! Every rule that decides has a slot there, as long as a rule that drops follows. A slot drops only if the kernel
//! knows all that the rule asks; any other hands the event over, and asks as much of the rule's conditions as the
//! kernel knows for certain. So the first slot that matches is never one behind the rule that decides.

use std::{collections::BTreeMap, fmt};

use tellwire_ebpf::filter::{Filter, Mask, SLOTS, WORDS};

use super::{
    bits::Bits,
    facts::Outcome,
    spec::{Effect, Spec},
    tables::{ContainerTable, PortTable, Prefixes},
};
use crate::{
    config::{Network, UserSpec},
    events::action::Action,
};

/// Records that no table of the agent lives on. Of the others the agent needs every one.
const KINDS: [Action; 2] = [Action::Connect, Action::ExecFailed];

/// Half of what the kernel's maps hold: old rules and new ones are there at the same time.
const MAX_USERS: usize = 512;
const MAX_PREFIXES: usize = 8192;

/// Where a rule is judged, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) rule: String,
    /// Events that the kernel drops by this rule.
    pub(crate) in_kernel: Vec<Action>,
    pub(crate) why: String,
}

impl fmt::Display for Placement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule: _, in_kernel, why } = self;
        match in_kernel.as_slice() {
            [] => write!(formatter, "in the agent: {why}"),
            [only] => write!(formatter, "in the kernel for {}: {why}", only.name()),
            [one, other, ..] => {
                write!(formatter, "in the kernel for {} and {}: {why}", one.name(), other.name())
            }
        }
    }
}

/// The kernel's tables.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) filter: Filter,
    pub(crate) users: Vec<(u32, Mask)>,
    /// Cgroups come and go: their masks are asked for when they do.
    pub(crate) containers: ContainerTable,
    pub(crate) destinations: Vec<(Network, Mask)>,
    /// A port, how many of its 16 bits count, and what they allow.
    pub(crate) ports: Vec<(u16, u8, Mask)>,
    /// The rule of each slot.
    pub(crate) slots: Vec<usize>,
}

impl Table {
    /// Whether the kernel drops nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slots that allow a container.
    pub(crate) fn container(&mut self, id: &str) -> Option<Mask> {
        let found = self.containers.get(id, None);
        found.first().is_some().then(|| mask(found))
    }
}

/// A rule in the kernel.
struct Slot<'a> {
    rule: usize,
    spec: &'a Spec,
    drops: bool,
}

impl Slot<'_> {
    /// The users that the kernel can tell: numbers alone.
    fn uids(&self) -> Option<Vec<u32>> {
        let id = |user: &UserSpec| match user {
            UserSpec::Id(id) => Some(*id),
            UserSpec::Name(_) => None,
        };
        self.spec.users.iter().map(id).collect::<Option<Vec<_>>>().filter(|uids| !uids.is_empty())
    }

    /// The containers; a slot that hands over must not miss one whose cgroup the agent has not told yet.
    fn containers(&self) -> &[String] {
        if self.drops { &self.spec.containers } else { &[] }
    }

    /// Whether nothing of this kind gets past it.
    fn takes_all(&self, kind: Action) -> bool {
        let Self { rule: _, spec, drops: _ } = self;
        spec.can_match(kind)
            && (spec.outcomes.is_none() || kind == Action::ExecFailed)
            && self.uids().is_none()
            && self.containers().is_empty()
            && spec.destinations.is_empty()
            && spec.ports.is_empty()
    }
}

/// The kernel's tables, and where each rule is judged.
pub(crate) fn plan(specs: &[Spec]) -> (Table, Vec<Placement>) {
    let mut slots: Vec<Slot<'_>> = Vec::new();
    for (rule, spec) in specs.iter().enumerate() {
        if spec.effect.decides() && KINDS.iter().any(|kind| spec.can_match(*kind)) && slots.len() < SLOTS {
            let drops = spec.effect == Effect::Drop && unknown(spec).is_empty();
            slots.push(Slot { rule, spec, drops });
        }
    }
    let table = loop {
        // What follows the last rule that drops is the agent's in any case.
        let len = slots.iter().rposition(|slot| slot.drops).map_or(0, |last| last + 1);
        slots.truncate(len);
        let table = table(&slots);
        let prefixes = table.destinations.len().max(table.ports.len());
        if slots.is_empty() || (table.users.len() <= MAX_USERS && prefixes <= MAX_PREFIXES) {
            break table;
        }
        slots.pop();
    };
    let placements = specs.iter().enumerate().map(|(rule, spec)| placement(rule, spec, &slots)).collect();
    (table, placements)
}

fn table(slots: &[Slot<'_>]) -> Table {
    let is = |holds: &dyn Fn(&Slot<'_>) -> bool| mask(&Bits::of(slots, |slot| holds(slot)));
    let kind = |kind: Action| is(&|slot| slot.spec.can_match(kind));
    let outcome = |outcome| is(&|slot| slot.spec.allows(Some(outcome)));
    let rows = || slots.iter().enumerate();
    let mut users: BTreeMap<u32, Bits> = BTreeMap::new();
    for (number, slot) in rows() {
        for uid in slot.uids().unwrap_or_default() {
            users.entry(uid).or_insert_with(|| Bits::none(slots.len())).set(number);
        }
    }
    let destinations =
        Prefixes::new(rows().map(|(number, slot)| (number, slot.spec.destinations.as_slice())), slots.len());
    let ports =
        PortTable::new(rows().map(|(number, slot)| (number, slot.spec.ports.as_slice())), slots.len());
    let empty = slots.is_empty();
    Table {
        filter: Filter {
            connect: kind(Action::Connect),
            exec_failed: kind(Action::ExecFailed),
            drops: is(&|slot| slot.drops),
            any_user: is(&|slot| slot.uids().is_none()),
            any_container: is(&|slot| slot.containers().is_empty()),
            any_destination: is(&|slot| slot.spec.destinations.is_empty()),
            any_port: is(&|slot| slot.spec.ports.is_empty()),
            outcomes: [outcome(Outcome::Success), outcome(Outcome::Failure), outcome(Outcome::Unknown)],
        },
        users: users.iter().map(|(uid, rules)| (*uid, mask(rules))).collect(),
        containers: ContainerTable::new(
            rows().map(|(number, slot)| (number, slot.containers())),
            slots.len(),
        ),
        destinations: destinations.iter().map(|(network, rules)| (network, mask(rules))).collect(),
        ports: if empty {
            Vec::new()
        } else {
            ports.prefixes().into_iter().map(|(port, bits, rules)| (port, bits, mask(rules))).collect()
        },
        slots: slots.iter().map(|slot| slot.rule).collect(),
    }
}

fn mask(bits: &Bits) -> Mask {
    let mut words = bits.0.iter();
    [(); WORDS].map(|()| words.next().copied().unwrap_or(0))
}

/// The conditions that the kernel cannot answer, as the keys that say them.
fn unknown(spec: &Spec) -> Vec<&'static str> {
    let mut unknown = Vec::new();
    for (key, asks) in [
        ("executables", !spec.executables.is_empty()),
        ("args", !spec.args.is_empty()),
        ("namespaces", !spec.namespaces.is_empty()),
        ("images", !spec.images.is_empty()),
        (
            "users by name (write their numbers)",
            spec.users.iter().any(|user| matches!(user, UserSpec::Name(_))),
        ),
    ] {
        if asks {
            unknown.push(key);
        }
    }
    unknown
}

fn placement(rule: usize, spec: &Spec, slots: &[Slot<'_>]) -> Placement {
    let agent = |why: String| Placement { rule: spec.name.to_string(), in_kernel: Vec::new(), why };
    if spec.effect != Effect::Drop {
        return agent("only drop is done in the kernel".into());
    }
    let kinds: Vec<Action> = KINDS.into_iter().filter(|kind| spec.can_match(*kind)).collect();
    if kinds.is_empty() {
        return agent(
            "its process table needs these records; only connect and exec_failed are dropped before".into(),
        );
    }
    let unknown = unknown(spec);
    if !unknown.is_empty() {
        return agent(format!("the kernel does not know {}", unknown.join(", ")));
    }
    let Some(slot) = slots.iter().position(|slot| slot.rule == rule) else {
        return agent("the kernel's tables are full".into());
    };
    let before = slots.get(..slot).unwrap_or_default();
    let taker = |kind: Action| before.iter().find(|before| before.takes_all(kind));
    let in_kernel: Vec<Action> = kinds.iter().copied().filter(|kind| taker(*kind).is_none()).collect();
    if in_kernel.is_empty() {
        let taker = kinds.first().and_then(|kind| taker(*kind)).map_or("", |slot| &slot.spec.name);
        return agent(format!(
            "rule {taker} before it is judged there, and may match the same events: move it up"
        ));
    }
    let handed: Vec<&str> = before
        .iter()
        .filter(|slot| !slot.drops && in_kernel.iter().any(|kind| slot.spec.can_match(*kind)))
        .map(|slot| &*slot.spec.name)
        .collect();
    let mut why = String::from("all its conditions are known there");
    if !handed.is_empty() {
        why = format!("{why}; what may match {} is judged in the agent", handed.join(", "));
    }
    let others = Action::ALL.iter().any(|action| spec.can_match(*action) && !in_kernel.contains(action));
    if others {
        why = format!("{why}; other types in the agent");
    }
    Placement { rule: spec.name.to_string(), in_kernel, why }
}
