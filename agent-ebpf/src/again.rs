//! Programs that stand on a tracepoint three times, since the kernel may pass over the first and the second.
//!
//! The kernel does not run a program inside itself: where it is at work on a CPU, it is skipped there. Up to 6.19 only an
//! interrupt could come in between, and nobody calls exec in one. Since 7.0 ("tracing: Guard `__DECLARE_TRACE()` use of
//! `__DO_TRACE_CALL()` with SRCU-fast") tracepoints leave preemption on: whoever runs next on that CPU execs unseen. The
//! second program is another one to the kernel, and tells what the first has not; a third what comes between while the second is at
//! work, as was one exec of 200 at once on an emulated machine. They are only loaded on such kernels, and are no more than a jump
//! into the first program: what was jumped to is not asked whether it is at work already, and its instructions are verified once.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{LruHashMap, ProgramArray},
};

use crate::{
    emit, kernel,
    wire::{Kind, Subject},
};

/// By kind: the first program on its tracepoint, where the agent has attached more of them.
#[map]
pub(crate) static AGAIN: ProgramArray = ProgramArray::with_max_entries(Kind::COUNT as u32, 0);

/// Goes on with the first program of this kind, which tells what has not been told.
#[inline(always)]
pub(crate) fn go_on(context: &impl EbpfContext, kind: Kind) {
    // SAFETY: the programs are of one type and on one tracepoint. It comes back where there is no such program.
    unsafe { AGAIN.tail_call(context, kind as u32) };
}

/// What the programs on user space's functions might jump into: nothing. A map of programs is of one type.
#[map]
pub(crate) static NEVER: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Makes a program use the stack of the task that it runs in. Without it the kernel may give a program one stack for each CPU,
/// "private" to the program (since 6.13, `bpf_enable_priv_stack` in kernel/bpf/verifier.c): two tasks that preempt each other in the
/// middle of it write over each other's. The kernel runs no program inside itself, but for those on functions of user space, and those
/// that are jumped to. None that may jump has such a stack; whether it ever does is not asked.
#[inline(always)]
pub(crate) fn keep_to_task_stack(context: &impl EbpfContext, programs: &ProgramArray) {
    if kernel::never() {
        // SAFETY: it is not done.
        unsafe { programs.tail_call(context, 0) };
    }
}

/// Key: what was told of a process; value: nothing. Least recently used entries go by themselves: an entry is asked for
/// once, right after it was made.
#[map]
static TOLD: LruHashMap<Told, u8> = LruHashMap::with_max_entries(4096, 0);

/// include/uapi/asm-generic/errno-base.h (v6.18), as helpers return it.
const EEXIST: i32 = -17;

#[repr(C)]
struct Told {
    kind_and_thread: u64,
    /// A process id comes again, its start does not.
    start: u64,
    exec_id: u64,
}

/// Whether nobody has told it yet. Always, where the kernel runs every program.
#[inline(always)]
pub(crate) fn is_first(kind: Kind, subject: &Subject) -> bool {
    if !kernel::is_preemptible() {
        return true;
    }
    let told = Told {
        kind_and_thread: u64::from(kind as u32) << 32 | u64::from(subject.tid),
        start: subject.start,
        exec_id: u64::from(subject.exec_id),
    };
    match TOLD.insert(&told, 0, u64::from(BPF_NOEXIST)) {
        Ok(()) => true,
        Err(EEXIST) => false,
        Err(_no_room) => {
            emit::state_lost(kind);
            false
        }
    }
}
