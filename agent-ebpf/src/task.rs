//! A task, as a [`Subject`]: the identity that every record carries.

use core::mem::MaybeUninit;

use crate::{
    kernel::{self, Field, Pointer, Ptr, Typed, offset, v1_subsystem},
    wire::{Capabilities, Ids, Subject},
};

/// `PF_KTHREAD`, include/linux/sched.h (v6.18).
const PF_KTHREAD: u32 = 0x0020_0000;

impl Subject {
    /// The task that runs. What a helper knows is not read: each read of memory costs some 15 ns.
    #[inline(always)]
    pub(crate) fn current() -> Option<Self> {
        let mut subject = MaybeUninit::uninit();
        // SAFETY: the place is the function's own.
        if unsafe { write_current(subject.as_mut_ptr()) } == 0 {
            return None;
        }
        // SAFETY: it was written in full.
        Some(unsafe { subject.assume_init() })
    }

    /// Any task.
    #[inline(always)]
    pub(crate) fn of(task: Ptr) -> Option<Self> {
        let mut subject = MaybeUninit::uninit();
        let (tgid, tid) = (task.read(offset!(task_tgid))?, task.read(offset!(task_pid))?);
        // SAFETY: the place is the function's own.
        unsafe { write(subject.as_mut_ptr(), task, tgid, tid, cgroups(task)) }?;
        // SAFETY: it was written in full.
        Some(unsafe { subject.assume_init() })
    }
}

/// Writes the subject of the task that runs; 0 where that could not be read.
///
/// Out of line and in place: with the two kinds of pointers there would be two copies of it on a stack of 512 bytes.
///
/// # Safety
///
/// `to` is valid for writes.
#[inline(never)]
pub(crate) unsafe fn write_current(to: *mut Subject) -> u32 {
    let (tgid, tid) = kernel::current_ids();
    let cgroups = current_cgroups();
    // SAFETY: the caller's promise.
    let written = unsafe {
        if kernel::has_typed_task() {
            write(to, Typed::current(), tgid, tid, cgroups)
        } else {
            write(to, Ptr::current(), tgid, tid, cgroups)
        }
    };
    u32::from(written.is_some())
}

/// Writes every member of a subject; `None` where one could not be read.
///
/// # Safety
///
/// `to` is valid for writes.
#[inline(always)]
unsafe fn write(to: *mut Subject, task: impl Pointer, tgid: u32, tid: u32, cgroups: Cgroups) -> Option<()> {
    // SAFETY: the caller's promise; every member is written, and none is read.
    let to = unsafe { &mut *to };
    let leader = if tgid == tid { task } else { task.follow(offset!(task_group_leader))? };
    let parent = task.follow(offset!(task_real_parent))?;
    to.tgid = tgid;
    to.tid = tid;
    to.start = leader.read(offset!(task_start_boottime))?;
    to.parent_tgid = parent.read(offset!(task_tgid))?;
    to.exec_id = task.read(offset!(task_exec_id))?;
    to.parent_start = parent.follow(offset!(task_group_leader))?.read(offset!(task_start_boottime))?;
    to.ids = ids(credentials(task)?)?;
    to.cgroup_v2 = cgroups.v2;
    to.cgroup_v1 = cgroups.v1;
    to.comm = comm(task)?;
    let [login_uid, session_id] = login(task);
    to.login_uid = login_uid;
    to.session_id = session_id;
    Some(())
}

/// The login uid and the audit session, which the agent has checked to follow one another.
#[inline(always)]
fn login(task: impl Pointer) -> [u32; 2] {
    task.read_4(offset!(task_loginuid)).unwrap_or([u32::MAX; 2])
}

#[inline(always)]
fn comm(task: impl Pointer) -> Option<[u8; 16]> {
    let words: [u64; 2] = task.read_8(offset!(task_comm))?;
    // SAFETY: 16 bytes are 16 bytes.
    Some(unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(words) })
}

/// A kernel thread is no process of anyone's.
#[inline(always)]
pub(crate) fn is_kernel_thread(task: Ptr) -> bool {
    task.read::<u32>(offset!(task_flags)).unwrap_or(0) & PF_KTHREAD != 0
}

/// The subjective credentials: what the task acts with.
#[inline(always)]
pub(crate) fn credentials<P: Pointer>(task: P) -> Option<P> {
    task.follow(offset!(task_cred))
}

#[inline(always)]
pub(crate) fn ids(cred: impl Pointer) -> Option<Ids> {
    let [uid, gid, suid, sgid, euid, egid, fsuid, fsgid] = cred.read_4(offset!(cred_uid))?;
    Some(Ids { uid, gid, suid, sgid, euid, egid, fsuid, fsgid })
}

#[inline(always)]
pub(crate) fn capabilities(cred: impl Pointer) -> Option<Capabilities> {
    let [inheritable, permitted, effective, bounding, ambient] =
        cred.read_8(offset!(cred_cap_inheritable))?;
    Some(Capabilities { inheritable, permitted, effective, bounding, ambient })
}

/// A task's cgroups: ids in the v2 hierarchy, and in the v1 hierarchy that the agent chose (0 for none).
#[derive(Clone, Copy)]
pub(crate) struct Cgroups {
    pub(crate) v2: u64,
    pub(crate) v1: u64,
}

/// Those of the task that runs.
#[inline(always)]
pub(crate) fn current_cgroups() -> Cgroups {
    Cgroups { v2: kernel::current_cgroup(), v1: current_v1() }
}

/// The running task's cgroup in the v1 hierarchy; 0 for none.
#[inline(always)]
pub(crate) fn current_v1() -> u64 {
    let Some(index) = v1_subsystem() else { return 0 };
    if kernel::has_typed_task() {
        v1_of(Typed::current(), index).unwrap_or(0)
    } else {
        v1_of(Ptr::current(), index).unwrap_or(0)
    }
}

#[inline(always)]
fn cgroups(task: Ptr) -> Cgroups {
    let Some(set) = task.follow(offset!(task_cgroups)) else { return Cgroups { v2: 0, v1: 0 } };
    let v2 = set.follow(offset!(css_set_dfl_cgrp)).and_then(cgroup_id).unwrap_or(0);
    let v1 = v1_subsystem().and_then(|index| v1_of(task, index)).unwrap_or(0);
    Cgroups { v2, v1 }
}

/// The id in the v1 hierarchy of the controller with this index, which the verifier knows as a constant.
#[inline(always)]
fn v1_of<P: Pointer>(task: P, index: u32) -> Option<u64> {
    let set = task.follow(offset!(task_cgroups))?;
    let css = set.follow(Field(offset!(css_set_subsys).0 + index * 8))?;
    cgroup_id(css.follow(offset!(css_cgroup))?)
}

#[inline(always)]
pub(crate) fn cgroup_id(cgroup: impl Pointer) -> Option<u64> {
    cgroup.follow(offset!(cgroup_kn))?.read(offset!(kernfs_node_id))
}
