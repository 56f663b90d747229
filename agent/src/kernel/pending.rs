//! Connects whose outcome has not come: swept by age, so that the kernel's maps do not fill with them.

use aya::maps::{HashMap, MapData, MapError};
use rustc_hash::FxHashMap;
use tellwire_ebpf::network::{Attempt, Pending};
use zerocopy::{FromBytes as _, IntoBytes as _};

type PendingWords = [u64; size_of::<Pending>() / 8];
type AttemptWords = [u64; size_of::<Attempt>() / 8];

/// More than the kernel tries with its largest `tcp_syn_retries` of common use (6: 127 s).
const PENDING_AGE_NS: u64 = 150_000_000_000;

/// The two maps that tie a connect together.
pub(crate) struct PendingConnects {
    pending: HashMap<MapData, u64, PendingWords>,
    attempts: HashMap<MapData, u32, AttemptWords>,
    /// Attempts that the last sweep met. One that is there still was never going to be a handshake: connect(2)
    /// fails at once, or enters SYN_SENT.
    met: FxHashMap<u32, AttemptWords>,
}

/// What a sweep took out of the maps.
#[derive(Debug)]
pub(crate) enum Swept {
    /// A handshake without an outcome.
    Handshake(Pending),
    /// A call that failed where its end is not traced (io_uring).
    Attempt { tid: u32, attempt: Attempt },
}

impl PendingConnects {
    pub(crate) fn new(pending: MapData, attempts: MapData) -> Result<Self, MapError> {
        Ok(Self {
            pending: HashMap::try_from(aya::maps::Map::HashMap(pending))?,
            attempts: HashMap::try_from(aya::maps::Map::HashMap(attempts))?,
            met: FxHashMap::default(),
        })
    }

    /// Removes what is too old at `now` (CLOCK_BOOTTIME in nanoseconds), or everything at the end.
    ///
    /// The removal that succeeds arbitrates with the kernel programs: what is given here is told by no other.
    pub(crate) fn sweep(&mut self, now: Option<u64>, mut take: impl FnMut(Swept)) -> Result<(), MapError> {
        let is_old = |time: u64, age| now.is_none_or(|now| now.saturating_sub(time) > age);
        let mut old = Vec::new();
        for pair in &self.pending {
            let (socket, words) = pair?;
            if let Ok(pending) = Pending::read_from_bytes(words.as_bytes())
                && is_old(pending.time, PENDING_AGE_NS)
            {
                old.push((socket, pending));
            }
        }
        for (socket, pending) in old {
            if self.pending.remove(&socket).is_ok() {
                take(Swept::Handshake(pending));
            }
        }
        let mut met = FxHashMap::default();
        for pair in &self.attempts {
            let (tid, words) = pair?;
            met.insert(tid, words);
        }
        for (tid, words) in &met {
            let is_old = now.is_none() || self.met.get(tid) == Some(words);
            if is_old
                && let Ok(attempt) = Attempt::read_from_bytes(words.as_bytes())
                && self.attempts.remove(tid).is_ok()
                && attempt.state != Attempt::STARTED
            {
                take(Swept::Attempt { tid: *tid, attempt });
            }
        }
        self.met = met;
        Ok(())
    }

    /// Connects that wait for their outcome.
    pub(crate) fn entries(&self) -> usize {
        self.pending.keys().count()
    }
}
