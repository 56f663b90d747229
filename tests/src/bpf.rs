//! A program of the kernel's that forbids connects: assembled by hand, since two instructions do.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::{
    ffi::{c_int, c_long},
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

// enum bpf_cmd, bpf_prog_type and bpf_attach_type, include/uapi/linux/bpf.h (v6.18).
const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;
const BPF_CGROUP_INET6_CONNECT: u32 = 11;
const BPF_F_ALLOW_MULTI: u32 = 2;

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

fn load(kind: u32) -> io::Result<OwnedFd> {
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
