//! The hook table: what each probe gives, where it attaches, and what it costs others.
//!
//! A row is data. [`super::Kernel`] loads and attaches the rows in this order; one that cannot be attached
//! is a degraded start that is reported, not a failure.

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The name in metrics, in `tellwire check` and in /readyz.
    pub(crate) name: &'static str,
    /// What is not seen without it.
    pub(crate) gives: &'static str,
    pub(crate) points: &'static [Point],
    /// What it does not cover, or costs code that it does not look at; empty for nothing.
    pub(crate) note: &'static str,
}

/// A program and where it attaches.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) program: &'static str,
    pub(crate) hook: Hook,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// A raw tracepoint, by its name: no cost but the program's own.
    RawTracepoint(&'static str),
    /// Tracepoints of the category `syscalls`, by their names. Any of them makes every system call of the
    /// machine take the slow way in and out.
    Syscalls(&'static [&'static str]),
    /// A program on the root of the cgroup v2 hierarchy.
    CgroupRoot,
}

const SYSCALL_TAX: &str =
    "adds some 40 ns to every system call of the machine; not seen from 32-bit programs";

/// All rows, in the order of attaching: cgroups before what happens in them, ends before beginnings.
pub(crate) const PROBES: &[Probe] = &[
    Probe {
        name: "cgroup_mkdir",
        gives: "containers known before their first process",
        points: &[Point { program: "on_cgroup_mkdir", hook: Hook::RawTracepoint("cgroup_mkdir") }],
        note: "",
    },
    Probe {
        name: "cgroup_rmdir",
        gives: "removed containers forgotten",
        points: &[Point { program: "on_cgroup_rmdir", hook: Hook::RawTracepoint("cgroup_rmdir") }],
        note: "",
    },
    Probe {
        name: "exit",
        gives: "exit",
        points: &[Point { program: "process_exit", hook: Hook::RawTracepoint("sched_process_exit") }],
        note: "",
    },
    Probe {
        name: "fork",
        gives: "parents of processes that never exec",
        points: &[Point { program: "process_fork", hook: Hook::RawTracepoint("sched_process_fork") }],
        note: "",
    },
    Probe {
        name: "exec",
        gives: "exec",
        points: &[Point { program: "process_exec", hook: Hook::RawTracepoint("sched_process_exec") }],
        note: "",
    },
    Probe {
        name: "connect",
        gives: "TCP connects and their outcomes",
        points: &[
            Point { program: "connect_state", hook: Hook::RawTracepoint("inet_sock_set_state") },
            Point { program: "connect_ended", hook: Hook::RawTracepoint("inet_sock_set_state") },
        ],
        note: "",
    },
    Probe {
        name: "connect_denied",
        gives: "TCP connects that fail before a packet is sent",
        points: &[
            Point { program: "connect4", hook: Hook::CgroupRoot },
            Point { program: "connect6", hook: Hook::CgroupRoot },
        ],
        note: "needs a cgroup v2 hierarchy; what an LSM denies is not seen",
    },
    Probe {
        name: "connect_errno",
        gives: "the errno of connects that fail before a packet is sent",
        points: &[Point { program: "connect_exit", hook: Hook::Syscalls(&["sys_exit_connect"]) }],
        note: SYSCALL_TAX,
    },
    Probe {
        name: "exec_failed",
        gives: "exec_failed",
        points: &[
            Point { program: "exec_exit", hook: Hook::Syscalls(&["sys_exit_execve", "sys_exit_execveat"]) },
            Point { program: "execve_enter", hook: Hook::Syscalls(&["sys_enter_execve"]) },
            Point { program: "execveat_enter", hook: Hook::Syscalls(&["sys_enter_execveat"]) },
        ],
        note: SYSCALL_TAX,
    },
    Probe {
        name: "credentials",
        gives: "setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid, setfsgid, setgroups, capset",
        points: &[
            Point {
                program: "credentials_exit",
                hook: Hook::Syscalls(&[
                    "sys_exit_setuid",
                    "sys_exit_setgid",
                    "sys_exit_setreuid",
                    "sys_exit_setregid",
                    "sys_exit_setresuid",
                    "sys_exit_setresgid",
                    "sys_exit_setfsuid",
                    "sys_exit_setfsgid",
                    "sys_exit_setgroups",
                    "sys_exit_capset",
                ]),
            },
            Point {
                program: "credentials_enter",
                hook: Hook::Syscalls(&[
                    "sys_enter_setuid",
                    "sys_enter_setgid",
                    "sys_enter_setreuid",
                    "sys_enter_setregid",
                    "sys_enter_setresuid",
                    "sys_enter_setresgid",
                    "sys_enter_setfsuid",
                    "sys_enter_setfsgid",
                    "sys_enter_setgroups",
                    "sys_enter_capset",
                ]),
            },
        ],
        note: "adds some 40 ns to every system call of the machine; what 32-bit programs call shows at the \
               process's next event",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_stands_in_one_row() {
        let mut programs: Vec<_> =
            PROBES.iter().flat_map(|probe| probe.points).map(|point| point.program).collect();
        let all = programs.len();
        programs.sort_unstable();
        programs.dedup();
        assert_eq!(programs.len(), all);
    }

    #[test]
    fn the_names_of_syscall_hooks_say_enter_or_exit() {
        for point in PROBES.iter().flat_map(|probe| probe.points) {
            if let Hook::Syscalls(names) = point.hook {
                for name in names {
                    assert!(name.starts_with("sys_enter_") || name.starts_with("sys_exit_"), "{name}");
                }
            }
        }
    }
}
