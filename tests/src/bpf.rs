//! Programs of the kernel's: one that forbids connects, assembled by hand, since two instructions do; and those of an
//! agent, as others see them and take them away.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::{
    collections::BTreeSet,
    ffi::{c_int, c_long},
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use rustix::process::{Resource, Rlimit, setrlimit};

// enum bpf_cmd, bpf_prog_type and bpf_attach_type, include/uapi/linux/bpf.h (v6.18).
const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;
const BPF_CGROUP_INET6_CONNECT: u32 = 11;
const BPF_F_ALLOW_MULTI: u32 = 2;

const BPF_LINK_GET_FD_BY_ID: c_int = 30;
const BPF_LINK_DETACH: c_int = 34;

/// `r0 = 0; exit`: zero denies.
const DENY: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// `union bpf_attr` as `BPF_PROG_LOAD` reads it.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` as `BPF_PROG_ATTACH` reads it.
#[repr(C)]
struct Attach {
    target_fd: c_int,
    program_fd: c_int,
    kind: u32,
    flags: u32,
}

/// Denies every connect of the cgroup, until the cgroup is removed.
pub fn deny_connects(cgroup: &Path) {
    let cgroup = File::open(cgroup).expect("the cgroup");
    for kind in [BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT] {
        let program = load(kind).expect("loading the program that denies");
        let attributes = Attach {
            target_fd: cgroup.as_raw_fd(),
            program_fd: program.as_raw_fd(),
            kind,
            flags: BPF_F_ALLOW_MULTI,
        };
        bpf(BPF_PROG_ATTACH, &attributes).expect("attaching the program that denies");
    }
}

/// The ids of the programs that a process holds.
pub fn programs_of(pid: u32) -> BTreeSet<u32> {
    descriptors(pid).iter().filter_map(|about| number(about, "prog_id")).collect()
}

/// Detaches the programs on cgroups that a process attached, as `bpftool link detach` does; how many.
pub fn detach_from_cgroups(pid: u32) -> usize {
    let on_cgroup =
        |about: &&String| about.lines().any(|line| line.split_whitespace().eq(["link_type:", "cgroup"]));
    let links: BTreeSet<u32> =
        descriptors(pid).iter().filter(on_cgroup).filter_map(|about| number(about, "link_id")).collect();
    for link in &links {
        let fd = c_int::try_from(bpf(BPF_LINK_GET_FD_BY_ID, &[*link, 0, 0]).expect("the link"))
            .expect("a descriptor");
        // SAFETY: a new descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        bpf(BPF_LINK_DETACH, &[fd.as_raw_fd()]).expect("detaching it");
    }
    links.len()
}

/// What the kernel says of each descriptor of a process.
fn descriptors(pid: u32) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the agent's descriptors");
    folder.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()).collect()
}

fn number(about: &str, key: &str) -> Option<u32> {
    about.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok())
}

fn load(kind: u32) -> io::Result<OwnedFd> {
    // Before 5.11 programs count as locked memory of their user, who has the agent's too:
    // <https://github.com/torvalds/linux/commit/3ac1f01b43b6>.
    let unlimited = Rlimit { current: None, maximum: None };
    // Without CAP_SYS_RESOURCE it cannot be raised; what the kernel makes of that the load says.
    let _refused = setrlimit(Resource::Memlock, unlimited);
    let attributes = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        insn_cnt: 2,
        insns: DENY.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"deny\0\0\0\0\0\0\0\0\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: kind,
    };
    let fd = c_int::try_from(bpf(BPF_PROG_LOAD, &attributes)?).expect("a descriptor");
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: c_int, attributes: &T) -> io::Result<c_long> {
    // SAFETY: the kernel reads as many bytes as are there.
    match unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}
