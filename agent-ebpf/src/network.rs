//! Connections that this host opens: one `connect` for each attempt, with its final outcome.
//!
//! Three programs meet an attempt, and two maps tie them together:
//!
//! 1. `connect4`/`connect6` (cgroup hooks) see every attempt before the kernel looks for a route. The
//!    address is the kernel's copy. It goes to `ATTEMPTS`, by thread.
//! 2. `connect_state` sees the socket enter SYN_SENT, in the caller's context for blocking,
//!    non-blocking and io_uring callers alike. The attempt is now a handshake: it has an entry in
//!    `CONNECTIONS` ([`crate::connection`]), by socket.
//! 3. `connect_state`, or `connect_ended` where the first is interrupted, sees the socket leave SYN_SENT,
//!    mostly in softirq, whoever runs. Filters and attribution go by the stored owner.
//!
//! An attempt that never became a handshake (no route, denied) is told at the call's exit with its errno, or,
//! where that is not traced (io_uring), at the thread's next attempt or its end, without one.

use crate::wire::{names, wire};

names! {
    /// How an attempt ended; part of a counter's number, see [`crate::counters::CONNECTS`].
    pub enum Outcome {
        Established = 0 => "established",
        Refused = 1 => "refused",
        TimedOut = 2 => "timed_out",
        Unreachable = 3 => "unreachable",
        /// A cgroup program or a filter of the kernel forbade it.
        Denied = 4 => "denied",
        Reset = 5 => "reset",
        /// The caller closed the socket before there was an outcome.
        Aborted = 6 => "aborted",
        /// Another error, see `error`.
        Failed = 7 => "failed",
        /// The outcome could not be learned.
        Unknown = 8 => "unknown",
    }
}

names! {
    /// Where an address lies; part of a counter's number.
    pub enum Scope {
        Loopback = 0 => "loopback",
        /// RFC 1918, RFC 6598, RFC 4193 and link-local addresses.
        Private = 1 => "private",
        Public = 2 => "public",
    }
}

wire! {
    /// Two ends of a connection. IPv4 is written as v4-mapped IPv6 (RFC 4291, 2.5.5.2), ports in host order.
    pub struct Tuple {
        pub remote: [u8; 16],
        /// All zero where the attempt ended before an address was chosen.
        pub local: [u8; 16],
        pub remote_port: u16,
        pub local_port: u16,
        pub reserved: u32,
    }

    /// The body of a connect record. The header's time is that of the outcome.
    pub struct Connect {
        pub tuple: Tuple,
        /// An [`Outcome`].
        pub outcome: u32,
        /// errno, positive; 0 for none, or none known.
        pub error: u32,
        /// Nanoseconds from SYN_SENT to the outcome; 0 where there was no handshake.
        pub duration: u64,
    }

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
pub(crate) use programs::forget;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        macros::{cgroup_sock_addr, fexit, map, raw_tracepoint, tracepoint},
        maps::{Array, HashMap, PerCpuArray},
        programs::{FExitContext, RawTracePointContext, SockAddrContext, TracePointContext},
    };

    use core::mem::MaybeUninit;

    use super::{Attempt, Connect, Outcome, Tuple};
    use crate::{
        address::{is_mapped, mapped, scope_of, tuple},
        close,
        connection::{self, Connection},
        counters::{CONNECTS, count},
        emit::{self, Verdict},
        filter,
        kernel::{self, Pointer as _, Ptr, argument, offset},
        scope,
        task::write_current,
        wire::{Header, Kind, Subject},
    };

    const IPPROTO_TCP: u32 = 6;
    // include/net/tcp_states.h (v6.18).
    const TCP_SYN_SENT: u32 = 2;
    const TCP_SYN_RECV: u32 = 3;
    const TCP_ESTABLISHED: u32 = 1;
    const TCP_CLOSE: u32 = 7;
    const TCP_LISTEN: u32 = 10;
    // include/uapi/asm-generic/errno.h: the same on x86-64 and arm64.
    const EPERM: u32 = 1;
    const EACCES: u32 = 13;
    const EINPROGRESS: u32 = 115;
    const ENETUNREACH: u32 = 101;
    const ENETDOWN: u32 = 100;
    const EHOSTUNREACH: u32 = 113;
    const EHOSTDOWN: u32 = 112;
    const ECONNREFUSED: u32 = 111;
    const ECONNRESET: u32 = 104;
    const ETIMEDOUT: u32 = 110;

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

    /// The change of state that [`connect_state`] has taken last on this CPU: socket, old and new state.
    #[map]
    static TAKEN: PerCpuArray<Change> = PerCpuArray::with_max_entries(1, 0);

    #[repr(C)]
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Change {
        socket: u64,
        states: u64,
    }

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
            resolve_attempt(tid, 0);
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
        returned(i64::from(unsafe { argument(ctx.as_ptr(), 4) } as i32));
        0
    }

    /// hook: `syscalls:sys_exit_connect`, `long ret` at 16.
    #[tracepoint]
    pub fn connect_exit(ctx: TracePointContext) -> u32 {
        // SAFETY: the format of the syscall exit tracepoints.
        returned(unsafe { ctx.read_at::<i64>(16) }.unwrap_or(0));
        0
    }

    /// The thread comes back from connect.
    #[inline(always)]
    fn returned(result: i64) {
        let error = if result < 0 { result.unsigned_abs() as u32 } else { 0 };
        resolve_attempt(kernel::current_tid(), error);
    }

    /// The thread ends.
    #[inline(always)]
    pub(crate) fn forget(tid: u32) {
        resolve_attempt(tid, 0);
        let _removed = ATTEMPTS.remove(tid);
    }

    /// Ends an attempt of this thread, if there is one; tells it unless it became a handshake. An `error` of 0
    /// is none that is known.
    #[inline(always)]
    fn resolve_attempt(tid: u32, error: u32) {
        let Some(entry) = ATTEMPTS.get_ptr_mut(tid) else { return };
        // SAFETY: copied at once; only this thread writes its entry.
        let attempt = unsafe { *entry };
        if !attempt.is_untold() {
            if ATTEMPTS_CROWDED.get(0).is_some_and(|crowded| *crowded != 0) {
                let _removed = ATTEMPTS.remove(tid);
            } else {
                // SAFETY: as above.
                unsafe { (*entry).state = Attempt::DONE };
            }
            return;
        }
        if ATTEMPTS.remove(tid).is_err() {
            return;
        }
        let Some(subject) = Subject::current() else { return };
        let tuple = Tuple {
            remote: attempt.remote,
            local: [0; 16],
            remote_port: attempt.remote_port,
            local_port: 0,
            reserved: 0,
        };
        let outcome = match (error, attempt.state) {
            (0, Attempt::CLOSED) => Outcome::Aborted,
            (0, _) => Outcome::Failed,
            _ => outcome(error),
        };
        let connect = Connect { tuple, outcome: outcome as u32, error, duration: 0 };
        let _throttled = tell(&subject, &connect, kernel::now());
    }

    /// Moves this thread's attempt from one state to the next; `false` where it is in another, or there is none.
    #[inline(always)]
    fn advance(tid: u32, from: u16, to: u16) -> bool {
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

    /// hook: `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: the change
    /// to SYN_SENT, in the context of whoever called connect, and the change away from it.
    /// <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/af_inet.c>
    #[raw_tracepoint(tracepoint = "inet_sock_set_state")]
    pub fn connect_state(ctx: RawTracePointContext) -> i32 {
        let (socket, old, new) = change(&ctx);
        if new == TCP_SYN_SENT {
            let _nothing_to_tell = started(socket);
        } else if is_end(old, new) {
            // Not before it is done: whoever interrupts this must not be taken for it.
            take(Change { socket: 0, states: 0 });
            ended(socket, new);
            take(Change { socket: socket.0, states: states(old, new) });
        }
        0
    }

    /// hook: `inet_sock_set_state`: the change away from SYN_SENT, once more.
    ///
    /// The kernel does not run a program inside itself, and the outcome of one socket can arrive in an
    /// interrupt while [`connect_state`] is at work on another. Then this one runs. Nearly always it finds that
    /// the other has just taken the change; where it cannot tell, it finds the entry gone.
    #[raw_tracepoint(tracepoint = "inet_sock_set_state")]
    pub fn connect_ended(ctx: RawTracePointContext) -> i32 {
        let (socket, old, new) = change(&ctx);
        if is_end(old, new) && !is_taken(Change { socket: socket.0, states: states(old, new) }) {
            ended(socket, new);
        }
        0
    }

    /// The socket, its old state and its new one.
    #[inline(always)]
    fn change(ctx: &RawTracePointContext) -> (Ptr, u32, u32) {
        // SAFETY: the tracepoint has three arguments.
        let argument = |index| unsafe { argument(ctx.as_ptr(), index) };
        (Ptr(argument(0)), argument(1) as u32, argument(2) as u32)
    }

    /// Whether a handshake or a connection may have ended. Where both sides open at once, or a socket connects to
    /// itself, SYN_RECV comes in between.
    #[inline(always)]
    const fn is_end(old: u32, new: u32) -> bool {
        let of_handshake = (old == TCP_SYN_SENT || old == TCP_SYN_RECV) && new != TCP_SYN_RECV;
        of_handshake || (new == TCP_CLOSE && old != TCP_LISTEN)
    }

    #[inline(always)]
    const fn states(old: u32, new: u32) -> u64 {
        (old as u64) << 32 | new as u64
    }

    #[inline(always)]
    fn take(change: Change) {
        if let Some(taken) = TAKEN.get_ptr_mut(0) {
            // SAFETY: a map's value of this CPU. Volatile: between the two writes others may look.
            unsafe { taken.write_volatile(change) };
        }
    }

    #[inline(always)]
    fn is_taken(change: Change) -> bool {
        // SAFETY: a map's value of this CPU.
        TAKEN.get_ptr(0).is_some_and(|taken| unsafe { taken.read_volatile() } == change)
    }

    #[inline(always)]
    fn ended(socket: Ptr, new: u32) {
        let Some(entry) = connection::get(socket) else { return };
        // SAFETY: a map's value; whoever changes the socket's state holds its lock, so that nobody else writes it.
        if unsafe { (*entry).state } == Connection::HANDSHAKE {
            outcome_of(socket, entry, new);
        } else if new == TCP_CLOSE {
            close::closed(socket, entry);
        }
    }

    /// Out of line, as is [`outcome_of`]: the two together would need more than the stack of 512 bytes.
    #[inline(never)]
    fn started(socket: Ptr) -> Option<()> {
        // An MPTCP socket changes its state beside the TCP socket that it connects by; the latter is told.
        if u32::from(socket.read::<u16>(offset!(sock_protocol))?) != IPPROTO_TCP {
            return None;
        }
        // Who made the attempt was looked at then, and need not be again.
        let attempted = advance(kernel::current_tid(), Attempt::TRIED, Attempt::STARTED);
        if !attempted && !scope::contains_current() {
            return None;
        }
        let mut connection = MaybeUninit::<Connection>::uninit();
        // SAFETY: a member of the function's own value.
        if unsafe { write_current(&raw mut (*connection.as_mut_ptr()).subject) } == 0 {
            return None;
        }
        let tuple = tuple(socket)?;
        // SAFETY: as above.
        unsafe { (*connection.as_mut_ptr()).tuple = tuple };
        // SAFETY: as above.
        unsafe { (*connection.as_mut_ptr()).time = kernel::now() };
        // SAFETY: as above.
        unsafe { (*connection.as_mut_ptr()).state = Connection::HANDSHAKE };
        // SAFETY: every member has been written.
        let connection = unsafe { connection.assume_init_ref() };
        if !connection::begin(socket, connection) {
            let connect = Connect { tuple, outcome: Outcome::Unknown as u32, error: 0, duration: 0 };
            let _throttled = tell(&connection.subject, &connect, connection.time);
        }
        Some(())
    }

    /// The socket has left SYN_SENT. Its entry is read where it is: the stack is short.
    #[inline(never)]
    fn outcome_of(socket: Ptr, entry: *mut Connection, new: u32) {
        // SAFETY: as in `ended`.
        let handshake = unsafe { &mut *entry };
        let now = kernel::now();
        let duration = now.saturating_sub(handshake.time);
        // What is that old the agent may be about to take out and to tell.
        if duration > Connection::OUTCOME_AGE {
            return;
        }
        if let Some(tuple) = tuple(socket) {
            handshake.tuple = tuple;
        }
        if handshake.tuple.local_port == 0 {
            handshake.tuple.local_port = u16::from_be(socket.read(offset!(inet_sport)).unwrap_or(0));
        }
        let (outcome, error) = if new == TCP_ESTABLISHED {
            (Outcome::Established, 0)
        } else {
            let hard = socket.read::<u32>(offset!(sock_err)).unwrap_or(0);
            let error =
                if hard == 0 { socket.read::<u32>(offset!(sock_err_soft)).unwrap_or(0) } else { hard };
            if error == 0 {
                // The thread is still in connect: that will say why.
                let tid = kernel::current_tid();
                if tid == handshake.subject.tid && advance(tid, Attempt::STARTED, Attempt::CLOSED) {
                    return connection::end(socket, false);
                }
                (Outcome::Aborted, 0)
            } else {
                (outcome(error), error)
            }
        };
        let connect = Connect { tuple: handshake.tuple, outcome: outcome as u32, error, duration };
        let is_throttled = tell(&handshake.subject, &connect, now) != 0;
        if new == TCP_ESTABLISHED {
            let state = if is_throttled { Connection::THROTTLED } else { Connection::OPEN };
            connection::open(socket, entry, now, state);
        } else {
            connection::end(socket, false);
        }
    }

    #[inline(always)]
    fn outcome(error: u32) -> Outcome {
        match error {
            ECONNREFUSED => Outcome::Refused,
            ETIMEDOUT => Outcome::TimedOut,
            ENETUNREACH | EHOSTUNREACH | ENETDOWN | EHOSTDOWN => Outcome::Unreachable,
            EPERM | EACCES => Outcome::Denied,
            ECONNRESET => Outcome::Reset,
            EINPROGRESS => Outcome::Unknown,
            _ => Outcome::Failed,
        }
    }

    /// Counts the attempt and makes it a record; 1 where it was throttled. Kept out of line: five programs come here.
    #[inline(never)]
    fn tell(subject: &Subject, connect: &Connect, time: u64) -> u32 {
        let remote = &connect.tuple.remote;
        let v6 = u32::from(!is_mapped(remote));
        let number = (v6 * 3 + scope_of(remote) as u32) * 16 + (connect.outcome & 15);
        count(subject, CONNECTS + number);
        let verdict = emit::judge(
            Kind::Connect,
            || filter::drops_connect(subject, connect),
            |settings| scope::throttled(Kind::Connect.ring(), subject, time, settings),
        );
        match verdict {
            Verdict::Wanted => {}
            Verdict::Filtered => return 0,
            Verdict::Throttled => return 1,
        }
        const LEN: usize = size_of::<Header>() + size_of::<Connect>();
        let Some(slot) = emit::reserve::<LEN>(Kind::Connect) else {
            emit::ring_full(Kind::Connect);
            return 0;
        };
        // SAFETY: the slot has the body's size behind the header, and is aligned to 8.
        unsafe { slot.body::<Connect>().write(*connect) };
        slot.submit(Kind::Connect, subject, time, LEN, 0);
        0
    }
}
