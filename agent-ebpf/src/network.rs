//! Connections that this host opens: one `connect` for each attempt, with its final outcome.
//!
//! Three programs meet an attempt, and two maps tie them together:
//!
//! 1. `connect4`/`connect6` (cgroup hooks) see every attempt before the kernel looks for a route. The
//!    address is the kernel's copy. It goes to `ATTEMPTS` ([`crate::attempt`]), by thread.
//! 2. `connect_state` sees the socket enter SYN_SENT, in the caller's context for blocking,
//!    non-blocking and io_uring callers alike. The attempt is now a handshake: it has an entry in
//!    `CONNECTIONS` ([`crate::connection`]), by socket.
//! 3. `connect_state`, or `connect_ended` where the first is interrupted, sees the socket leave SYN_SENT,
//!    mostly in softirq, whoever runs. Filters and attribution go by the stored owner.

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
}

/// include/uapi/linux/in.h.
#[cfg(target_arch = "bpf")]
pub(crate) const IPPROTO_TCP: u32 = 6;

#[cfg(target_arch = "bpf")]
pub(crate) use programs::{EACCES, EPERM, outcome, tell};

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext,
        macros::{btf_tracepoint, map, raw_tracepoint},
        maps::PerCpuArray,
        programs::{BtfTracePointContext, RawTracePointContext},
    };

    use core::mem::MaybeUninit;

    use super::{Connect, IPPROTO_TCP, Outcome};
    use crate::{
        address::{Socket, is_mapped, scope_of, tuple},
        attempt::{Attempt, advance},
        close,
        connection::{self, Connection},
        counters::{CONNECTS, count},
        emit::{self, Verdict},
        filter,
        kernel::{self, Pointer as _, Ptr, Typed, argument, offset},
        scope,
        task::write_current,
        wire::{Header, Kind, Subject},
    };

    // include/net/tcp_states.h (v6.18).
    const TCP_SYN_SENT: u32 = 2;
    const TCP_SYN_RECV: u32 = 3;
    const TCP_ESTABLISHED: u32 = 1;
    const TCP_CLOSE: u32 = 7;
    const TCP_LISTEN: u32 = 10;
    // include/uapi/asm-generic/errno.h: the same on x86-64 and arm64.
    pub(crate) const EPERM: u32 = 1;
    pub(crate) const EACCES: u32 = 13;
    const EINPROGRESS: u32 = 115;
    const ENETUNREACH: u32 = 101;
    const ENETDOWN: u32 = 100;
    const EHOSTUNREACH: u32 = 113;
    const EHOSTDOWN: u32 = 112;
    const ECONNREFUSED: u32 = 111;
    const ECONNRESET: u32 = 104;
    const ETIMEDOUT: u32 = 110;

    /// The change of state that [`connect_state`] has taken last on this CPU: socket, old and new state.
    #[map]
    static TAKEN: PerCpuArray<Change> = PerCpuArray::with_max_entries(1, 0);

    #[repr(C)]
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Change {
        socket: u64,
        states: u64,
    }

    impl Change {
        const NONE: Self = Self { socket: 0, states: 0 };
    }

    /// hook: `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: the change
    /// to SYN_SENT, in the context of whoever called connect, and the change away from it.
    /// <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/af_inet.c>
    ///
    /// With types the socket is read by plain loads, which makes a connect some 0.1 µs cheaper.
    #[btf_tracepoint(function = "inet_sock_set_state")]
    pub fn connect_state(ctx: BtfTracePointContext) -> i32 {
        // SAFETY: the tracepoint's first argument.
        state_changed(unsafe { Typed::argument(ctx.as_ptr(), 0) }, states_of(&ctx))
    }

    /// The same where the kernel does not tell its types.
    #[raw_tracepoint(tracepoint = "inet_sock_set_state")]
    pub fn connect_state_untyped(ctx: RawTracePointContext) -> i32 {
        // SAFETY: as above.
        state_changed(Ptr(unsafe { argument(ctx.as_ptr(), 0) }), states_of(&ctx))
    }

    #[inline(always)]
    fn state_changed(socket: impl Socket, (old, new): (u32, u32)) -> i32 {
        if new == TCP_SYN_SENT {
            take(Change::NONE);
            let _nothing_to_tell = started(socket);
            if kernel::is_preemptible() {
                take(Change { socket: socket.address(), states: states(old, new) });
            }
        } else if is_end(old, new) {
            // Not before it is done: whoever interrupts this must not be taken for it.
            take(Change::NONE);
            ended(socket, (old, new));
            take(Change { socket: socket.address(), states: states(old, new) });
        }
        0
    }

    /// hook: `inet_sock_set_state`: the change away from SYN_SENT, once more; and the change to it where the kernel may have
    /// passed over [`connect_state`] there too, see [`crate::again`].
    ///
    /// The kernel does not run a program inside itself, and the outcome of one socket can arrive in an
    /// interrupt while [`connect_state`] is at work on another. Then this one runs. Nearly always it finds that
    /// the other has just taken the change; where it cannot tell, it finds the entry gone.
    #[btf_tracepoint(function = "inet_sock_set_state")]
    pub fn connect_ended(ctx: BtfTracePointContext) -> i32 {
        // SAFETY: the tracepoint's first argument.
        changed_again(unsafe { Typed::argument(ctx.as_ptr(), 0) }, states_of(&ctx))
    }

    /// The same where the kernel does not tell its types.
    #[raw_tracepoint(tracepoint = "inet_sock_set_state")]
    pub fn connect_ended_untyped(ctx: RawTracePointContext) -> i32 {
        // SAFETY: as above.
        changed_again(Ptr(unsafe { argument(ctx.as_ptr(), 0) }), states_of(&ctx))
    }

    /// hook: `inet_sock_set_state`: the same a third time, where programs can be preempted: so many change states at once that
    /// both of the others are passed over, for one connect in a thousand of a storm.
    #[btf_tracepoint(function = "inet_sock_set_state")]
    pub fn connect_again(ctx: BtfTracePointContext) -> i32 {
        // SAFETY: the tracepoint's first argument.
        changed_once_more(unsafe { Typed::argument(ctx.as_ptr(), 0) }, states_of(&ctx))
    }

    /// The same where the kernel does not tell its types.
    #[raw_tracepoint(tracepoint = "inet_sock_set_state")]
    pub fn connect_again_untyped(ctx: RawTracePointContext) -> i32 {
        // SAFETY: as above.
        changed_once_more(Ptr(unsafe { argument(ctx.as_ptr(), 0) }), states_of(&ctx))
    }

    #[inline(always)]
    fn changed_once_more(socket: impl Socket, states: (u32, u32)) -> i32 {
        if kernel::is_preemptible() {
            changed_again(socket, states);
        }
        0
    }

    #[inline(always)]
    fn changed_again(socket: impl Socket, (old, new): (u32, u32)) -> i32 {
        let change = Change { socket: socket.address(), states: states(old, new) };
        if new == TCP_SYN_SENT {
            if kernel::is_preemptible() && !is_taken(change) && !connection::is_there(socket) {
                let _nothing_to_tell = started(socket);
            }
        } else if is_end(old, new) {
            if !is_taken(change) {
                ended(socket, (old, new));
            } else if !kernel::is_preemptible() {
                // It is good for this once: another socket of this address will make the same change.
                take(Change::NONE);
            }
        }
        0
    }

    /// The old state and the new one.
    #[inline(always)]
    fn states_of(ctx: &impl EbpfContext) -> (u32, u32) {
        // SAFETY: the tracepoint has three arguments.
        unsafe { (argument(ctx.as_ptr(), 1) as u32, argument(ctx.as_ptr(), 2) as u32) }
    }

    /// Whether a handshake or a connection may have ended. Where both sides open at once, or a socket connects to
    /// itself, `SYN_RECV` comes in between.
    #[inline(always)]
    const fn is_end(old: u32, new: u32) -> bool {
        is_handshake(old) && new != TCP_SYN_RECV || (new == TCP_CLOSE && old != TCP_LISTEN)
    }

    #[inline(always)]
    const fn is_handshake(state: u32) -> bool {
        state == TCP_SYN_SENT || state == TCP_SYN_RECV
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
    fn ended(socket: impl Socket, (old, new): (u32, u32)) {
        let Some(entry) = connection::get(socket) else { return };
        // SAFETY: a map's value; whoever changes the socket's state holds its lock, so that nobody else writes it.
        match unsafe { (*entry).state } {
            Connection::HANDSHAKE => outcome_of(socket, entry, old, new),
            Connection::OPEN | Connection::THROTTLED if new == TCP_CLOSE => close::closed(socket, entry),
            _ => {}
        }
    }

    /// Out of line, as is [`outcome_of`]: the two together would need more than the stack of 512 bytes.
    #[inline(never)]
    fn started(socket: impl Socket) -> Option<()> {
        // An MPTCP socket changes its state beside the TCP socket that it connects by; the latter is told.
        if u32::from(socket.read::<u16>(offset!(sock_protocol))?) != IPPROTO_TCP {
            return None;
        }
        // Who made the attempt was looked at then, and need not be again.
        let attempted = advance(kernel::current_tid(), Attempt::TRIED, Attempt::STARTED);
        if !attempted && !scope::contains_current() {
            return None;
        }
        if let Some(entry) = connection::reuse(socket) {
            // SAFETY: a map's value that nobody else writes.
            if unsafe { write_handshake(entry, socket) } != 0 {
                connection::reused();
            }
            return Some(());
        }
        let mut connection = MaybeUninit::<Connection>::uninit();
        // SAFETY: the place is the function's own.
        if unsafe { write_handshake(connection.as_mut_ptr(), socket) } == 0 {
            return None;
        }
        // SAFETY: it was written in full.
        let connection = unsafe { connection.assume_init_ref() };
        if !connection::begin(socket, connection) {
            let connect =
                Connect { tuple: connection.tuple, outcome: Outcome::Unknown as u32, error: 0, duration: 0 };
            let _throttled = tell(&connection.subject, &connect, connection.time);
        }
        Some(())
    }

    /// Writes a handshake of the task that runs, its state last; 0 where something could not be read.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes.
    #[inline(never)]
    unsafe fn write_handshake(to: *mut Connection, socket: impl Socket) -> u32 {
        // SAFETY: the caller's promise; every member is written, and none is read.
        let to = unsafe { &mut *to };
        // SAFETY: as above.
        if unsafe { write_current(&raw mut to.subject) } == 0 {
            return 0;
        }
        let Some(tuple) = tuple(socket) else { return 0 };
        to.tuple = tuple;
        to.time = kernel::now();
        to.state = Connection::HANDSHAKE;
        1
    }

    /// The socket has left SYN_SENT, or a later state if that went unseen. Its entry is read where it is: the stack is short.
    #[inline(never)]
    fn outcome_of(socket: impl Socket, entry: *mut Connection, old: u32, new: u32) {
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
            handshake.tuple.local_port = u16::from_be(source_port(Ptr(socket.address())));
        }
        let (outcome, error) = if new == TCP_ESTABLISHED {
            (Outcome::Established, 0)
        } else if !is_handshake(old) {
            // No program was run for the change before. When it was established is not known, so that is not told.
            (Outcome::Unknown, 0)
        } else {
            let hard = socket.read::<u32>(offset!(sock_err)).unwrap_or(0);
            let error =
                if hard == 0 { socket.read::<u32>(offset!(sock_err_soft)).unwrap_or(0) } else { hard };
            if error == 0 {
                // The thread is still in connect: that will say why.
                let tid = kernel::current_tid();
                if tid == handshake.subject.tid && advance(tid, Attempt::STARTED, Attempt::CLOSED) {
                    return connection::end(socket, entry);
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
            connection::end(socket, entry);
        }
    }

    /// `inet_sport`, which is none of `struct sock`.
    #[inline(always)]
    fn source_port(socket: Ptr) -> u16 {
        socket.read(offset!(inet_sport)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn outcome(error: u32) -> Outcome {
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
    pub(crate) fn tell(subject: &Subject, connect: &Connect, time: u64) -> u32 {
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
