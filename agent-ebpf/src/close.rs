//! The end of a connection that this host opened: how long it was open, and what it carried.

use crate::{
    network::Tuple,
    wire::{Subject, wire},
};

wire! {
    /// The body of a record of a connection that was closed. The header's subject is who opened it, as it was then.
    pub struct Close {
        pub tuple: Tuple,
        /// Nanoseconds since it was established.
        pub duration: u64,
        /// Payload, in bytes, without what was sent again.
        pub sent: u64,
        /// Payload, in bytes.
        pub received: u64,
    }

    /// An established connection: the value of `OPEN`.
    pub struct Open {
        pub time: u64,
        pub subject: Subject,
    }
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::{closed, opened};

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{macros::map, maps::HashMap};

    use super::{Close, Open};
    use crate::{
        address::tuple,
        counters::{BYTES_RECEIVED, BYTES_SENT, CLOSES, count, count_by},
        emit,
        kernel::{self, Pointer as _, Ptr, offset},
        wire::{Header, Kind, Subject},
    };

    /// The bit in `sock.skc_flags` that says that the other side's FIN has come: include/net/sock.h (v6.18).
    const SOCK_DONE: u64 = 1;

    /// Key: the address of the socket. Written when a connect is established, removed when the socket is closed: the
    /// removal that succeeds arbitrates. Where it is full, the connection's end is counted as lost state. Sized by
    /// the agent; overwritten where a close was missed and the address is used again.
    #[map]
    static OPEN: HashMap<u64, Open> = HashMap::with_max_entries(16384, 0);

    /// Remembers who opened the connection until its end. Out of line: the caller's stack is full.
    #[inline(never)]
    pub(crate) fn opened(socket: Ptr, subject: &Subject, time: u64) {
        if OPEN.insert(socket.0, Open { time, subject: *subject }, 0).is_err() {
            emit::state_lost(Kind::Close);
        }
    }

    /// The socket is closed, from whatever state. Out of line: two programs come here.
    #[inline(never)]
    pub(crate) fn closed(socket: Ptr) -> Option<()> {
        let open = OPEN.get_ptr(socket.0)?;
        // SAFETY: the socket is locked by whoever changes its state, so that nobody else removes its entry; not copied,
        // since the stack is short.
        let outcome = tell(socket, unsafe { &*open });
        OPEN.remove(socket.0).ok()?;
        outcome
    }

    #[inline(always)]
    fn tell(socket: Ptr, open: &Open) -> Option<()> {
        let subject = &open.subject;
        let mut tuple = tuple(socket)?;
        if tuple.local_port == 0 {
            // Given back by now.
            tuple.local_port = u16::from_be(socket.read(offset!(inet_sport)).unwrap_or(0));
        }
        let sent: u64 = socket.read(offset!(tcp_bytes_sent))?;
        let again: u64 = socket.read(offset!(tcp_bytes_retrans))?;
        let sent = sent.saturating_sub(again);
        let received: u64 = socket.read(offset!(tcp_bytes_received))?;
        // The other side's FIN has a place in the sequence, and is counted as a byte.
        let flags: u64 = socket.read(offset!(sock_flags))?;
        let received = received.saturating_sub(flags >> SOCK_DONE & 1);
        count(subject, CLOSES);
        // Many carry nothing one way, and each counter is a search of its own.
        if sent != 0 {
            count_by(subject, BYTES_SENT, sent);
        }
        if received != 0 {
            count_by(subject, BYTES_RECEIVED, received);
        }
        let time = kernel::now();
        if !emit::wanted(Kind::Close, subject, time) {
            return None;
        }
        const LEN: usize = size_of::<Header>() + size_of::<Close>();
        let Some(slot) = emit::reserve::<LEN>(Kind::Close) else {
            emit::ring_full(Kind::Close);
            return None;
        };
        let duration = time.saturating_sub(open.time);
        // SAFETY: the slot has the body's size behind the header, and is aligned to 8.
        unsafe { slot.body::<Close>().write(Close { tuple, duration, sent, received }) };
        slot.submit(Kind::Close, subject, time, LEN, 0);
        Some(())
    }
}
