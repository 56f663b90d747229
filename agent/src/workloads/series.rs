//! Series of workloads: they never go back, and their sum is what the node counted, whoever comes and goes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};
use tellwire_ebpf::{
    counters::{AUTH, BYTES_RECEIVED, BYTES_SENT, CONNECTS, CREDENTIALS, EXECS, EXITS, SESSIONS_OPENED},
    network::Outcome,
    pam,
    process::ExitReason,
};

use super::Placed;
use crate::enrich::container::Container;

/// What is counted of a workload: each is a series.
pub(crate) const FIELDS: usize = 8;

/// Executions that succeeded; connects that were established, and others; bytes sent and received; processes that the
/// OOM killer ended; attempts to authenticate that succeeded, and others.
pub(crate) type Sums = [u64; FIELDS];

/// A workload's series stay so long after its last cgroup.
const GRACE: Duration = Duration::from_mins(10);

/// Series of the node and of the agent, until a scrape has counted them.
const OWN: usize = 600;

/// Whose a count is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// In no container.
    Host,
    /// In a container that nobody has named yet.
    Unnamed,
    /// Of workloads that the budget has no room for.
    Overflow,
    /// Of workloads that are gone.
    Removed,
    Workload {
        namespace: Arc<str>,
        workload: Arc<str>,
        container: Arc<str>,
        pod: Option<Arc<str>>,
    },
}

/// All series, and the cgroups that they are made of.
#[derive(Debug)]
pub(crate) struct Series {
    placed: Option<tokio::sync::mpsc::Receiver<Placed>>,
    /// Whose the cgroups are that are containers'.
    containers: FxHashMap<(u64, u64), Arc<Container>>,
    /// Cgroups in which something was counted.
    places: FxHashMap<(u64, u64), Place>,
    slots: FxHashMap<Key, Slot>,
    /// Series at the most, and how many are no workload's.
    budget: usize,
    pub(crate) own: usize,
    pods: bool,
    /// Budget or keys are others than at the last look: each cgroup is asked again.
    is_reconfigured: bool,
    /// Cgroups whose workload had no room.
    pub(crate) refused: u64,
}

/// What was counted in a cgroup.
#[derive(Debug)]
struct Place {
    key: Key,
    /// As of now, in the kernel's map.
    live: Sums,
    /// What has left the map.
    kept: Sums,
    /// What was shown by the last scrape.
    shown: Sums,
    /// What was shown under another key, and stays there.
    elsewhere: Sums,
}

#[derive(Debug)]
struct Slot {
    /// Of cgroups that are gone.
    kept: Sums,
    /// When it had a cgroup last.
    used: Instant,
}

impl Slot {
    fn new(now: Instant) -> Self {
        Self { kept: Sums::default(), used: now }
    }
}

impl Default for Series {
    fn default() -> Self {
        Self {
            placed: None,
            containers: FxHashMap::default(),
            places: FxHashMap::default(),
            slots: FxHashMap::default(),
            budget: 1_000,
            own: OWN,
            pods: false,
            is_reconfigured: false,
            refused: 0,
        }
    }
}

/// Which of a workload's sums a counter of the kernel belongs to.
fn field(counter: u32) -> Option<usize> {
    match counter {
        EXECS => Some(0),
        CONNECTS..CREDENTIALS => {
            let outcome = (counter - CONNECTS) % 16;
            Some(if outcome == Outcome::Established as u32 { 1 } else { 2 })
        }
        BYTES_SENT => Some(3),
        BYTES_RECEIVED => Some(4),
        AUTH..SESSIONS_OPENED => {
            let outcome = (counter - AUTH) % 4;
            Some(if outcome == pam::Outcome::Success as u32 { 6 } else { 7 })
        }
        _ if counter == EXITS + ExitReason::OomKilled as u32 => Some(5),
        _ => None,
    }
}

fn add(to: &mut Sums, what: &Sums) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += what;
    }
}

impl Place {
    fn new() -> Self {
        Self {
            key: Key::Host,
            live: Sums::default(),
            kept: Sums::default(),
            shown: Sums::default(),
            elsewhere: Sums::default(),
        }
    }

    /// All that was counted, ever.
    fn total(&self) -> Sums {
        let mut total = self.live;
        add(&mut total, &self.kept);
        total
    }

    /// What its key has of it.
    fn part(&self) -> Sums {
        let mut part = self.total();
        for (part, elsewhere) in part.iter_mut().zip(&self.elsewhere) {
            *part = part.saturating_sub(*elsewhere);
        }
        part
    }
}

impl Series {
    /// Hears from here on whose cgroups are.
    pub(crate) fn listen(&mut self, placed: tokio::sync::mpsc::Receiver<Placed>) {
        self.placed = Some(placed);
    }

    /// How many series there may be, and whether pods have some of their own. Where that is another than before, cgroups
    /// are counted by it from now on; what they had counted stays where it was. A workload that has series keeps them.
    pub(crate) fn configure(&mut self, budget: usize, pods: bool) {
        self.is_reconfigured |= (self.budget, self.pods) != (budget, pods);
        (self.budget, self.pods) = (budget, pods);
    }

    /// Takes in what the kernel's map has now: cgroup, counter and value.
    pub(crate) fn update(&mut self, live: impl Iterator<Item = ((u64, u64), u32, u64)>, now: Instant) {
        while let Some(placed) = &mut self.placed
            && let Ok((cgroup, container)) = placed.try_recv()
        {
            self.containers.insert(cgroup, container);
        }
        for place in self.places.values_mut() {
            place.live = Sums::default();
        }
        for (cgroup, counter, value) in live {
            if let Some(sum) = field(counter)
                .and_then(|field| self.places.entry(cgroup).or_insert_with(Place::new).live.get_mut(field))
            {
                *sum += value;
            }
        }
        self.assign(now);
        self.expire(now);
    }

    /// Finds a cgroup's key once it is known. What was shown under the one before stays there.
    fn assign(&mut self, now: Instant) {
        let room = self.budget.saturating_sub(self.own) / FIELDS;
        let is_reconfigured = std::mem::take(&mut self.is_reconfigured);
        let Self { containers, places, slots, pods, refused, .. } = self;
        let mut workloads = slots.keys().filter(|key| matches!(key, Key::Workload { .. })).count();
        for (cgroup, place) in places {
            if is_reconfigured || matches!(place.key, Key::Host | Key::Unnamed) {
                let mut key = containers.get(cgroup).map_or(Key::Host, |container| key(container, *pods));
                if matches!(key, Key::Workload { .. }) && !slots.contains_key(&key) {
                    if workloads < room {
                        workloads += 1;
                    } else {
                        key = Key::Overflow;
                        *refused += u64::from(place.key != Key::Overflow);
                    }
                }
                if key != place.key {
                    let mut stays = place.shown;
                    for (stays, before) in stays.iter_mut().zip(&place.elsewhere) {
                        *stays = stays.saturating_sub(*before);
                    }
                    let old = std::mem::replace(&mut place.key, key);
                    add(&mut slots.entry(old).or_insert_with(|| Slot::new(now)).kept, &stays);
                    place.elsewhere = place.shown;
                }
            }
            slots.entry(place.key.clone()).or_insert_with(|| Slot::new(now)).used = now;
        }
    }

    /// Takes series away that had no cgroup for a while. What they counted stays in the sum.
    fn expire(&mut self, now: Instant) {
        let mut removed = Sums::default();
        self.slots.retain(|key, slot| {
            let is_kept = !matches!(key, Key::Workload { .. }) || now.duration_since(slot.used) < GRACE;
            if !is_kept {
                add(&mut removed, &slot.kept);
            }
            is_kept
        });
        if removed != Sums::default() {
            add(&mut self.slots.entry(Key::Removed).or_insert_with(|| Slot::new(now)).kept, &removed);
        }
    }

    /// A counter of a cgroup has left the kernel's map with this value.
    pub(crate) fn harvested(&mut self, cgroup: (u64, u64), counter: u32, value: u64) {
        let Some(place) = self.places.get_mut(&cgroup) else { return };
        if let Some(field) = field(counter)
            && let (Some(kept), Some(live)) = (place.kept.get_mut(field), place.live.get_mut(field))
        {
            *kept += value;
            *live = live.saturating_sub(value);
        }
    }

    /// These cgroups are gone, and all of their counters have left the map.
    pub(crate) fn gone(&mut self, cgroups: &FxHashSet<(u64, u64)>, now: Instant) {
        for cgroup in cgroups {
            self.containers.remove(cgroup);
            if let Some(place) = self.places.remove(cgroup) {
                let part = place.part();
                add(&mut self.slots.entry(place.key).or_insert_with(|| Slot::new(now)).kept, &part);
            }
        }
    }

    /// Adds what was counted without a cgroup, since the kernel's map was full.
    pub(crate) fn overflow(shown: &mut [(Key, Sums)], counter: u32, value: u64) {
        let overflow = shown.iter_mut().find(|(key, _)| *key == Key::Overflow);
        if let (Some((_, sums)), Some(field)) = (overflow, field(counter))
            && let Some(sum) = sums.get_mut(field)
        {
            *sum += value;
        }
    }

    /// Every series, in order; what is read here is shown.
    pub(crate) fn show(&mut self) -> Vec<(Key, Sums)> {
        let mut sums: std::collections::BTreeMap<Key, Sums> =
            self.slots.iter().map(|(key, slot)| (key.clone(), slot.kept)).collect();
        for key in [Key::Host, Key::Unnamed, Key::Overflow, Key::Removed] {
            sums.entry(key).or_default();
        }
        for place in self.places.values_mut() {
            add(sums.entry(place.key.clone()).or_default(), &place.part());
            place.shown = place.total();
        }
        sums.into_iter().collect()
    }
}

/// The key of what is counted in a container's cgroup.
fn key(container: &Container, pods: bool) -> Key {
    let Some(names) = container.names() else {
        // A name of free text is a container's only where its processes are found to be in one.
        return match (container.is_known(), container.is_started()) {
            (true, _) => Key::Unnamed,
            (false, true) => Key::Workload {
                namespace: "".into(),
                workload: container.id.as_str().into(),
                container: container.id.as_str().into(),
                pod: None,
            },
            (false, false) => Key::Host,
        };
    };
    let pod = names.pod.as_ref();
    let of_container = if names.is_sandbox { Some("__sandbox__".into()) } else { names.container.clone() };
    Key::Workload {
        namespace: pod.map_or_else(|| "".into(), |pod| Arc::clone(&pod.namespace)),
        workload: Arc::clone(&names.workload),
        container: of_container.unwrap_or_else(|| "".into()),
        pod: pod.filter(|_| pods).map(|pod| Arc::clone(&pod.name)),
    }
}

#[cfg(test)]
mod tests;
