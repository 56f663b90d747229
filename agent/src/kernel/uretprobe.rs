//! Probes on functions in user space, by `perf_event_open(2)`; and whether the kernel can be trusted with their returns.
//!
//! From 6.11 on x86-64 returns to a probed function's caller by a system call of its own, which seccomp filters that
//! list what is allowed do not know: until 6.14 lets it pass all filters, such a process ends by a signal. So it is tried
//! out once, by a child that nobody misses.

use std::{
    ffi::{CString, c_int, c_long, c_ulong},
    fs, io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, anyhow, bail};

/// What the kernel calls this sort of events, and the bit of `config` for returns.
#[derive(Clone, Copy, Debug)]
pub(super) struct UprobeEvents {
    kind: u32,
    return_bit: u32,
}

/// `struct perf_event_attr` up to `config2`, `include/uapi/linux/perf_event.h` (v6.18): `PERF_ATTR_SIZE_VER1`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    /// The path.
    config1: u64,
    /// The offset in the file.
    config2: u64,
}

const PERF_FLAG_FD_CLOEXEC: c_ulong = 8;
/// `_IOW('$', 8, __u32)` and `_IO('$', 0)`.
const PERF_EVENT_IOC_SET_BPF: c_ulong = 0x4004_2408;
const PERF_EVENT_IOC_ENABLE: c_ulong = 0x2400;

impl UprobeEvents {
    /// Asks sysfs.
    pub(super) fn detect() -> anyhow::Result<Self> {
        let folder = Path::new("/sys/bus/event_source/devices/uprobe");
        let text = |name| fs::read_to_string(folder.join(name)).context("the kernel has no uprobes");
        let kind = text("type")?.trim().parse().context("the kernel's number of uprobes")?;
        let format = text("format/retprobe")?;
        let bit = format.trim().strip_prefix("config:").context("the format of uprobes")?;
        Ok(Self { kind, return_bit: bit.parse().context("the format of uprobes")? })
    }

    /// A probe at an offset of a file, in every process that maps it. It is there as long as the descriptor.
    #[expect(unsafe_code, reason = "perf_event_open(2) has no safe wrapper")]
    pub(super) fn open(self, path: &Path, offset: u64, is_return: bool) -> io::Result<OwnedFd> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let attributes = Attributes {
            kind: self.kind,
            size: u32::try_from(size_of::<Attributes>()).unwrap_or_default(),
            config: u64::from(is_return) << self.return_bit,
            config1: path.as_ptr() as u64,
            config2: offset,
            ..Attributes::default()
        };
        // Of no process and one CPU: the event counts there, the probe is everywhere.
        let (pid, cpu, group): (c_int, c_int, c_int) = (-1, 0, -1);
        // SAFETY: attributes of the size that they say, and a path that lives until the call is over.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                pid,
                cpu,
                group,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = c_int::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: a new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Has a program run at a probe.
#[expect(unsafe_code, reason = "ioctl(2) has no safe wrapper")]
pub(super) fn run_at(event: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: two descriptors.
    if unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF as _, program.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE as _, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What the child calls. Its own section of code, so that it is one function at one place.
#[inline(never)]
#[expect(unsafe_code, reason = "its address is asked for, and its name must not be merged with another's")]
#[unsafe(no_mangle)]
extern "C" fn tellwire_returns(value: c_long) -> c_long {
    std::hint::black_box(value)
}

/// Whether a process that a seccomp filter confines comes back from a function whose return is probed; the reason if
/// it does not.
pub(super) fn try_out(events: UprobeEvents) -> anyhow::Result<()> {
    let function: extern "C" fn(c_long) -> c_long = tellwire_returns;
    let offset = file_offset(function as usize as u64)?;
    let probe = events.open(Path::new("/proc/self/exe"), offset, true).context("probing a return")?;
    let status = confined_child()?;
    drop(probe);
    match status {
        // Where nothing can be confined, nothing is harmed.
        Status::Returned | Status::NotConfined => Ok(()),
        Status::Ended(status) => {
            bail!("a confined process does not come back from a probed function (wait status {status:#x})")
        }
    }
}

/// Where in the executable's file an address of it stands.
fn file_offset(address: u64) -> anyhow::Result<u64> {
    let maps = fs::read_to_string("/proc/self/maps").context("reading /proc/self/maps")?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let found = maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (number(start)?, number(end)?);
        let offset = number(fields.nth(1)?)?;
        (start <= address && address < end).then(|| address - start + offset)
    });
    found.ok_or_else(|| anyhow!("the agent's code is not in /proc/self/maps"))
}

enum Status {
    Returned,
    NotConfined,
    Ended(c_int),
}

const RETURNED: c_int = 42;
const NOT_CONFINED: c_int = 43;

/// Forks a child that confines itself, calls the function, and ends.
///
/// A fork and not a command of the executable: a child of a program of this size begins slower than it ends, and between
/// fork and exit this one makes nothing but system calls.
#[expect(unsafe_code, reason = "fork(2) and seccomp have no safe wrapper")]
fn confined_child() -> anyhow::Result<Status> {
    // BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K: include/uapi/linux/bpf_common.h.
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let exit = u32::try_from(libc::SYS_exit_group).unwrap_or_default();
    // What runtimes do: the calls that they know are allowed, all others give an error.
    let filter = [
        libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: EQUAL, jt: 0, jf: 1, k: exit },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
        libc::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
        },
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the child makes system calls and ends.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error()).context("forking a child to try returns out");
    }
    if child == 0 {
        confined(&program);
    }
    let mut status = 0;
    loop {
        // SAFETY: a place for the status of our own child.
        let outcome = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if outcome == child {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error).context("waiting for the child that tries returns out");
        }
    }
    Ok(match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
        Some(RETURNED) => Status::Returned,
        Some(NOT_CONFINED) => Status::NotConfined,
        _ => Status::Ended(status),
    })
}

/// The child's part. Never comes back.
#[expect(unsafe_code, reason = "system calls without a safe wrapper, in a process of its own")]
fn confined(program: &libc::sock_fprog) -> ! {
    // No core file of a child that is meant to be killed at the worst.
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a value to read.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    // SAFETY: numbers.
    let may_not_gain = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: a program that lives as long as the process.
    let confined =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const *program) };
    let code = if may_not_gain != 0 || confined != 0 {
        NOT_CONFINED
    } else {
        std::hint::black_box(tellwire_returns as extern "C" fn(c_long) -> c_long)(1);
        RETURNED
    };
    loop {
        // SAFETY: ends the process.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confined_child_comes_back_where_nothing_is_probed() {
        assert!(matches!(confined_child().unwrap(), Status::Returned));
    }

    #[test]
    fn the_function_is_in_the_executable() {
        let function: extern "C" fn(c_long) -> c_long = tellwire_returns;
        let offset = file_offset(function as usize as u64).unwrap();
        let length = fs::metadata("/proc/self/exe").unwrap().len();
        assert!(0 < offset && offset < length);
    }
}
