//! Rules that the kernel can judge by itself: an event that one of them drops never becomes a record.
//!
//! Every rule that ends the search has a slot, in the order of the rules, and so a bit in each mask. A table for each
//! condition tells which slots it allows; what they all allow is what matches, and its first bit decides. A slot
//! that drops is counted and ends the event; any other hands it to the agent, which judges by the whole rule.
//!
//! The agent writes new rules beside the old ones, into the other half of each table, and then names that half: no
//! event is ever judged by a mixture of both.

use crate::wire::wire;

/// Words of a mask.
pub const WORDS: usize = 4;
/// Rules that there is room for.
pub const SLOTS: usize = WORDS * 64;
/// Old rules and new ones.
pub const HALVES: usize = 2;

/// A bit for each slot.
pub type Mask = [u64; WORDS];

wire! {
    /// What holds of the slots, whatever the event.
    pub struct Filter {
        /// Slots that connects are looked up in.
        pub connect: Mask,
        /// The same for failed execs.
        pub exec_failed: Mask,
        /// Slots that drop; the others hand over to the agent.
        pub drops: Mask,
        /// Slots that allow any user, any container, any destination, any port.
        pub any_user: Mask,
        pub any_container: Mask,
        pub any_destination: Mask,
        pub any_port: Mask,
        /// Slots that allow an outcome: success, failure, unknown.
        pub outcomes: [Mask; 3],
    }

    /// A key of `FILTER_USERS`.
    pub struct UserKey {
        /// The effective user id.
        pub uid: u32,
        pub half: u32,
    }

    /// A key of `FILTER_CGROUPS`.
    pub struct ContainerKey {
        /// Inode number of the cgroup's directory.
        pub id: u64,
        /// `CgroupKey::V1` or `CgroupKey::V2`.
        pub hierarchy: u32,
        pub half: u32,
    }

    /// What a key of `FILTER_DESTINATIONS` is about, behind the length of its prefix.
    pub struct DestinationKey {
        pub half: u32,
        /// IPv4 as v4-mapped IPv6.
        pub address: [u8; 16],
    }

    /// What a key of `FILTER_PORTS` is about, behind the length of its prefix.
    pub struct PortKey {
        pub half: u16,
        /// In network order.
        pub port: [u8; 2],
    }
}

impl Filter {
    /// Without any rule.
    pub const NONE: Self = Self {
        connect: [0; WORDS],
        exec_failed: [0; WORDS],
        drops: [0; WORDS],
        any_user: [0; WORDS],
        any_container: [0; WORDS],
        any_destination: [0; WORDS],
        any_port: [0; WORDS],
        outcomes: [[0; WORDS]; 3],
    };

    /// Places in `outcomes`.
    pub const SUCCESS: usize = 0;
    pub const FAILURE: usize = 1;
    pub const UNKNOWN: usize = 2;
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::{drops_connect, drops_exec_failed};

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::BPF_F_NO_PREALLOC,
        macros::map,
        maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
    };

    use super::{ContainerKey, DestinationKey, Filter, HALVES, Mask, PortKey, SLOTS, UserKey};
    use crate::{
        counters::add_one,
        kernel,
        network::{Connect, Outcome},
        settings::CgroupKey,
        wire::Subject,
    };

    /// One element, written by the agent: 0 where no rule is here, else the half that holds, counted from 1.
    #[map]
    static FILTER_ACTIVE: Array<u32> = Array::with_max_entries(1, 0);

    /// By half. Written by the agent while the half is not active.
    #[map]
    static FILTERS: Array<Filter> = Array::with_max_entries(HALVES as u32, 0);

    // The tables of the conditions: key to the slots that allow it. Written and cleared by the agent; where one is
    // full, the agent judges by itself. A hash must be preallocated to be used from a tracepoint (until 6.1).
    #[map]
    static FILTER_USERS: HashMap<UserKey, Mask> = HashMap::with_max_entries(1024, 0);
    #[map]
    static FILTER_CGROUPS: HashMap<ContainerKey, Mask> = HashMap::with_max_entries(2048, 0);
    #[map]
    static FILTER_DESTINATIONS: LpmTrie<DestinationKey, Mask> =
        LpmTrie::with_max_entries(16384, BPF_F_NO_PREALLOC);
    #[map]
    static FILTER_PORTS: LpmTrie<PortKey, Mask> = LpmTrie::with_max_entries(16384, BPF_F_NO_PREALLOC);

    /// By half and slot: events that the slot dropped. Never cleared; the agent reads how much came to it.
    #[map]
    static FILTER_COUNTS: Array<u64> = Array::with_max_entries((HALVES * SLOTS) as u32, 0);

    /// The half that holds; `None` where no rule is here.
    #[inline(always)]
    fn active() -> Option<u32> {
        FILTER_ACTIVE.get(0)?.checked_sub(1)
    }

    /// Whether a rule drops this connect; it is counted then.
    #[inline(always)]
    pub(crate) fn drops_connect(subject: &Subject, connect: &Connect) -> bool {
        active().is_some_and(|half| judge_connect(half, subject, connect) != 0)
    }

    /// The same of a failed exec.
    #[inline(always)]
    pub(crate) fn drops_exec_failed(subject: &Subject) -> bool {
        active().is_some_and(|half| judge_exec_failed(half, subject) != 0)
    }

    /// Out of line, for the stack of its caller.
    #[inline(never)]
    fn judge_connect(half: u32, subject: &Subject, connect: &Connect) -> u32 {
        let Some(filter) = FILTERS.get(half) else { return 0 };
        let mut hit = filter.connect;
        let outcome = if connect.outcome == Outcome::Established as u32 {
            &filter.outcomes[Filter::SUCCESS]
        } else if connect.outcome == Outcome::Unknown as u32 {
            &filter.outcomes[Filter::UNKNOWN]
        } else {
            &filter.outcomes[Filter::FAILURE]
        };
        narrow(&mut hit, outcome, None);
        by_subject(&mut hit, half, filter, subject);
        if differs(&hit, &filter.any_destination) {
            let key = Key::new(160, DestinationKey { half, address: connect.tuple.remote });
            narrow(&mut hit, &filter.any_destination, FILTER_DESTINATIONS.get(&key));
        }
        if differs(&hit, &filter.any_port) {
            let port = connect.tuple.remote_port.to_be_bytes();
            let key = Key::new(32, PortKey { half: half as u16, port });
            narrow(&mut hit, &filter.any_port, FILTER_PORTS.get(&key));
        }
        first(&hit, half, filter)
    }

    #[inline(never)]
    fn judge_exec_failed(half: u32, subject: &Subject) -> u32 {
        let Some(filter) = FILTERS.get(half) else { return 0 };
        let mut hit = filter.exec_failed;
        by_subject(&mut hit, half, filter, subject);
        first(&hit, half, filter)
    }

    #[inline(always)]
    fn by_subject(hit: &mut Mask, half: u32, filter: &Filter, subject: &Subject) {
        if differs(hit, &filter.any_user) {
            let key = UserKey { uid: subject.ids.euid, half };
            // SAFETY: the agent does not write the half that holds.
            narrow(hit, &filter.any_user, unsafe { FILTER_USERS.get(&key) });
        }
        if differs(hit, &filter.any_container) {
            let mut key = ContainerKey { id: subject.cgroup_v2, hierarchy: CgroupKey::V2 as u32, half };
            // SAFETY: the agent adds and removes whole entries.
            let mut found = unsafe { FILTER_CGROUPS.get(&key) };
            if found.is_none() && kernel::v1_subsystem().is_some() {
                key.id = subject.cgroup_v1;
                key.hierarchy = CgroupKey::V1 as u32;
                // SAFETY: as above.
                found = unsafe { FILTER_CGROUPS.get(&key) };
            }
            narrow(hit, &filter.any_container, found);
        }
    }

    /// Whether one of the slots has this condition at all: if none has, it is not looked up.
    #[inline(always)]
    fn differs(hit: &Mask, any: &Mask) -> bool {
        hit.iter().zip(any).fold(0, |rest, (hit, any)| rest | hit & !any) != 0
    }

    /// Keeps the slots that allow anything, and those that were found.
    #[inline(always)]
    fn narrow(hit: &mut Mask, any: &Mask, found: Option<&Mask>) {
        match found {
            Some(found) => {
                for ((hit, any), found) in hit.iter_mut().zip(any).zip(found) {
                    *hit &= any | found;
                }
            }
            None => {
                for (hit, any) in hit.iter_mut().zip(any) {
                    *hit &= any;
                }
            }
        }
    }

    /// 1 if the first slot of all drops, which is counted.
    #[inline(always)]
    fn first(hit: &Mask, half: u32, filter: &Filter) -> u32 {
        for (word, (bits, drops)) in (0_u32..).zip(hit.iter().zip(&filter.drops)) {
            if *bits == 0 {
                continue;
            }
            let lowest = bits & bits.wrapping_neg();
            if drops & lowest == 0 {
                return 0;
            }
            let slot = word * 64 + (lowest - 1).count_ones();
            if let Some(count) = FILTER_COUNTS.get_ptr_mut(half * SLOTS as u32 + slot) {
                add_one(count);
            }
            return 1;
        }
        0
    }
}
