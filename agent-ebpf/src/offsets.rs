//! Where the kernel keeps the fields that the programs read.
//!
//! rustc emits no CO-RE relocations, so the agent looks every offset up in the running kernel's
//! BTF at start and hands this struct to the programs as a read-only global. One table gives the
//! struct for the kernel side and the names for the look-up, so that the two cannot differ.

/// The value of an optional field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// One row of the table: how the agent finds an offset.
#[cfg(not(target_arch = "bpf"))]
#[derive(Debug)]
pub struct Field {
    /// The field's name in [`Offsets`].
    pub name: &'static str,
    /// `struct.member.member`, the newest name first; what older kernels call it after it.
    pub paths: &'static [&'static str],
    /// The member's size in bytes that the programs rely on; 0 where any will do.
    pub size: u32,
    /// Whether the agent starts without it.
    pub required: bool,
}

macro_rules! offsets {
    ($($(#[$meta:meta])* $need:ident $name:ident [$size:literal] = $($path:literal)|+;)*) => {
        /// Byte offsets, except where a field's comment says bits.
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        #[cfg_attr(not(target_arch = "bpf"), derive(
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable
        ))]
        pub struct Offsets { $($(#[$meta])* pub $name: u32,)* }

        impl Offsets {
            /// Before the agent has filled it in.
            pub const UNSET: Self = Self { $($name: ABSENT,)* };
        }

        /// The rows, in the order of the struct's members.
        #[cfg(not(target_arch = "bpf"))]
        pub const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            paths: &[$($path),+],
            size: $size,
            required: offsets!(@need $need),
        },)*];
    };
    (@need required) => { true };
    (@need optional) => { false };
}

offsets! {
    required task_tgid [4] = "task_struct.tgid";
    required task_pid [4] = "task_struct.pid";
    required task_group_leader [8] = "task_struct.group_leader";
    required task_real_parent [8] = "task_struct.real_parent";
    /// `real_start_time` before 5.5: <https://github.com/torvalds/linux/commit/cf25e24db61c>.
    required task_start_boottime [8] = "task_struct.start_boottime" | "task_struct.real_start_time";
    /// u32 up to 5.6, u64 later; the low half is read: little endian only.
    required task_exec_id [0] = "task_struct.self_exec_id";
    required task_comm [16] = "task_struct.comm";
    required task_cred [8] = "task_struct.cred";
    required task_cgroups [8] = "task_struct.cgroups";
    required task_mm [8] = "task_struct.mm";
    required task_fs [8] = "task_struct.fs";
    required task_nsproxy [8] = "task_struct.nsproxy";
    required task_signal [8] = "task_struct.signal";
    required task_thread_pid [8] = "task_struct.thread_pid";
    required task_exit_code [4] = "task_struct.exit_code";
    required task_flags [4] = "task_struct.flags";
    required task_sum_exec_runtime [8] = "task_struct.se.sum_exec_runtime";
    required task_thread_node [16] = "task_struct.thread_node";
    /// Only with `CONFIG_AUDIT`. The session id follows; the agent checks that it does.
    optional task_loginuid [4] = "task_struct.loginuid";
    optional task_sessionid [4] = "task_struct.sessionid";

    required signal_live [4] = "signal_struct.live";
    required signal_flags [4] = "signal_struct.flags";
    required signal_group_exit_code [4] = "signal_struct.group_exit_code";
    required signal_tty [8] = "signal_struct.tty";
    required signal_oom_mm [8] = "signal_struct.oom_mm";
    required signal_thread_head [16] = "signal_struct.thread_head";
    required signal_nr_threads [4] = "signal_struct.nr_threads";
    /// The lock's sequence is the first thing in it.
    required signal_stats_lock [0] = "signal_struct.stats_lock";
    required signal_sum_sched_runtime [8] = "signal_struct.sum_sched_runtime";
    required signal_maxrss [8] = "signal_struct.maxrss";
    required tty_name [64] = "tty_struct.name";

    /// The eight ids follow one another from here; the agent checks that they do.
    required cred_uid [4] = "cred.uid";
    required cred_fsgid [4] = "cred.fsgid";
    /// The five capability sets follow one another from here; the agent checks that they do.
    required cred_cap_inheritable [8] = "cred.cap_inheritable";
    required cred_cap_ambient [8] = "cred.cap_ambient";
    required cred_user_ns [8] = "cred.user_ns";
    required cred_group_info [8] = "cred.group_info";
    required group_info_ngroups [4] = "group_info.ngroups";

    required css_set_subsys [0] = "css_set.subsys";
    required css_set_dfl_cgrp [8] = "css_set.dfl_cgrp";
    required css_cgroup [8] = "cgroup_subsys_state.cgroup";
    required css_parent [8] = "cgroup_subsys_state.parent";
    required cgroup_self [0] = "cgroup.self";
    required cgroup_kn [8] = "cgroup.kn";
    required cgroup_root [8] = "cgroup.root";
    required cgroup_root_hierarchy_id [4] = "cgroup_root.hierarchy_id";
    required kernfs_node_id [8] = "kernfs_node.id";

    required mm_arg_start [8] = "mm_struct.arg_start";
    required mm_arg_end [8] = "mm_struct.arg_end";
    required mm_exe_file [8] = "mm_struct.exe_file";
    required file_path [16] = "file.f_path" | "file.__f_path";
    required file_inode [8] = "file.f_inode";
    required file_private_data [8] = "file.private_data";
    required socket_sk [8] = "socket.sk";
    required path_mnt [8] = "path.mnt";
    required path_dentry [8] = "path.dentry";
    required dentry_parent [8] = "dentry.d_parent";
    required dentry_name [8] = "dentry.d_name.name" | "dentry.__d_name.name";
    required mount_parent [8] = "mount.mnt_parent";
    required mount_mountpoint [8] = "mount.mnt_mountpoint";
    required mount_mnt [0] = "mount.mnt";
    required vfsmount_root [8] = "vfsmount.mnt_root";
    required fs_pwd [16] = "fs_struct.pwd";
    required fs_root [16] = "fs_struct.root";
    required dentry_inode [8] = "dentry.d_inode";

    required inode_ino [8] = "inode.i_ino";
    required inode_mode [2] = "inode.i_mode";
    required inode_uid [4] = "inode.i_uid";
    required inode_gid [4] = "inode.i_gid";
    required inode_nlink [4] = "inode.i_nlink" | "inode.__i_nlink";
    required inode_sb [8] = "inode.i_sb";
    required super_block_dev [4] = "super_block.s_dev";
    required super_block_magic [8] = "super_block.s_magic";
    /// Only where overlayfs is built in: a module's types are not in the kernel's own BTF.
    optional ovl_inode_vfs_inode [0] = "ovl_inode.vfs_inode";
    optional ovl_inode_upperdentry [8] = "ovl_inode.__upperdentry";

    required bprm_filename [8] = "linux_binprm.filename";
    required bprm_interp [8] = "linux_binprm.interp";
    required bprm_argc [4] = "linux_binprm.argc";
    required bprm_envc [4] = "linux_binprm.envc";
    /// In bits: a bit field, whose place the compiler chooses.
    required bprm_secureexec [0] = "linux_binprm.secureexec";

    required nsproxy_uts_ns [8] = "nsproxy.uts_ns";
    required nsproxy_ipc_ns [8] = "nsproxy.ipc_ns";
    required nsproxy_mnt_ns [8] = "nsproxy.mnt_ns";
    required nsproxy_net_ns [8] = "nsproxy.net_ns";
    optional nsproxy_time_ns [8] = "nsproxy.time_ns";
    optional nsproxy_cgroup_ns [8] = "nsproxy.cgroup_ns";
    required uts_namespace_inum [4] = "uts_namespace.ns.inum";
    required ipc_namespace_inum [4] = "ipc_namespace.ns.inum";
    required mnt_namespace_inum [4] = "mnt_namespace.ns.inum";
    required pid_namespace_inum [4] = "pid_namespace.ns.inum";
    required net_inum [4] = "net.ns.inum";
    optional time_namespace_inum [4] = "time_namespace.ns.inum";
    optional cgroup_namespace_inum [4] = "cgroup_namespace.ns.inum";
    required user_namespace_inum [4] = "user_namespace.ns.inum";
    required pid_level [4] = "pid.level";
    required pid_numbers [0] = "pid.numbers";
    required upid_nr [4] = "upid.nr";
    required upid_ns [8] = "upid.ns";

    /// Little endian: the addresses, a hash, the ports and the family follow one another from here; the agent checks it.
    required sock_daddr [4] = "sock.__sk_common.skc_daddr";
    required sock_family [2] = "sock.__sk_common.skc_family";
    required sock_rcv_saddr [4] = "sock.__sk_common.skc_rcv_saddr";
    required sock_dport [2] = "sock.__sk_common.skc_dport";
    required sock_num [2] = "sock.__sk_common.skc_num";
    required sock_v6_daddr [16] = "sock.__sk_common.skc_v6_daddr";
    required sock_v6_rcv_saddr [16] = "sock.__sk_common.skc_v6_rcv_saddr";
    /// Stays when the port is given back, which is before the change to CLOSE is told.
    required inet_sport [2] = "inet_sock.inet_sport";
    /// A bit field before 5.6, which is not supported.
    required sock_protocol [2] = "sock.sk_protocol";
    required sock_err [4] = "sock.sk_err";
    required sock_err_soft [4] = "sock.sk_err_soft";
    required sock_flags [8] = "sock.__sk_common.skc_flags";
    required tcp_bytes_sent [8] = "tcp_sock.bytes_sent";
    required tcp_bytes_retrans [8] = "tcp_sock.bytes_retrans";
    required tcp_bytes_received [8] = "tcp_sock.bytes_received";
}

#[cfg(all(test, not(target_arch = "bpf")))]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_member() {
        assert_eq!(FIELDS.len() * 4, size_of::<Offsets>());
    }
}
