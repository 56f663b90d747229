//! The connections that this host opens, from SYN_SENT to their end: one entry for each socket.

use crate::{
    network::Tuple,
    wire::{Subject, wire},
};

wire! {
    /// A connection and who opened it, as it was then: the value of `CONNECTIONS`.
    pub struct Connection {
        /// Since when it is in this state: CLOCK_BOOTTIME in nanoseconds. All ones where it is over.
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
    /// It is over. The entry is left to the next connection whose socket has this address.
    pub const ENDED: u64 = 3;

    /// So many entries may be left. The kernel gives a freed socket's memory to the next one, so that few are needed.
    pub const LEFT: u32 = 1024;

    /// A handshake older than this, in nanoseconds, has no outcome for the programs any more: 140 s, more than the kernel tries with
    /// its largest `tcp_syn_retries` of common use (6: 127 s).
    pub const OUTCOME_AGE: u64 = 140_000_000_000;
    /// One older than this is the agent's to take out and to tell, 10 s later: so the two never write at once.
    pub const SWEEP_AGE: u64 = Self::OUTCOME_AGE + 10_000_000_000;
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::{begin, end, get, is_there, open, reuse, reused};

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::BPF_NOEXIST,
        macros::map,
        maps::{Array, HashMap},
    };

    use super::Connection;
    use crate::{counters::add, emit, kernel::Pointer, wire::Kind};

    /// Key: the address of the socket. Written at SYN_SENT, over what is there, which is counted as lost unless it is
    /// over: a reused address never inherits an owner. Marked as open, and as over, where it is, since removing and
    /// writing it again would cost a tenth of a connect each; removed at the end where [`Connection::LEFT`] are left
    /// already. Whoever changes a socket's state holds its lock, so no two programs work on an entry at once; see
    /// [`Connection::SWEEP_AGE`] for the agent, which sweeps handshakes that stay. Where it is full, a connect is told
    /// at once, as unknown. Sized by the agent: pending connects, open connections and those left, together.
    #[map]
    static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(32768, 0);

    /// How many entries are open, and how many are left: neither may take the room of handshakes. By atomic adds.
    #[map]
    static CONNECTION_COUNTS: Array<u64> = Array::with_max_entries(2, 0);

    // Places in `CONNECTION_COUNTS`.
    const OPEN: u32 = 0;
    const LEFT: u32 = 1;

    /// Whether the entry is over, and may be written over.
    #[inline(always)]
    fn is_over(entry: *mut Connection) -> bool {
        // SAFETY: a map's value that nobody else writes.
        unsafe { (*entry).state == Connection::ENDED }
    }

    /// The entry that an earlier socket of this address has left. It is to be written in place, its state last.
    #[inline(always)]
    pub(crate) fn reuse(socket: impl Pointer) -> Option<*mut Connection> {
        let entry = get(socket)?;
        if !is_over(entry) {
            return None;
        }
        Some(entry)
    }

    /// Remembers a handshake; `false` where there is no room.
    #[inline(always)]
    pub(crate) fn begin(socket: impl Pointer, connection: &Connection) -> bool {
        if CONNECTIONS.insert(socket.address(), connection, u64::from(BPF_NOEXIST)).is_ok() {
            return true;
        }
        // Full; or the socket that had this address went unseen, since its program did not run.
        let Some(entry) = get(socket) else { return false };
        // SAFETY: the entry of a socket that nobody else changes.
        if unsafe { (*entry).state } == Connection::HANDSHAKE {
            emit::state_lost(Kind::Connect);
        } else {
            count(OPEN, -1);
            emit::state_lost(Kind::Close);
        }
        CONNECTIONS.insert(socket.address(), connection, 0).is_ok()
    }

    #[inline(always)]
    pub(crate) fn get(socket: impl Pointer) -> Option<*mut Connection> {
        CONNECTIONS.get_ptr_mut(socket.address())
    }

    /// Whether the socket has an entry of its own.
    #[inline(always)]
    pub(crate) fn is_there(socket: impl Pointer) -> bool {
        get(socket).is_some_and(|entry| !is_over(entry))
    }

    /// Keeps the entry until the socket is closed, if there may be one more; else its end is counted as lost.
    #[inline(always)]
    pub(crate) fn open(socket: impl Pointer, entry: *mut Connection, time: u64, state: u64) {
        if counted(OPEN) >= emit::settings().map_or(0, |settings| u64::from(settings.open_connections)) {
            let _removed = CONNECTIONS.remove(socket.address());
            emit::state_lost(Kind::Close);
            return;
        }
        count(OPEN, 1);
        // SAFETY: a map's value that nobody else writes.
        unsafe { (*entry).time = time };
        // SAFETY: as above.
        unsafe { (*entry).state = state };
    }

    /// The connection is over.
    #[inline(always)]
    pub(crate) fn end(socket: impl Pointer, entry: *mut Connection) {
        // SAFETY: a map's value that nobody else writes.
        if unsafe { (*entry).state } != Connection::HANDSHAKE {
            count(OPEN, -1);
        }
        if counted(LEFT) >= u64::from(Connection::LEFT) {
            let _removed = CONNECTIONS.remove(socket.address());
            return;
        }
        count(LEFT, 1);
        // SAFETY: as above. With this time, whoever reads a part of the entry and a part of what is written over
        // it takes it for a young one.
        unsafe { (*entry).time = u64::MAX };
        // SAFETY: as above.
        unsafe { (*entry).state = Connection::ENDED };
    }

    /// An entry from [`reuse`] has been written over.
    #[inline(always)]
    pub(crate) fn reused() {
        count(LEFT, -1);
    }

    #[inline(always)]
    fn counted(index: u32) -> u64 {
        CONNECTION_COUNTS.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn count(index: u32, by: i64) {
        if let Some(counter) = CONNECTION_COUNTS.get_ptr_mut(index) {
            add(counter, by as u64);
        }
    }
}
