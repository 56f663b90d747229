//! The life of a process: fork (no line of its own), exit, and what was there before the agent.

use crate::wire::{Subject, names, wire};

wire! {
    /// The body of a fork record. The header's subject is the child.
    pub struct Fork {
        /// The child's process id in its innermost pid namespace.
        pub vpid: u32,
        /// Inode number of that namespace.
        pub pid_namespace: u32,
        /// The thread that called fork.
        pub parent_tid: u32,
        pub reserved: u32,
    }

    /// The body of an exit record, written by the last thread of the process.
    pub struct Exit {
        /// Wait status: exit code in bits 8 to 15, or signal in 0 to 6 and core dump in 7.
        pub status: u32,
        /// 1 if the kernel's OOM killer chose the process.
        pub oom_killed: u32,
        /// CPU time of all its threads, in nanoseconds.
        pub cpu_time: u64,
        /// Largest resident set, in pages.
        pub peak_rss_pages: u64,
    }

    /// What the task iterator gives for each process that ran before the agent.
    pub struct Seed {
        pub subject: Subject,
        pub vpid: u32,
        pub pid_namespace: u32,
    }
}

names! {
    /// How a process ended; an offset from [`crate::counters::EXITS`].
    pub enum ExitReason {
        /// It returned, with whatever code.
        Exited = 0 => "exited",
        Signaled = 1 => "signaled",
        CoreDumped = 2 => "core_dumped",
        OomKilled = 3 => "oom_killed",
    }
}

impl Exit {
    /// Why the process ended.
    pub const fn reason(&self) -> ExitReason {
        if self.oom_killed != 0 {
            ExitReason::OomKilled
        } else if self.status & 0x80 != 0 {
            ExitReason::CoreDumped
        } else if self.status & 0x7f != 0 {
            ExitReason::Signaled
        } else {
            ExitReason::Exited
        }
    }
}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        bindings::{BPF_NOEXIST, seq_file},
        helpers::generated as helpers,
        macros::{map, raw_tracepoint},
        maps::LruHashMap,
        programs::RawTracePointContext,
    };
    use core::ffi::c_void;

    use super::{Exit, Fork, Seed};
    use crate::{
        again, attempt,
        counters::{EXITS, count},
        cpu_time, emit,
        exec::innermost_pid,
        exec_failed,
        kernel::{self, Pointer as _, Ptr, argument, offset},
        privilege, scope, task,
        wire::{Header, Kind, Subject},
    };

    /// `SIGNAL_GROUP_EXIT`, include/linux/sched/signal.h (v5.10 to v6.18).
    const SIGNAL_GROUP_EXIT: u32 = 0x4;

    /// hook: `sched_process_fork(struct task_struct *parent, struct task_struct *child)`, in the
    /// parent's context, before the child first runs.
    #[raw_tracepoint(tracepoint = "sched_process_fork")]
    pub fn process_fork(ctx: RawTracePointContext) -> i32 {
        again::keep_to_task_stack(&ctx, &again::AGAIN);
        let _nothing_to_tell = on_fork(&ctx);
        0
    }

    /// hook: `sched_process_fork`, once more: see [`crate::again`].
    #[raw_tracepoint(tracepoint = "sched_process_fork")]
    pub fn process_fork_again(ctx: RawTracePointContext) -> i32 {
        again::go_on(&ctx, Kind::Fork);
        0
    }

    /// hook: `sched_process_fork`, a third time.
    #[raw_tracepoint(tracepoint = "sched_process_fork")]
    pub fn process_fork_once_more(ctx: RawTracePointContext) -> i32 {
        again::go_on(&ctx, Kind::Fork);
        0
    }

    #[inline(always)]
    fn on_fork(ctx: &RawTracePointContext) -> Option<()> {
        // SAFETY: the tracepoint has two arguments.
        let (parent, child) = unsafe { (Ptr(argument(ctx.as_ptr(), 0)), Ptr(argument(ctx.as_ptr(), 1))) };
        let subject = Subject::of(child)?;
        // A new thread is no new process, and neither is a thread of the kernel's own.
        if subject.tgid != subject.tid || task::is_kernel_thread(child) || !scope::contains(&subject) {
            return None;
        }
        if !again::is_first(Kind::Fork, &subject) {
            return None;
        }
        let time = kernel::now();
        if !emit::wanted(Kind::Fork, &subject, time) {
            return None;
        }
        const LEN: usize = size_of::<Header>() + size_of::<Fork>();
        let Some(slot) = emit::reserve::<LEN>(Kind::Fork) else {
            emit::ring_full(Kind::Fork);
            return None;
        };
        let (vpid, pid_namespace) = innermost_pid(child).unwrap_or((subject.tgid, 0));
        let parent_tid = parent.read(offset!(task_pid)).unwrap_or(0);
        // SAFETY: the slot has the body's size behind the header, and is aligned to 8.
        unsafe { slot.body::<Fork>().write(Fork { vpid, pid_namespace, parent_tid, reserved: 0 }) };
        slot.submit(Kind::Fork, &subject, time, LEN, 0);
        Some(())
    }

    /// Key: a process that has reported its end; value: nothing. Before 6.16 two threads that exit
    /// at once can both look like the last: the insertion that succeeds arbitrates. Least recently
    /// used entries go by themselves.
    #[map]
    static ENDED: LruHashMap<Ended, u8> = LruHashMap::with_max_entries(4096, 0);

    #[repr(C)]
    struct Ended {
        tgid: u64,
        start: u64,
    }

    /// hook: `sched_process_exit(struct task_struct *p, bool group_dead)`; the second argument since
    /// 6.16: <https://github.com/torvalds/linux/blob/v6.16/include/trace/events/sched.h>.
    #[raw_tracepoint(tracepoint = "sched_process_exit")]
    pub fn process_exit(ctx: RawTracePointContext) -> i32 {
        again::keep_to_task_stack(&ctx, &again::AGAIN);
        let _nothing_to_tell = on_exit::<true>(&ctx);
        0
    }

    /// The same where the kernel has no `bpf_loop`: see [`cpu_time::of_process`].
    #[raw_tracepoint(tracepoint = "sched_process_exit")]
    pub fn process_exit_unrolled(ctx: RawTracePointContext) -> i32 {
        let _nothing_to_tell = on_exit::<false>(&ctx);
        0
    }

    /// hook: `sched_process_exit`, once more: see [`crate::again`].
    #[raw_tracepoint(tracepoint = "sched_process_exit")]
    pub fn process_exit_again(ctx: RawTracePointContext) -> i32 {
        again::go_on(&ctx, Kind::Exit);
        0
    }

    /// hook: `sched_process_exit`, a third time.
    #[raw_tracepoint(tracepoint = "sched_process_exit")]
    pub fn process_exit_once_more(ctx: RawTracePointContext) -> i32 {
        again::go_on(&ctx, Kind::Exit);
        0
    }

    #[inline(always)]
    fn on_exit<const LOOPS: bool>(ctx: &RawTracePointContext) -> Option<()> {
        // SAFETY: the tracepoint has at least one argument.
        let task = Ptr(unsafe { argument(ctx.as_ptr(), 0) });
        let tid = task.read::<u32>(offset!(task_pid))?;
        exec_failed::forget(tid);
        privilege::forget(tid);
        attempt::forget(tid);

        let signal = task.follow(offset!(task_signal))?;
        if kernel::exit_has_group_dead() {
            // SAFETY: the fact says that the argument is there.
            if unsafe { argument(ctx.as_ptr(), 1) } as u8 == 0 {
                return None;
            }
        } else if signal.read::<u32>(offset!(signal_live))? != 0 {
            return None;
        }
        if task::is_kernel_thread(task) {
            return None;
        }
        if !scope::contains_current() {
            return None;
        }
        tell_exit::<LOOPS>(task, signal)
    }

    /// Out of line: what [`attempt::forget`] may tell has the stack to itself.
    #[inline(never)]
    fn tell_exit<const LOOPS: bool>(task: Ptr, signal: Ptr) -> Option<()> {
        let subject = Subject::current()?;
        if !kernel::exit_has_group_dead() {
            let ended = Ended { tgid: u64::from(subject.tgid), start: subject.start };
            if ENDED.insert(&ended, 0, u64::from(BPF_NOEXIST)).is_err() {
                return None;
            }
        } else if !again::is_first(Kind::Exit, &subject) {
            return None;
        }
        let group_exit = signal.read::<u32>(offset!(signal_flags))? & SIGNAL_GROUP_EXIT != 0;
        let status = if group_exit {
            signal.read(offset!(signal_group_exit_code))?
        } else {
            task.follow(offset!(task_group_leader))?.read(offset!(task_exit_code))?
        };
        let exit = Exit {
            status,
            oom_killed: u32::from(signal.follow(offset!(signal_oom_mm)).is_some()),
            cpu_time: cpu_time::of_process::<LOOPS>(task, signal)?,
            peak_rss_pages: signal.read(offset!(signal_maxrss))?,
        };
        count(&subject, EXITS + exit.reason() as u32);
        let time = kernel::now();
        if !emit::wanted(Kind::Exit, &subject, time) {
            return None;
        }
        const LEN: usize = size_of::<Header>() + size_of::<Exit>();
        let Some(slot) = emit::reserve::<LEN>(Kind::Exit) else {
            emit::ring_full(Kind::Exit);
            return None;
        };
        // SAFETY: the slot has the body's size behind the header, and is aligned to 8.
        unsafe { slot.body::<Exit>().write(exit) };
        slot.submit(Kind::Exit, &subject, time, LEN, 0);
        Some(())
    }

    /// hook: the task iterator (`struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; }`).
    /// Writes a [`Seed`] for each process.
    #[unsafe(link_section = "iter/task")]
    #[unsafe(no_mangle)]
    pub extern "C" fn seed(ctx: *mut c_void) -> u32 {
        let _nothing_to_tell = on_seed(ctx);
        0
    }

    #[inline(always)]
    fn on_seed(ctx: *mut c_void) -> Option<()> {
        // SAFETY: the iterator's context is two pointers.
        let (meta, task) = unsafe { (*ctx.cast::<*const u64>(), *ctx.cast::<u64>().add(1)) };
        let task = Ptr(task).non_null()?;
        // SAFETY: `seq` is the first member of `struct bpf_iter_meta`, which is never null.
        let seq = unsafe { *meta } as *mut seq_file;
        let subject = Subject::of(task)?;
        if subject.tgid != subject.tid || task::is_kernel_thread(task) {
            return None;
        }
        // The agent, which reads this, has lines of its own wherever it looks.
        // SAFETY: no arguments.
        let reader = unsafe { helpers::bpf_get_current_pid_tgid() } >> 32;
        if u64::from(subject.tgid) != reader && !scope::contains(&subject) {
            return None;
        }
        let (vpid, pid_namespace) = innermost_pid(task).unwrap_or((subject.tgid, 0));
        let seed = Seed { subject, vpid, pid_namespace };
        // SAFETY: `seed` has the size given. A full buffer ends this read, and the kernel comes again.
        unsafe { helpers::bpf_seq_write(seq, core::ptr::from_ref(&seed).cast(), size_of::<Seed>() as u32) };
        Some(())
    }
}
