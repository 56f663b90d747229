//! Attempts to connect, before they are a handshake.
//!
//! The cgroup hooks see every attempt; what comes of most of them the socket tells ([`crate::network`]). One that never
//! became a handshake (no route, denied) is told at the call's exit with its errno, or, where that is not traced
//! (io_uring), at the thread's next attempt or its end, without one. What a security module denies never comes to the hooks:
//! it is told at the call's exit, where that is a function of the kernel.

use crate::wire::wire;

wire! {
    /// An attempt that is no handshake yet: the value of `ATTEMPTS`.
    pub struct Attempt {
        pub remote: [u8; 16],
        pub tgid: u32,
        pub remote_port: u16,
        /// [`Attempt::TRIED`] and the like.
        pub state: u16,
    }
}

impl Attempt {
    /// The socket has not entered SYN_SENT.
    pub const TRIED: u16 = 0;
    /// It has: the outcome is told by socket.
    pub const STARTED: u16 = 1;
    /// The kernel closed it again before the call came back, and has no error but what the call returns.
    pub const CLOSED: u16 = 2;
    /// The call that began a handshake has come back.
    pub const DONE: u16 = 3;

    /// Past so many, the agent asks that entries go when the call comes back.
    pub const KEPT: u32 = 4096;

    /// Whether it waits for something to tell.
    pub const fn is_untold(&self) -> bool {
        matches!(self.state, Self::TRIED | Self::CLOSED)
    }
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::{advance, forget};

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        macros::{cgroup_sock_addr, fexit, map, tracepoint},
        maps::{Array, HashMap},
        programs::{FExitContext, SockAddrContext, TracePointContext},
    };

    use super::Attempt;
    use crate::{
        address::{AF_INET, AF_INET6, mapped},
        emit,
        kernel::{self, Pointer as _, Ptr, argument, offset},
        network::{Connect, EACCES, EPERM, IPPROTO_TCP, Outcome, Tuple, outcome, tell},
        scope,
        wire::{Kind, Subject},
    };

    /// include/uapi/linux/in.h (v6.18).
    const IPPROTO_MPTCP: u32 = 262;

    /// Key: a thread that is in connect, or was. Written by the cgroup hooks, marked when the socket enters SYN_SENT
    /// and when it is closed from there. An attempt that became a handshake leaves its entry to the thread's next
    /// one, which writes over it: inserting and removing would cost a tenth of a connect. An attempt that did not
    /// is removed when it is told: at the call's exit, at the thread's next attempt, at its end; the agent sweeps
    /// what stays. Where it is full, the attempt is counted as lost state: an upper bound, since one that goes
    /// on to a handshake is told all the same.
    #[map]
    static ATTEMPTS: HashMap<u32, Attempt> = HashMap::with_max_entries(2 * Attempt::KEPT, 0);

    /// 1 where entries must go when the call comes back, since too many threads have one. The agent writes it.
    #[map]
    static ATTEMPTS_CROWDED: Array<u32> = Array::with_max_entries(1, 0);

    /// hook: cgroup/connect4, before routing; allows every attempt.
    #[cgroup_sock_addr(connect4)]
    pub fn connect4(ctx: SockAddrContext) -> i32 {
        // SAFETY: the context of a connect4 hook.
        let (protocol, address, port) =
            unsafe { ((*ctx.sock_addr).protocol, (*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
        if protocol == IPPROTO_TCP {
            attempted(mapped(address), port);
        }
        1
    }

    /// hook: cgroup/connect6.
    #[cgroup_sock_addr(connect6)]
    pub fn connect6(ctx: SockAddrContext) -> i32 {
        // SAFETY: the context of a connect6 hook.
        if unsafe { (*ctx.sock_addr).protocol } != IPPROTO_TCP {
            return 1;
        }
        // SAFETY: as above. Four words, read one by one: the verifier allows no other size.
        let words = unsafe {
            let sock_addr = ctx.sock_addr;
            [
                core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[0]),
                core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[1]),
                core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[2]),
                core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[3]),
            ]
        };
        // SAFETY: as above.
        let port = unsafe { (*ctx.sock_addr).user_port };
        // SAFETY: 16 bytes are 16 bytes.
        attempted(unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }, port);
        1
    }

    #[inline(always)]
    fn attempted(remote: [u8; 16], port: u32) {
        if !scope::contains_current() {
            return;
        }
        let (tgid, tid) = kernel::current_ids();
        let attempt = Attempt { remote, tgid, remote_port: u16::from_be(port as u16), state: Attempt::TRIED };
        if let Some(entry) = ATTEMPTS.get_ptr_mut(tid) {
            // SAFETY: a map's value that only this thread writes; the agent takes out none but an untold one.
            if unsafe { !(*entry).is_untold() } {
                // SAFETY: as above.
                unsafe { *entry = attempt };
                return;
            }
            // What the thread tried before can no longer become a handshake.
            let _was_seen = resolve_attempt(tid, NO_RESULT);
        }
        if ATTEMPTS.insert(tid, attempt, 0).is_err() {
            emit::state_lost(Kind::Connect);
        }
    }

    /// hook: `int __sys_connect_file(struct file *, struct sockaddr_storage *, int addrlen, int file_flags)`, where
    /// connect of every ABI and that of io_uring come together.
    /// <https://github.com/torvalds/linux/blob/v6.18/net/socket.c>
    #[fexit]
    pub fn connect_returns(ctx: FExitContext) -> i32 {
        // SAFETY: the result stands behind four arguments.
        let result = i64::from(unsafe { argument(ctx.as_ptr(), 4) } as i32);
        let was_seen = returned(result);
        if !was_seen && (result == -i64::from(EPERM) || result == -i64::from(EACCES)) {
            // SAFETY: as above.
            let (file, address, len) = unsafe {
                (argument(ctx.as_ptr(), 0), argument(ctx.as_ptr(), 1), argument(ctx.as_ptr(), 2) as u32)
            };
            let _none_of_ours = denied(Ptr(file), Ptr(address), len, result.unsigned_abs() as u32);
        }
        0
    }

    /// A security module (Landlock, `AppArmor`, `SELinux`) is asked before the socket's family is: by `security_socket_connect`.
    /// The address is the kernel's copy, of the form and size that the caller gave.
    #[inline(always)]
    fn denied(file: Ptr, address: Ptr, len: u32, error: u32) -> Option<()> {
        if !scope::contains_current() {
            return None;
        }
        let socket = file.follow(offset!(file_private_data))?.follow(offset!(socket_sk))?;
        if !matches!(u32::from(socket.read::<u16>(offset!(sock_protocol))?), IPPROTO_TCP | IPPROTO_MPTCP) {
            return None;
        }
        let [family, port]: [u16; 2] = address.get()?;
        // include/uapi/linux/in.h and in6.h: the address stands behind family and port, with the flow's label before it.
        let remote = match family {
            AF_INET if len >= 16 => mapped(Ptr(address.0.wrapping_add(4)).get()?),
            AF_INET6 if len >= 24 => Ptr(address.0.wrapping_add(8)).get()?,
            _ => return None,
        };
        let remote_port = u16::from_be(port);
        tell_failure(&Attempt { remote, tgid: 0, remote_port, state: Attempt::TRIED }, error)
    }

    /// hook: `syscalls:sys_exit_connect`, `long ret` at 16.
    #[tracepoint]
    pub fn connect_exit(ctx: TracePointContext) -> u32 {
        // SAFETY: the format of the syscall exit tracepoints.
        let _was_seen = returned(unsafe { ctx.read_at::<i64>(16) }.unwrap_or(0));
        0
    }

    /// The thread comes back from connect. Whether a hook has seen the call.
    #[inline(always)]
    fn returned(result: i64) -> bool {
        let errno = if result < 0 { result.unsigned_abs() as u32 } else { 0 };
        resolve_attempt(kernel::current_tid(), errno)
    }

    /// The thread ends.
    #[inline(always)]
    pub(crate) fn forget(tid: u32) {
        if ATTEMPTS.get_ptr(tid).is_some() {
            let _was_seen = resolve_attempt(tid, NO_RESULT);
            let _removed = ATTEMPTS.remove(tid);
        }
    }

    /// Stands for the errno of a call that was not seen to come back.
    const NO_RESULT: u32 = u32::MAX;

    /// Ends an attempt of this thread, if there is one; tells it unless it became a handshake. `errno` is that of the call, 0 for
    /// success, or [`NO_RESULT`]. Whether the attempt is the call's own, and not what an earlier one has left.
    #[inline(always)]
    fn resolve_attempt(tid: u32, errno: u32) -> bool {
        let Some(entry) = ATTEMPTS.get_ptr_mut(tid) else { return false };
        // SAFETY: copied at once; only this thread writes its entry.
        let attempt = unsafe { *entry };
        if !attempt.is_untold() {
            if ATTEMPTS_CROWDED.get(0).is_some_and(|crowded| *crowded != 0) {
                let _removed = ATTEMPTS.remove(tid);
            } else {
                // SAFETY: as above.
                unsafe { (*entry).state = Attempt::DONE };
            }
            return attempt.state != Attempt::DONE;
        }
        if ATTEMPTS.remove(tid).is_err() {
            return true;
        }
        let _unknown_who = tell_failure(&attempt, errno);
        true
    }

    /// Tells an attempt of this thread that has no address of its own; `errno` as for [`resolve_attempt`].
    ///
    /// Out of line: the stack is short. Who it is comes before what came of it: the verifier would walk the one for each of the other.
    #[inline(never)]
    fn tell_failure(attempt: &Attempt, errno: u32) -> Option<()> {
        let subject = Subject::current()?;
        let (outcome, error) = match (errno, attempt.state) {
            (0 | NO_RESULT, Attempt::CLOSED) => (Outcome::Aborted, 0),
            // The kernel ran no program when the socket entered SYN_SENT, nor will the socket's end be known.
            (0, _) if kernel::is_preemptible() => {
                emit::state_lost(Kind::Close);
                (Outcome::Established, 0)
            }
            (NO_RESULT, _) if kernel::is_preemptible() => (Outcome::Unknown, 0),
            // The call that came back was another one: that of io_uring is not seen to.
            (0 | NO_RESULT, _) => (Outcome::Failed, 0),
            _ => (outcome(errno), errno),
        };
        let Attempt { remote, remote_port, .. } = *attempt;
        let tuple = Tuple { remote, local: [0; 16], remote_port, local_port: 0, reserved: 0 };
        let connect = Connect { tuple, outcome: outcome as u32, error, duration: 0 };
        let _throttled = tell(&subject, &connect, kernel::now());
        Some(())
    }

    /// Moves this thread's attempt from one state to the next; `false` where it is in another, or there is none.
    #[inline(always)]
    pub(crate) fn advance(tid: u32, from: u16, to: u16) -> bool {
        let Some(attempt) = ATTEMPTS.get_ptr_mut(tid) else { return false };
        // SAFETY: a pointer into a map's value, which only this thread writes.
        unsafe {
            if (*attempt).state != from {
                return false;
            }
            (*attempt).state = to;
        }
        true
    }
}
