//! A ring as it lies in memory: two pages of positions and the data, kernel/bpf/ringbuf.c (v6.18).
//!
//! A window of the data is mapped at a time, and moves on with the reader: each mapped page counts as memory of the process, although
//! the kernel has it anyway. The kernel gives the data twice in a row, so that a window past their end shows their begin, and no record
//! looks cut.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

// include/uapi/linux/bpf.h (v6.18): `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT`, `BPF_RINGBUF_HDR_SZ`.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: usize = 8;

/// Bytes of a window; more only for a record that is larger. Moving it takes some microseconds, once in some hundred records.
const WINDOW: usize = 512 * 1024;

/// A ring's pages: the positions, mapped for the life of the process, and a window of the data.
#[derive(Debug)]
pub(super) struct Mapping {
    positions: Positions,
    window: Window,
    /// Of the data; a power of two.
    bytes: usize,
    /// How far the reader is. Only it moves this, and tells the kernel.
    consumed: u64,
    /// The length of the record that was shown and not passed yet.
    peeked: Option<usize>,
    /// That the window does not move was said.
    is_stuck: bool,
}

/// A part of the data.
#[derive(Debug)]
struct Window {
    ring: OwnedFd,
    mapped: *const u8,
    /// Where it begins in the data, and how long it is; whole pages.
    start: usize,
    len: usize,
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
unsafe impl Send for Window {}

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
        let kernel = map(ring, page, page, ProtFlags::READ)?;
        let positions = Positions { consumer: reader.cast(), producer: kernel.cast() };
        let consumed = word(positions.consumer).load(Ordering::Acquire);
        let window = Window::new(ring, bytes.min(WINDOW))?;
        Ok(Self { positions, window, bytes, consumed, peeked: None, is_stuck: false })
    }

    pub(super) const fn positions(&self) -> Positions {
        self.positions
    }

    /// Up to where there are records now, as a position for [`Self::peek`].
    pub(super) fn end(&self) -> u64 {
        self.positions.produced()
    }

    /// The position from which [`Self::peek`] shows records.
    pub(super) const fn begin(&self) -> u64 {
        self.consumed
    }

    /// The next record before position `end`, where it lies: the kernel does not write there until [`Self::pass`]. `None` where there
    /// is none that is done.
    pub(super) fn peek(&mut self, end: u64) -> Option<&[u8]> {
        let len = loop {
            if self.consumed >= end {
                return None;
            }
            self.look(HEADER)?;
            // The kernel takes the busy bit away when all else is written.
            let header = self.window.header(self.place()).load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            if header & DISCARDED == 0 {
                break header as usize;
            }
            self.give_back((header & !DISCARDED) as usize);
        };
        // No record is larger than the ring, whatever its header says.
        let whole = self.bytes.min(len + HEADER);
        self.look(whole)?;
        self.peeked = Some(len);
        Some(self.window.record(self.place() + HEADER, whole - HEADER))
    }

    /// Gives the place of the record that was shown last back: the bytes that it took in the ring.
    pub(super) fn pass(&mut self) -> usize {
        self.peeked.take().map_or(0, |len| self.give_back(len))
    }

    /// Moves the window to where the next bytes are. It fails only for want of memory; then they stay where they are, and what the ring
    /// has no room for meanwhile is counted as lost.
    fn look(&mut self, len: usize) -> Option<()> {
        match self.window.show(self.place(), len) {
            Ok(()) => {
                self.is_stuck = false;
                Some(())
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_stuck, true) {
                    tracing::error!(%error, "a ring's data cannot be mapped: records wait");
                }
                None
            }
        }
    }

    /// Gives the place of the next record back, of so many bytes with its header.
    fn give_back(&mut self, len: usize) -> usize {
        let taken = (len + HEADER).next_multiple_of(8);
        self.consumed += taken as u64;
        word(self.positions.consumer).store(self.consumed, Ordering::Release);
        taken
    }

    /// Where the reader is in the data.
    fn place(&self) -> usize {
        usize::try_from(self.consumed & (self.bytes as u64 - 1)).unwrap_or_default()
    }
}

impl Window {
    /// At the begin of the data.
    fn new(ring: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let mapped = map(ring, 2 * page_size(), len, ProtFlags::READ)?;
        Ok(Self { ring: ring.try_clone_to_owned()?, mapped, start: 0, len })
    }

    /// Sees to it that these bytes of the data are in the window.
    fn show(&mut self, at: usize, len: usize) -> io::Result<()> {
        if self.start <= at && at + len <= self.start + self.len {
            return Ok(());
        }
        let page = page_size();
        let start = at - at % page;
        let wanted = self.len.max((at + len - start).next_multiple_of(page));
        let mapped = map(self.ring.as_fd(), 2 * page + start, wanted, ProtFlags::READ)?;
        self.unmap();
        (self.mapped, self.start, self.len) = (mapped, start, wanted);
        Ok(())
    }

    #[expect(unsafe_code, reason = "the kernel gives a ring by its pages")]
    fn unmap(&self) {
        // SAFETY: mapped by `map` with this length; no reference to it is left, since `show` and `drop` borrow it alone.
        let done = unsafe { munmap(self.mapped.cast_mut().cast(), self.len) };
        debug_assert!(done.is_ok(), "{done:?}");
    }

    #[expect(unsafe_code, clippy::cast_ptr_alignment, reason = "the data are shared with the kernel")]
    fn header(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `show` was asked for it; records begin at multiples of 8.
        unsafe { &*self.mapped.wrapping_add(at - self.start).cast::<AtomicU32>() }
    }

    #[expect(unsafe_code, reason = "the data are shared with the kernel")]
    fn record(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: `show` was asked for it; the kernel does not write a record that is done until its place is given back.
        unsafe { std::slice::from_raw_parts(self.mapped.wrapping_add(at - self.start), len) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.unmap();
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
            file.set_len((2 * page_size() + 2 * bytes) as u64).unwrap();
            Self { file, bytes, produced: 0 }
        }

        fn put(&self, position: u64, bytes: &[u8]) {
            use std::os::unix::fs::FileExt as _;
            let at = usize::try_from(position).unwrap() & (self.bytes - 1);
            let (head, tail) = bytes.split_at(bytes.len().min(self.bytes - at));
            for (at, part) in [(at, head), (0, tail)] {
                for copy in [0, self.bytes] {
                    self.file.write_all_at(part, (2 * page_size() + at + copy) as u64).unwrap();
                }
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
        let record = mapping.peek(mapping.end()).map(<[u8]>::to_vec);
        let taken = mapping.pass();
        assert_eq!(record.as_ref().map_or(0, |record| (record.len() + HEADER).next_multiple_of(8)), taken);
        record
    }

    #[test]
    fn a_record_that_is_not_done_waits_and_one_that_was_given_up_is_passed_over() {
        let mut ring = Written::new(page_size());
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
        /// Many rounds, so that records end at every place, and windows that are smaller than the ring and than a record.
        #[test]
        fn records_come_whole_and_in_order(
            lens in proptest::collection::vec(0_usize..6000, 1..60),
            pages in 1_usize..=4,
        ) {
            let mut ring = Written::new(4 * page_size());
            let mut mapping = Mapping::new(ring.file.as_fd(), ring.bytes).unwrap();
            mapping.window = Window::new(ring.file.as_fd(), pages * page_size()).unwrap();
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
