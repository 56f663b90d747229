//! The one way out of the kernel: reserve a slot in a ring, fill it, submit it.
//!
//! Every step that ends a record is counted in the kind's ledger. A record is built in place in
//! the ring: there is no scratch that a program which preempts this one could overwrite.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, generated as helpers},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};

use crate::{
    counters::{Term, ledger},
    scope,
    settings::Settings,
    wire::{Header, Kind, Ring, Subject, VERSION},
};

// The agent sets the sizes before it loads the programs.
#[map]
static RING_URGENT: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
static RING_PROCESS: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
static RING_NETWORK: RingBuf = RingBuf::with_byte_size(4096, 0);

/// One element; the agent writes it.
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// By ring: the number of records submitted on this CPU.
#[map]
static SEQUENCE: PerCpuArray<u64> = PerCpuArray::with_max_entries(Ring::COUNT as u32, 0);

/// By ring: 1 where the reader wants to be woken past the watermark. The reader arms it once a cycle;
/// the program that wakes it disarms it, so that a storm costs one wake-up a cycle.
#[map]
static WAKE_ARMED: Array<u32> = Array::with_max_entries(Ring::COUNT as u32, 0);

#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

#[inline(always)]
fn ring(of: Ring) -> &'static RingBuf {
    match of {
        Ring::Urgent => &RING_URGENT,
        Ring::Process => &RING_PROCESS,
        Ring::Network => &RING_NETWORK,
    }
}

/// Counts an event as seen, and decides whether it becomes a record. `time` is the event's, CLOCK_BOOTTIME in
/// nanoseconds.
#[inline(always)]
pub(crate) fn wanted(kind: Kind, subject: &Subject, time: u64) -> bool {
    wanted_unless(kind, subject, time, || false)
}

/// The same for a kind that rules of the kernel's side can drop, see [`crate::filter`]: what they drop is filtered.
#[inline(always)]
pub(crate) fn wanted_unless(
    kind: Kind,
    subject: &Subject,
    time: u64,
    is_dropped: impl FnOnce() -> bool,
) -> bool {
    let is_throttled = |settings: &Settings| scope::throttled(kind.ring(), subject, time, settings);
    matches!(judge(kind, is_dropped, is_throttled), Verdict::Wanted)
}

/// What is to become of an event.
pub(crate) enum Verdict {
    Wanted,
    Filtered,
    Throttled,
}

/// Counts an event as seen, and as what becomes of it unless it is wanted.
#[inline(always)]
pub(crate) fn judge(
    kind: Kind,
    is_dropped: impl FnOnce() -> bool,
    is_throttled: impl FnOnce(&Settings) -> bool,
) -> Verdict {
    ledger(kind, Term::Seen);
    let Some(settings) = settings() else {
        ledger(kind, Term::Filtered);
        return Verdict::Filtered;
    };
    if settings.kinds & (1 << kind as u32) == 0 || is_dropped() {
        ledger(kind, Term::Filtered);
        return Verdict::Filtered;
    }
    if is_throttled(settings) {
        ledger(kind, Term::Throttled);
        return Verdict::Throttled;
    }
    Verdict::Wanted
}

/// A slot of `N` bytes in the kind's ring; `None` where the ring is full, which the caller counts
/// by [`ring_full`] unless it tries again.
#[inline(always)]
pub(crate) fn reserve<const N: usize>(kind: Kind) -> Option<Slot> {
    // SAFETY: a ring map and a constant size.
    let base = unsafe {
        helpers::bpf_ringbuf_reserve(ptr::from_ref(ring(kind.ring())).cast_mut().cast(), N as u64, 0)
    };
    if base.is_null() { None } else { Some(Slot { base: base.cast() }) }
}

/// Counts a record that found no room.
#[inline(always)]
pub(crate) fn ring_full(kind: Kind) {
    ledger(kind, Term::RingFull);
}

/// A record of more bytes than these looks at the watermark by itself.
const LARGE: usize = 2048;

/// A reserved slot. The verifier sees to it that each is submitted or discarded.
pub(crate) struct Slot {
    pub(crate) base: *mut u8,
}

impl Slot {
    /// The same slot, for who writes a part of it.
    #[inline(always)]
    pub(crate) fn again(&self) -> Self {
        Self { base: self.base }
    }

    /// The fixed body behind the header.
    #[inline(always)]
    pub(crate) fn body<T>(&self) -> *mut T {
        // SAFETY: every slot is larger than a header.
        unsafe { self.base.add(size_of::<Header>()).cast() }
    }

    /// Where the tail goes on. Until the record is submitted, the header's `redacted` holds the position.
    #[inline(always)]
    pub(crate) fn position(&self) -> usize {
        // SAFETY: every slot is larger than a header and aligned to 8.
        unsafe { (&raw const (*self.base.cast::<Header>()).redacted).read_volatile() as usize }
    }

    #[inline(always)]
    pub(crate) fn set_position(&self, at: usize) {
        // SAFETY: every slot is larger than a header and aligned to 8.
        unsafe { (&raw mut (*self.base.cast::<Header>()).redacted).write_volatile(at as u32) };
    }

    /// Sends an address through the slot's memory, where the header will stand: it comes back as a plain number.
    ///
    /// A loop over numbers looks the same to the verifier at every turn; one that begins with typed pointers
    /// and goes on with numbers does not.
    #[inline(always)]
    pub(crate) fn forget_type(&self, address: u64) -> u64 {
        // SAFETY: every slot is larger than a header and aligned to 8.
        unsafe { (&raw mut (*self.base.cast::<Header>()).subject.start).write_volatile(address) };
        // SAFETY: as above.
        unsafe { (&raw const (*self.base.cast::<Header>()).subject.start).read_volatile() }
    }

    /// The position, if `SIZE` bytes are left behind it in a slot of `N` bytes.
    #[inline(always)]
    pub(crate) fn room<const N: usize, const SIZE: usize>(&self) -> Option<usize> {
        let at = self.position();
        if at > N - SIZE { None } else { Some(at) }
    }

    /// Gives the slot back; it counts as nothing.
    #[inline(always)]
    pub(crate) fn discard(self) {
        // SAFETY: `base` came from a reservation and is used no more.
        unsafe { helpers::bpf_ringbuf_discard(self.base.cast(), u64::from(BPF_RB_NO_WAKEUP)) };
    }

    /// Writes the header and hands the record to the reader.
    #[inline(always)]
    pub(crate) fn submit(self, kind: Kind, subject: &Subject, time: u64, len: usize, flags: u16) {
        let of = kind.ring();
        // Not one atomic step, since that needs 5.12: a program that interrupts this one here may
        // take the same number, and the next one is then skipped. The reader compares counts with
        // the highest number, where the two cancel.
        let sequence = match SEQUENCE.get_ptr_mut(of as u32) {
            Some(next) => {
                // SAFETY: a pointer into a map's value.
                let sequence = unsafe { ptr::read_volatile(next) };
                // SAFETY: as above.
                unsafe { ptr::write_volatile(next, sequence + 1) };
                sequence
            }
            None => 0,
        };
        let header = Header {
            len: len as u32,
            version: VERSION,
            kind: kind as u8,
            flags,
            time,
            sequence,
            // SAFETY: the helper has no precondition.
            cpu: unsafe { bpf_get_smp_processor_id() },
            redacted: 0,
            subject: *subject,
        };
        // SAFETY: every slot is larger than a header and aligned to 8.
        unsafe { self.base.cast::<Header>().write(header) };
        ledger(kind, Term::Submitted);
        // Of small records every eighth looks: the watermark leaves room for more than they can be in between.
        let looks = len > LARGE || sequence % 8 == 0;
        // Of a new container the reader asks what it is called: its runtime's answer should come before its first program.
        let is_urgent = kind as u32 == Kind::CgroupMkdir as u32;
        let wake =
            if is_urgent || (looks && past_watermark(of)) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
        // SAFETY: `base` came from a reservation and is used no more.
        unsafe { helpers::bpf_ringbuf_submit(self.base.cast(), u64::from(wake)) };
    }
}

/// Whether the reader must be woken before its timer: a wake-up for each record would cost more
/// than the record.
#[inline(always)]
fn past_watermark(of: Ring) -> bool {
    let Some(settings) = settings() else { return false };
    // SAFETY: a ring map.
    let waiting = unsafe {
        helpers::bpf_ringbuf_query(ptr::from_ref(ring(of)).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA))
    };
    let watermark = match of {
        Ring::Urgent => settings.wake_bytes[0],
        Ring::Process => settings.wake_bytes[1],
        Ring::Network => settings.wake_bytes[2],
    };
    if waiting < u64::from(watermark) {
        return false;
    }
    let Some(armed) = WAKE_ARMED.get_ptr_mut(of as u32) else { return false };
    // SAFETY: a pointer into a map's value.
    if unsafe { ptr::read_volatile(armed) } == 0 {
        return false;
    }
    // SAFETY: as above. Two CPUs may both wake the reader, which is harmless.
    unsafe { ptr::write_volatile(armed, 0) };
    true
}

/// Counts an event that was seen, and of which no record could be built.
#[inline(always)]
pub(crate) fn unbuilt(kind: Kind) {
    ledger(kind, Term::StateLost);
}

/// Counts an event whose state could not be kept: it is seen, and it is lost.
#[inline(always)]
pub(crate) fn state_lost(kind: Kind) {
    ledger(kind, Term::Seen);
    ledger(kind, Term::StateLost);
}
