//! The rules that the kernel judges by itself: their tables are written here, and their counts read.
//!
//! New rules are written into the half of the tables that no program looks at, and then that half is named in one
//! word. The old half stays as it is until the next change, so that a program in the middle of an event still
//! finds what it began with.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use aya::maps::{
    Array, HashMap, MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use tellwire_ebpf::{
    filter::{DestinationKey, Filter, HALVES, Mask, PortKey, SLOTS},
    settings::CgroupKey,
};

use super::Kernel;
use crate::{
    enrich::containers::Containers,
    rules::{RuleCounts, Rules, Table, plan},
};

/// Words of a [`Filter`]: aya writes arrays of words, not structs of another crate.
const FILTER_WORDS: usize = size_of::<Filter>() / 8;

type Destination = [u8; size_of::<DestinationKey>()];
type Port = [u8; size_of::<PortKey>()];

/// The kernel's side of the rules.
pub(crate) struct KernelFilter(Mutex<Inner>);

struct Inner {
    active: Array<MapData, u32>,
    filters: Array<MapData, [u64; FILTER_WORDS]>,
    users: HashMap<MapData, [u32; 2], Mask>,
    cgroups: HashMap<MapData, [u64; 2], Mask>,
    destinations: LpmTrie<MapData, Destination, Mask>,
    ports: LpmTrie<MapData, Port, Mask>,
    counts: Array<MapData, u64>,
    /// Which of the two the programs look at, or looked at last.
    half: usize,
    halves: [Half; HALVES],
}

/// What stands in one half of the tables.
#[derive(Default)]
struct Half {
    table: Option<Table>,
    users: Vec<[u32; 2]>,
    cgroups: Vec<[u64; 2]>,
    destinations: Vec<Key<Destination>>,
    ports: Vec<Key<Port>>,
    /// By slot: whose events it counts, and how many were told to it. The kernel never clears its counts.
    slots: Vec<(Arc<RuleCounts>, u64)>,
}

impl KernelFilter {
    /// Takes the maps. Once.
    pub(super) fn new(kernel: &mut Kernel) -> anyhow::Result<Self> {
        let Kernel { ebpf, .. } = kernel;
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("the map {name} is missing"));
        let inner = Inner {
            active: Array::try_from(take("FILTER_ACTIVE")?)?,
            filters: Array::try_from(take("FILTERS")?)?,
            users: HashMap::try_from(take("FILTER_USERS")?)?,
            cgroups: HashMap::try_from(take("FILTER_CGROUPS")?)?,
            destinations: LpmTrie::try_from(take("FILTER_DESTINATIONS")?)?,
            ports: LpmTrie::try_from(take("FILTER_PORTS")?)?,
            counts: Array::try_from(take("FILTER_COUNTS")?)?,
            half: 0,
            halves: Default::default(),
        };
        Ok(Self(Mutex::new(inner)))
    }

    /// Puts rules to work in the place of those that were. Until then, and where the tables cannot be written, the
    /// agent judges alone.
    pub(crate) fn apply(&self, rules: &Rules, containers: &Containers) -> Result<(), MapError> {
        let mut inner = self.lock();
        // What the slots counted for the rules before is theirs.
        inner.collect()?;
        let (table, _) = plan(rules.specs());
        if table.is_empty() {
            return inner.active.set(0, 0, 0);
        }
        let next = (inner.half + 1) % HALVES;
        match inner.write(next, table, rules, containers) {
            Ok(()) => {
                inner.half = next;
                inner.active.set(0, number(next) + 1, 0)
            }
            Err(error) => {
                inner.active.set(0, 0, 0)?;
                Err(error)
            }
        }
    }

    /// A cgroup of a container was made.
    pub(crate) fn cgroup_made(&self, hierarchy: u64, id: u64, container: &str) {
        let mut inner = self.lock();
        let half = inner.half;
        // A full map leaves the cgroup to the agent.
        let _full = inner.allow(half, hierarchy, id, container);
    }

    /// A cgroup was removed.
    pub(crate) fn cgroup_removed(&self, hierarchy: u64, id: u64) {
        let mut inner = self.lock();
        for half in 0..HALVES {
            let key = cgroup_key(hierarchy, id, half);
            if inner.halves.get_mut(half).is_some_and(|half| {
                let before = half.cgroups.len();
                half.cgroups.retain(|other| *other != key);
                half.cgroups.len() < before
            }) {
                let _gone = inner.cgroups.remove(&key);
            }
        }
    }

    /// Tells the rules what the kernel dropped by them since it was last asked.
    pub(crate) fn collect(&self) -> Result<(), MapError> {
        self.lock().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes a half that no program looks at.
    fn write(
        &mut self,
        half: usize,
        table: Table,
        rules: &Rules,
        containers: &Containers,
    ) -> Result<(), MapError> {
        self.clear(half)?;
        let asks_containers = !table.containers.is_empty();
        let mut written = Half::default();
        let filled = self.fill(half, &table, rules, &mut written);
        written.table = Some(table);
        // Even if it is not all: what was written is taken out some day.
        if let Some(place) = self.halves.get_mut(half) {
            *place = written;
        }
        filled?;
        if asks_containers {
            for ((hierarchy, id), container) in containers.known() {
                let _full = self.allow(half, hierarchy, id, container);
            }
        }
        Ok(())
    }

    fn fill(
        &mut self,
        half: usize,
        table: &Table,
        rules: &Rules,
        written: &mut Half,
    ) -> Result<(), MapError> {
        let filter: [u64; FILTER_WORDS] = zerocopy::transmute!(table.filter);
        self.filters.set(number(half), filter, 0)?;
        for (uid, mask) in &table.users {
            let key = [*uid, number(half)];
            self.users.insert(key, mask, 0)?;
            written.users.push(key);
        }
        for (network, mask) in &table.destinations {
            let key = DestinationKey { half: number(half), address: network.address.to_be_bytes() };
            let key = Key::new(32 + u32::from(network.bits), zerocopy::transmute!(key));
            self.destinations.insert(&key, mask, 0)?;
            written.destinations.push(key);
        }
        for (port, bits, mask) in &table.ports {
            let key = PortKey { half: u16::from(half != 0), port: port.to_be_bytes() };
            let key = Key::new(16 + u32::from(*bits), zerocopy::transmute!(key));
            self.ports.insert(&key, mask, 0)?;
            written.ports.push(key);
        }
        for (slot, rule) in table.slots.iter().enumerate() {
            let Some(counts) = rules.counts().get(*rule) else { continue };
            let counted = self.counts.get(&place(half, slot), 0)?;
            written.slots.push((Arc::clone(counts), counted));
        }
        Ok(())
    }

    /// Takes out what rules that are no more at work left.
    fn clear(&mut self, half: usize) -> Result<(), MapError> {
        let Some(old) = self.halves.get_mut(half).map(std::mem::take) else { return Ok(()) };
        let Half { table: _, users, cgroups, destinations, ports, slots: _ } = old;
        for key in users {
            self.users.remove(&key)?;
        }
        for key in cgroups {
            let _gone = self.cgroups.remove(&key);
        }
        for key in destinations {
            self.destinations.remove(&key)?;
        }
        for key in ports {
            self.ports.remove(&key)?;
        }
        Ok(())
    }

    /// Lets the slots of a half know a container's cgroup.
    fn allow(&mut self, half: usize, hierarchy: u64, id: u64, container: &str) -> Result<(), MapError> {
        let Some(place) = self.halves.get_mut(half) else { return Ok(()) };
        let Some(mask) = place.table.as_mut().and_then(|table| table.container(container)) else {
            return Ok(());
        };
        let key = cgroup_key(hierarchy, id, half);
        self.cgroups.insert(key, mask, 0)?;
        place.cgroups.push(key);
        Ok(())
    }

    fn collect(&mut self) -> Result<(), MapError> {
        for (half, written) in self.halves.iter_mut().enumerate() {
            for (slot, (rule, told)) in written.slots.iter_mut().enumerate() {
                let count = self.counts.get(&place(half, slot), 0)?;
                rule.leave_out(count.wrapping_sub(*told));
                *told = count;
            }
        }
        Ok(())
    }
}

/// A half as the kernel numbers it.
fn number(half: usize) -> u32 {
    u32::from(half != 0)
}

/// Where a slot of a half is counted.
fn place(half: usize, slot: usize) -> u32 {
    u32::try_from(half * SLOTS + slot).unwrap_or(u32::MAX)
}

/// The words of a `ContainerKey`: hierarchy and half share the second, as the machine orders its bytes.
fn cgroup_key(hierarchy: u64, id: u64, half: usize) -> [u64; 2] {
    let hierarchy = u32::from(hierarchy == CgroupKey::V2) + 1;
    let key = tellwire_ebpf::filter::ContainerKey { id, hierarchy, half: number(half) };
    zerocopy::transmute!(key)
}

impl std::fmt::Debug for KernelFilter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KernelFilter").finish_non_exhaustive()
    }
}
