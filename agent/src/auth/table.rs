//! A table of fixed size, whoever fills it: a full set gives up the entry that matters least.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hash},
};

/// Entries that one key can displace.
const WAYS: usize = 8;

/// What an entry is worth when another one wants its place.
pub(super) trait Worth {
    /// The least goes.
    fn worth(&self) -> (bool, u64, u64);
}

/// Keys in sets of eight. Hashes differ from run to run: nobody can aim at a set.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    sets: Vec<Vec<(K, V)>>,
    hasher: RandomState,
}

impl<K: Hash + Eq, V: Worth> Table<K, V> {
    /// Room for about `entries`.
    pub(super) fn new(entries: usize) -> Self {
        let sets = (entries / WAYS).max(1);
        Self { sets: std::iter::repeat_with(Vec::new).take(sets).collect(), hasher: RandomState::new() }
    }

    fn set(&mut self, key: &K) -> Option<&mut Vec<(K, V)>> {
        let hash = usize::try_from(self.hasher.hash_one(key)).unwrap_or_default();
        let index = hash.checked_rem(self.sets.len())?;
        self.sets.get_mut(index)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.set(key)?.iter_mut().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The entry of a key, made where there is none; gives up the least of its set where that is full.
    pub(super) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> Option<&mut V> {
        let set = self.set(&key)?;
        let at = match set.iter().position(|(known, _)| *known == key) {
            Some(at) => at,
            None if set.len() < WAYS => {
                set.push((key, make()));
                set.len() - 1
            }
            None => {
                let (at, _) = set.iter().enumerate().min_by_key(|(_, (_, value))| value.worth())?;
                if let Some(place) = set.get_mut(at) {
                    *place = (key, make());
                }
                at
            }
        };
        set.get_mut(at).map(|(_, value)| value)
    }

    /// Keeps what `keep` says.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        for set in &mut self.sets {
            set.retain_mut(|(key, value)| keep(key, value));
            if set.is_empty() {
                // A storm that is over leaves nothing behind.
                *set = Vec::new();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sets.iter().map(Vec::len).sum()
    }
}
