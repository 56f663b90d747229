//! The CPU time of a process that ends: of the threads that the kernel has released, and of those that it still has.
//!
//! As `thread_group_cputime` adds it up (kernel/sched/cputime.c, v6.18). A thread's time goes to the process's sum when the
//! thread is released: the leader is not before its parent has waited for it, and threads that end together with the
//! process are on their way out when the last of them tells of the end.

use aya_ebpf::helpers::generated as helpers;

use crate::kernel::{Pointer as _, Ptr, offset};

/// Threads that are looked at, those that are looked at again included.
const MOST: u32 = 1 << 15;

/// The same without `bpf_loop`, where each is the verifier's work: the leader, and what some CPUs are at work on.
const FEW: usize = 64;

/// CPU time of all threads of the process of `task`, in nanoseconds, as far as the kernel has counted it.
///
/// `LOOPS` is for kernels that have `bpf_loop`, see [`crate::path::write`].
#[inline(always)]
pub(crate) fn of_process<const LOOPS: bool>(task: Ptr, signal: Ptr) -> Option<u64> {
    if signal.read::<u32>(offset!(signal_nr_threads))? == 1 {
        return Some(released(signal)?.wrapping_add(task.read(offset!(task_sum_exec_runtime))?));
    }
    let mut sum = Sum::begin(signal)?;
    if LOOPS {
        let callback = turn as extern "C" fn(u32, *mut Sum) -> u64;
        // SAFETY: a function of the kind that the helper calls, and what it hands on to it.
        let _turns = unsafe { helpers::bpf_loop(MOST, callback as *mut _, (&raw mut sum).cast(), 0) };
        return Some(sum.time);
    }
    for _ in 0..FEW {
        if sum.go_on().is_none() {
            break;
        }
    }
    Some(sum.time)
}

/// One turn: 1 ends the loop.
extern "C" fn turn(_turn: u32, sum: *mut Sum) -> u64 {
    // SAFETY: what `of_process` gave to the helper.
    let sum = unsafe { &mut *sum };
    u64::from(sum.go_on().is_none())
}

/// Of the threads that are no more.
#[inline(always)]
fn released(signal: Ptr) -> Option<u64> {
    signal.read(offset!(signal_sum_sched_runtime))
}

/// Times that were added up so far.
struct Sum {
    signal: Ptr,
    time: u64,
    /// The `thread_node` of the next thread, or the list's head.
    next: Ptr,
    /// Of `stats_lock`, which is taken for writing while a thread's time goes from the thread to the process.
    sequence: u32,
}

impl Sum {
    #[inline(always)]
    fn begin(signal: Ptr) -> Option<Self> {
        let sequence = signal.read(offset!(signal_stats_lock))?;
        let next = signal.read(offset!(signal_thread_head)).map(Ptr)?;
        Some(Self { signal, time: released(signal)?, next, sequence })
    }

    /// Adds a thread's time; nothing once all is added up, or cannot be. One that is released meanwhile still leads to the next.
    #[inline(always)]
    fn go_on(&mut self) -> Option<()> {
        if self.next == self.signal.field(offset!(signal_thread_head))? {
            return self.begin_again();
        }
        let task = Ptr(self.next.0.wrapping_sub(u64::from(offset!(task_thread_node).0)));
        let next = self.next.get().map(Ptr)?;
        self.time = self.time.wrapping_add(task.read(offset!(task_sum_exec_runtime))?);
        self.next = next;
        Some(())
    }

    /// Begins again if a thread was released since the beginning: it could be in both sums, or in neither. An odd sequence
    /// says that one is being released.
    #[inline(always)]
    fn begin_again(&mut self) -> Option<()> {
        let sequence: u32 = self.signal.read(offset!(signal_stats_lock))?;
        if self.sequence.is_multiple_of(2) && sequence == self.sequence {
            return None;
        }
        *self = Self::begin(self.signal)?;
        Some(())
    }
}
