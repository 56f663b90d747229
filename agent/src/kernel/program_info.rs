//! What the kernel knows of a loaded program: aya shows neither missed runs nor, on all kernels, the verifier's work.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// `struct bpf_prog_info` up to `verified_insns`, include/uapi/linux/bpf.h (v6.18).
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    before: [u64; 24],
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    attach_btf_obj_id: u32,
}

/// Figures of one program.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProgramStats {
    /// Counted only while BPF statistics are switched on.
    pub(crate) run_time_ns: u64,
    pub(crate) runs: u64,
    /// Runs that the kernel skipped since the program was running on that CPU already; `None` before 5.12.
    pub(crate) misses: Option<u64>,
    /// Instructions that the verifier processed; `None` before 5.16.
    pub(crate) verified: Option<u32>,
}

/// Asks the kernel.
#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
pub(crate) fn stats(program: BorrowedFd<'_>) -> io::Result<ProgramStats> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    #[repr(C)]
    struct Attributes {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = Info {
        before: [0; 24],
        run_time_ns: 0,
        run_cnt: 0,
        recursion_misses: 0,
        verified_insns: 0,
        attach_btf_obj_id: 0,
    };
    let mut attributes = Attributes {
        fd: program.as_raw_fd().cast_unsigned(),
        len: u32::try_from(size_of::<Info>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the attributes are those of the command, and `info` is as long as they say.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            std::ptr::from_mut(&mut attributes),
            size_of::<Attributes>(),
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel says how much of the struct it knows.
    let known = |end: usize| attributes.len as usize >= end;
    let end_of_misses = std::mem::offset_of!(Info, recursion_misses) + 8;
    let end_of_verified = std::mem::offset_of!(Info, verified_insns) + 4;
    Ok(ProgramStats {
        run_time_ns: info.run_time_ns,
        runs: info.run_cnt,
        misses: known(end_of_misses).then_some(info.recursion_misses),
        verified: known(end_of_verified).then_some(info.verified_insns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_struct_has_the_kernels_layout() {
        // The offsets of include/uapi/linux/bpf.h, as pahole shows them for v6.18.
        assert_eq!(std::mem::offset_of!(Info, run_time_ns), 192);
        assert_eq!(std::mem::offset_of!(Info, recursion_misses), 208);
        assert_eq!(std::mem::offset_of!(Info, verified_insns), 216);
    }
}
