//! A connect by `io_uring`: no system call of its own, and the kernel may hand it to another thread.

#![expect(unsafe_code, reason = "io_uring is memory that is shared with the kernel")]

use std::{
    ffi::c_void,
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap},
    net::SocketAddrAny,
};

// include/uapi/linux/io_uring.h (v6.18).
const IORING_OP_CONNECT: u8 = 16;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_OFF_SQ_RING: u64 = 0;
const IORING_OFF_SQES: u64 = 0x1000_0000;

/// Who carries the connect out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The caller, as far as nothing must be waited for.
    Caller = 0,
    /// A worker thread of the kernel's (`IOSQE_ASYNC`).
    Worker = 1 << 4,
}

#[repr(C)]
#[derive(Default)]
struct Params {
    entries: [u32; 2],
    flags: [u32; 5],
    reserved: [u32; 3],
    /// head, tail, `ring_mask`, `ring_entries`, flags, dropped, array, and what is reserved.
    submission: [u32; 10],
    /// head, tail, `ring_mask`, `ring_entries`, overflow, cqes, and what is reserved.
    completion: [u32; 10],
}

#[repr(C)]
#[derive(Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    /// For a connect, the length of the address.
    offset: u64,
    address: u64,
    rest: [u64; 5],
}

/// Connects the socket; waits for the outcome.
pub fn connect(socket: impl AsFd, to: SocketAddr, by: By) -> io::Result<()> {
    let mut params = Params::default();
    // SAFETY: the kernel fills in the parameters.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        panic!("io_uring is needed, and this kernel refuses it (is kernel.io_uring_disabled set?): {error}");
    }
    // SAFETY: a new descriptor.
    let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor")) };
    // IORING_FEAT_SINGLE_MMAP, since 5.4: both queues are one piece of memory.
    let queues = map(ring.as_fd(), IORING_OFF_SQ_RING);
    let submissions = map(ring.as_fd(), IORING_OFF_SQES);
    let to = SocketAddrAny::from(to);
    let submission = Submission {
        opcode: IORING_OP_CONNECT,
        flags: by as u8,
        fd: socket.as_fd().as_raw_fd(),
        offset: to.addr_len().into(),
        address: to.as_ptr() as u64,
        ..Submission::default()
    };
    // SAFETY: one entry was asked for.
    unsafe { submissions.cast::<Submission>().write(submission) };
    // SAFETY: the queue's array of indices has an entry.
    unsafe { at(queues, params.submission[6]).cast::<u32>().write(0) };
    // SAFETY: the queue's tail.
    let tail = unsafe { &*at(queues, params.submission[1]).cast::<AtomicU32>() };
    tail.store(1, Ordering::Release);
    let none = ptr::null::<c_void>();
    // SAFETY: numbers only; the address lives until the outcome is there.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, none, 0) };
    assert_eq!(done, 1, "io_uring_enter: {}", io::Error::last_os_error());
    // SAFETY: a completion is there: its user data, its result and flags.
    let completion = unsafe { at(queues, params.completion[5]).cast::<(u64, i32, u32)>().read() };
    match completion.1 {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// A page holds everything of a ring with one entry. It stays mapped: the process is one of a test, and ends soon.
fn map(ring: BorrowedFd<'_>, offset: u64) -> *mut c_void {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
    // SAFETY: new memory.
    unsafe { mmap(ptr::null_mut(), 4096, protection, flags, ring, offset) }.expect("the ring's memory")
}

fn at(memory: *mut c_void, offset: u32) -> *mut c_void {
    // SAFETY: the kernel says where in the page a queue's part is.
    unsafe { memory.byte_add(offset as usize) }
}
