//! Counters that the programs raise where a thing happens, before anything can be lost.
//!
//! Two books. The ledger counts records, per kind and CPU. `COUNTS` counts what happened, per
//! cgroup; it is one shared hash, not a per-CPU one, so that its memory does not grow with the
//! number of CPUs: 16,384 entries are 1.4 MiB on any machine, where per-CPU values would take
//! 32 MiB on 256. The numbers of the counters are dense, so that a full hash can fall back on an
//! array.

use crate::wire::wire;

wire! {
    /// What became of the records of one kind on one CPU:
    /// `seen = submitted + ring_full + filtered + throttled + state_lost`.
    pub struct Ledger {
        pub seen: u64,
        pub submitted: u64,
        pub ring_full: u64,
        pub filtered: u64,
        pub throttled: u64,
        pub state_lost: u64,
    }

    /// A counter of one cgroup.
    pub struct CountKey {
        /// The cgroup's id in the v1 hierarchy if the process is in a cgroup there, else in v2.
        pub cgroup: u64,
        /// `CgroupKey::V1` or `CgroupKey::V2`.
        pub hierarchy: u32,
        /// One of the numbers below.
        pub counter: u32,
    }
}

/// `EXECS + 0`: succeeded, `+ 1`: failed.
pub const EXECS: u32 = 0;
/// `EXITS + reason`, see [`crate::process::ExitReason`].
pub const EXITS: u32 = 2;
/// `CONNECTS + (v6 * 3 + scope) * 16 + outcome`, see [`crate::network`].
pub const CONNECTS: u32 = 8;
/// `CREDENTIALS + call * 2 + failed`, see [`crate::privilege::Call`].
pub const CREDENTIALS: u32 = CONNECTS + 2 * 3 * 16;
/// Payload of closed connections that this host opened, in bytes. How many they are the ledger says.
pub const BYTES_SENT: u32 = CREDENTIALS + 2 * 16;
pub const BYTES_RECEIVED: u32 = BYTES_SENT + 1;
/// `PAM_CALLS + call`, see [`crate::pam::Call`].
pub const PAM_CALLS: u32 = BYTES_SENT + 2;
/// `AUTH + service * 4 + outcome`, see [`crate::pam::Service`] and [`crate::pam::Outcome`].
pub const AUTH: u32 = PAM_CALLS + 8;
/// `SESSIONS_OPENED + service`: sessions that were opened.
pub const SESSIONS_OPENED: u32 = AUTH + 5 * 4;
/// `SESSIONS_CLOSED + service`: of these, those that were closed, or whose transaction was ended without.
pub const SESSIONS_CLOSED: u32 = SESSIONS_OPENED + 5;
/// PAM calls without names: their `pam_start` was not seen, or had no room.
pub const PAM_UNTRACKED: u32 = SESSIONS_CLOSED + 5;
/// Transactions that had no room.
pub const PAM_REFUSED: u32 = PAM_UNTRACKED + 1;
/// One past the last counter.
pub const END: u32 = PAM_REFUSED + 1;

#[cfg(target_arch = "bpf")]
pub(crate) use programs::{Term, add, count, count_by, ledger};

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::BPF_NOEXIST,
        macros::map,
        maps::{Array, HashMap, PerCpuArray},
    };

    use super::{CountKey, END, Ledger};
    use crate::{
        settings::CgroupKey,
        wire::{Kind, Subject},
    };

    /// The members of [`Ledger`], in its order.
    #[derive(Clone, Copy)]
    pub(crate) enum Term {
        Seen = 0,
        Submitted = 1,
        RingFull = 2,
        Filtered = 3,
        Throttled = 4,
        StateLost = 5,
    }

    /// Key: the kind's number. Written by every program that emits, read by the agent. Never cleared.
    #[map]
    static LEDGER: PerCpuArray<Ledger> = PerCpuArray::with_max_entries(Kind::COUNT as u32, 0);

    /// Written here; the agent removes a cgroup's counters once the cgroup is gone. Sized by the agent.
    #[map]
    static COUNTS: HashMap<CountKey, u64> = HashMap::with_max_entries(16384, 0);

    /// What `COUNTS` had no room for, by counter, so that sums stay exact.
    #[map]
    static COUNTS_OVERFLOW: Array<u64> = Array::with_max_entries(END, 0);

    /// Adds, whatever else runs on this CPU or on others.
    ///
    /// The result is not used: with it the instruction would need a kernel of 5.12.
    #[inline(always)]
    pub(crate) fn add(counter: *mut u64, value: u64) {
        // SAFETY: a pointer into a map's value, aligned to 8.
        unsafe {
            core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
                counter, value,
            )
        };
    }

    /// Raises one term of the kind's ledger.
    #[inline(always)]
    pub(crate) fn ledger(kind: Kind, term: Term) {
        if let Some(ledger) = LEDGER.get_ptr_mut(kind as u32) {
            // SAFETY: the ledger is an array of its terms.
            add(unsafe { ledger.cast::<u64>().add(term as usize) }, 1);
        }
    }

    /// Counts one for the subject's cgroup.
    #[inline(always)]
    pub(crate) fn count(subject: &Subject, counter: u32) {
        count_by(subject, counter, 1);
    }

    /// Adds to a counter of the subject's cgroup.
    #[inline(always)]
    pub(crate) fn count_by(subject: &Subject, counter: u32, by: u64) {
        let (cgroup, hierarchy) = subject.workload();
        let key = CountKey { cgroup, hierarchy: hierarchy as u32, counter };
        if let Some(value) = COUNTS.get_ptr_mut(&key) {
            return add(value, by);
        }
        // Two CPUs may both come here first: one inserts, the other finds it inserted.
        let _exists_or_full = COUNTS.insert(&key, 0, u64::from(BPF_NOEXIST));
        if let Some(value) = COUNTS.get_ptr_mut(&key) {
            return add(value, by);
        }
        if let Some(value) = COUNTS_OVERFLOW.get_ptr_mut(counter) {
            add(value, by);
        }
    }

    impl Subject {
        /// The cgroup that stands for the workload: a root cgroup (id 1) names none.
        #[inline(always)]
        pub(crate) fn workload(&self) -> (u64, u64) {
            if self.cgroup_v1 > 1 { (self.cgroup_v1, CgroupKey::V1) } else { (self.cgroup_v2, CgroupKey::V2) }
        }
    }
}
