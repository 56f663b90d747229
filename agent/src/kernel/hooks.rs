//! What a row of the hook table is made of; the table itself is [`super::probes::PROBES`].

use tellwire_ebpf::wire::Kind;

/// What rows about PAM are called, which are left out where it is not looked at.
const OF_PAM: [&str; 3] = ["container_roots", "pam_results", "pam"];

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The name in metrics, in `tellwire check` and in /readyz.
    pub(crate) name: &'static str,
    /// What is not seen without it.
    pub(crate) gives: &'static str,
    /// The best first.
    pub(crate) alternatives: &'static [Alternative],
}

impl Probe {
    /// Whether the row is about PAM, see `auth.pam`.
    pub(crate) fn is_of_pam(&self) -> bool {
        OF_PAM.contains(&self.name)
    }

    /// Whether the row probes the returns of functions in user space.
    pub(crate) fn probes_returns(&self) -> bool {
        let mut points = self.alternatives.iter().flat_map(|way| way.points);
        points.any(|point| matches!(point.hook, Hook::LibraryReturn(_)))
    }
}

/// One way to attach a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Alternative {
    pub(crate) by: By,
    pub(crate) points: &'static [Point],
    /// What it does not cover, or costs code that it does not look at; empty for nothing.
    pub(crate) note: &'static str,
}

/// What an alternative hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    RawTracepoint,
    /// Tracepoints whose arguments have types: read by plain loads. Needs the kernel's types.
    TypedTracepoint,
    CgroupHook,
    /// Programs on the kernel's own functions (fentry, fexit): whatever the caller's ABI, and no cost to others.
    Functions,
    SyscallTracepoints,
    /// Functions of a library, in every file of it that is found.
    LibraryFunctions,
}

impl By {
    /// The name in `tellwire check`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RawTracepoint => "raw tracepoint",
            Self::TypedTracepoint => "BTF tracepoint",
            Self::CgroupHook => "cgroup hook",
            Self::Functions => "kernel functions",
            Self::SyscallTracepoints => "syscall tracepoints",
            Self::LibraryFunctions => "library functions",
        }
    }
}

/// A program and where it attaches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) program: &'static str,
    pub(crate) hook: Hook,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// A raw tracepoint, by its name: no cost but the program's own.
    RawTracepoint(&'static str),
    /// The same, with types.
    TypedTracepoint(&'static str),
    /// A tracepoint once more, where the kernel may pass over the first program: since 7.0, see `again.rs` of the programs.
    Again(&'static Self),
    /// The same by a raw tracepoint, whose program jumps into the row's first one: that of this kind.
    JumpAgain(&'static str, Kind),
    /// Tracepoints of the category `syscalls`, by their names. Any of them makes every system call of the
    /// machine take the slow way in and out.
    Syscalls(&'static [&'static str]),
    /// A program on the root of the cgroup v2 hierarchy.
    CgroupRoot,
    /// The beginning of a kernel function.
    Entry(Function),
    /// The end of a kernel function.
    Exit(Function),
    /// The beginning of a library's function. The program is loaded; files are found and attached to while the agent
    /// runs, see [`super::libraries`].
    Library(&'static str),
    /// The end of a library's function.
    LibraryReturn(&'static str),
}

/// A function of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// Whether a kernel may lack it and the alternative be whole all the same: the way in of an ABI that it
    /// may be built without.
    pub(crate) optional: bool,
}
