//! The connections that this host opens, from SYN_SENT to their end: one entry for each socket.

use crate::{
    network::Tuple,
    wire::{Subject, wire},
};

wire! {
    /// A connection and who opened it, as it was then: the value of `CONNECTIONS`.
    pub struct Connection {
        /// Since when it is in this state: CLOCK_BOOTTIME in nanoseconds.
        pub time: u64,
        pub subject: Subject,
        pub tuple: Tuple,
        /// [`Connection::HANDSHAKE`] and the like.
        pub state: u64,
    }
}

impl Connection {
    /// It has no outcome yet.
    pub const HANDSHAKE: u64 = 0;
    /// It is established.
    pub const OPEN: u64 = 1;
    /// The same; its beginning was throttled, and so is its end.
    pub const THROTTLED: u64 = 2;

    /// A handshake older than this, in nanoseconds, has no outcome for the programs any more: 140 s, more than the kernel tries with
    /// its largest `tcp_syn_retries` of common use (6: 127 s).
    pub const OUTCOME_AGE: u64 = 140_000_000_000;
    /// One older than this is the agent's to take out and to tell, 10 s later: so the two never write at once.
    pub const SWEEP_AGE: u64 = Self::OUTCOME_AGE + 10_000_000_000;
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::{begin, end, get, open};

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::BPF_NOEXIST,
        macros::map,
        maps::{Array, HashMap},
    };

    use super::Connection;
    use crate::{counters::add, emit, kernel::Ptr, wire::Kind};

    /// Key: the address of the socket. Written at SYN_SENT, over what is there, which is counted as lost: a reused
    /// address never inherits an owner. Marked as open where it is, since removing and writing it again would
    /// cost a tenth of a connect; removed at a failure, or when the socket is closed. Whoever changes a socket's
    /// state holds its lock, so no two programs work on an entry at once; see [`Connection::SWEEP_AGE`] for the
    /// agent, which sweeps what stays. Where it is full, a connect is told at once, as unknown. Sized by the agent:
    /// pending connects and open connections together.
    #[map]
    static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(32768, 0);

    /// How many entries are open, by an atomic add: they must leave room for handshakes.
    #[map]
    static OPEN_CONNECTIONS: Array<u64> = Array::with_max_entries(1, 0);

    /// Remembers a handshake; `false` where there is no room.
    #[inline(always)]
    pub(crate) fn begin(socket: Ptr, connection: &Connection) -> bool {
        if CONNECTIONS.insert(socket.0, connection, u64::from(BPF_NOEXIST)).is_ok() {
            return true;
        }
        // Full; or the socket that had this address went unseen, since its program did not run.
        let Some(entry) = get(socket) else { return false };
        // SAFETY: the entry of a socket that nobody else changes.
        if unsafe { (*entry).state } == Connection::HANDSHAKE {
            emit::state_lost(Kind::Connect);
        } else {
            count_open(-1);
            emit::state_lost(Kind::Close);
        }
        CONNECTIONS.insert(socket.0, connection, 0).is_ok()
    }

    #[inline(always)]
    pub(crate) fn get(socket: Ptr) -> Option<*mut Connection> {
        CONNECTIONS.get_ptr_mut(socket.0)
    }

    /// Keeps the entry until the socket is closed, if there may be one more; else its end is counted as lost.
    #[inline(always)]
    pub(crate) fn open(socket: Ptr, entry: *mut Connection, time: u64, state: u64) {
        let open = OPEN_CONNECTIONS.get(0).copied().unwrap_or(0);
        if open >= emit::settings().map_or(0, |settings| u64::from(settings.open_connections)) {
            let _removed = CONNECTIONS.remove(socket.0);
            emit::state_lost(Kind::Close);
            return;
        }
        count_open(1);
        // SAFETY: a map's value that nobody else writes.
        unsafe { (*entry).time = time };
        // SAFETY: as above.
        unsafe { (*entry).state = state };
    }

    /// Forgets the connection.
    #[inline(always)]
    pub(crate) fn end(socket: Ptr, was_open: bool) {
        if CONNECTIONS.remove(socket.0).is_ok() && was_open {
            count_open(-1);
        }
    }

    #[inline(always)]
    fn count_open(by: i64) {
        if let Some(open) = OPEN_CONNECTIONS.get_ptr_mut(0) {
            add(open, by as u64);
        }
    }
}
