//! The life of cgroups: the agent hears of a new one before its first process runs.

use crate::wire::{Span, wire};

wire! {
    /// The body of a cgroup record. The header's subject is the process that made or removed it.
    pub struct Cgroup {
        /// Inode number of the cgroup's directory.
        pub id: u64,
        /// The parent's; 0 for a root.
        pub parent_id: u64,
        /// `CgroupKey::V1` or `CgroupKey::V2`.
        pub hierarchy: u64,
        /// Its path from the root of its hierarchy.
        pub path: Span,
    }
}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{EbpfContext as _, macros::raw_tracepoint, programs::RawTracePointContext};

    use super::Cgroup;
    use crate::{
        emit,
        kernel::{self, Pointer as _, Ptr, argument, offset, v1_hierarchy, v1_subsystem},
        scope,
        settings::CgroupKey,
        task::cgroup_id,
        wire::{Header, Kind, Span, Subject},
    };

    /// hook: `cgroup_mkdir(struct cgroup *cgrp, const char *path)`.
    /// <https://github.com/torvalds/linux/blob/v6.18/include/trace/events/cgroup.h>
    #[raw_tracepoint(tracepoint = "cgroup_mkdir")]
    pub fn on_cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
        let _nothing_to_tell = on_cgroup(&ctx, Kind::CgroupMkdir);
        0
    }

    /// hook: `cgroup_rmdir(struct cgroup *cgrp, const char *path)`.
    #[raw_tracepoint(tracepoint = "cgroup_rmdir")]
    pub fn on_cgroup_rmdir(ctx: RawTracePointContext) -> i32 {
        let _nothing_to_tell = on_cgroup(&ctx, Kind::CgroupRmdir);
        0
    }

    #[inline(always)]
    fn on_cgroup(ctx: &RawTracePointContext, kind: Kind) -> Option<()> {
        // SAFETY: the tracepoints have two arguments.
        let (cgroup, path) = unsafe { (Ptr(argument(ctx.as_ptr(), 0)), Ptr(argument(ctx.as_ptr(), 1))) };
        let hierarchy = hierarchy(cgroup)?;
        let id = cgroup_id(cgroup)?;
        let parent_id = cgroup
            .field(offset!(cgroup_self))?
            .follow(offset!(css_parent))
            .and_then(|css| cgroup_id(css.follow(offset!(css_cgroup))?))
            .unwrap_or(0);
        if kernel::scoped() {
            let key = CgroupKey { id, hierarchy };
            match kind {
                Kind::CgroupMkdir if scope::has(CgroupKey { id: parent_id, hierarchy }) => {
                    if scope::SCOPE.insert(&key, 1, 0).is_err() {
                        emit::state_lost(kind);
                        return None;
                    }
                }
                Kind::CgroupRmdir if scope::has(key) => {
                    let _raced = scope::SCOPE.remove(&key);
                }
                _ => return None,
            }
        }
        let subject = Subject::current()?;
        let time = kernel::now();
        if !emit::wanted(kind, &subject, time) {
            return None;
        }
        const AT: usize = size_of::<Header>() + size_of::<Cgroup>();
        const PATH: usize = 1024;
        let Some(slot) = emit::reserve::<{ AT + PATH }>(kind) else {
            emit::ring_full(kind);
            return None;
        };
        // SAFETY: PATH bytes are left behind the fixed part.
        let len = unsafe { path.copy_str::<PATH>(slot.base.add(AT)) }.unwrap_or(1);
        let flags = if len == PATH { Header::FLAG_TRUNCATED } else { 0 };
        let len = len - 1;
        // SAFETY: the slot is larger than the fixed part, and aligned to 8.
        unsafe {
            slot.body::<Cgroup>().write(Cgroup {
                id,
                parent_id,
                hierarchy,
                path: Span { start: AT as u32, len: len as u32 },
            });
        }
        slot.submit(kind, &subject, time, AT + len, flags);
        Some(())
    }

    /// Which of the two hierarchies that the agent knows this is; `None` for any other.
    #[inline(always)]
    fn hierarchy(cgroup: Ptr) -> Option<u64> {
        let id: u32 = cgroup.follow(offset!(cgroup_root))?.read(offset!(cgroup_root_hierarchy_id))?;
        // The default hierarchy has the id 0: cgroup_init() in kernel/cgroup/cgroup.c.
        if id == 0 {
            Some(CgroupKey::V2)
        } else if v1_subsystem().is_some() && id == v1_hierarchy() {
            Some(CgroupKey::V1)
        } else {
            None
        }
    }
}
