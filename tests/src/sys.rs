//! System calls as the kernel has them, where std has none or does more than one.

#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::{
    ffi::{CString, c_char, c_int, c_long},
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{CapabilitySet, CapabilitySets, UnshareFlags, capabilities, unshare_unsafe},
};
use serde_json::Value;

use crate::wait::until;

/// execve(2), with an empty environment. Comes back only where it fails.
pub fn execve<A: AsRef<[u8]>>(path: &Path, args: &[A]) -> io::Error {
    execve_with(path, args, &[])
}

fn execve_with<A: AsRef<[u8]>>(path: &Path, args: &[A], environment: &[&str]) -> io::Error {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    let (args, environment) = (Vector::new(args), Vector::new(environment));
    // SAFETY: the strings live until the call is over.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Becomes the program, with an environment that most programs can live in, or panics.
pub fn exec_as_usual<A: AsRef<[u8]>>(path: &Path, args: &[A]) -> Value {
    let environment = ["PATH=/usr/bin:/bin:/usr/sbin:/sbin", "TERM=dumb"];
    panic!("{}: {}", path.display(), execve_with(path, args, &environment))
}

/// Becomes the program, or panics.
pub fn exec<A: AsRef<[u8]>>(path: &Path, args: &[A]) -> Value {
    panic!("{}: {}", path.display(), execve(path, args))
}

/// Has the kernel kill each process that this one becomes or begins, when it ends with this status.
pub fn kill_at_exit_with(status: u32) -> io::Result<()> {
    // `struct seccomp_data`, include/uapi/linux/seccomp.h (v6.18): the number at 0, the first argument at 16.
    const NUMBER: u32 = 0;
    const ARGUMENT: u32 = 16;
    // BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K: include/uapi/linux/bpf_common.h.
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let filter = [
        step(LOAD, 0, NUMBER),
        step(EQUAL, 3, u32::try_from(libc::SYS_exit_group).unwrap_or_default()),
        step(LOAD, 0, ARGUMENT),
        step(EQUAL, 1, status),
        step(RETURN, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the filter.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets Landlock forbid this thread every TCP connect. An error where the kernel does not know how to (before 6.7), or has no Landlock.
pub fn forbid_connects() -> io::Result<()> {
    // include/uapi/linux/landlock.h (v6.18): `struct landlock_ruleset_attr` up to ABI 4, `LANDLOCK_ACCESS_NET_CONNECT_TCP`.
    let attributes: [u64; 2] = [0, 1 << 1];
    let none: c_long = 0;
    let checked = |result: c_long| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: the kernel reads the attributes, and keeps nothing of this memory.
    let ruleset = checked(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size_of_val(&attributes), none)
    })?;
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: a descriptor and flags.
    checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, none) }).map(|_| ())
}

/// execve(2) of a path that is not there to be read.
pub fn execve_of_nothing() -> io::Error {
    let none: [*const c_char; 1] = [ptr::null()];
    // SAFETY: the kernel refuses the null pointer.
    unsafe { libc::syscall(libc::SYS_execve, ptr::null::<c_char>(), none.as_ptr(), none.as_ptr()) };
    io::Error::last_os_error()
}

/// Becomes the program that the descriptor holds, by execveat(2), or panics. Where that finds nothing, as on emulated arm64
/// machines with Linux 5.10, by the descriptor's name in /proc: the file has a path of its own, or none, all the same.
pub fn exec_descriptor<A: AsRef<[u8]>>(file: BorrowedFd<'_>, args: &[A]) -> Value {
    let vector = Vector::new(args);
    let none: [*const c_char; 1] = [ptr::null()];
    let (path, pointers, environment) = (c"".as_ptr(), vector.pointers.as_ptr(), none.as_ptr());
    // SAFETY: the strings live until the call is over.
    unsafe {
        libc::syscall(libc::SYS_execveat, file.as_raw_fd(), path, pointers, environment, libc::AT_EMPTY_PATH)
    };
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) {
        return exec(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), args);
    }
    panic!("execveat: {error}")
}

/// Strings as exec wants them.
struct Vector {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Vector {
    fn new<A: AsRef<[u8]>>(args: &[A]) -> Self {
        let strings: Vec<_> = args.iter().map(|arg| CString::new(arg.as_ref()).expect("no NUL")).collect();
        let pointers = strings.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// A credential call whose arguments are ids, for this thread alone: the C library's would change all threads.
pub fn credential_call(number: c_long, ids: [u32; 3]) -> io::Result<c_long> {
    // SAFETY: numbers only.
    result(unsafe { libc::syscall(number, ids[0], ids[1], ids[2]) })
}

/// setgroups(2), for this thread alone.
pub fn setgroups(groups: &[u32]) -> io::Result<c_long> {
    // SAFETY: the kernel reads as many ids as are there.
    result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// capset(2), for this thread.
pub fn capset(change: impl FnOnce(&mut CapabilitySets)) -> io::Result<()> {
    let mut sets = capabilities(None)?;
    change(&mut sets);
    rustix::thread::set_capabilities(None, sets).map_err(Into::into)
}

fn result(value: c_long) -> io::Result<c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Gives up root for good: the group list, the gids and the uids, each by one call.
pub fn become_user(id: u32) {
    setgroups(&[]).expect("setgroups");
    credential_call(libc::SYS_setresgid, [id; 3]).expect("setresgid");
    credential_call(libc::SYS_setresuid, [id; 3]).expect("setresuid");
}

/// setuid(3), which the C library carries out in every thread.
pub fn setuid_of_all_threads(uid: u32) {
    // SAFETY: a number.
    let result = unsafe { libc::setuid(uid) };
    assert_eq!(result, 0, "setuid: {}", io::Error::last_os_error());
}

/// What no exec of this process can bring back.
pub fn drop_from_bounding_set(capabilities: &[CapabilitySet]) {
    for capability in capabilities {
        rustix::thread::remove_capability_from_bounding_set(*capability).expect("root may");
    }
}

/// setuid(2) as 32-bit programs call it.
#[cfg(target_arch = "x86_64")]
pub fn setuid_by_int80(uid: u32) -> i32 {
    const SETUID32: i32 = 213;
    int80(SETUID32, uid)
}

/// A system call of 32-bit programs with one argument; the others are 0.
#[cfg(target_arch = "x86_64")]
fn int80(number: i32, argument: u32) -> i32 {
    let mut result = number;
    // SAFETY: the callers' calls do no harm. The argument goes in ebx, which the compiler keeps for itself; the
    // call gate clears r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {argument:r}",
            "int 0x80",
            "xchg rbx, {argument:r}",
            argument = inout(reg) u64::from(argument) => _,
            inout("eax") result,
            in("ecx") 0,
            in("edx") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result
}

/// A mount namespace of its own, from which nothing comes back to the host.
pub fn private_mounts() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// An empty file system over a directory.
pub fn cover(directory: &str) -> io::Result<()> {
    mount("none", directory, "tmpfs", MountFlags::empty(), None).map_err(Into::into)
}

pub fn unshare(what: UnshareFlags) -> io::Result<()> {
    // SAFETY: the file table is never among what is unshared.
    unsafe { unshare_unsafe(what) }.map_err(Into::into)
}

/// Lets the other end of a new terminal be opened.
pub fn unlock_terminal(main: BorrowedFd<'_>) {
    let unlocked: c_int = 0;
    // SAFETY: a number to read.
    let result = unsafe { libc::ioctl(main.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) };
    assert_eq!(result, 0, "a terminal: {}", io::Error::last_os_error());
}

/// The number by which the other end of a new terminal is found in /dev/pts.
pub fn terminal_number(main: BorrowedFd<'_>) -> u32 {
    let mut number: libc::c_uint = 0;
    // SAFETY: a place for a number.
    let result = unsafe { libc::ioctl(main.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) };
    assert_eq!(result, 0, "a terminal: {}", io::Error::last_os_error());
    number
}

/// Waits until the first thread of this process has ended.
pub fn until_leader_is_gone() {
    until("the end of the first thread", || {
        let status = fs::read_to_string(format!("/proc/self/task/{}/stat", std::process::id())).ok()?;
        // What stands behind the name: a zombie is one that has ended.
        status.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z')).then_some(())
    });
}

/// Waits for the signal that ends the process. Never comes back.
pub fn sleep_until_killed() -> Value {
    loop {
        // SAFETY: waits.
        unsafe { libc::pause() };
    }
}

/// Ends this thread, not the process. Never comes back.
pub fn exit_thread() -> Value {
    // SAFETY: nothing of this thread is used afterwards.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// Largest resident set of this process so far, in bytes.
pub fn peak_rss() -> u64 {
    // SAFETY: all zero is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a place for the answer.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_maxrss.unsigned_abs() * 1024
}

/// A signal that interrupts system calls, at its first arrival after so many milliseconds.
pub fn alarm_after(milliseconds: i64) {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: all zero is a valid value: no flags, so that no call is restarted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    // SAFETY: a handler that does nothing.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) };
    let once = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: milliseconds * 1000 },
    };
    // SAFETY: a value to read.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, ptr::null_mut()) };
}

pub(crate) fn at_exit(run: extern "C" fn()) {
    // SAFETY: a function that lives as long as the process.
    unsafe { libc::atexit(run) };
}
