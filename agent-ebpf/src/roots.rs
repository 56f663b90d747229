//! Root directories that nobody has looked into yet: where a container's libraries are.
//!
//! A notice goes straight to whoever looks for libraries, by a ring of its own that wakes its reader at once: a
//! container's first program may log somebody in within milliseconds. A notice is no event: one that finds no room is
//! made up for by the agent, which looks at all processes now and then.

use crate::wire::wire;

wire! {
    /// A root directory as a process has it.
    pub struct Root {
        /// Inode number of the mount namespace.
        pub mount_namespace: u32,
        /// `super_block.s_dev`.
        pub device: u32,
        /// The directory's inode number.
        pub inode: u64,
    }

    /// A process in a root directory that was not seen before.
    pub struct Notice {
        pub root: Root,
        pub tgid: u32,
        /// 1 where the process has just changed its root directory: told whether the root is a new one or not, since the
        /// numbers of namespaces and of directories come again at once.
        pub changed: u32,
    }
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::look;

#[cfg(target_arch = "bpf")]
mod programs {
    use core::ptr;

    use aya_ebpf::{
        EbpfContext as _,
        bindings::BPF_RB_FORCE_WAKEUP,
        helpers::generated as helpers,
        macros::{fexit, map, tracepoint},
        maps::{HashMap, RingBuf},
        programs::{FExitContext, TracePointContext},
    };

    use super::{Notice, Root};
    use crate::{
        kernel::{self, Field, Pointer, Ptr, Typed, argument, offset},
        scope,
    };

    /// Root directories that the agent was told of. The agent removes those that are gone. Where it is full, a root is
    /// told at each exec in it.
    #[map]
    static ROOTS: HashMap<Root, u8> = HashMap::with_max_entries(4096, 0);

    #[map]
    static RING_ROOTS: RingBuf = RingBuf::with_byte_size(65536, 0);

    /// Tells the agent if the root directory of the task that runs is a new one.
    #[inline(always)]
    pub(crate) fn look() {
        if kernel::tells_roots() {
            look_now(0);
        }
    }

    #[inline(never)]
    fn look_now(changed: u32) -> u32 {
        let root = if kernel::has_typed_task() { root_of(Typed::current()) } else { root_of(Ptr::current()) };
        if let Some(root) = root
            && (changed != 0 || ROOTS.get_ptr(&root).is_none())
        {
            let _full = ROOTS.insert(&root, 1, 0);
            tell(root, changed);
        }
        0
    }

    #[inline(always)]
    fn root_of<P: Pointer>(task: P) -> Option<Root> {
        let namespace = task.follow(offset!(task_nsproxy))?.follow(offset!(nsproxy_mnt_ns))?;
        let root = Field(offset!(fs_root).0 + offset!(path_dentry).0);
        let inode = task.follow(offset!(task_fs))?.follow(root)?.follow(offset!(dentry_inode))?;
        Some(Root {
            mount_namespace: namespace.read(offset!(mnt_namespace_inum))?,
            device: inode.follow(offset!(inode_sb))?.read(offset!(super_block_dev))?,
            inode: inode.read(offset!(inode_ino))?,
        })
    }

    #[inline(always)]
    fn tell(root: Root, changed: u32) {
        let notice = Notice { root, tgid: kernel::current_ids().0, changed };
        // SAFETY: a ring map, and a record of the size given.
        unsafe {
            helpers::bpf_ringbuf_output(
                ptr::from_ref(&RING_ROOTS).cast_mut().cast(),
                ptr::from_ref(&notice).cast_mut().cast(),
                size_of::<Notice>() as u64,
                u64::from(BPF_RB_FORCE_WAKEUP),
            )
        };
    }

    #[inline(always)]
    fn changed() {
        if kernel::tells_roots() && scope::contains_current() {
            look_now(1);
        }
    }

    /// hook: `syscalls:sys_exit_pivot_root` and `sys_exit_chroot`, `long ret` at 16: a container's root directory is
    /// there some time before its first program.
    #[tracepoint]
    pub fn root_changed(ctx: TracePointContext) -> u32 {
        // SAFETY: the format of the syscall exit tracepoints.
        if unsafe { ctx.read_at::<i64>(16) } == Ok(0) {
            changed();
        }
        0
    }

    /// The kernel's functions that the calls begin with.
    macro_rules! functions {
        ($($program:ident)*) => {$(
            #[fexit]
            pub fn $program(ctx: FExitContext) -> i32 {
                // SAFETY: the function has one argument, and its result stands behind it.
                if unsafe { argument(ctx.as_ptr(), 1) } == 0 {
                    changed();
                }
                0
            }
        )*};
    }

    // hook: `long __x64_sys_pivot_root(const struct pt_regs *regs)` and the like.
    // <https://github.com/torvalds/linux/blob/v6.18/fs/namespace.c>
    functions! { pivot_root_returns chroot_returns }
}
