//! What the agent tells the programs: facts that are frozen at load, and settings that may change.

use crate::wire::wire;

wire! {
    /// Facts about the host, frozen before the programs load, so that the verifier drops what
    /// this host does not need.
    pub struct Host {
        /// Index in `css_set.subsys` of the v1 controller that names containers; `u32::MAX` for none.
        pub v1_subsystem: u32,
        /// That controller's `cgroup_root.hierarchy_id`.
        pub v1_hierarchy: u32,
        /// 1 if only the cgroups in the map `SCOPE` are looked at.
        pub scoped: u32,
        /// 1 if the tracepoint `sched_process_exit` has the argument `group_dead`.
        pub exit_has_group_dead: u32,
        /// 1 if the kernel hands out the current task as a typed pointer (`bpf_get_current_task_btf`, since 5.11).
        pub typed_task: u32,
        /// 1 if returns of functions in user space are not probed.
        pub entry_probes_alone: u32,
        /// 1 if the agent wants to hear of root directories that it has not seen, see [`crate::roots`].
        pub roots_told: u32,
        /// 1 if programs on tracepoints can be preempted, and are then skipped where they are called once more.
        pub preemptible: u32,
        /// Always 0: for code that a program must have and never runs.
        pub never: u32,
        /// System call numbers of this architecture, by the order of [`crate::privilege::Call`].
        pub credential_calls: [u32; 10],
        /// Where a `pt_regs` has the pointer to the path: of execve and execveat, then of both from 32-bit programs.
        pub exec_path_registers: [u32; 4],
    }

    /// Settings that can be changed while the programs run; the one element of the map `SETTINGS`.
    pub struct Settings {
        /// Bytes of argv that an exec record may carry.
        pub args_max: u32,
        /// Bit n set: records of kind n are submitted. Without it they are counted as filtered.
        pub kinds: u32,
        /// Records a second that one cgroup may submit, by ring; 0 for no limit.
        pub throttle: [u32; 3],
        /// Bytes waiting in a ring past which the reader is woken at once, by ring.
        pub wake_bytes: [u32; 3],
        /// Connections that may be open at the same time for their end to be told.
        pub open_connections: u32,
    }

    /// A cgroup of one of the two hierarchies that the agent knows.
    pub struct CgroupKey {
        /// Inode number of the cgroup's directory.
        pub id: u64,
        /// [`CgroupKey::V1`] or [`CgroupKey::V2`]: ids are unique within a hierarchy only.
        pub hierarchy: u64,
    }
}

impl Host {
    /// Before the agent has filled it in.
    pub const UNSET: Self = Self {
        v1_subsystem: u32::MAX,
        v1_hierarchy: 0,
        scoped: 0,
        exit_has_group_dead: 0,
        typed_task: 0,
        entry_probes_alone: 0,
        roots_told: 0,
        preemptible: 0,
        never: 0,
        credential_calls: [u32::MAX; 10],
        exec_path_registers: [u32::MAX; 4],
    };
}

impl CgroupKey {
    pub const V1: u64 = 1;
    pub const V2: u64 = 2;
}

/// What exec records carry at the most, whatever the settings say, in bytes.
pub const ARGS_LIMIT: u32 = 64 * 1024;
