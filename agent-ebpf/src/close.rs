//! The end of a connection that this host opened: how long it was open, and what it carried.

use crate::{network::Tuple, wire::wire};

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
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::closed;

#[cfg(target_arch = "bpf")]
mod programs {
    use super::Close;
    use crate::{
        address::Socket,
        connection::{self, Connection},
        counters::{BYTES_RECEIVED, BYTES_SENT, count_by},
        emit::{self, Verdict},
        kernel::{self, offset},
        wire::{Header, Kind},
    };

    /// The bit in `sock.skc_flags` that says that the other side's FIN has come: include/net/sock.h (v6.18).
    const SOCK_DONE: u64 = 1;

    /// The socket is closed, from whatever state. Out of line, for the stack.
    #[inline(never)]
    pub(crate) fn closed(socket: impl Socket, entry: *mut Connection) {
        // SAFETY: a map's value; whoever changes the socket's state holds its lock, so that nobody else removes its
        // entry. Not copied, since the stack is short.
        let open = unsafe { &*entry };
        if tell(socket, open).is_none() {
            emit::state_lost(Kind::Close);
        }
        connection::end(socket, entry);
    }

    /// `None` where the socket could not be read.
    #[inline(always)]
    fn tell(socket: impl Socket, open: &Connection) -> Option<()> {
        let subject = &open.subject;
        let [sent, again, received] = socket.traffic()?;
        let sent = sent.saturating_sub(again);
        // The other side's FIN has a place in the sequence, and is counted as a byte.
        let flags: u64 = socket.read(offset!(sock_flags))?;
        let received = received.saturating_sub(flags >> SOCK_DONE & 1);
        // Many carry nothing one way, and each counter is a search of its own.
        if sent != 0 {
            count_by(subject, BYTES_SENT, sent);
        }
        if received != 0 {
            count_by(subject, BYTES_RECEIVED, received);
        }
        let time = kernel::now();
        // What was said of its beginning holds for its end, which need not ask again.
        let verdict = emit::judge(Kind::Close, || false, |_| open.state == Connection::THROTTLED);
        if !matches!(verdict, Verdict::Wanted) {
            return Some(());
        }
        const LEN: usize = size_of::<Header>() + size_of::<Close>();
        let Some(slot) = emit::reserve::<LEN>(Kind::Close) else {
            emit::ring_full(Kind::Close);
            return Some(());
        };
        let duration = time.saturating_sub(open.time);
        // SAFETY: the slot has the body's size behind the header, and is aligned to 8.
        unsafe { slot.body::<Close>().write(Close { tuple: open.tuple, duration, sent, received }) };
        slot.submit(Kind::Close, subject, time, LEN, 0);
        Some(())
    }
}
