//! Execution: a new program image.

#[cfg(target_arch = "bpf")]
mod facts;

use crate::wire::{Capabilities, Span, wire};

wire! {
    /// The body of an exec record: the process as it is once the new image is committed.
    pub struct Exec {
        pub capabilities: Capabilities,
        pub namespaces: Namespaces,
        /// The file that runs: for a script its interpreter.
        pub inode: u64,
        /// Bytes of argv in the new image, which may be more than `args` holds.
        pub args_total: u64,
        /// `dev_t` of the kernel: major in the upper bits from 20, minor below.
        pub device: u32,
        pub links: u32,
        pub mode: u32,
        pub owner_uid: u32,
        pub owner_gid: u32,
        /// Process id in the innermost pid namespace.
        pub vpid: u32,
        /// The thread that called exec; a thread other than the leader takes the leader's id.
        pub caller_tid: u32,
        pub argc: u32,
        pub envc: u32,
        /// `Exec::FLAG_*`.
        pub flags: u32,
        /// argv as the kernel copied it: the arguments, each with a NUL behind it.
        pub args: Span,
        /// Names from the file to the root, each with a NUL behind it.
        pub executable: Span,
        pub working_directory: Span,
        /// The path that was given to exec, as the kernel copied it.
        pub filename: Span,
        /// The interpreter that a script's first line names; empty where there is no script.
        pub interpreter: Span,
        /// Name of the controlling terminal.
        pub tty: [u8; 24],
    }

    /// Inode numbers of the namespaces, as in /proc/PID/ns.
    pub struct Namespaces {
        pub cgroup: u32,
        pub ipc: u32,
        pub mnt: u32,
        pub net: u32,
        pub pid: u32,
        pub time: u32,
        pub user: u32,
        pub uts: u32,
    }
}

impl Exec {
    /// The kernel gave more privilege than the caller had (`AT_SECURE`).
    pub const FLAG_SECURE: u32 = 1;
    /// The file stands in the upper layer of an overlay: it is not in the image.
    pub const FLAG_UPPER_LAYER: u32 = 2;
    /// Whether `FLAG_UPPER_LAYER` could be told.
    pub const FLAG_LAYER_KNOWN: u32 = 4;
    /// argv could not be read.
    pub const FLAG_ARGS_UNREADABLE: u32 = 8;
    /// A path has more names than the walk follows, or no room.
    pub const FLAG_PATH_TRUNCATED: u32 = 16;
    /// The new image is a script, and `interpreter` is what runs.
    pub const FLAG_SCRIPT: u32 = 32;
}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _, helpers::generated as helpers, macros::raw_tracepoint,
        programs::RawTracePointContext,
    };
    use aya_log_ebpf::debug;

    use super::{
        Exec,
        facts::{self, Task},
    };
    use crate::{
        again,
        counters::{EXECS, count},
        emit::{self, Slot},
        exec_failed,
        kernel::{self, Pointer, Ptr, Typed, argument, offset},
        path::{self, Walk},
        roots, scope,
        settings::ARGS_LIMIT,
        wire::{Header, Kind, Span, Subject},
    };

    const FIXED: usize = size_of::<Header>() + size_of::<Exec>();

    /// What a record is built from, collected once; a record that does not fit its slot is built
    /// again in a larger one.
    struct Source<P> {
        subject: Subject,
        time: u64,
        task: Task<P>,
        bprm: Ptr,
        caller_tid: u32,
    }

    /// Where argv stands in the new image.
    struct Argv {
        start: u64,
        total: u64,
        /// What of it a record may carry.
        allowed: usize,
    }

    /// Read again for each size of slot: a length that one size was refused for would stay in the verifier's mind
    /// as a range, and every further size would be walked once for each range.
    #[inline(always)]
    fn argv<P: Pointer>(source: &Source<P>) -> Option<Argv> {
        let mm = source.task.mm;
        let start: u64 = mm.read(offset!(mm_arg_start))?;
        let total = mm.read::<u64>(offset!(mm_arg_end))?.saturating_sub(start);
        let most = u64::from(emit::settings()?.args_max);
        Some(Argv { start, total, allowed: if total < most { total } else { most } as usize })
    }

    enum Built {
        Submitted,
        TooSmall,
        RingFull,
    }

    /// hook: `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`,
    /// in the new image's context, before its first instruction.
    /// <https://github.com/torvalds/linux/blob/v6.18/fs/exec.c>
    #[raw_tracepoint(tracepoint = "sched_process_exec")]
    pub fn process_exec(ctx: RawTracePointContext) -> i32 {
        again::keep_to_task_stack(&ctx, &again::AGAIN);
        if on_exec::<true>(&ctx).is_none() {
            debug!(&ctx, "exec: a field could not be read");
        }
        0
    }

    /// The same where the kernel has no `bpf_loop`: see [`path::write`].
    #[raw_tracepoint(tracepoint = "sched_process_exec")]
    pub fn process_exec_unrolled(ctx: RawTracePointContext) -> i32 {
        if on_exec::<false>(&ctx).is_none() {
            debug!(&ctx, "exec: a field could not be read");
        }
        0
    }

    /// hook: `sched_process_exec`, once more: see [`crate::again`].
    #[raw_tracepoint(tracepoint = "sched_process_exec")]
    pub fn process_exec_again(ctx: RawTracePointContext) -> i32 {
        again::go_on(&ctx, Kind::Exec);
        0
    }

    /// hook: `sched_process_exec`, a third time.
    #[raw_tracepoint(tracepoint = "sched_process_exec")]
    pub fn process_exec_once_more(ctx: RawTracePointContext) -> i32 {
        again::go_on(&ctx, Kind::Exec);
        0
    }

    #[inline(always)]
    fn on_exec<const LOOPS: bool>(ctx: &RawTracePointContext) -> Option<()> {
        // SAFETY: the tracepoint has three arguments.
        let (task, caller_tid, bprm) = unsafe {
            (argument(ctx.as_ptr(), 0), argument(ctx.as_ptr(), 1) as u32, argument(ctx.as_ptr(), 2))
        };
        exec_failed::forget(caller_tid);
        if !scope::contains_current() {
            return None;
        }
        roots::look();
        if kernel::has_typed_task() {
            tell::<_, LOOPS>(Typed::current(), Ptr(bprm), caller_tid)
        } else {
            tell::<_, LOOPS>(Ptr(task), Ptr(bprm), caller_tid)
        }
    }

    #[inline(always)]
    fn tell<P: Pointer, const LOOPS: bool>(task: P, bprm: Ptr, caller_tid: u32) -> Option<()> {
        let subject = Subject::current()?;
        if !again::is_first(Kind::Exec, &subject) {
            return Some(());
        }
        count(&subject, EXECS);
        let time = kernel::now();
        if !emit::wanted(Kind::Exec, &subject, time) {
            return Some(());
        }
        // What every process has that calls exec.
        let Some(task) = Task::of(task) else {
            emit::unbuilt(Kind::Exec);
            return None;
        };
        let source = Source { subject, time, task, bprm, caller_tid };
        // One program for each size: the verifier wants constant sizes and bounds.
        let mut built = build::<P, 1024, 16, LOOPS>(&source);
        if let Built::TooSmall = built {
            built = build::<P, 2048, 24, LOOPS>(&source);
        }
        if let Built::TooSmall = built {
            built = build::<P, 4096, 32, LOOPS>(&source);
        }
        if let Built::TooSmall = built {
            built = build::<P, 16384, 64, LOOPS>(&source);
        }
        if let Built::TooSmall = built {
            built = build::<P, { LAST }, 128, LOOPS>(&source);
        }
        match built {
            Built::Submitted => {}
            Built::RingFull => emit::ring_full(Kind::Exec),
            // The largest slot takes anything but an argv that cannot be found.
            Built::TooSmall => emit::unbuilt(Kind::Exec),
        }
        Some(())
    }

    /// Large enough for the most of argv, and for paths of `PATH_MAX`.
    const LAST: usize = ARGS_LIMIT as usize + 20 * 1024;

    /// Builds the record in a slot of `N` bytes, with paths of up to `DEPTH` names or as many as find room, see [`path::write`].
    #[inline(never)]
    fn build<P: Pointer, const N: usize, const DEPTH: usize, const LOOPS: bool>(source: &Source<P>) -> Built {
        // A slot too small for argv and the shortest of paths is not even reserved.
        let fits = argv(source).is_some_and(|argv| argv.allowed <= N - FIXED - 2 * path::NAME_SIZE);
        if N != LAST && !fits {
            return Built::TooSmall;
        }
        let Some(slot) = emit::reserve::<N>(Kind::Exec) else { return Built::RingFull };
        let body = slot.body::<Exec>();
        // SAFETY: the slot is larger than the fixed part, and aligned to 8.
        unsafe { zero(body) };
        if tail::<P, N, DEPTH, LOOPS>(source, &slot, body).is_none() {
            slot.discard();
            return Built::TooSmall;
        }
        if LOOPS {
            finish_apart(source, slot);
        } else {
            finish(source, slot);
        }
        Built::Submitted
    }

    /// One function for all sizes, since the kernel's work on a program grows with the square of its length (`bpf_patch_insn_data`
    /// in kernel/bpf/core.c, v6.18). Before 5.17 the verifier would walk it anew from every turn of the loops before it.
    #[inline(never)]
    fn finish_apart<P: Pointer>(source: &Source<P>, slot: Slot) {
        finish(source, slot);
    }

    /// Writes what no string is, and sends the record.
    #[inline(always)]
    fn finish<P: Pointer>(source: &Source<P>, slot: Slot) {
        // SAFETY: every slot is larger than the fixed part, aligned to 8, and initialised by `build`.
        let exec = unsafe { &mut *slot.body::<Exec>() };
        exec.caller_tid = source.caller_tid;
        let _what_is_missing_is_zero = facts::write(&source.task, source.bprm, exec);
        let len = slot.position();
        slot.submit(Kind::Exec, &source.subject, source.time, len, 0);
    }

    /// By words: `memset` is a loop of bytes here, which the verifier would walk.
    ///
    /// # Safety
    ///
    /// `body` is valid for writes.
    #[inline(always)]
    unsafe fn zero(body: *mut Exec) {
        for word in 0..size_of::<Exec>() / 8 {
            // SAFETY: the caller's promise.
            unsafe { body.cast::<u64>().add(word).write_volatile(0) };
        }
    }

    /// Writes the strings; `None` where a larger slot may hold them.
    #[inline(always)]
    fn tail<P: Pointer, const N: usize, const DEPTH: usize, const LOOPS: bool>(
        source: &Source<P>,
        slot: &Slot,
        body: *mut Exec,
    ) -> Option<()> {
        let mut flags = 0;
        let Argv { start, total, allowed } = argv(source)?;
        let mut len = allowed;
        // Restated for the verifier, right before its use.
        if len > N - FIXED - path::NAME_SIZE {
            len = N - FIXED - path::NAME_SIZE;
        }
        // SAFETY: N - FIXED bytes are left behind the fixed part.
        let failed = unsafe {
            helpers::bpf_probe_read_user(slot.base.add(FIXED).cast(), len as u32, start as *const _)
        };
        if failed != 0 {
            flags |= Exec::FLAG_ARGS_UNREADABLE;
            len = 0;
        }
        slot.set_position(FIXED + len);
        // SAFETY: `body` is the slot's fixed part, here and below.
        unsafe { (*body).args = Span { start: FIXED as u32, len: len as u32 } };
        // SAFETY: as above.
        unsafe { (*body).args_total = total };

        let file = source.task.mm.follow(offset!(mm_exe_file));
        let executable = file.and_then(|file| file.field(offset!(file_path)));
        // SAFETY: as above.
        unsafe { (*body).executable = tail_path::<P, N, DEPTH, LOOPS>(executable, slot, &mut flags)? };
        let directory = source.task.fs.field(offset!(fs_pwd));
        // SAFETY: as above.
        unsafe { (*body).working_directory = tail_path::<P, N, DEPTH, LOOPS>(directory, slot, &mut flags)? };

        let given = source.bprm.follow(offset!(bprm_filename));
        let interp = source.bprm.follow(offset!(bprm_interp));
        // SAFETY: as above.
        unsafe { (*body).filename = tail_string::<N>(given, slot, &mut flags)? };
        // The kernel points both at one string until a script or binfmt_misc brings in an interpreter.
        let interpreter = if given == interp {
            Span::EMPTY
        } else {
            flags |= Exec::FLAG_SCRIPT;
            tail_string::<N>(interp, slot, &mut flags)?
        };
        // SAFETY: as above.
        unsafe { (*body).interpreter = interpreter };
        // SAFETY: as above.
        unsafe { (*body).flags = flags };
        Some(())
    }

    /// Writes a path to the tail. `None` where a larger slot may hold it; in the last slot it is cut and flagged.
    #[inline(always)]
    fn tail_path<P: Pointer, const N: usize, const DEPTH: usize, const LOOPS: bool>(
        path: Option<P>,
        slot: &Slot,
        flags: &mut u32,
    ) -> Option<Span> {
        let Some(path) = path else { return Some(Span::EMPTY) };
        let start = slot.position();
        if path::write::<P, N, DEPTH, LOOPS>(path, slot) != Walk::Complete {
            if N != LAST {
                return None;
            }
            *flags |= Exec::FLAG_PATH_TRUNCATED;
        }
        Some(Span { start: start as u32, len: slot.position().wrapping_sub(start) as u32 })
    }

    /// Writes a kernel string to the tail, by the same rule.
    #[inline(always)]
    fn tail_string<const N: usize>(from: Option<Ptr>, slot: &Slot, flags: &mut u32) -> Option<Span> {
        let Some(from) = from else { return Some(Span::EMPTY) };
        let copied =
            if N <= 4096 { copy_string::<N, 256>(from, slot) } else { copy_string::<N, 4096>(from, slot) };
        if copied.is_none() && N == LAST {
            *flags |= Exec::FLAG_PATH_TRUNCATED;
            return Some(Span::EMPTY);
        }
        copied
    }

    /// `None` where the string may be longer than `MAX`, or there is no room for that many bytes.
    #[inline(always)]
    fn copy_string<const N: usize, const MAX: usize>(from: Ptr, slot: &Slot) -> Option<Span> {
        let at = slot.room::<N, MAX>()?;
        // SAFETY: MAX bytes are left, as just checked.
        let len = unsafe { from.copy_str::<MAX>(slot.base.add(at)) }?;
        if len == MAX && MAX < 4096 {
            return None;
        }
        slot.set_position(at + len);
        Some(Span { start: at as u32, len: len as u32 - 1 })
    }
}

#[cfg(target_arch = "bpf")]
pub(crate) use facts::innermost_pid;
