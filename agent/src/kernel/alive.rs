//! Whether what was attached is attached still.
//!
//! Who holds no descriptor of ours can take two sorts of programs away. One on a cgroup can be detached by anyone
//! with `CAP_NET_ADMIN` (`bpftool link detach`, `bpftool cgroup detach`): the cgroup's list of programs says so. Those
//! on functions are called through ftrace, which `kernel.ftrace_enabled` switches off. Raw tracepoints and perf
//! events have no such way: their links refuse to be detached, and they end with the agent's descriptors.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::Ebpf;

use super::{Attached, hooks::Hook, probes::PROBES, support::Support};

/// `1` as long as the kernel calls programs on functions.
const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";

const _: () = assert!(PROBES.len() <= 64, "a bit for each row");

// enum bpf_attach_type, include/uapi/linux/bpf.h (v6.18).
const BPF_CGROUP_INET4_CONNECT: u32 = 10;
const BPF_CGROUP_INET6_CONNECT: u32 = 11;

/// `BPF_CGROUP_MAX_PROGS`, include/linux/bpf-cgroup.h (v6.18): of one type on one cgroup.
const MOST: usize = 64;

/// What is looked at to tell whether probes are attached.
#[derive(Debug)]
pub(crate) struct Alive {
    rows: Vec<Row>,
    root: Option<File>,
}

#[derive(Debug)]
struct Row {
    /// In the hook table.
    number: usize,
    attached: Attached,
    /// Programs on the root cgroup: type of attachment, and id.
    on_cgroup: Vec<(u32, u32)>,
    on_functions: bool,
}

/// A probe that is attached no more.
#[derive(Debug)]
pub(crate) struct Detached {
    /// Its row in the hook table.
    pub(crate) number: usize,
    pub(crate) attached: Attached,
    pub(crate) reason: String,
}

impl Alive {
    pub(super) fn new(ebpf: &Ebpf, probes: &[Attached], support: &Support) -> Self {
        let rows = probes.iter().enumerate().filter_map(|(number, attached)| {
            let points = attached.chosen?.points;
            let on_cgroup =
                points.iter().filter(|point| point.hook == Hook::CgroupRoot).filter_map(|point| {
                    let id = ebpf.program(point.program)?.info().ok()?.id();
                    let kind = if point.program.ends_with('6') {
                        BPF_CGROUP_INET6_CONNECT
                    } else {
                        BPF_CGROUP_INET4_CONNECT
                    };
                    Some((kind, id))
                });
            let on_cgroup: Vec<_> = on_cgroup.collect();
            let on_functions =
                points.iter().any(|point| matches!(point.hook, Hook::Entry(_) | Hook::Exit(_)));
            (on_functions || !on_cgroup.is_empty()).then(|| Row {
                number,
                attached: attached.clone(),
                on_cgroup,
                on_functions,
            })
        });
        let root = support.hierarchies.v2.as_deref().and_then(|root| File::open(root).ok());
        Self { rows: rows.collect(), root }
    }

    /// The probes that are gone since the last look; each is told once.
    pub(crate) fn look(&mut self) -> Vec<Detached> {
        let Self { rows, root } = self;
        let no_functions = fs::read_to_string(FTRACE).is_ok_and(|text| text.trim() == "0");
        let mut detached = Vec::new();
        rows.retain(|row| {
            let reason = if row.on_functions && no_functions {
                Some("kernel.ftrace_enabled is 0: the kernel calls no program on a function".to_owned())
            } else {
                root.as_ref().and_then(|root| gone_from(root.as_fd(), &row.on_cgroup))
            };
            let Some(reason) = reason else { return true };
            detached.push(Detached { number: row.number, attached: row.attached.clone(), reason });
            false
        });
        detached
    }
}

/// What is wrong if one of the programs is not on the cgroup. Where the kernel does not say, nothing is.
fn gone_from(cgroup: BorrowedFd<'_>, programs: &[(u32, u32)]) -> Option<String> {
    programs.iter().find_map(|(kind, id)| {
        let there = query(cgroup, *kind).ok()?;
        (!there.contains(id))
            .then(|| format!("program {id} was detached from the root cgroup by somebody else"))
    })
}

/// The ids of the programs of one type on a cgroup.
#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
fn query(cgroup: BorrowedFd<'_>, kind: u32) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: libc::c_long = 16;
    /// `union bpf_attr` as the command reads it, up to `prog_cnt`.
    #[repr(C)]
    struct Attributes {
        target: u32,
        kind: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        reserved: u32,
    }
    let mut ids = [0_u32; MOST];
    let mut attributes = Attributes {
        target: cgroup.as_raw_fd().cast_unsigned(),
        kind,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(MOST).unwrap_or_default(),
        reserved: 0,
    };
    // SAFETY: the attributes are those of the command, and `ids` is as long as they say.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            std::ptr::from_mut(&mut attributes),
            size_of::<Attributes>(),
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids.into_iter().take(attributes.count as usize).collect())
}
