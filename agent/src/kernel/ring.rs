//! The rings: bytes that the kernel wrote, taken in an order that keeps cause before effect.
//!
//! The reader comes by its timer and takes what is there. What it takes from the three rings is handed on
//! in the order of time, from where it lies: see [`Rings::cycle`].

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::MapData;
use tellwire_ebpf::wire::{Header, Ring};

use super::mapping::{Mapping, Positions};

/// What is taken from the network ring at a time, in bytes.
const SHARE: u64 = 256 * 1024;

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
}

/// The three rings.
pub(crate) struct Rings {
    urgent: Reader,
    process: Reader,
    network: Reader,
}

impl Rings {
    pub(crate) fn new(urgent: Reader, process: Reader, network: Reader) -> Self {
        Self { urgent, process, network }
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
    /// Up to where the network ring is read is settled first: whatever caused one of its records was submitted before it,
    /// so it is in the other rings by then, and those are read up to where they are afterwards: the urgent ring last, which tells of
    /// a cgroup before the process ring has what runs in it. What they hold is bounded by their size.
    pub(crate) fn cycle(&mut self, take: impl FnMut(Ring, &[u8])) -> usize {
        let Self { urgent, process, network } = self;
        let end = network.mapping.end().min(network.mapping.begin() + SHARE);
        let network = Share { end, mapping: &mut network.mapping };
        let [process, urgent] =
            [process, urgent].map(|reader| Share { end: reader.mapping.end(), mapping: &mut reader.mapping });
        merge([urgent, process, network], take)
    }
}

/// A ring up to some position.
struct Share<'a> {
    mapping: &'a mut Mapping,
    end: u64,
}

/// Records one after the other.
trait Source {
    /// The next one.
    fn peek(&mut self) -> Option<&[u8]>;

    /// Goes on behind it; returns the bytes that it took.
    fn pass(&mut self) -> usize;
}

impl Source for Share<'_> {
    fn peek(&mut self) -> Option<&[u8]> {
        self.mapping.peek(self.end)
    }

    fn pass(&mut self) -> usize {
        self.mapping.pass()
    }
}

/// Hands on the records of all sources, the oldest first; within a source the order stays.
fn merge(mut sources: [impl Source; Ring::COUNT], mut take: impl FnMut(Ring, &[u8])) -> usize {
    let mut taken = 0;
    let mut times = sources.each_mut().map(|source| source.peek().map(time));
    loop {
        let heads = sources.iter_mut().zip(&mut times).zip(Ring::ALL);
        let oldest = heads.filter(|((_, time), _)| time.is_some()).min_by_key(|((_, time), _)| **time);
        let Some(((source, next), ring)) = oldest else { return taken };
        if let Some(record) = source.peek() {
            take(*ring, used(record));
        }
        taken += source.pass();
        *next = source.peek().map(time);
    }
}

/// The time of a record, by its header; 0 for what is none.
fn time(record: &[u8]) -> u64 {
    const AT: usize = std::mem::offset_of!(Header, time);
    record.get(AT..).and_then(<[u8]>::first_chunk).map_or(0, |time| u64::from_ne_bytes(*time))
}

/// The part of a slot that its record has: the header says how much is in use.
fn used(slot: &[u8]) -> &[u8] {
    let len = slot.first_chunk::<4>().map_or(slot.len(), |len| u32::from_ne_bytes(*len) as usize);
    slot.get(..len).unwrap_or(slot)
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    /// Records in memory.
    struct Written(Vec<Vec<u8>>);

    impl Source for Written {
        fn peek(&mut self) -> Option<&[u8]> {
            self.0.first().map(Vec::as_slice)
        }

        fn pass(&mut self) -> usize {
            self.0.remove(0).len()
        }
    }

    fn written(times: &[u64]) -> Written {
        let record = |time: &u64| {
            let mut header = Header::new_zeroed();
            (header.len, header.time) = (u32::try_from(size_of::<Header>()).unwrap(), *time);
            header.as_bytes().to_vec()
        };
        Written(times.iter().map(record).collect())
    }

    #[test]
    fn records_of_all_rings_come_in_the_order_of_time() {
        let mut order = Vec::new();
        let taken = merge([written(&[2, 6]), written(&[1, 3, 5]), written(&[4, 4])], |ring, record| {
            order.push((ring, time(record)));
        });
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
        assert_eq!(taken, expected.len() * size_of::<Header>());
    }

    #[test]
    fn a_record_that_is_none_is_handed_on_all_the_same() {
        let mut records = Vec::new();
        let broken = Written(vec![vec![3, 0, 0, 0, 9], vec![200, 0, 0, 0, 9]]);
        merge([broken, written(&[]), written(&[])], |_, record| records.push(record.to_vec()));
        assert_eq!(records, [&[3, 0, 0][..], &[200, 0, 0, 0, 9]]);
    }
}
