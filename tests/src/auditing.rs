//! The kernel's auditing, which is one for the whole machine: on for a test, and afterwards as it was.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::FromRawFd as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FlockOperation, flock};

/// Auditing that is switched on; switched back with this value. One test at a time has it.
#[derive(Debug)]
pub struct Auditing {
    was: u32,
    _file: File,
    _turn: MutexGuard<'static, ()>,
}

impl Auditing {
    /// Waits for its turn.
    pub fn on() -> Self {
        let auditing = Self::taken();
        set(1);
        auditing
    }

    /// Off, if it was on.
    pub fn off() -> Self {
        let auditing = Self::taken();
        set(0);
        auditing
    }

    fn taken() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // Other test binaries wait as well.
        let path = std::env::temp_dir().join("tellwire-test-auditing.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).expect("a lock");
        flock(&file, FlockOperation::LockExclusive).expect("the machine's auditing");
        Self { was: enabled(), _file: file, _turn: turn }
    }
}

impl Drop for Auditing {
    fn drop(&mut self) {
        set(self.was);
    }
}

/// `enabled` of `struct audit_status`.
pub fn enabled() -> u32 {
    let mut socket = socket();
    // AUDIT_GET, NLM_F_REQUEST.
    send(&mut socket, 1000, 1, &[]);
    let answer = answer(&mut socket, 1000);
    u32::from_ne_bytes(answer[20..24].try_into().expect("four bytes"))
}

/// Writes records as a program does that has somebody log in. The kernel has taken them when this returns.
pub fn report<T: AsRef<str>>(kind: u16, texts: impl IntoIterator<Item = T>) {
    let mut socket = socket();
    for text in texts {
        // NLM_F_REQUEST and NLM_F_ACK. As libaudit does, with a NUL: the kernel puts one in the place of the last byte.
        send(&mut socket, kind, 5, &[text.as_ref().as_bytes(), b"\0"].concat());
        let answer = answer(&mut socket, 2);
        assert_eq!(answer[16..20], [0; 4], "reporting");
    }
}

fn set(enabled: u32) {
    let mut socket = socket();
    // AUDIT_STATUS_ENABLED; AUDIT_SET, NLM_F_REQUEST and NLM_F_ACK.
    let payload: Vec<u8> =
        [1, enabled, 0, 0, 0, 0, 0, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    send(&mut socket, 1001, 5, &payload);
    let answer = answer(&mut socket, 2);
    assert_eq!(answer[16..20], [0; 4], "switching auditing");
}

#[expect(unsafe_code, reason = "std has no netlink sockets")]
fn socket() -> File {
    // SAFETY: numbers only.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_AUDIT) };
    assert!(fd >= 0, "a kernel with auditing");
    // SAFETY: a new descriptor.
    unsafe { File::from_raw_fd(fd) }
}

fn send(socket: &mut File, kind: u16, flags: u16, payload: &[u8]) {
    let len = u32::try_from(16 + payload.len()).expect("a few bytes");
    let message =
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], payload].concat();
    socket.write_all(&message).expect("asking the kernel");
}

/// The next message of this type.
fn answer(socket: &mut File, kind: u16) -> Vec<u8> {
    loop {
        let mut buffer = [0; 1024];
        let len = socket.read(&mut buffer).expect("the kernel's answer");
        let message = &buffer[..len];
        if message[4..6] == kind.to_ne_bytes() {
            return message.to_vec();
        }
    }
}
