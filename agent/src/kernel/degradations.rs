//! What a kernel or a host cannot give, with the reason: the one table of it.
//!
//! A row holds by what was found at start, and not by a version, since distributions bring changes back. It is printed by
//! `tellwire check`, stands among the notes of /readyz, and in docs/kernels.md. Tests ask `check` before they expect less.
//! A row of the hook table that is not attached at all is reported by itself.

use super::{
    attach::Attached,
    hooks::{By, Hook, Point},
    program_info::ProgramStats,
    support::Support,
};

/// One row.
#[derive(Debug)]
pub(crate) struct Degradation {
    /// What `check --json` and the tests call it.
    pub(crate) name: &'static str,
    /// Where it is so.
    pub(crate) kernels: &'static str,
    /// What is not seen, or not known.
    pub(crate) lacks: &'static str,
    /// Why, with the kernel's commit.
    pub(crate) reason: &'static str,
    holds: fn(&Found<'_>) -> bool,
}

/// What was found at start.
pub(super) struct Found<'a> {
    pub(super) support: &'a Support,
    pub(super) probes: &'a [Attached],
    /// Figures of any program.
    pub(super) stats: ProgramStats,
}

impl Found<'_> {
    fn is_by(&self, probe: &str, by: By) -> bool {
        self.probes.iter().any(|attached| {
            attached.probe.name == probe && attached.chosen.is_some_and(|chosen| chosen.by == by)
        })
    }

    fn is_refused(&self, verdict: &str) -> bool {
        self.probes.iter().filter_map(Attached::failure).any(|why| why.contains(verdict))
    }

    fn has_any(&self, is_it: fn(&Point) -> bool) -> bool {
        let chosen = self.probes.iter().filter_map(|attached| attached.chosen);
        chosen.flat_map(|chosen| chosen.points).any(is_it)
    }
}

/// The table.
pub(crate) const DEGRADATIONS: &[Degradation] = &[
    Degradation {
        name: "runs_skipped_under_preemption",
        kernels: "7.0 and later, where the kernel is built to be preempted",
        lacks: "an exec, exit, fork or connect whose three programs were all passed over; how many at the most is in \
                tellwire_probe_missed_total",
        reason: "tracepoints leave preemption on (\"tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with \
                 SRCU-fast\"), and the kernel does not run a program on a CPU where a preempted task is in the middle of it",
        holds: |found| found.support.facts.preemptible != 0,
    },
    Degradation {
        name: "skipped_runs_unknown",
        kernels: "before 5.12",
        lacks: "tellwire_probe_missed_total: how often the kernel passed a program over",
        reason: "it is counted since commit 9ed9e9ba2337 (bpf: Count the number of times recursion was prevented)",
        holds: |found| found.stats.misses.is_none(),
    },
    Degradation {
        name: "verifier_cost_unknown",
        kernels: "before 5.16",
        lacks: "how many instructions the verifier processed, in `tellwire check` and `cargo xtask verify`",
        reason: "it is told since commit aba64c7da983 (bpf: Add verified_insns to bpf_prog_info and fdinfo)",
        holds: |found| found.stats.verified.is_none(),
    },
    Degradation {
        name: "paths_of_many_names",
        kernels: "before 5.17",
        lacks: "the names nearest to the root, of an executable or working directory whose path has more than 128",
        reason: "bpf_loop came with commit e6f2dd0f8067 (bpf: Add bpf_loop helper); without it each turn of a loop is the \
                 verifier's work",
        holds: |found| found.has_any(|point| point.program == "process_exec_unrolled"),
    },
    Degradation {
        name: "cpu_time_of_many_threads",
        kernels: "before 5.17",
        lacks: "of a process that ends with more than 64 threads, the CPU time of those that began last",
        reason: "there is no bpf_loop, as for paths_of_many_names",
        holds: |found| found.has_any(|point| point.program == "process_exit_unrolled"),
    },
    Degradation {
        name: "failed_execs_of_32_bit_programs",
        kernels: "5.10 on x86-64, and wherever functions cannot be hooked",
        lacks: "execs of 32-bit programs that fail; and every system call of the machine takes some 40 ns longer",
        reason: "the types of 5.10 give __x64_sys_execveat no arguments, as the stub of kernel/sys_ni.c has none, so the \
                 verifier refuses a program that reads them; tracepoints of system calls do not show 32-bit calls",
        holds: |found| found.is_by("exec_failed", By::SyscallTracepoints),
    },
    Degradation {
        name: "connects_denied_by_a_security_module",
        kernels: "wherever functions cannot be hooked",
        lacks: "connects that Landlock, AppArmor, SELinux or the like denies",
        reason: "the module is asked before the cgroup hook, and before the socket changes its state (__sys_connect_file in \
                 net/socket.c)",
        holds: |found| found.is_by("connect_errno", By::SyscallTracepoints),
    },
    Degradation {
        name: "credential_calls_of_32_bit_programs",
        kernels: "wherever functions cannot be hooked",
        lacks: "credential calls of 32-bit programs as calls; that something changed shows at the process's next event",
        reason: "tracepoints of system calls do not show 32-bit calls (ARCH_TRACE_IGNORE_COMPAT_SYSCALLS in asm/ftrace.h of x86 \
                 and arm64)",
        holds: |found| found.is_by("credentials", By::SyscallTracepoints),
    },
    Degradation {
        name: "kernel_memory_locked",
        kernels: "any, with lockdown=confidentiality",
        lacks: "nearly everything: only connects that fail before a packet is sent are told",
        reason: "programs may not read the kernel's memory there (commit 9d1f8be5cf42, bpf: Restrict bpf when kernel lockdown is \
                 in confidentiality mode); lockdown=integrity is no obstacle",
        holds: |found| found.is_refused("cannot use helper bpf_probe_read"),
    },
    Degradation {
        name: "no_cgroup_v2",
        kernels: "any, with cgroup v1 alone",
        lacks: "connects that fail before a packet is sent; --cgroup; the cgroups of container engines that use v2",
        reason: "programs of cgroups stand on the v2 hierarchy, and none is mounted (systemd.unified_cgroup_hierarchy=1 \
                 on the kernel's command line mounts it)",
        holds: |found| !found.has_any(|point| point.hook == Hook::CgroupRoot),
    },
];

/// The rows that hold here.
pub(super) fn of(found: &Found<'_>) -> Vec<&'static Degradation> {
    DEGRADATIONS.iter().filter(|row| (row.holds)(found)).collect()
}

#[cfg(test)]
mod tests {
    use super::DEGRADATIONS;

    #[test]
    fn the_page_on_kernels_has_every_row() {
        let page = include_str!("../../../docs/kernels.md");
        for row in DEGRADATIONS {
            let line = format!("| `{}` | {} | {} | {} |", row.name, row.kernels, row.lacks, row.reason);
            assert!(page.contains(&line), "docs/kernels.md lacks this line:\n{line}");
        }
    }

    #[test]
    fn every_row_has_a_name_of_its_own_and_says_why() {
        let mut names: Vec<_> = DEGRADATIONS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DEGRADATIONS.len());
        assert!(DEGRADATIONS.iter().all(|row| !row.kernels.is_empty() && row.reason.len() > row.name.len()));
    }
}
