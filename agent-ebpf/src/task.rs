//! A task, as a [`Subject`]: the identity that every record carries.

use crate::{
    kernel::{Ptr, offset, v1_subsystem},
    wire::{Capabilities, Ids, Subject},
};

/// `PF_KTHREAD`, include/linux/sched.h (v6.18).
const PF_KTHREAD: u32 = 0x0020_0000;

impl Subject {
    /// The task that runs.
    #[inline(always)]
    pub(crate) fn current() -> Option<Self> {
        Self::of(Ptr::current())
    }

    #[inline(always)]
    pub(crate) fn of(task: Ptr) -> Option<Self> {
        let leader = task.follow(offset!(task_group_leader))?;
        let parent = task.follow(offset!(task_real_parent))?;
        let parent_leader = parent.follow(offset!(task_group_leader))?;
        let (cgroup_v2, cgroup_v1) = cgroups(task);
        Some(Self {
            tgid: task.read(offset!(task_tgid))?,
            tid: task.read(offset!(task_pid))?,
            start: leader.read(offset!(task_start_boottime))?,
            parent_tgid: parent.read(offset!(task_tgid))?,
            exec_id: task.read(offset!(task_exec_id))?,
            parent_start: parent_leader.read(offset!(task_start_boottime))?,
            ids: ids(credentials(task)?)?,
            cgroup_v2,
            cgroup_v1,
            comm: task.read(offset!(task_comm))?,
            login_uid: task.read(offset!(task_loginuid)).unwrap_or(u32::MAX),
            session_id: task.read(offset!(task_sessionid)).unwrap_or(u32::MAX),
        })
    }
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

/// The task's cgroup ids: in the v2 hierarchy, and in the v1 hierarchy that the agent chose (0 for none).
#[inline(always)]
fn cgroups(task: Ptr) -> (u64, u64) {
    let Some(set) = task.follow(offset!(task_cgroups)) else { return (0, 0) };
    let v2 = set.follow(offset!(css_set_dfl_cgrp)).and_then(cgroup_id).unwrap_or(0);
    let v1 = v1_subsystem()
        .and_then(|index| {
            let css = Ptr(set.field(offset!(css_set_subsys))?.element(index, 8).get()?).non_null()?;
            cgroup_id(css.follow(offset!(css_cgroup))?)
        })
        .unwrap_or(0);
    (v2, v1)
}

#[inline(always)]
pub(crate) fn cgroup_id(cgroup: Ptr) -> Option<u64> {
    cgroup.follow(offset!(cgroup_kn))?.read(offset!(kernfs_node_id))
}
