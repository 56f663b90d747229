//! All rules at once: each condition gives the rules that it allows, and their intersection is what matches.
//!
//! So the work is a look-up for each condition that any rule has, and does not grow rule by rule.

use rustc_hash::FxHashMap;

use super::{
    args::Args,
    bits::Bits,
    facts::{Facts, Outcome},
    spec::Spec,
    tables::{ContainerTable, Globs, PortTable, Prefixes},
};
use crate::{config::UserSpec, events::action::Action};

#[derive(Debug)]
pub(super) struct Index {
    /// By action.
    actions: Vec<Bits>,
    /// By outcome, and for an event that has none.
    outcomes: [Bits; 4],
    any_user: Bits,
    uids: FxHashMap<u32, Bits>,
    names: FxHashMap<String, Bits>,
    any_executable: Bits,
    executables: Globs,
    any_container: Bits,
    containers: ContainerTable,
    any_namespace: Bits,
    namespaces: Globs,
    any_image: Bits,
    images: Globs,
    any_destination: Bits,
    destinations: Prefixes,
    any_port: Bits,
    ports: PortTable,
    any_args: Bits,
    args: Args,
    /// Rules after which no other is asked.
    decides: Bits,
}

impl Index {
    pub(super) fn new(specs: &[Spec]) -> anyhow::Result<Self> {
        let count = specs.len();
        let mut uids = FxHashMap::default();
        let mut names = FxHashMap::default();
        for (rule, spec) in specs.iter().enumerate() {
            for user in &spec.users {
                let of = match user {
                    UserSpec::Id(id) => uids.entry(*id).or_insert_with(|| Bits::none(count)),
                    UserSpec::Name(name) => names.entry(name.clone()).or_insert_with(|| Bits::none(count)),
                };
                of.set(rule);
            }
        }
        let outcome = |outcome| Bits::of(specs, |spec| spec.allows(outcome));
        Ok(Self {
            actions: Action::ALL
                .iter()
                .map(|action| Bits::of(specs, |spec| spec.can_match(*action)))
                .collect(),
            outcomes: [
                outcome(Some(Outcome::Success)),
                outcome(Some(Outcome::Failure)),
                outcome(Some(Outcome::Unknown)),
                outcome(None),
            ],
            any_user: Bits::of(specs, |spec| spec.users.is_empty()),
            uids,
            names,
            any_executable: Bits::of(specs, |spec| spec.executables.is_empty()),
            executables: Globs::new(rows(specs, |spec| &spec.executables), count)?,
            any_container: Bits::of(specs, |spec| spec.containers.is_empty()),
            containers: ContainerTable::new(rows(specs, |spec| &spec.containers), count),
            any_namespace: Bits::of(specs, |spec| spec.namespaces.is_empty()),
            namespaces: Globs::new(rows(specs, |spec| &spec.namespaces), count)?,
            any_image: Bits::of(specs, |spec| spec.images.is_empty()),
            images: Globs::new(rows(specs, |spec| &spec.images), count)?,
            any_destination: Bits::of(specs, |spec| spec.destinations.is_empty()),
            destinations: Prefixes::new(rows(specs, |spec| &spec.destinations), count),
            any_port: Bits::of(specs, |spec| spec.ports.is_empty()),
            ports: PortTable::new(rows(specs, |spec| &spec.ports), count),
            any_args: Bits::of(specs, |spec| spec.args.is_empty()),
            args: Args::new(rows(specs, |spec| &spec.args), count)?,
            decides: Bits::of(specs, |spec| spec.effect.decides()),
        })
    }

    /// Whether a rule asks for a user by name.
    pub(super) fn asks_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// The rules that match, up to the first that decides.
    pub(super) fn find(&mut self, facts: &Facts<'_>, hit: &mut Bits) {
        let Some(actions) = self.actions.get(facts.what.action as usize) else { return hit.clear() };
        hit.copy(actions);
        let outcome = facts.what.outcome.map_or(3, |outcome| outcome as usize);
        if let Some(outcomes) = self.outcomes.get(outcome) {
            hit.intersect(outcomes);
        }
        let (address, port) = facts.what.destination.unzip();
        if hit.exceeds(&self.any_user) {
            let by_name = facts.user_name.as_deref().and_then(|name| self.names.get(name));
            match (self.uids.get(&facts.uid), by_name) {
                (Some(by_id), Some(by_name)) => {
                    let mut found = by_id.clone();
                    found.add(by_name);
                    hit.narrow(&self.any_user, Some(&found));
                }
                (found, None) | (None, found) => hit.narrow(&self.any_user, found),
            }
        }
        if hit.exceeds(&self.any_destination) {
            let found = address.and_then(|address| self.destinations.get(address));
            hit.narrow(&self.any_destination, found);
        }
        if hit.exceeds(&self.any_port) {
            hit.narrow(&self.any_port, port.and_then(|port| self.ports.get(port)));
        }
        if hit.exceeds(&self.any_container) {
            let found = facts.container.map(|id| self.containers.get(id, facts.container_name));
            hit.narrow(&self.any_container, found);
        }
        for (any, globs, text) in [
            (&self.any_executable, &mut self.executables, facts.executable),
            (&self.any_namespace, &mut self.namespaces, facts.namespace),
            (&self.any_image, &mut self.images, facts.image),
        ] {
            if hit.exceeds(any) {
                hit.narrow(any, text.map(|text| globs.get(text)));
            }
        }
        if hit.exceeds(&self.any_args) {
            // Behind a rule that decides whatever the arguments are, they need not be looked at.
            let end = hit.first_common(&self.decides, &self.any_args);
            self.args.narrow(hit, &self.any_args, end.unwrap_or(usize::MAX), facts);
        }
    }
}

/// The rules that have this condition, with it.
fn rows<T: 'static>(specs: &[Spec], of: fn(&Spec) -> &Vec<T>) -> impl Iterator<Item = (usize, &[T])> + Clone {
    specs.iter().map(move |spec| of(spec).as_slice()).enumerate().filter(|(_, row)| !row.is_empty())
}
