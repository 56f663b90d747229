//! What each condition allows, found by the event's value instead of rule by rule.

use std::collections::BTreeMap;

use globset::{Glob, GlobSet, GlobSetBuilder};
use hashbrown::HashMap;
use rustc_hash::FxHashMap;

use super::{bits::Bits, spec::is_id};
use crate::config::{Network, Ports, masked};

/// The longest prefix that an address begins with; each has the rules of the shorter ones too.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    /// By length, the longest first.
    lengths: Vec<(u8, FxHashMap<u128, Bits>)>,
}

impl Prefixes {
    /// `rows` are the networks of each rule, `count` the number of rules.
    pub(super) fn new<'a>(rows: impl Iterator<Item = (usize, &'a [Network])>, count: usize) -> Self {
        let mut own: BTreeMap<(u8, u128), Bits> = BTreeMap::new();
        for (rule, networks) in rows {
            for network in networks {
                let key = (network.bits, network.address);
                own.entry(key).or_insert_with(|| Bits::none(count)).set(rule);
            }
        }
        if own.is_empty() {
            return Self::default();
        }
        // Where IPv4 begins, nothing is inherited from IPv6: what is found there ends the search.
        own.entry((Network::IPV4.bits, Network::IPV4.address)).or_insert_with(|| Bits::none(count));
        let mut lengths: BTreeMap<u8, FxHashMap<u128, Bits>> = BTreeMap::new();
        // The shorter ones come first, and have what they inherit when their own heirs ask.
        for ((bits, address), mut rules) in own {
            let network = Network { address, bits };
            let parents = lengths.iter().filter_map(|(bits, of_length)| {
                let parent = Network { address: masked(address, *bits), bits: *bits };
                of_length.get(&parent.address).filter(|_| parent.is_ipv4() == network.is_ipv4())
            });
            for parent in parents {
                rules.add(parent);
            }
            lengths.entry(bits).or_default().insert(address, rules);
        }
        Self { lengths: lengths.into_iter().rev().collect() }
    }

    pub(super) fn get(&self, address: u128) -> Option<&Bits> {
        self.lengths.iter().find_map(|(bits, of_length)| of_length.get(&masked(address, *bits)))
    }

    /// Every prefix with what it allows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Network, &Bits)> {
        self.lengths.iter().flat_map(|(bits, of_length)| {
            of_length.iter().map(|(address, rules)| (Network { address: *address, bits: *bits }, rules))
        })
    }
}

/// Ports, cut where any rule's range begins or ends.
#[derive(Debug, Default)]
pub(super) struct PortTable {
    /// The first port of each stretch, in order, and what it allows.
    stretches: Vec<(u16, Bits)>,
}

impl PortTable {
    pub(super) fn new<'a>(rows: impl Iterator<Item = (usize, &'a [Ports])> + Clone, count: usize) -> Self {
        let mut stretches: BTreeMap<u16, Bits> = BTreeMap::new();
        for ports in rows.clone().flat_map(|(_, ports)| ports) {
            stretches.insert(ports.first, Bits::none(count));
            if let Some(behind) = ports.last.checked_add(1) {
                stretches.insert(behind, Bits::none(count));
            }
        }
        for (rule, ports) in rows {
            for ports in ports {
                for (_, rules) in stretches.range_mut(ports.first..=ports.last) {
                    rules.set(rule);
                }
            }
        }
        Self { stretches: stretches.into_iter().collect() }
    }

    pub(super) fn get(&self, port: u16) -> Option<&Bits> {
        let behind = self.stretches.partition_point(|(first, _)| *first <= port);
        self.stretches.get(behind.checked_sub(1)?).map(|(_, rules)| rules)
    }

    /// The stretches that allow anything, as prefixes: value and length.
    pub(super) fn prefixes(&self) -> Vec<(u16, u8, &Bits)> {
        let mut prefixes = Vec::new();
        let ends = self.stretches.iter().skip(1).map(|(first, _)| u32::from(*first)).chain([1 << 16]);
        for ((first, rules), end) in self.stretches.iter().zip(ends) {
            let mut at = u32::from(*first);
            while at < end && rules.first().is_some() {
                // The largest block that begins here and does not go beyond the end.
                let mut block = 1 << at.trailing_zeros().min(16);
                while at + block > end {
                    block /= 2;
                }
                let length = 16 - block.trailing_zeros();
                if let (Ok(port), Ok(length)) = (u16::try_from(at), u8::try_from(length)) {
                    prefixes.push((port, length, rules));
                }
                at += block;
            }
        }
        prefixes
    }
}

/// Texts that were asked for are remembered, up to this many: the same programs run again and again.
const REMEMBERED: usize = 4096;

/// Globs of all rules, asked at once.
#[derive(Debug, Default)]
pub(super) struct Globs {
    set: GlobSet,
    /// The rule of each glob.
    rules: Vec<usize>,
    count: usize,
    /// Anybody can name a file: a hash with a seed, which cannot be foreseen.
    answers: HashMap<String, Bits>,
}

impl Globs {
    pub(super) fn new<'a>(
        rows: impl Iterator<Item = (usize, &'a [Glob])>,
        count: usize,
    ) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        let mut rules = Vec::new();
        for (rule, globs) in rows {
            for glob in globs {
                set.add(glob.clone());
                rules.push(rule);
            }
        }
        Ok(Self { set: set.build()?, rules, count, answers: HashMap::default() })
    }

    pub(super) fn get(&mut self, text: &str) -> &Bits {
        if self.answers.len() > REMEMBERED {
            // Somebody runs ever new programs; those that come back are asked for again.
            self.answers.clear();
        }
        let Self { set, rules, count, answers } = self;
        let find = || {
            let mut found = Bits::none(*count);
            for glob in set.matches(text) {
                if let Some(rule) = rules.get(glob) {
                    found.set(*rule);
                }
            }
            found
        };
        answers.entry_ref(text).or_insert_with(find)
    }
}

/// Containers by id, by the beginning of one, or by name.
#[derive(Debug, Default)]
pub(crate) struct ContainerTable {
    exact: FxHashMap<String, Bits>,
    /// By length: beginnings of ids.
    beginnings: BTreeMap<usize, FxHashMap<String, Bits>>,
    found: Bits,
}

impl ContainerTable {
    pub(super) fn new<'a>(rows: impl Iterator<Item = (usize, &'a [String])>, count: usize) -> Self {
        let mut table = Self { found: Bits::none(count), ..Self::default() };
        for (rule, containers) in rows {
            for container in containers {
                let of = if is_id(container) {
                    table.beginnings.entry(container.len()).or_default()
                } else {
                    &mut table.exact
                };
                of.entry(container.clone()).or_insert_with(|| Bits::none(count)).set(rule);
            }
        }
        table
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.beginnings.is_empty()
    }

    pub(super) fn get(&mut self, id: &str, name: Option<&str>) -> &Bits {
        self.found.clear();
        for text in [Some(id), name].into_iter().flatten() {
            if let Some(rules) = self.exact.get(text) {
                self.found.add(rules);
            }
        }
        for (len, of_length) in &self.beginnings {
            if let Some(rules) = id.get(..*len).and_then(|beginning| of_length.get(beginning)) {
                self.found.add(rules);
            }
        }
        &self.found
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Whether an address begins with the network's bits, as the kernel's trie asks.
    pub(in crate::rules) fn begins(address: u128, network: Network) -> bool {
        masked(address, network.bits) == network.address
    }

    #[test]
    fn ports_become_prefixes_that_cover_exactly_them() {
        let ports = [
            [Ports { first: 1, last: 1024 }],
            [Ports { first: 443, last: 443 }],
            [Ports { first: 65535, last: 65535 }],
        ];
        let table = PortTable::new(ports.iter().map(<[_; 1]>::as_slice).enumerate(), 3);
        let prefixes = table.prefixes();
        for port in [0, 1, 2, 442, 443, 444, 1023, 1024, 1025, 65534, 65535_u16] {
            let found: Vec<_> =
                prefixes.iter().filter(|(first, bits, _)| (port ^ first) >> (16 - bits) == 0).collect();
            assert!(found.len() <= 1, "{port}");
            let found = found.first().map(|(_, _, rules)| *rules);
            let expected = table.get(port).filter(|rules| rules.first().is_some());
            assert_eq!(found, expected, "{port}");
        }
    }
}
