//! What is looked at: chosen cgroups, and how much of each.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap},
};

use crate::{
    kernel,
    settings::{CgroupKey, Settings},
    task::current_v1,
    wire::{Ring, Subject},
};

/// The cgroups of `--cgroup` and all below them. The agent fills it at start, `cgroup_mkdir` adds to it
/// and `cgroup_rmdir` takes away. Empty and unread where the agent is not scoped.
#[map]
pub(crate) static SCOPE: HashMap<CgroupKey, u8> = HashMap::with_max_entries(16384, 0);

/// What a cgroup has submitted into a ring in the current second. The least recently used go first.
#[map]
static THROTTLE: LruHashMap<Bucket, Window> = LruHashMap::with_max_entries(4096, 0);

#[repr(C)]
struct Bucket {
    cgroup: u64,
    hierarchy: u32,
    ring: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Window {
    /// Boot time in seconds (of 2^30 ns: a shift is cheaper than a division and as fair).
    second: u64,
    records: u64,
}

/// Whether the subject's cgroup is one of those that are looked at.
#[inline(always)]
pub(crate) fn contains(subject: &Subject) -> bool {
    if !kernel::scoped() || has(CgroupKey { id: subject.cgroup_v2, hierarchy: CgroupKey::V2 }) {
        return true;
    }
    kernel::v1_subsystem().is_some() && has(CgroupKey { id: subject.cgroup_v1, hierarchy: CgroupKey::V1 })
}

/// The same of the task that runs, with no more read than it takes.
#[inline(always)]
pub(crate) fn contains_current() -> bool {
    if !kernel::scoped() || has(CgroupKey { id: kernel::current_cgroup(), hierarchy: CgroupKey::V2 }) {
        return true;
    }
    kernel::v1_subsystem().is_some() && has(CgroupKey { id: current_v1(), hierarchy: CgroupKey::V1 })
}

#[inline(always)]
pub(crate) fn has(key: CgroupKey) -> bool {
    SCOPE.get_ptr(&key).is_some()
}

/// Whether the cgroup has used up this second's share of the ring.
///
/// A window that two CPUs open at once may let a few records more through; none is counted twice.
#[inline(always)]
pub(crate) fn throttled(ring: Ring, subject: &Subject, time: u64, settings: &Settings) -> bool {
    let limit = match ring {
        Ring::Urgent => settings.throttle[0],
        Ring::Process => settings.throttle[1],
        Ring::Network => settings.throttle[2],
    };
    if limit == 0 {
        return false;
    }
    let (cgroup, hierarchy) = subject.workload();
    let bucket = Bucket { cgroup, hierarchy: hierarchy as u32, ring: ring as u32 };
    let second = time >> 30;
    let Some(window) = THROTTLE.get_ptr_mut(&bucket) else {
        // Full of busier cgroups, or lost a race: then nothing is held back.
        let _held_back_later = THROTTLE.insert(&bucket, Window { second, records: 1 }, 0);
        return false;
    };
    // SAFETY: a pointer into a map's value; the fields are plain numbers, and a torn read is harmless.
    unsafe {
        if (*window).second != second {
            (*window).second = second;
            (*window).records = 1;
            return false;
        }
        (*window).records += 1;
        (*window).records > u64::from(limit)
    }
}
