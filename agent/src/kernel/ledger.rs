//! The kernel's books, read from its maps: what became of each record, and what happened in each cgroup.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use rustc_hash::{FxHashMap, FxHashSet};
use tellwire_ebpf::{
    counters::{self, CountKey, Ledger},
    wire::Kind,
};
use tokio::sync::mpsc;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::{
    config,
    workloads::{Key, Placed, Series, Sums},
};

/// Words of a [`Ledger`]: aya reads arrays of words, not structs of another crate.
type LedgerWords = [u64; size_of::<Ledger>() / 8];
type CountKeyWords = [u64; size_of::<CountKey>() / 8];

/// The maps that the programs count in.
pub(crate) struct KernelBooks {
    ledger: PerCpuArray<MapData, LedgerWords>,
    overflow: Array<MapData, u64>,
    counts: Mutex<Counts>,
}

/// Counters by cgroup, and what those of removed cgroups came to.
struct Counts {
    live: HashMap<MapData, CountKeyWords, u64>,
    /// Sums of the counters that were taken out of the map.
    harvested: Vec<u64>,
    /// Counters of removed cgroups, with the value that was last seen. A counter leaves the map only once it
    /// has stood still from one sweep to the next: a socket can report for its dead owner's cgroup.
    still: FxHashMap<CountKeyWords, u64>,
    /// The same by workload.
    series: Series,
}

impl KernelBooks {
    pub(crate) fn new(ledger: MapData, counts: MapData, overflow: MapData) -> Result<Self, MapError> {
        Ok(Self {
            ledger: PerCpuArray::try_from(aya::maps::Map::PerCpuArray(ledger))?,
            overflow: Array::try_from(aya::maps::Map::Array(overflow))?,
            counts: Mutex::new(Counts {
                live: HashMap::try_from(aya::maps::Map::HashMap(counts))?,
                harvested: vec![0; counters::END as usize],
                still: FxHashMap::default(),
                series: Series::default(),
            }),
        })
    }

    /// The ledger of each kind, summed over CPUs, by the kind's number.
    pub(crate) fn ledgers(&self) -> Result<[Ledger; Kind::COUNT], MapError> {
        let mut ledgers =
            [Ledger { seen: 0, submitted: 0, ring_full: 0, filtered: 0, throttled: 0, state_lost: 0 };
                Kind::COUNT];
        for (index, ledger) in (0_u32..).zip(&mut ledgers) {
            for words in self.ledger.get(&index, 0)?.iter() {
                let cpu = Ledger::read_from_bytes(words.as_bytes()).unwrap_or(*ledger);
                ledger.seen += cpu.seen;
                ledger.submitted += cpu.submitted;
                ledger.ring_full += cpu.ring_full;
                ledger.filtered += cpu.filtered;
                ledger.throttled += cpu.throttled;
                ledger.state_lost += cpu.state_lost;
            }
        }
        Ok(ledgers)
    }

    /// Every counter summed over all cgroups, those that are gone too, by the counter's number.
    pub(crate) fn totals(&self) -> Result<Totals, MapError> {
        let mut counts = self.counts();
        let Counts { live, harvested, still: _, series } = &mut *counts;
        let mut sums = harvested.clone();
        let pairs = live.iter().collect::<Result<Vec<_>, _>>()?;
        for (key, value) in &pairs {
            add(&mut sums, *key, *value);
        }
        series.update(parsed(&pairs), Instant::now());
        let mut workloads = series.show();
        let refused = series.refused;
        drop(counts);
        let mut overflow = 0;
        for (index, sum) in (0_u32..).zip(&mut sums) {
            let value = self.overflow.get(&index, 0)?;
            overflow += value;
            *sum += value;
            if value != 0 {
                Series::overflow(&mut workloads, index, value);
            }
        }
        Ok(Totals { sums, entries: pairs.len() as u64, overflow, workloads, workloads_refused: refused })
    }

    /// Takes the counters of cgroups that are gone out of the map, keeping their sums.
    ///
    /// Gives back those that still have counters there: hierarchy and id.
    pub(crate) fn sweep(
        &self,
        is_gone: impl Fn(&CountKey) -> bool,
    ) -> Result<FxHashSet<(u64, u64)>, MapError> {
        let mut counts = self.counts();
        let Counts { live, harvested, still, series } = &mut *counts;
        let mut candidates = FxHashMap::default();
        let mut left = FxHashSet::default();
        let pairs = live.iter().collect::<Result<Vec<_>, _>>()?;
        series.update(parsed(&pairs), Instant::now());
        for (key, value) in pairs {
            let Ok(parsed) = CountKey::read_from_bytes(key.as_bytes()) else { continue };
            if is_gone(&parsed) {
                candidates.insert(key, (value, (u64::from(parsed.hierarchy), parsed.cgroup)));
            }
        }
        for (key, (value, cgroup)) in &candidates {
            if still.get(key) == Some(value) {
                // Between this read and the removal only a late socket's report could be lost, and none came
                // for a whole sweep.
                let value = live.get(key, 0).unwrap_or(*value);
                if live.remove(key).is_ok() {
                    add(harvested, *key, value);
                    if let Ok(key) = CountKey::read_from_bytes(key.as_bytes()) {
                        series.harvested(*cgroup, key.counter, value);
                    }
                    continue;
                }
            }
            left.insert(*cgroup);
        }
        *still = candidates.into_iter().map(|(key, (value, _))| (key, value)).collect();
        Ok(left)
    }

    /// What is known of a cgroup that is gone, and has no counters in the map any more, is folded up.
    pub(crate) fn forget(&self, gone: &FxHashSet<(u64, u64)>) {
        self.counts().series.gone(gone, Instant::now());
    }

    /// How workloads are counted.
    pub(crate) fn configure(&self, config: &config::Metrics) {
        self.counts().series.configure(config.series.get() as usize, config.pods);
    }

    /// Hears from here on whose cgroups are.
    pub(crate) fn listen(&self, placed: mpsc::Receiver<Placed>) {
        self.counts().series.listen(placed);
    }

    /// How many series are no workload's.
    pub(crate) fn count_own_series(&self, own: usize) {
        self.counts().series.own = own;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cgroup, counter and value.
fn parsed(pairs: &[(CountKeyWords, u64)]) -> impl Iterator<Item = ((u64, u64), u32, u64)> {
    pairs.iter().filter_map(|(key, value)| {
        let key = CountKey::read_from_bytes(key.as_bytes()).ok()?;
        Some(((u64::from(key.hierarchy), key.cgroup), key.counter, *value))
    })
}

fn add(sums: &mut [u64], key: CountKeyWords, value: u64) {
    if let Ok(key) = CountKey::read_from_bytes(key.as_bytes())
        && let Some(sum) = sums.get_mut(key.counter as usize)
    {
        *sum += value;
    }
}

/// What happened on the node.
#[derive(Debug)]
pub(crate) struct Totals {
    /// By the counter's number, see [`tellwire_ebpf::counters`].
    pub(crate) sums: Vec<u64>,
    /// Counters in the map.
    pub(crate) entries: u64,
    /// What was counted without its cgroup, since the map was full.
    pub(crate) overflow: u64,
    /// What happened by workload: its sums are those of `sums`.
    pub(crate) workloads: Vec<(Key, Sums)>,
    /// Cgroups whose workload the budget had no room for.
    pub(crate) workloads_refused: u64,
}
