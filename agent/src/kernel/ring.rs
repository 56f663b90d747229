//! The rings: bytes that the kernel wrote, taken in an order that keeps cause before effect.
//!
//! The reader comes by its timer and drains what is there. What it takes from the three rings is handed on
//! in the order of time, see [`Rings::cycle`].

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::MapData;
use tellwire_ebpf::wire::{Header, Ring};

use super::mapping::{Mapping, Positions};

/// What is taken from the network ring at a time.
const BATCH_BYTES: usize = 256 * 1024;

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.fd().as_fd()
    }
}

/// One ring.
pub(crate) struct Reader {
    ring: MapData,
    mapping: Mapping,
    bytes: usize,
}

impl Reader {
    pub(crate) fn new(ring: MapData, bytes: usize) -> anyhow::Result<Self> {
        let mapping = Mapping::new(ring.fd().as_fd(), bytes)?;
        Ok(Self { ring, mapping, bytes })
    }

    /// Hands each record to `take`, until `limit` bytes are taken or the ring is empty.
    fn drain(&mut self, limit: usize, mut take: impl FnMut(&[u8])) {
        let mut bytes = 0;
        while bytes < limit
            && let Some(taken) = self.mapping.next(&mut take)
        {
            bytes += taken;
        }
    }
}

/// The three rings, and the scratch for what is taken from each.
pub(crate) struct Rings {
    urgent: Reader,
    process: Reader,
    network: Reader,
    batches: [Batch; Ring::COUNT],
}

impl Rings {
    pub(crate) fn new(urgent: Reader, process: Reader, network: Reader) -> Self {
        Self { urgent, process, network, batches: Default::default() }
    }

    /// How full each ring is, with its size in bytes.
    pub(crate) fn usages(&self) -> Vec<(Ring, u64, Positions)> {
        self.readers().map(|(ring, reader)| (ring, reader.bytes as u64, reader.mapping.positions())).into()
    }

    pub(crate) fn readers(&self) -> [(Ring, &Reader); Ring::COUNT] {
        [(Ring::Urgent, &self.urgent), (Ring::Process, &self.process), (Ring::Network, &self.network)]
    }

    /// Takes a share of every ring and hands it on in the order of time; returns the bytes taken.
    ///
    /// The network ring is taken from first, and only so much: whatever caused one of its records was
    /// submitted before it, so it is in the other rings by then, and those are emptied. What they hold is
    /// bounded by their size.
    pub(crate) fn cycle(&mut self, mut take: impl FnMut(Ring, &[u8])) -> usize {
        let Self { urgent, process, network, batches } = self;
        let [of_urgent, of_process, of_network] = batches;
        of_network.fill(network, BATCH_BYTES);
        of_process.fill(process, process.bytes);
        of_urgent.fill(urgent, urgent.bytes);
        merge([&*of_urgent, &*of_process, &*of_network], &mut take);
        let taken = batches.iter().map(|batch| batch.bytes.len()).sum();
        for batch in batches {
            batch.bytes.shrink_to(BATCH_BYTES);
        }
        taken
    }
}

/// Hands on the records of all batches, the oldest first; within a batch the order stays.
fn merge(batches: [&Batch; Ring::COUNT], take: &mut impl FnMut(Ring, &[u8])) {
    let mut heads = batches.map(|batch| split(&batch.bytes));
    loop {
        let oldest = heads
            .iter_mut()
            .zip(Ring::ALL)
            .filter_map(|(head, ring)| Some((time((*head)?.0), head, *ring)))
            .min_by_key(|(time, _, _)| *time);
        let Some((_, head, ring)) = oldest else { return };
        if let Some((record, rest)) = *head {
            take(ring, record);
            *head = split(rest);
        }
    }
}

/// The time of a record, by its header; 0 for what is none.
fn time(record: &[u8]) -> u64 {
    const AT: usize = std::mem::offset_of!(Header, time);
    record.get(AT..).and_then(<[u8]>::first_chunk).map_or(0, |time| u64::from_ne_bytes(*time))
}

/// Records that were copied out of a ring, each behind its length.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    fn fill(&mut self, from: &mut Reader, limit: usize) {
        self.bytes.clear();
        from.drain(limit, |record| self.push(record));
    }

    fn push(&mut self, record: &[u8]) {
        // A slot is larger than its record: the header says how much is in use.
        let used = record
            .first_chunk::<4>()
            .map_or(record.len(), |len| (u32::from_ne_bytes(*len) as usize).min(record.len()));
        let used = record.get(..used).unwrap_or(record);
        self.bytes.extend_from_slice(&u32::try_from(used.len()).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend_from_slice(used);
    }
}

/// The first record, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_ne_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    fn batch(times: &[u64]) -> Batch {
        let mut batch = Batch::default();
        for time in times {
            let mut header = Header::new_zeroed();
            (header.len, header.time) = (u32::try_from(size_of::<Header>()).unwrap(), *time);
            batch.push(header.as_bytes());
        }
        batch
    }

    #[test]
    fn records_of_all_rings_come_in_the_order_of_time() {
        let (urgent, process, network) = (batch(&[2, 6]), batch(&[1, 3, 5]), batch(&[4, 4]));
        let mut order = Vec::new();
        merge([&urgent, &process, &network], &mut |ring, record| order.push((ring, time(record))));
        let expected = [
            (Ring::Process, 1),
            (Ring::Urgent, 2),
            (Ring::Process, 3),
            (Ring::Network, 4),
            (Ring::Network, 4),
            (Ring::Process, 5),
            (Ring::Urgent, 6),
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_record_that_is_none_is_handed_on_all_the_same() {
        let mut broken = Batch::default();
        broken.push(&[3, 0, 0, 0, 9]);
        let mut records = 0;
        merge([&broken, &Batch::default(), &Batch::default()], &mut |_, record| {
            assert_eq!(record, [3, 0, 0]);
            records += 1;
        });
        assert_eq!(records, 1);
    }
}
