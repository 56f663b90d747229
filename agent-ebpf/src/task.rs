//! A task, as a [`Subject`]: the identity that every record carries.

use crate::{
    kernel::{self, Ptr, offset, v1_subsystem},
    wire::{Capabilities, Ids, Subject},
};

/// `PF_KTHREAD`, include/linux/sched.h (v6.18).
const PF_KTHREAD: u32 = 0x0020_0000;

impl Subject {
    /// The task that runs. What a helper knows is not read: each read of memory costs some 15 ns.
    #[inline(always)]
    pub(crate) fn current() -> Option<Self> {
        let (tgid, tid) = kernel::current_ids();
        Self::new(Ptr::current(), tgid, tid, current_cgroups())
    }

    /// Any task.
    #[inline(always)]
    pub(crate) fn of(task: Ptr) -> Option<Self> {
        Self::new(task, task.read(offset!(task_tgid))?, task.read(offset!(task_pid))?, cgroups(task))
    }

    #[inline(always)]
    fn new(task: Ptr, tgid: u32, tid: u32, cgroups: Cgroups) -> Option<Self> {
        let leader = if tgid == tid { task } else { task.follow(offset!(task_group_leader))? };
        let parent = task.follow(offset!(task_real_parent))?;
        let parent_leader = parent.follow(offset!(task_group_leader))?;
        let [login_uid, session_id] = login(task);
        Some(Self {
            tgid,
            tid,
            start: leader.read(offset!(task_start_boottime))?,
            parent_tgid: parent.read(offset!(task_tgid))?,
            exec_id: task.read(offset!(task_exec_id))?,
            parent_start: parent_leader.read(offset!(task_start_boottime))?,
            ids: ids(credentials(task)?)?,
            cgroup_v2: cgroups.v2,
            cgroup_v1: cgroups.v1,
            comm: task.read(offset!(task_comm))?,
            login_uid,
            session_id,
        })
    }
}

/// The login uid and the audit session, which the agent has checked to follow one another.
#[inline(always)]
fn login(task: Ptr) -> [u32; 2] {
    task.read(offset!(task_loginuid)).unwrap_or([u32::MAX; 2])
}

/// A kernel thread is no process of anyone's.
#[inline(always)]
pub(crate) fn is_kernel_thread(task: Ptr) -> bool {
    task.read::<u32>(offset!(task_flags)).unwrap_or(0) & PF_KTHREAD != 0
}

/// The subjective credentials: what the task acts with.
#[inline(always)]
pub(crate) fn credentials(task: Ptr) -> Option<Ptr> {
    task.follow(offset!(task_cred))
}

#[inline(always)]
pub(crate) fn ids(cred: Ptr) -> Option<Ids> {
    cred.read(offset!(cred_uid))
}

#[inline(always)]
pub(crate) fn capabilities(cred: Ptr) -> Option<Capabilities> {
    cred.read(offset!(cred_cap_inheritable))
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
    let v1 = if v1_subsystem().is_some() {
        Ptr::current().follow(offset!(task_cgroups)).and_then(v1_id).unwrap_or(0)
    } else {
        0
    };
    Cgroups { v2: kernel::current_cgroup(), v1 }
}

#[inline(always)]
fn cgroups(task: Ptr) -> Cgroups {
    let Some(set) = task.follow(offset!(task_cgroups)) else { return Cgroups { v2: 0, v1: 0 } };
    Cgroups { v2: set.follow(offset!(css_set_dfl_cgrp)).and_then(cgroup_id).unwrap_or(0), v1: v1_id(set).unwrap_or(0) }
}

/// The id in the v1 hierarchy, from a `struct css_set`.
#[inline(always)]
fn v1_id(set: Ptr) -> Option<u64> {
    let css = Ptr(set.field(offset!(css_set_subsys))?.element(v1_subsystem()?, 8).get()?).non_null()?;
    cgroup_id(css.follow(offset!(css_cgroup))?)
}

#[inline(always)]
pub(crate) fn cgroup_id(cgroup: Ptr) -> Option<u64> {
    cgroup.follow(offset!(cgroup_kn))?.read(offset!(kernfs_node_id))
}
