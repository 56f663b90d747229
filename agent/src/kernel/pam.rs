//! What the PAM programs keep, as those see it who clean up behind processes that have ended; and the notices of
//! root directories.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{HashMap, Map, MapData, MapError, RingBuf};
use tellwire_ebpf::{
    pam::{Entered, EnteredKey, Service, Transaction, TransactionKey},
    roots::{Notice, Root},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

type TransactionWords = [u64; size_of::<Transaction>() / 8];
type EnteredWords = [u64; size_of::<Entered>() / 8];
type KeyWords = [u64; 2];

const _: () =
    assert!(size_of::<TransactionKey>() == 16 && size_of::<EnteredKey>() == 16 && size_of::<Root>() == 16);

/// Transactions and calls that are under way.
pub(crate) struct PamState {
    transactions: HashMap<MapData, KeyWords, TransactionWords>,
    calls: HashMap<MapData, KeyWords, EnteredWords>,
}

/// What a sweep found.
#[derive(Debug, Default)]
pub(crate) struct SweptPam {
    /// Sessions of processes that ended without closing them, by service.
    pub(crate) sessions: [u64; Service::ALL.len()],
    /// Transactions that are left.
    pub(crate) transactions: u64,
}

impl PamState {
    pub(super) fn new(transactions: MapData, calls: MapData) -> Result<Self, MapError> {
        Ok(Self {
            transactions: HashMap::try_from(Map::HashMap(transactions))?,
            calls: HashMap::try_from(Map::HashMap(calls))?,
        })
    }

    /// Removes what belongs to processes and threads that have ended. `is_process` is asked for a process and its
    /// start, CLOCK_BOOTTIME in nanoseconds; `is_thread` for a thread.
    pub(crate) fn sweep(
        &mut self,
        is_process: impl Fn(u32, u64) -> bool,
        is_thread: impl Fn(u32) -> bool,
    ) -> Result<SweptPam, MapError> {
        let mut swept = SweptPam::default();
        let mut gone = Vec::new();
        for pair in &self.transactions {
            let (words, transaction) = pair?;
            let Ok(key) = TransactionKey::read_from_bytes(words.as_bytes()) else { continue };
            let Ok(transaction) = Transaction::read_from_bytes(transaction.as_bytes()) else { continue };
            if is_process(key.tgid, transaction.process_start) {
                swept.transactions += 1;
            } else {
                gone.push((words, transaction));
            }
        }
        for (key, transaction) in gone {
            if self.transactions.remove(&key).is_ok()
                && let Some(sessions) = swept.sessions.get_mut(transaction.service_class as usize)
            {
                *sessions += u64::from(transaction.sessions);
            }
        }
        let mut gone = Vec::new();
        for pair in &self.calls {
            let (words, _) = pair?;
            let Ok(key) = EnteredKey::read_from_bytes(words.as_bytes()) else { continue };
            if !is_thread(key.tid) {
                gone.push(words);
            }
        }
        for key in gone {
            // It may have been taken meanwhile, by a thread with the same id.
            let _gone = self.calls.remove(&key);
        }
        Ok(swept)
    }
}

/// Notices of root directories that nobody has looked into.
pub(crate) struct RootNotices {
    ring: RingBuf<MapData>,
    roots: HashMap<MapData, KeyWords, u8>,
}

impl RootNotices {
    pub(super) fn new(ring: MapData, roots: MapData) -> Result<Self, MapError> {
        Ok(Self {
            ring: RingBuf::try_from(Map::RingBuf(ring))?,
            roots: HashMap::try_from(Map::HashMap(roots))?,
        })
    }

    /// The next one, if there is one.
    pub(crate) fn take(&mut self) -> Option<Notice> {
        let item = self.ring.next()?;
        Notice::read_from_prefix(&item).ok().map(|(notice, _)| notice)
    }

    /// The next process in this root directory is told again.
    pub(crate) fn forget(&mut self, root: &Root) {
        let words: KeyWords = zerocopy::transmute!(*root);
        // It may never have been there: the map was full.
        let _gone = self.roots.remove(&words);
    }
}

impl AsFd for RootNotices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
