//! What an exec record says of the process and of its file, beside its strings.

use super::{Exec, Namespaces};
use crate::{
    kernel::{Pointer, Ptr, offset},
    task,
};

/// `OVERLAYFS_SUPER_MAGIC`, include/uapi/linux/magic.h.
const OVERLAYFS: u64 = 0x794c_7630;

/// What a record takes from the task, followed once: each pointer that is read from a task makes the verifier of 6.3 to 6.18
/// search all of the kernel's types, three times (`btf_nested_type_is_trusted` in kernel/bpf/btf.c, v6.18). On 7.3
/// that search does not show in a profile.
pub(super) struct Task<P> {
    credentials: P,
    pub(super) fs: P,
    pub(super) mm: P,
    nsproxy: P,
    signal: P,
    thread_pid: P,
}

impl<P: Pointer> Task<P> {
    #[inline(always)]
    pub(super) fn of(task: P) -> Option<Self> {
        Some(Self {
            credentials: task::credentials(task)?,
            fs: task.follow(offset!(task_fs))?,
            mm: task.follow(offset!(task_mm))?,
            nsproxy: task.follow(offset!(task_nsproxy))?,
            signal: task.follow(offset!(task_signal))?,
            thread_pid: task.follow(offset!(task_thread_pid))?,
        })
    }
}

/// Writes the fixed part, but for the spans: member by member, since the whole would not fit on the stack.
///
/// What a process always has is followed with `?`: an option that stays open would double the verifier's
/// work. Should one be missing all the same, what follows it stays zero.
#[inline(always)]
pub(super) fn write<P: Pointer>(task: &Task<P>, bprm: Ptr, exec: &mut Exec) -> Option<()> {
    exec.argc = bprm.read(offset!(bprm_argc))?;
    exec.envc = bprm.read(offset!(bprm_envc))?;
    let secure_bit = offset!(bprm_secureexec).0;
    let secure_word = Ptr(bprm.0.wrapping_add(u64::from(secure_bit / 32 * 4))).get::<u32>()?;
    if secure_word >> (secure_bit % 32) & 1 != 0 {
        exec.flags |= Exec::FLAG_SECURE;
    }
    let (vpid, pid_namespace) = vpid_of(task.thread_pid)?;
    exec.vpid = vpid;
    exec.namespaces.pid = pid_namespace;
    terminal(task, exec);
    let cred = task.credentials;
    exec.capabilities = task::capabilities(cred)?;
    exec.namespaces.user = cred.follow(offset!(cred_user_ns))?.read(offset!(user_namespace_inum))?;
    namespaces(task.nsproxy, &mut exec.namespaces);
    let file = task.mm.follow(offset!(mm_exe_file))?;
    let inode = file.follow(offset!(file_inode))?;
    exec.inode = inode.read(offset!(inode_ino))?;
    exec.links = inode.read(offset!(inode_nlink))?;
    exec.mode = u32::from(inode.read::<u16>(offset!(inode_mode))?);
    exec.owner_uid = inode.read(offset!(inode_uid))?;
    exec.owner_gid = inode.read(offset!(inode_gid))?;
    let super_block = inode.follow(offset!(inode_sb))?;
    exec.device = super_block.read(offset!(super_block_dev))?;
    exec.flags |= layer(inode, super_block);
    Some(())
}

#[inline(always)]
fn terminal<P: Pointer>(task: &Task<P>, exec: &mut Exec) -> Option<()> {
    let tty = task.signal.follow(offset!(signal_tty))?;
    let name: [u64; 3] = tty.read_8(offset!(tty_name))?;
    // SAFETY: 24 bytes are 24 bytes.
    exec.tty = unsafe { core::mem::transmute::<[u64; 3], [u8; 24]>(name) };
    Some(())
}

/// Whether the file is an overlay's own, or the lower layer's.
#[inline(always)]
fn layer<P: Pointer>(inode: P, super_block: P) -> u32 {
    if super_block.read(offset!(super_block_magic)) != Some(OVERLAYFS) {
        return 0;
    }
    let (outer, upper) = (offset!(ovl_inode_vfs_inode), offset!(ovl_inode_upperdentry));
    if outer.0 == crate::offsets::ABSENT {
        return 0;
    }
    match Ptr(inode.address().wrapping_sub(u64::from(outer.0))).read::<u64>(upper) {
        Some(0) => Exec::FLAG_LAYER_KNOWN,
        Some(_) => Exec::FLAG_LAYER_KNOWN | Exec::FLAG_UPPER_LAYER,
        None => 0,
    }
}

/// The process id in the innermost pid namespace, and that namespace's inode number.
#[inline(always)]
pub(crate) fn innermost_pid(task: impl Pointer) -> Option<(u32, u32)> {
    vpid_of(task.follow(offset!(task_thread_pid))?)
}

#[inline(always)]
fn vpid_of(thread_pid: impl Pointer) -> Option<(u32, u32)> {
    let pid = Ptr(thread_pid.address());
    let level: u32 = pid.read(offset!(pid_level))?;
    // `struct upid` is an int and a pointer on every 64-bit architecture.
    let upid = pid.field(offset!(pid_numbers))?.element(level, 16);
    let nr = upid.read(offset!(upid_nr))?;
    let inum = upid.follow(offset!(upid_ns)).and_then(|ns| ns.read(offset!(pid_namespace_inum))).unwrap_or(0);
    Some((nr, inum))
}

#[inline(always)]
fn namespaces<P: Pointer>(proxy: P, to: &mut Namespaces) {
    let inum = |member, inum| proxy.follow(member).and_then(|ns| ns.read(inum)).unwrap_or(0);
    to.cgroup = inum(offset!(nsproxy_cgroup_ns), offset!(cgroup_namespace_inum));
    to.ipc = inum(offset!(nsproxy_ipc_ns), offset!(ipc_namespace_inum));
    to.mnt = inum(offset!(nsproxy_mnt_ns), offset!(mnt_namespace_inum));
    to.net = inum(offset!(nsproxy_net_ns), offset!(net_inum));
    to.time = inum(offset!(nsproxy_time_ns), offset!(time_namespace_inum));
    to.uts = inum(offset!(nsproxy_uts_ns), offset!(uts_namespace_inum));
}
