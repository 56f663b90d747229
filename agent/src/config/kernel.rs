//! The section `kernel`: the programs in the kernel, their maps and their settings.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::KernelLog;
use super::values::{Count, PowerOfTwo, Size, Time};

/// The programs in the kernel and their memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Kernel {
    /// The process ring and the network ring have this size each. The urgent ring (credentials,
    /// authentication, cgroups) is a quarter of it, but at least a page. What finds no room is
    /// counted and is in the metrics, but makes no line.
    pub(crate) ring_bytes: PowerOfTwo<4096, { 1 << 30 }>,
    /// What an exec record carries of the arguments, in bytes; the rest is cut, and the line says so.
    pub(crate) args_bytes: Size<0, 65536>,
    /// Connects that can wait for their outcome at the same time. Those beyond are told at once, with
    /// the outcome "unknown".
    pub(crate) pending_connects: Count<256, { 1 << 20 }>,
    /// Connections that this host has opened and that can be open at the same time for their end to be told, with what
    /// they carried. The end of those beyond is counted as lost.
    pub(crate) open_connections: Count<256, { 1 << 20 }>,
    /// Counters of all cgroups together: each cgroup takes one for each kind of event that it had.
    /// What finds no room is counted without its cgroup, so that sums stay exact.
    pub(crate) cgroup_counters: Count<1024, { 1 << 22 }>,
    /// Process records that one cgroup turns into lines in a second, 0 for no limit. What is
    /// throttled is counted, and metrics stay exact.
    pub(crate) throttle_process: Throttle,
    /// The same for network records.
    pub(crate) throttle_network: Throttle,
    /// The same for urgent records.
    pub(crate) throttle_urgent: Throttle,
    /// How often the rings are read under traffic. Longer costs less and needs larger rings: a
    /// ring must hold what comes in meanwhile.
    pub(crate) poll_interval: Time<1, 1000>,
    /// Whether functions of the kernel are hooked where it lets them be: credential calls, failed execs and the
    /// errno of a connect, of every ABI and at no cost to others. Without it, or where the kernel does not,
    /// tracepoints of system calls take their place. `tellwire check` says which it is.
    pub(crate) function_hooks: bool,
    /// A file with the types of the running kernel, for one that gives none in /sys/kernel/btf: BTF as it would stand there,
    /// or the kernel's ELF file (`vmlinux`) with a section `.BTF`, as `pahole -J` writes it. Empty for the kernel's own. Of
    /// another kernel's types the agent would read nonsense; so it holds sizes against those of the kernel's caches, and
    /// refuses any other types than the kernel's own where it has some.
    pub(crate) btf: PathBuf,
    /// How much the kernel programs say about themselves, in the agent's log. It costs time in
    /// the kernel: for finding a fault, not for running.
    pub(crate) log: KernelLog,
}

type Throttle = Count<0, 1_000_000_000>;

impl Default for Kernel {
    fn default() -> Self {
        Self {
            ring_bytes: const { PowerOfTwo::new(2 << 20) },
            args_bytes: const { Size::new(8192) },
            pending_connects: const { Count::new(16384) },
            open_connections: const { Count::new(16384) },
            cgroup_counters: const { Count::new(16384) },
            throttle_process: const { Count::new(20_000) },
            throttle_network: const { Count::new(100_000) },
            throttle_urgent: const { Count::new(20_000) },
            poll_interval: const { Time::from_millis(50) },
            function_hooks: true,
            btf: PathBuf::new(),
            log: KernelLog::Off,
        }
    }
}
