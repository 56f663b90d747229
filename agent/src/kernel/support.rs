//! What this kernel and this host offer. Facts only; what follows from them is decided elsewhere.

use std::fs;

use tellwire_ebpf::settings::Host;
use thiserror::Error;

use super::{
    btf::Btf,
    types::Types,
    uretprobe::{UprobeEvents, try_out},
};
use crate::{
    config::Auth,
    host::{Hierarchies, HostRoot},
};

/// Why the agent may not.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "missing {0}: run as root (`sudo tellwire run`), or give the program the capabilities CAP_BPF, \
         CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
)]
pub(crate) struct MissingCapability(pub(crate) &'static str);

/// What of libraries is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    Nothing,
    /// Functions where they begin.
    Entries,
    /// And where they return.
    Returns,
}

impl Probed {
    pub(crate) const fn new(auth: &Auth) -> Self {
        match (auth.pam, auth.library_returns) {
            (false, _) => Self::Nothing,
            (true, false) => Self::Entries,
            (true, true) => Self::Returns,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Support {
    /// The output of `uname -r`.
    pub(crate) release: String,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) facts: Host,
    /// Why returns of functions in user space are not probed.
    pub(crate) no_returns: Option<String>,
}

impl Support {
    /// Asks the kernel.
    ///
    /// Where returns in libraries are to be probed, a child tries out what that does to a confined process.
    pub(crate) fn detect(host: &HostRoot, types: &Types, scoped: bool, probed: Probed) -> Self {
        let btf = &types.btf;
        let hierarchies = host.hierarchies();
        let v1_subsystem = hierarchies
            .v1
            .as_ref()
            .and_then(|v1| btf.enumerator("cgroup_subsys_id", &format!("{}_cgrp_id", v1.controller)));
        let no_returns = match probed {
            Probed::Nothing => None,
            Probed::Entries => Some("switched off by auth.library-returns".into()),
            Probed::Returns => {
                UprobeEvents::detect().and_then(try_out).err().map(|error| format!("{error:#}"))
            }
        };
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let facts = Host {
            v1_subsystem: v1_subsystem.unwrap_or(u32::MAX),
            v1_hierarchy: hierarchies.v1.as_ref().map_or(0, |v1| v1.hierarchy),
            scoped: u32::from(scoped),
            exit_has_group_dead: u32::from(btf.tracepoint_arguments("sched_process_exit") == Some(2)),
            typed_task: u32::from(btf.enumerator("bpf_func_id", "BPF_FUNC_get_current_task_btf").is_some()),
            entry_probes_alone: u32::from(no_returns.is_some()),
            roots_told: u32::from(probed != Probed::Nothing),
            never: 0,
            preemptible: u32::from(has_preemptible_tracepoints(&release, btf)),
            credential_calls: CREDENTIAL_CALLS,
            exec_path_registers: EXEC_PATH_REGISTERS,
        };
        Self { release, hierarchies, facts, no_returns }
    }
}

/// Since 7.0 tracepoints are guarded by `tracepoint_srcu`, and no more by switching preemption off. A variable of that name
/// was there before 6.13 too, for tracepoints of idle CPUs: so the release counts as well.
fn has_preemptible_tracepoints(release: &str, btf: &Btf) -> bool {
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= 7) && btf.has_variable("tracepoint_srcu")
}

// include/uapi/linux/capability.h (v6.18). CAP_SYS_ADMIN stood for the others before 5.8, and still does.
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// Refuses a process that lacks what loading programs takes.
pub(crate) fn check_capabilities() -> Result<(), MissingCapability> {
    let effective = effective_capabilities();
    if effective & (SYS_ADMIN | BPF) == 0 {
        return Err(MissingCapability("CAP_BPF"));
    }
    if effective & (SYS_ADMIN | PERFMON) == 0 {
        return Err(MissingCapability("CAP_PERFMON"));
    }
    if effective & (SYS_ADMIN | NET_ADMIN) == 0 {
        return Err(MissingCapability("CAP_NET_ADMIN"));
    }
    Ok(())
}

/// The set in /proc/self/status; none where that cannot be read.
fn effective_capabilities() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| crate::host::capability_set(&status, "CapEff:"))
        .unwrap_or(0)
}

/// By the order of [`tellwire_ebpf::privilege::Call`].
/// `arch/x86/entry/syscalls/syscall_64.tbl` and `scripts/syscall.tbl` (v6.18).
#[cfg(target_arch = "x86_64")]
const CREDENTIAL_CALLS: [u32; 10] = [105, 106, 113, 114, 117, 119, 122, 123, 116, 126];
#[cfg(target_arch = "aarch64")]
const CREDENTIAL_CALLS: [u32; 10] = [146, 144, 145, 143, 147, 149, 151, 152, 159, 91];

/// Offsets in `struct pt_regs` of the registers with the path of execve and execveat, then of both from 32-bit programs.
/// rdi, rsi, rbx, rcx: arch/x86/include/asm/ptrace.h (v6.18).
#[cfg(target_arch = "x86_64")]
const EXEC_PATH_REGISTERS: [u32; 4] = [112, 104, 40, 88];
/// x0, x1 and again: arch/arm64/include/asm/ptrace.h (v6.18).
#[cfg(target_arch = "aarch64")]
const EXEC_PATH_REGISTERS: [u32; 4] = [0, 8, 0, 8];
