//! A ring as it lies in memory: two pages of positions and the data, kernel/bpf/ringbuf.c (v6.18).
//!
//! The data are mapped once. The kernel would give them twice in a row, so that no record looks cut; but then each page counts twice
//! in the memory of the process, and only one record in a round is cut.

use std::{
    io,
    os::fd::BorrowedFd,
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap},
    param::page_size,
};

// include/uapi/linux/bpf.h (v6.18): `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT`, `BPF_RINGBUF_HDR_SZ`.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: usize = 8;

/// A ring's pages, mapped for the life of the process.
#[derive(Debug)]
pub(super) struct Mapping {
    positions: Positions,
    data: *const u8,
    /// Of the data; a power of two.
    bytes: usize,
    /// How far the reader is. Only it moves this, and tells the kernel.
    consumed: u64,
    /// Where a cut record is put together.
    whole: Vec<u8>,
}

/// Tells how full a ring is, from anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    consumer: *const AtomicU64,
    producer: *const AtomicU64,
}

// SAFETY: the pages are mapped for the life of the process; the positions are read as atomic words.
#[expect(unsafe_code, reason = "raw pointers are not Send by themselves")]
unsafe impl Send for Positions {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "raw pointers are not Sync by themselves")]
unsafe impl Sync for Positions {}
// SAFETY: as above; the data are read by the owner alone.
#[expect(unsafe_code, reason = "raw pointers are not Send by themselves")]
unsafe impl Send for Mapping {}

impl Positions {
    /// Bytes submitted or reserved, and not yet read.
    pub(crate) fn used(self) -> u64 {
        // The consumer first: then the difference is never negative.
        let consumed = word(self.consumer).load(Ordering::Acquire);
        self.produced().saturating_sub(consumed)
    }

    fn produced(self) -> u64 {
        word(self.producer).load(Ordering::Acquire)
    }
}

#[expect(unsafe_code, reason = "the pages are shared with the kernel")]
fn word<'a>(at: *const AtomicU64) -> &'a AtomicU64 {
    // SAFETY: mapped for the life of the process, and aligned to a page.
    unsafe { &*at }
}

impl Mapping {
    /// Of a ring of so many bytes.
    pub(super) fn new(ring: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let page = page_size();
        let reader = map(ring, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let kernel = map(ring, page, page + bytes, ProtFlags::READ)?;
        let positions = Positions { consumer: reader.cast(), producer: kernel.cast() };
        let consumed = word(positions.consumer).load(Ordering::Acquire);
        Ok(Self { positions, data: kernel.wrapping_add(page), bytes, consumed, whole: Vec::new() })
    }

    pub(super) const fn positions(&self) -> Positions {
        self.positions
    }

    /// Hands the next record to `take` and gives its place back: the bytes that it took in the ring. `None` where there is none
    /// that is done.
    pub(super) fn next(&mut self, take: impl FnOnce(&[u8])) -> Option<usize> {
        let len = loop {
            if self.consumed >= self.positions.produced() {
                return None;
            }
            // The kernel takes the busy bit away when all else is written.
            let header = self.header(self.place(self.consumed)).load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            if header & DISCARDED == 0 {
                break header as usize;
            }
            self.give_back((header & !DISCARDED) as usize);
        };
        take(self.record(self.place(self.consumed + HEADER as u64), len));
        Some(self.give_back(len))
    }

    /// Gives the place of the next record back, of so many bytes with its header.
    fn give_back(&mut self, len: usize) -> usize {
        let taken = (len + HEADER).next_multiple_of(8);
        self.consumed += taken as u64;
        word(self.positions.consumer).store(self.consumed, Ordering::Release);
        taken
    }

    /// Where a position lies in the data.
    fn place(&self, position: u64) -> usize {
        usize::try_from(position & (self.bytes as u64 - 1)).unwrap_or_default()
    }

    #[expect(unsafe_code, clippy::cast_ptr_alignment, reason = "the data are shared with the kernel")]
    fn header(&self, at: usize) -> &AtomicU32 {
        // SAFETY: records begin at multiples of 8, within the data.
        unsafe { &*self.data.wrapping_add(at).cast::<AtomicU32>() }
    }

    #[expect(unsafe_code, reason = "the data are shared with the kernel")]
    fn record(&mut self, at: usize, len: usize) -> &[u8] {
        // No record is larger than the ring, whatever its header says.
        let len = len.min(self.bytes);
        let first = len.min(self.bytes - at);
        // SAFETY: within the data; the kernel does not write a record that is done until its place is given back.
        let head = unsafe { std::slice::from_raw_parts(self.data.wrapping_add(at), first) };
        if first == len {
            return head;
        }
        // SAFETY: as above.
        let tail = unsafe { std::slice::from_raw_parts(self.data, len - first) };
        self.whole.clear();
        self.whole.extend_from_slice(head);
        self.whole.extend_from_slice(tail);
        &self.whole
    }
}

#[expect(unsafe_code, reason = "the kernel gives a ring by its pages")]
fn map(ring: BorrowedFd<'_>, offset: usize, len: usize, prot: ProtFlags) -> io::Result<*const u8> {
    // SAFETY: a new mapping, where the kernel likes.
    let address = unsafe { mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, ring, offset as u64) }?;
    Ok(address.cast_const().cast())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use proptest::prelude::*;

    use super::*;

    /// A ring in a file in memory, which a test writes as the kernel does.
    struct Written {
        file: std::fs::File,
        bytes: usize,
        produced: u64,
    }

    impl Written {
        fn new(bytes: usize) -> Self {
            let file = tempfile::tempfile().unwrap();
            file.set_len((2 * page_size() + bytes) as u64).unwrap();
            Self { file, bytes, produced: 0 }
        }

        fn put(&self, position: u64, bytes: &[u8]) {
            use std::os::unix::fs::FileExt as _;
            for (index, byte) in bytes.iter().enumerate() {
                let at = (usize::try_from(position).unwrap() + index) & (self.bytes - 1);
                self.file.write_all_at(&[*byte], (2 * page_size() + at) as u64).unwrap();
            }
        }

        fn submit(&mut self, record: &[u8], flags: u32) {
            use std::os::unix::fs::FileExt as _;
            let header = u32::try_from(record.len()).unwrap() | flags;
            self.put(self.produced, &[header.to_ne_bytes(), [0; 4]].concat());
            self.put(self.produced + 8, record);
            self.produced += (record.len() + HEADER).next_multiple_of(8) as u64;
            self.file.write_all_at(&self.produced.to_ne_bytes(), page_size() as u64).unwrap();
        }
    }

    fn read(mapping: &mut Mapping) -> Option<Vec<u8>> {
        let mut record = None;
        mapping.next(|bytes| record = Some(bytes.to_vec()));
        record
    }

    #[test]
    fn a_record_that_is_not_done_waits_and_one_that_was_given_up_is_passed_over() {
        let mut ring = Written::new(4096);
        let mut mapping = Mapping::new(ring.file.as_fd(), ring.bytes).unwrap();
        assert_eq!(read(&mut mapping), None);
        ring.submit(b"given up", DISCARDED);
        ring.submit(b"told", 0);
        let busy = ring.produced;
        ring.submit(b"not yet", BUSY);
        ring.submit(b"behind it", 0);
        assert_eq!(read(&mut mapping).as_deref(), Some(&b"told"[..]));
        assert_eq!(read(&mut mapping), None);
        ring.put(busy, &7_u32.to_ne_bytes());
        assert_eq!(read(&mut mapping).as_deref(), Some(&b"not yet"[..]));
        assert_eq!(read(&mut mapping).as_deref(), Some(&b"behind it"[..]));
        assert_eq!((read(&mut mapping), mapping.positions().used()), (None, 0));
    }

    proptest! {
        /// Many rounds, so that records are cut at every place.
        #[test]
        fn records_come_whole_and_in_order(lens in proptest::collection::vec(0_usize..1500, 1..60)) {
            let mut ring = Written::new(4096);
            let mut mapping = Mapping::new(ring.file.as_fd(), ring.bytes).unwrap();
            for (number, len) in lens.iter().enumerate() {
                let record: Vec<u8> = (0..*len).map(|byte| (byte * 7 + number).to_ne_bytes()[0]).collect();
                ring.submit(&record, 0);
                prop_assert_eq!(mapping.positions().used(), (len + HEADER).next_multiple_of(8) as u64);
                prop_assert_eq!(read(&mut mapping), Some(record));
            }
            prop_assert_eq!(read(&mut mapping), None);
        }
    }
}
