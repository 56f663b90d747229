//! What can be changed while the programs run: their settings, and the cgroups that are looked at.
//!
//! The programs read both maps each time, so nothing is attached again.

use std::collections::HashSet;

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use tellwire_ebpf::settings::{CgroupKey, Settings};

use crate::scope::Scope;

const WORDS: usize = size_of::<Settings>() / 4;

/// As the map has it: id, hierarchy.
type Key = [u64; 2];

/// A cgroup that is made while the scope changes takes another look; more than that is a storm.
const LOOKS: usize = 8;

/// The maps that the programs are told by.
pub(crate) struct Controls {
    settings: Array<MapData, [u32; WORDS]>,
    scope: HashMap<MapData, Key, u8>,
}

impl Controls {
    pub(super) fn new(settings: MapData, scope: MapData) -> Result<Self, MapError> {
        Ok(Self {
            settings: Array::try_from(Map::Array(settings))?,
            scope: HashMap::try_from(Map::HashMap(scope))?,
        })
    }

    /// One update of one element. A program that runs meanwhile can see some of the words new and some old; each
    /// word means something by itself.
    pub(crate) fn set(&mut self, settings: &Settings) -> Result<(), MapError> {
        self.settings.set(0, words(settings), 0)
    }

    /// Looks at these cgroups instead. Those that stay are looked at throughout.
    pub(crate) fn set_scope(&mut self, scope: &Scope) -> Result<(), MapError> {
        self.add(scope)?;
        for _ in 0..LOOKS {
            // The map first: what `cgroup_mkdir` puts there is in the tree by then.
            let there: Vec<Key> = self.scope.keys().collect::<Result<_, _>>()?;
            let wanted: HashSet<Key> = keys(scope).collect();
            let gone: Vec<_> = there.into_iter().filter(|key| !wanted.contains(key)).collect();
            if gone.is_empty() {
                break;
            }
            for key in gone {
                // It may be gone by itself.
                let _gone = self.scope.remove(&key);
            }
        }
        // Those that were made below a cgroup before that was there itself.
        self.add(scope)
    }

    fn add(&mut self, scope: &Scope) -> Result<(), MapError> {
        keys(scope).try_for_each(|key| self.scope.insert(key, 1, 0))
    }
}

fn words(settings: &Settings) -> [u32; WORDS] {
    zerocopy::transmute!(*settings)
}

fn keys(scope: &Scope) -> impl Iterator<Item = Key> {
    scope.scan().into_iter().map(|CgroupKey { id, hierarchy }| [id, hierarchy])
}

/// The first settings, before anything is attached.
pub(super) fn first_settings(ebpf: &mut Ebpf, settings: &Settings) -> anyhow::Result<()> {
    let map = ebpf.map_mut("SETTINGS").ok_or_else(|| anyhow::anyhow!("the map SETTINGS is missing"))?;
    let mut map: Array<_, [u32; WORDS]> = Array::try_from(map)?;
    map.set(0, words(settings), 0)?;
    Ok(())
}

/// The first scope, once new cgroups are heard of.
pub(super) fn first_scope(ebpf: &mut Ebpf, scope: &Scope) -> anyhow::Result<()> {
    let map = ebpf.map_mut("SCOPE").ok_or_else(|| anyhow::anyhow!("the map SCOPE is missing"))?;
    let mut map: HashMap<_, Key, u8> = HashMap::try_from(map)?;
    for key in keys(scope) {
        map.insert(key, 1, 0)
            .map_err(|error| anyhow::anyhow!("more cgroups in scope than the map holds: {error}"))?;
    }
    Ok(())
}
