//! A queue of batches that is bounded in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc;

use super::writer::Refused;
use super::{Batch, OutputStats};

/// At one batch a pipeline cycle of 5 ms, this is 20 s of them. Without it, tiny batches could
/// need more memory for themselves than for their bytes.
const BATCHES: usize = 4096;

/// The pipeline's end.
pub(super) struct Queue {
    batches: mpsc::Sender<Batch>,
    room: Arc<Room>,
    stats: Arc<OutputStats>,
}

/// The output's end.
pub(super) struct Queued {
    batches: mpsc::Receiver<Batch>,
    room: Arc<Room>,
    pub(super) stats: Arc<OutputStats>,
}

struct Room {
    limit: usize,
    /// Bytes in the queue and in the output's hands.
    taken: AtomicUsize,
}

/// A queue that holds up to `limit` bytes, or one batch that is larger.
pub(super) fn bounded(limit: usize, stats: Arc<OutputStats>) -> (Queue, Queued) {
    let (sender, receiver) = mpsc::channel(BATCHES);
    let room = Arc::new(Room { limit, taken: AtomicUsize::new(0) });
    let queue = Queue { batches: sender, room: room.clone(), stats: stats.clone() };
    (queue, Queued { batches: receiver, room, stats })
}

impl Queue {
    /// Queues the batch, or counts its lines as dropped.
    pub(super) fn offer(&self, batch: &Batch) {
        let len = batch.bytes.len();
        if len == 0 {
            return;
        }
        if self.room.take(len) {
            if self.batches.try_send(batch.clone()).is_ok() {
                return;
            }
            self.room.give(len);
        }
        self.stats.lost(&batch.counts);
    }
}

impl Queued {
    /// The next batch; none if the queue is empty and closed.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }

    /// The batch is out of the output's hands: what comes after its first `upto` bytes was lost.
    pub(super) fn done(&self, batch: &Batch, upto: usize, refused: &Refused) {
        self.room.give(batch.bytes.len());
        let mut lost = refused.counts;
        // Nearly always all of it was written, and no line need be looked for.
        if upto < batch.bytes.len() {
            batch.lines_from(upto).for_each(|line| lost.add(line.fact.action.into()));
        }
        self.stats.written(batch.counts.total() - lost.total(), upto - refused.bytes);
        self.stats.lost(&lost);
    }
}

impl Room {
    fn take(&self, len: usize) -> bool {
        let fits = |taken: usize| {
            let sum = taken.checked_add(len)?;
            // A batch that is larger than the queue would never pass. Its bytes are in memory
            // already, so nothing is gained by refusing it when it is alone.
            (sum <= self.limit || taken == 0).then_some(sum)
        };
        self.taken.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    fn give(&self, len: usize) {
        self.taken.fetch_sub(len, Relaxed);
    }
}
