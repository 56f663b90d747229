//! Connects whose outcome has not come: swept by age, so that the kernel's maps do not fill with them.

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use rustc_hash::FxHashMap;
use tellwire_ebpf::{attempt::Attempt, connection::Connection};
use zerocopy::{FromBytes as _, IntoBytes as _};

type ConnectionWords = [u64; size_of::<Connection>() / 8];
type AttemptWords = [u64; size_of::<Attempt>() / 8];

/// How often handshakes are looked at, in nanoseconds: it takes a look at every connection that is open.
const HANDSHAKES_EVERY: u64 = 30_000_000_000;

/// The two maps that tie a connect together.
pub(crate) struct PendingConnects {
    connections: HashMap<MapData, u64, ConnectionWords>,
    attempts: HashMap<MapData, u32, AttemptWords>,
    crowded: Array<MapData, u32>,
    /// Untold attempts that the last sweep met. One that is there still was never going to be a handshake:
    /// connect(2) fails at once, or enters SYN_SENT.
    met: FxHashMap<u32, AttemptWords>,
    /// When handshakes are looked at next.
    due: u64,
    /// What the last look met.
    sizes: Sizes,
}

/// Entries of the map of connections, by what they wait for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) handshakes: u64,
    pub(crate) open: u64,
}

/// What a sweep took out of the maps.
#[derive(Debug)]
pub(crate) enum Swept {
    /// A handshake without an outcome.
    Handshake(Connection),
    /// A call that failed where its end is not traced (io_uring).
    Attempt { tid: u32, attempt: Attempt },
}

impl PendingConnects {
    pub(crate) fn new(
        connections: MapData,
        attempts: MapData,
        attempts_crowded: MapData,
    ) -> Result<Self, MapError> {
        Ok(Self {
            connections: HashMap::try_from(Map::HashMap(connections))?,
            attempts: HashMap::try_from(Map::HashMap(attempts))?,
            crowded: Array::try_from(Map::Array(attempts_crowded))?,
            met: FxHashMap::default(),
            due: 0,
            sizes: Sizes::default(),
        })
    }

    /// Removes what is too old at `now` (CLOCK_BOOTTIME in nanoseconds), or, once the programs are detached, everything.
    ///
    /// The removal that succeeds arbitrates with the kernel programs: what is given here is told by no other.
    pub(crate) fn sweep(&mut self, now: Option<u64>, mut take: impl FnMut(Swept)) -> Result<(), MapError> {
        if now.is_none_or(|now| now >= self.due) {
            self.due = now.unwrap_or_default() + HANDSHAKES_EVERY;
            self.sweep_handshakes(now, &mut take)?;
        }
        self.sweep_attempts(now.is_none(), &mut take)
    }

    fn sweep_handshakes(&mut self, now: Option<u64>, take: &mut impl FnMut(Swept)) -> Result<(), MapError> {
        let is_old = |time: u64| now.is_none_or(|now| now.saturating_sub(time) > Connection::SWEEP_AGE);
        let mut sizes = Sizes::default();
        let mut old = Vec::new();
        for pair in &self.connections {
            let (socket, words) = pair?;
            let Ok(connection) = Connection::read_from_bytes(words.as_bytes()) else { continue };
            match connection.state {
                Connection::HANDSHAKE => sizes.handshakes += 1,
                Connection::ENDED => continue,
                _ => {
                    sizes.open += 1;
                    continue;
                }
            }
            if is_old(connection.time) {
                old.push((socket, connection));
            }
        }
        for (socket, connection) in old {
            if self.connections.remove(&socket).is_ok() {
                take(Swept::Handshake(connection));
            }
        }
        self.sizes = sizes;
        Ok(())
    }

    /// Takes untold attempts that two sweeps have met; those that became handshakes belong to their threads.
    fn sweep_attempts(&mut self, all: bool, take: &mut impl FnMut(Swept)) -> Result<(), MapError> {
        let mut entries = 0;
        let mut met = FxHashMap::default();
        for pair in &self.attempts {
            let (tid, words) = pair?;
            entries += 1;
            if attempt(&words).is_some_and(|attempt| attempt.is_untold()) {
                met.insert(tid, words);
            }
        }
        for (tid, words) in &met {
            // Looked at once more right before: the thread may have gone on in between.
            let stays = all
                || (self.met.get(tid) == Some(words)
                    && self.attempts.get(tid, 0).is_ok_and(|now| now == *words));
            if stays
                && let Some(attempt) = attempt(words)
                && self.attempts.remove(tid).is_ok()
            {
                take(Swept::Attempt { tid: *tid, attempt });
            }
        }
        self.met = met;
        self.crowded.set(0, u32::from(entries > Attempt::KEPT), 0)
    }

    /// What waits in the kernel, as of the last look.
    pub(crate) const fn sizes(&self) -> Sizes {
        self.sizes
    }
}

fn attempt(words: &AttemptWords) -> Option<Attempt> {
    Attempt::read_from_bytes(words.as_bytes()).ok()
}
