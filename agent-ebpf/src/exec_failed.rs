//! An attempt to execute that gave no new image.

use crate::wire::{Span, wire};

wire! {
    /// The body of a record of an exec that failed.
    pub struct ExecFailed {
        /// errno, positive.
        pub error: u32,
        pub reserved: u32,
        /// Read from the caller's memory after the call: another thread can have rewritten it.
        pub path: Span,
    }
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::forget;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        macros::{fexit, map, tracepoint},
        maps::HashMap,
        programs::{FExitContext, TracePointContext},
    };

    use super::ExecFailed;
    use crate::{
        counters::{EXECS, count},
        emit, filter,
        kernel::{self, Pointer as _, Typed, argument, copy_user_str},
        scope,
        wire::{Header, Kind, Span, Subject},
    };

    /// Key: the thread that is in execve or execveat; value: its pointer to the path. Removed at the
    /// call's end, at a successful exec, and at the thread's exit. Where it is full, the failure is
    /// counted as lost state.
    #[map]
    static TRIED: HashMap<u32, u64> = HashMap::with_max_entries(4096, 0);

    /// Forgets the call that a thread did not come back from, or came back from with a new image.
    #[inline(always)]
    pub(crate) fn forget(tid: u32) {
        let _not_there = TRIED.remove(tid);
    }

    /// hook: `syscalls:sys_enter_execve(const char *filename, ...)`.
    #[tracepoint]
    pub fn execve_enter(ctx: TracePointContext) -> u32 {
        tried(&ctx, 16)
    }

    /// hook: `syscalls:sys_enter_execveat(int fd, const char *filename, ...)`.
    #[tracepoint]
    pub fn execveat_enter(ctx: TracePointContext) -> u32 {
        tried(&ctx, 24)
    }

    #[inline(always)]
    fn tried(ctx: &TracePointContext, argument: usize) -> u32 {
        if scope::contains_current()
            // SAFETY: the syscall tracepoints' arguments stand 8 bytes apart from 16 on.
            && let Ok(filename) = unsafe { ctx.read_at::<u64>(argument) }
            && TRIED.insert(kernel::current_tid(), filename, 0).is_err()
        {
            emit::state_lost(Kind::ExecFailed);
        }
        0
    }

    /// hook: `syscalls:sys_exit_execve` and `sys_exit_execveat`, `long ret` at 16.
    #[tracepoint]
    pub fn exec_exit(ctx: TracePointContext) -> u32 {
        let tid = kernel::current_tid();
        // SAFETY: the value is copied at once.
        let Some(filename) = TRIED.get_ptr(tid).map(|filename| unsafe { *filename }) else { return 0 };
        forget(tid);
        // SAFETY: the format of the syscall exit tracepoints.
        if let Ok(result) = unsafe { ctx.read_at::<i64>(16) } {
            ended(filename, result);
        }
        0
    }

    /// The kernel's functions that the calls begin with, one for each ABI: at their end the pointer to the path is
    /// still where the caller had it. `path` is its place among `Host::exec_path_registers`.
    macro_rules! functions {
        ($($program:ident: path $path:literal;)*) => {$(
            #[fexit]
            pub fn $program(ctx: FExitContext) -> i32 {
                returns(&ctx, $path);
                0
            }
        )*};
    }

    #[inline(always)]
    fn returns(ctx: &FExitContext, path: usize) {
        // SAFETY: the function has one argument, and its result stands behind it.
        let (registers, result) =
            unsafe { (Typed::argument(ctx.as_ptr(), 0), argument(ctx.as_ptr(), 1) as i64) };
        if result < 0
            && scope::contains_current()
            && let Some(filename) = registers.read(kernel::exec_path_register(path))
        {
            ended(filename, result);
        }
    }

    // hook: `long __x64_sys_execve(const struct pt_regs *regs)`, `__ia32_compat_sys_execve` and the like.
    // <https://github.com/torvalds/linux/blob/v6.18/fs/exec.c>
    functions! {
        execve_failed: path 0;
        execveat_failed: path 1;
        execve_failed_compat: path 2;
        execveat_failed_compat: path 3;
    }

    #[inline(always)]
    fn ended(filename: u64, result: i64) {
        if result < 0 {
            let _nothing_to_tell = failed(filename, result.unsigned_abs() as u32);
        }
    }

    #[inline(never)]
    fn failed(filename: u64, error: u32) -> Option<()> {
        let subject = Subject::current()?;
        count(&subject, EXECS + 1);
        let time = kernel::now();
        if !emit::wanted_unless(Kind::ExecFailed, &subject, time, || filter::drops_exec_failed(&subject)) {
            return None;
        }
        // Nearly every path is short; the failures of one search through PATH are many.
        match build::<256>(&subject, time, error, filename) {
            Built::RingFull => emit::ring_full(Kind::ExecFailed),
            Built::TooSmall if matches!(build::<4096>(&subject, time, error, filename), Built::RingFull) => {
                emit::ring_full(Kind::ExecFailed);
            }
            _ => {}
        }
        Some(())
    }

    enum Built {
        Submitted,
        TooSmall,
        RingFull,
    }

    /// Builds the record in a slot with `N` bytes for the path; the last size takes what fits.
    #[inline(always)]
    fn build<const N: usize>(subject: &Subject, time: u64, error: u32, filename: u64) -> Built {
        // The largest slot: a constant, and not an expression of N, which a constant cannot be.
        const SMALL: usize = AT + 256;
        const LARGE: usize = AT + 4096;
        let slot = if N == 256 {
            emit::reserve::<SMALL>(Kind::ExecFailed)
        } else {
            emit::reserve::<LARGE>(Kind::ExecFailed)
        };
        let Some(slot) = slot else { return Built::RingFull };
        // SAFETY: N bytes are left behind the fixed part.
        let len = unsafe { copy_user_str::<N>(filename, slot.base.add(AT)) }.unwrap_or(0);
        if len == N && N == 256 {
            slot.discard();
            return Built::TooSmall;
        }
        let text = if len == 0 { 0 } else { len - 1 };
        // SAFETY: the slot is larger than the fixed part, and aligned to 8.
        unsafe {
            slot.body::<ExecFailed>().write(ExecFailed {
                error,
                reserved: 0,
                path: Span { start: AT as u32, len: text as u32 },
            });
        }
        slot.submit(Kind::ExecFailed, subject, time, AT + text, 0);
        Built::Submitted
    }

    const AT: usize = size_of::<Header>() + size_of::<ExecFailed>();
}
