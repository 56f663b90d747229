//! The hook table: what each probe gives, the ways to attach it, and what each costs others.
//!
//! A row is data. [`super::attach`] loads and attaches the rows in this order, each by the first of its
//! alternatives that this kernel takes; a row that cannot be attached at all is a degraded start that is
//! reported, not a failure.

use tellwire_ebpf::wire::Kind;

use super::hooks::{Alternative, By, Function, Hook, Point, Probe};

const fn raw(program: &'static str, tracepoint: &'static str) -> Point {
    Point { program, hook: Hook::RawTracepoint(tracepoint) }
}

const fn typed(program: &'static str, tracepoint: &'static str) -> Point {
    Point { program, hook: Hook::TypedTracepoint(tracepoint) }
}

const fn again(program: &'static str, hook: &'static Hook) -> Point {
    Point { program, hook: Hook::Again(hook) }
}

const fn jump_again(program: &'static str, tracepoint: &'static str, kind: Kind) -> Point {
    Point { program, hook: Hook::JumpAgain(tracepoint, kind) }
}

const fn by_raw_tracepoint(points: &'static [Point]) -> Alternative {
    Alternative { by: By::RawTracepoint, points, note: "" }
}

/// The kernel's function for a system call: of the machine's own ABI, or of 32-bit programs.
macro_rules! syscall {
    ($call:literal) => {
        Function {
            name: if cfg!(target_arch = "x86_64") {
                concat!("__x64_sys_", $call)
            } else {
                concat!("__arm64_sys_", $call)
            },
            optional: false,
        }
    };
    (32-bit $x86:literal, $arm64:literal) => {
        Function { name: if cfg!(target_arch = "x86_64") { $x86 } else { $arm64 }, optional: true }
    };
}

/// The programs at the beginning and at the end of a function.
macro_rules! both {
    ($($enter:literal, $exit:literal: $function:expr;)*) => {
        &[$(
            Point { program: $exit, hook: Hook::Exit($function) },
            Point { program: $enter, hook: Hook::Entry($function) },
        )*]
    };
}

/// Programs on the functions of a library.
macro_rules! library {
    ($hook:ident: $($program:literal on $function:literal,)*) => {
        &[Alternative {
            by: By::LibraryFunctions,
            points: &[$(Point { program: $program, hook: Hook::$hook($function) },)*],
            note: "in each libpam that is found on the host and in containers; docs/auth.md says what has none",
        }]
    };
}

const fn shared(name: &'static str) -> Function {
    Function { name, optional: false }
}

const SYSCALL_TAX: &str =
    "adds some 40 ns to every system call of the machine; not seen from 32-bit programs";

/// All rows, in the order of attaching: cgroups before what happens in them, ends before beginnings.
pub(crate) const PROBES: &[Probe] = &[
    Probe {
        name: "cgroup_mkdir",
        gives: "containers known before their first process",
        alternatives: &[by_raw_tracepoint(&[raw("on_cgroup_mkdir", "cgroup_mkdir")])],
    },
    Probe {
        name: "cgroup_rmdir",
        gives: "removed containers forgotten",
        alternatives: &[by_raw_tracepoint(&[raw("on_cgroup_rmdir", "cgroup_rmdir")])],
    },
    Probe {
        name: "exit",
        gives: "exit",
        alternatives: &[
            by_raw_tracepoint(&[
                raw("process_exit", "sched_process_exit"),
                jump_again("process_exit_again", "sched_process_exit", Kind::Exit),
                jump_again("process_exit_once_more", "sched_process_exit", Kind::Exit),
            ]),
            // Before 5.17.
            Alternative {
                by: By::RawTracepoint,
                points: &[raw("process_exit_unrolled", "sched_process_exit")],
                note: "of a process that ends with more than 64 threads the CPU time of those only that began first",
            },
        ],
    },
    Probe {
        name: "fork",
        gives: "parents of processes that never exec",
        alternatives: &[by_raw_tracepoint(&[
            raw("process_fork", "sched_process_fork"),
            jump_again("process_fork_again", "sched_process_fork", Kind::Fork),
            jump_again("process_fork_once_more", "sched_process_fork", Kind::Fork),
        ])],
    },
    Probe {
        name: "exec",
        gives: "exec",
        alternatives: &[
            by_raw_tracepoint(&[
                raw("process_exec", "sched_process_exec"),
                jump_again("process_exec_again", "sched_process_exec", Kind::Exec),
                jump_again("process_exec_once_more", "sched_process_exec", Kind::Exec),
            ]),
            // Before 5.17.
            Alternative {
                by: By::RawTracepoint,
                points: &[raw("process_exec_unrolled", "sched_process_exec")],
                note: "of paths with more than 128 names only those nearest to the file",
            },
        ],
    },
    Probe {
        name: "connect",
        gives: "TCP connects and their outcomes",
        alternatives: &[
            Alternative {
                by: By::TypedTracepoint,
                points: &[
                    typed("connect_state", "inet_sock_set_state"),
                    typed("connect_ended", "inet_sock_set_state"),
                    again("connect_again", &Hook::TypedTracepoint("inet_sock_set_state")),
                ],
                note: "",
            },
            by_raw_tracepoint(&[
                raw("connect_state_untyped", "inet_sock_set_state"),
                raw("connect_ended_untyped", "inet_sock_set_state"),
                again("connect_again_untyped", &Hook::RawTracepoint("inet_sock_set_state")),
            ]),
        ],
    },
    Probe {
        name: "connect_denied",
        gives: "TCP connects that fail before a packet is sent",
        alternatives: &[Alternative {
            by: By::CgroupHook,
            points: &[
                Point { program: "connect4", hook: Hook::CgroupRoot },
                Point { program: "connect6", hook: Hook::CgroupRoot },
            ],
            note: "needs a cgroup v2 hierarchy; what an LSM denies is not seen",
        }],
    },
    Probe {
        name: "connect_errno",
        gives: "the errno of connects that fail before a packet is sent",
        alternatives: &[
            Alternative {
                by: By::Functions,
                points: &[Point {
                    program: "connect_returns",
                    hook: Hook::Exit(shared("__sys_connect_file")),
                }],
                note: "",
            },
            Alternative {
                by: By::SyscallTracepoints,
                points: &[Point { program: "connect_exit", hook: Hook::Syscalls(&["sys_exit_connect"]) }],
                note: SYSCALL_TAX,
            },
        ],
    },
    Probe {
        name: "exec_failed",
        gives: "exec_failed",
        alternatives: &[
            Alternative {
                by: By::Functions,
                points: &[
                    Point { program: "execve_failed", hook: Hook::Exit(syscall!("execve")) },
                    Point { program: "execveat_failed", hook: Hook::Exit(syscall!("execveat")) },
                    Point {
                        program: "execve_failed_compat",
                        hook: Hook::Exit(
                            syscall!(32-bit "__ia32_compat_sys_execve", "__arm64_compat_sys_execve"),
                        ),
                    },
                    Point {
                        program: "execveat_failed_compat",
                        hook: Hook::Exit(
                            syscall!(32-bit "__ia32_compat_sys_execveat", "__arm64_compat_sys_execveat"),
                        ),
                    },
                ],
                note: "",
            },
            Alternative {
                by: By::SyscallTracepoints,
                points: &[
                    Point {
                        program: "exec_exit",
                        hook: Hook::Syscalls(&["sys_exit_execve", "sys_exit_execveat"]),
                    },
                    Point { program: "execve_enter", hook: Hook::Syscalls(&["sys_enter_execve"]) },
                    Point { program: "execveat_enter", hook: Hook::Syscalls(&["sys_enter_execveat"]) },
                ],
                note: SYSCALL_TAX,
            },
        ],
    },
    Probe {
        name: "credentials",
        gives: "setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid, setfsgid, setgroups, capset",
        alternatives: &[
            Alternative {
                by: By::Functions,
                points: both! {
                    "setuid_enter", "setuid_exit": shared("__sys_setuid");
                    "setgid_enter", "setgid_exit": shared("__sys_setgid");
                    "setreuid_enter", "setreuid_exit": shared("__sys_setreuid");
                    "setregid_enter", "setregid_exit": shared("__sys_setregid");
                    "setresuid_enter", "setresuid_exit": shared("__sys_setresuid");
                    "setresgid_enter", "setresgid_exit": shared("__sys_setresgid");
                    "setfsuid_enter", "setfsuid_exit": shared("__sys_setfsuid");
                    "setfsgid_enter", "setfsgid_exit": shared("__sys_setfsgid");
                    "setgroups_enter", "setgroups_exit": syscall!("setgroups");
                    "setgroups_enter_compat", "setgroups_exit_compat":
                        syscall!(32-bit "__ia32_sys_setgroups", "");
                    "setgroups_enter_16", "setgroups_exit_16":
                        syscall!(32-bit "__ia32_sys_setgroups16", "__arm64_sys_setgroups16");
                    "capset_enter", "capset_exit": syscall!("capset");
                    "capset_enter_compat", "capset_exit_compat": syscall!(32-bit "__ia32_sys_capset", "");
                },
                note: "",
            },
            Alternative {
                by: By::SyscallTracepoints,
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
                note: "adds some 40 ns to every system call of the machine; what 32-bit programs call shows at \
                       the process's next event",
            },
        ],
    },
    Probe {
        name: "container_roots",
        gives: "libraries of containers, found before their first program runs",
        alternatives: &[
            Alternative {
                by: By::Functions,
                points: &[
                    Point { program: "pivot_root_returns", hook: Hook::Exit(syscall!("pivot_root")) },
                    Point { program: "chroot_returns", hook: Hook::Exit(syscall!("chroot")) },
                ],
                note: "",
            },
            Alternative {
                by: By::SyscallTracepoints,
                points: &[Point {
                    program: "root_changed",
                    hook: Hook::Syscalls(&["sys_exit_pivot_root", "sys_exit_chroot"]),
                }],
                note: SYSCALL_TAX,
            },
        ],
    },
    Probe {
        name: "pam_results",
        gives: "results and durations of PAM calls, and user names that are asked for",
        alternatives: library! {
            LibraryReturn:
            "pam_start_return" on "pam_start",
            "pam_start_confdir_return" on "pam_start_confdir",
            "pam_set_item_return" on "pam_set_item",
            "pam_authenticate_return" on "pam_authenticate",
            "pam_acct_mgmt_return" on "pam_acct_mgmt",
            "pam_setcred_return" on "pam_setcred",
            "pam_open_session_return" on "pam_open_session",
            "pam_close_session_return" on "pam_close_session",
            "pam_chauthtok_return" on "pam_chauthtok",
        },
    },
    Probe {
        name: "pam",
        gives: "pam_authenticate, pam_account, pam_setcred, pam_session_open, pam_session_close, pam_chauthtok",
        alternatives: library! {
            Library:
            "pam_start_enter" on "pam_start",
            "pam_start_confdir_enter" on "pam_start_confdir",
            "pam_set_item_enter" on "pam_set_item",
            "pam_authenticate_enter" on "pam_authenticate",
            "pam_acct_mgmt_enter" on "pam_acct_mgmt",
            "pam_setcred_enter" on "pam_setcred",
            "pam_open_session_enter" on "pam_open_session",
            "pam_close_session_enter" on "pam_close_session",
            "pam_chauthtok_enter" on "pam_chauthtok",
            "pam_end_enter" on "pam_end",
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> impl Iterator<Item = &'static Point> {
        PROBES.iter().flat_map(|probe| probe.alternatives).flat_map(|alternative| alternative.points)
    }

    #[test]
    fn a_program_stands_in_one_row() {
        let mut programs: Vec<_> = points().map(|point| point.program).collect();
        let all = programs.len();
        programs.sort_unstable();
        programs.dedup();
        assert_eq!(programs.len(), all);
    }

    #[test]
    fn every_row_has_a_way_that_needs_no_optional_function() {
        for probe in PROBES {
            let is_needed = |point: &Point| match point.hook {
                Hook::Entry(function) | Hook::Exit(function) => !function.optional,
                _ => true,
            };
            assert!(probe.alternatives.iter().all(|way| way.points.iter().any(is_needed)), "{}", probe.name);
        }
    }

    #[test]
    fn the_names_of_syscall_hooks_say_enter_or_exit() {
        for point in points() {
            if let Hook::Syscalls(names) = point.hook {
                for name in names {
                    assert!(name.starts_with("sys_enter_") || name.starts_with("sys_exit_"), "{name}");
                }
            }
        }
    }
}
