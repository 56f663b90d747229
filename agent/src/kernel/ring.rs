//! The rings: bytes that the kernel wrote, taken in an order that keeps cause before effect.
//!
//! The reader comes by its timer and drains what is there. Across the rings: a batch of the network
//! ring is set aside, then one of the process ring, then the urgent ring is drained, and the two
//! batches follow. Whatever caused a record was submitted before it, so it has been taken by then.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap},
    param::page_size,
};
use tellwire_ebpf::wire::Ring;

/// Records are copied out of a ring in batches of at most so many bytes before earlier rings are drained.
const BATCH_BYTES: usize = 256 * 1024;

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// One ring and its positions.
pub(crate) struct Reader {
    ring: RingBuf<MapData>,
    positions: Positions,
    bytes: usize,
}

/// The pages in which the kernel and the reader say how far they are.
#[derive(Debug)]
struct Positions {
    consumer: *const u64,
    producer: *const u64,
}

// SAFETY: the pages are mapped for the life of the process and only read here.
#[expect(unsafe_code, reason = "raw pointers are not Send by themselves")]
unsafe impl Send for Positions {}
// SAFETY: as above; the reads are single aligned words.
#[expect(unsafe_code, reason = "raw pointers are not Sync by themselves")]
unsafe impl Sync for Positions {}

impl Reader {
    pub(crate) fn new(map: MapData, bytes: usize) -> anyhow::Result<Self> {
        let positions = Positions::map(&map)?;
        let ring = RingBuf::try_from(aya::maps::Map::RingBuf(map))?;
        Ok(Self { ring, positions, bytes })
    }

    /// Size of the ring in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes
    }

    /// Hands each record to `take`, until `limit` bytes are taken or the ring is empty; returns the bytes.
    pub(crate) fn drain(&mut self, limit: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut bytes = 0;
        while bytes < limit {
            let Some(item) = self.ring.next() else { break };
            bytes += item.len() + 8;
            take(&item);
        }
        bytes
    }

    fn usage(&self) -> Usage {
        Usage { consumer: self.positions.consumer, producer: self.positions.producer }
    }
}

/// Tells how full a ring is, from anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    consumer: *const u64,
    producer: *const u64,
}

// SAFETY: as for `Positions`.
#[expect(unsafe_code, reason = "raw pointers are not Send by themselves")]
unsafe impl Send for Usage {}
// SAFETY: as for `Positions`.
#[expect(unsafe_code, reason = "raw pointers are not Sync by themselves")]
unsafe impl Sync for Usage {}

impl Usage {
    /// Bytes submitted or reserved, and not yet read.
    pub(crate) fn used(self) -> u64 {
        // The consumer first: then the difference is never negative.
        let (consumer, producer) = (read(self.consumer), read(self.producer));
        producer.saturating_sub(consumer)
    }
}

#[expect(unsafe_code, reason = "the kernel writes this word")]
fn read(position: *const u64) -> u64 {
    // SAFETY: the page is mapped for the life of the process, and the word aligned.
    unsafe { position.read_volatile() }
}

impl Positions {
    /// kernel/bpf/ringbuf.c (v6.18): the consumer's page comes first, then the producer's.
    fn map(ring: &MapData) -> Result<Self, Errno> {
        Ok(Self { consumer: page(ring, 0)?, producer: page(ring, 1)? })
    }
}

#[expect(unsafe_code, reason = "the kernel gives the positions in shared pages")]
fn page(ring: &MapData, index: u64) -> Result<*const u64, Errno> {
    let size = page_size();
    // SAFETY: a new read-only mapping of a page of the ring's own.
    let address = unsafe {
        mmap(
            std::ptr::null_mut(),
            size,
            ProtFlags::READ,
            MapFlags::SHARED,
            ring.fd().as_fd(),
            index * size as u64,
        )
    }?;
    Ok(address.cast())
}

/// The three rings, and the scratch for what is set aside.
pub(crate) struct Rings {
    pub(crate) urgent: Reader,
    pub(crate) process: Reader,
    pub(crate) network: Reader,
    process_batch: Batch,
    network_batch: Batch,
}

impl Rings {
    /// How full each ring is, with its size in bytes.
    pub(crate) fn usages(&self) -> Vec<(Ring, u64, Usage)> {
        [(Ring::Urgent, &self.urgent), (Ring::Process, &self.process), (Ring::Network, &self.network)]
            .map(|(ring, reader)| (ring, reader.bytes as u64, reader.usage()))
            .into()
    }

    pub(crate) fn new(urgent: Reader, process: Reader, network: Reader) -> Self {
        Self { urgent, process, network, process_batch: Batch::default(), network_batch: Batch::default() }
    }

    /// Takes a bounded share of every ring, causes before effects; returns the bytes taken.
    pub(crate) fn cycle(&mut self, mut take: impl FnMut(Ring, &[u8])) -> usize {
        let Self { urgent, process, network, process_batch, network_batch } = self;
        network_batch.fill(network);
        let mut taken = network_batch.bytes.len();
        // What caused the network's batch is somewhere in the process ring, so all of it comes first;
        // a storm that goes on meanwhile is bounded by the ring's own size.
        let mut left = process.capacity();
        loop {
            process_batch.fill(process);
            taken += urgent.drain(urgent.capacity(), |record| take(Ring::Urgent, record));
            process_batch.drain(|record| take(Ring::Process, record));
            let batch = process_batch.bytes.len();
            taken += batch;
            if batch < BATCH_BYTES || left < batch {
                break;
            }
            left -= batch;
        }
        network_batch.drain(|record| take(Ring::Network, record));
        taken
    }
}

/// Records that were copied out of a ring, each behind its length.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    fn fill(&mut self, from: &mut Reader) {
        self.bytes.clear();
        from.drain(BATCH_BYTES, |record| {
            // A slot is larger than its record: the header says how much is in use.
            let used = record
                .first_chunk::<4>()
                .map_or(record.len(), |len| (u32::from_ne_bytes(*len) as usize).min(record.len()));
            let used = record.get(..used).unwrap_or(record);
            self.bytes.extend_from_slice(&u32::try_from(used.len()).unwrap_or(u32::MAX).to_ne_bytes());
            self.bytes.extend_from_slice(used);
        });
    }

    fn drain(&self, mut take: impl FnMut(&[u8])) {
        let mut rest = self.bytes.as_slice();
        while let Some((len, tail)) = rest.split_first_chunk::<4>() {
            let Some((record, tail)) = tail.split_at_checked(u32::from_ne_bytes(*len) as usize) else { break };
            take(record);
            rest = tail;
        }
    }
}
