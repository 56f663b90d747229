//! Privilege: the system calls that change credentials, with what was before and what came of it.

use crate::wire::{Capabilities, Ids, names, wire};

names! {
    /// A credential call; an offset from [`crate::counters::CREDENTIALS`]. The name is the line's
    /// `event.action`.
    pub enum Call {
        Setuid = 0 => "setuid",
        Setgid = 1 => "setgid",
        Setreuid = 2 => "setreuid",
        Setregid = 3 => "setregid",
        Setresuid = 4 => "setresuid",
        Setresgid = 5 => "setresgid",
        Setfsuid = 6 => "setfsuid",
        Setfsgid = 7 => "setfsgid",
        Setgroups = 8 => "setgroups",
        Capset = 9 => "capset",
    }
}

wire! {
    /// The body of a credential record. The header's subject has the ids after the call.
    pub struct Credentials {
        /// A [`Call`].
        pub call: u32,
        /// errno, positive; 0 where the call succeeded.
        pub error: u32,
        /// The call's arguments, as they stood in the registers.
        pub arguments: [u64; 3],
        pub old: Ids,
        pub old_capabilities: Capabilities,
        pub new_capabilities: Capabilities,
        /// Number of supplementary groups.
        pub old_groups: u32,
        pub new_groups: u32,
    }

    /// What is kept from the call's entry to its exit.
    pub struct Entered {
        pub call: u32,
        pub groups: u32,
        pub arguments: [u64; 3],
        pub ids: Ids,
        pub capabilities: Capabilities,
    }
}

#[cfg(target_arch = "bpf")]
pub(crate) use programs::forget;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        macros::{fentry, fexit, map, tracepoint},
        maps::HashMap,
        programs::{FEntryContext, FExitContext, TracePointContext},
    };

    use super::{Call, Credentials, Entered};
    use crate::{
        counters::{CREDENTIALS, count},
        emit,
        kernel::{self, Pointer as _, Ptr, argument, offset},
        scope, task,
        wire::{Capabilities, Header, Kind, Subject},
    };

    /// Key: the thread that is in a credential call. Written at its entry, removed at its exit and at
    /// the thread's end. Where it is full, the call is counted as lost state.
    #[map]
    static ENTERED: HashMap<u32, Entered> = HashMap::with_max_entries(4096, 0);

    /// Forgets the call that a thread did not come back from.
    #[inline(always)]
    pub(crate) fn forget(tid: u32) {
        let _not_there = ENTERED.remove(tid);
    }

    /// Which call a system call number is.
    #[inline(always)]
    fn call(number: u32) -> Option<Call> {
        const CALLS: [Call; 10] = [
            Call::Setuid,
            Call::Setgid,
            Call::Setreuid,
            Call::Setregid,
            Call::Setresuid,
            Call::Setresgid,
            Call::Setfsuid,
            Call::Setfsgid,
            Call::Setgroups,
            Call::Capset,
        ];
        CALLS.into_iter().find(|call| kernel::credential_call(*call as usize) == number)
    }

    /// The kernel's functions that every way into a call goes through, whatever the caller's ABI: for each a program
    /// at its entry and one at its end. `asked` of the arguments are the call's own; the result stands behind all.
    macro_rules! functions {
        ($($enter:ident, $exit:ident: $call:ident, asked $asked:literal, result $result:literal;)*) => {$(
            #[fentry]
            pub fn $enter(ctx: FEntryContext) -> i32 {
                begins::<$asked>(&ctx, Call::$call)
            }

            #[fexit]
            pub fn $exit(ctx: FExitContext) -> i32 {
                returns::<$result>(&ctx)
            }
        )*};
    }

    #[inline(always)]
    fn begins<const ASKED: usize>(ctx: &FEntryContext, call: Call) -> i32 {
        let mut arguments = [0; 3];
        for (index, value) in arguments.iter_mut().enumerate().take(ASKED) {
            // SAFETY: the function has that many arguments.
            *value = unsafe { argument(ctx.as_ptr(), index) };
        }
        enter(call as u32, &arguments)
    }

    #[inline(always)]
    fn returns<const RESULT: usize>(ctx: &FExitContext) -> i32 {
        // SAFETY: the result stands behind the arguments.
        exit(unsafe { argument(ctx.as_ptr(), RESULT) } as i64)
    }

    // hook: `long __sys_setuid(uid_t uid)` and the like, which the 16-bit calls of 32-bit programs come to as well.
    // <https://github.com/torvalds/linux/blob/v6.18/kernel/sys.c>, kernel/uid16.c
    functions! {
        setuid_enter, setuid_exit: Setuid, asked 1, result 1;
        setgid_enter, setgid_exit: Setgid, asked 1, result 1;
        setreuid_enter, setreuid_exit: Setreuid, asked 2, result 2;
        setregid_enter, setregid_exit: Setregid, asked 2, result 2;
        setresuid_enter, setresuid_exit: Setresuid, asked 3, result 3;
        setresgid_enter, setresgid_exit: Setresgid, asked 3, result 3;
        setfsuid_enter, setfsuid_exit: Setfsuid, asked 1, result 1;
        setfsgid_enter, setfsgid_exit: Setfsgid, asked 1, result 1;
    }

    // hook: `long __x64_sys_setgroups(const struct pt_regs *regs)` and the like, one for each ABI: what these calls
    // share is reached by those alone that are allowed.
    functions! {
        setgroups_enter, setgroups_exit: Setgroups, asked 0, result 1;
        setgroups_enter_compat, setgroups_exit_compat: Setgroups, asked 0, result 1;
        setgroups_enter_16, setgroups_exit_16: Setgroups, asked 0, result 1;
        capset_enter, capset_exit: Capset, asked 0, result 1;
        capset_enter_compat, capset_exit_compat: Capset, asked 0, result 1;
    }

    /// hook: `syscalls:sys_enter_*` of the calls: `int __syscall_nr` at 8, arguments from 16 on.
    #[tracepoint]
    pub fn credentials_enter(ctx: TracePointContext) -> u32 {
        let read = |at| {
            // SAFETY: the format of the syscall entry tracepoints.
            unsafe { ctx.read_at::<u64>(at) }.unwrap_or(0)
        };
        // Arguments beyond a call's own are what the registers hold; the agent knows how many count.
        let arguments = [read(16), read(24), read(32)];
        if let Some(call) = call(read(8) as u32) {
            enter(call as u32, &arguments);
        }
        0
    }

    /// hook: `syscalls:sys_exit_*` of the calls, `long ret` at 16.
    #[tracepoint]
    pub fn credentials_exit(ctx: TracePointContext) -> u32 {
        // SAFETY: the format of the syscall exit tracepoints.
        if let Ok(result) = unsafe { ctx.read_at::<i64>(16) } {
            exit(result);
        }
        0
    }

    /// Out of line, as is [`exit`]: a program of each function comes here.
    #[inline(never)]
    fn enter(call: u32, arguments: &[u64; 3]) -> i32 {
        if scope::contains_current() && entered(call, arguments).is_none() {
            emit::state_lost(Kind::Credentials);
        }
        0
    }

    #[inline(always)]
    fn entered(call: u32, arguments: &[u64; 3]) -> Option<()> {
        let cred = task::credentials(Ptr::current())?;
        let entered = Entered {
            call,
            groups: groups(cred),
            arguments: *arguments,
            ids: task::ids(cred)?,
            capabilities: task::capabilities(cred)?,
        };
        ENTERED.insert(kernel::current_tid(), &entered, 0).ok()
    }

    #[inline(never)]
    fn exit(result: i64) -> i32 {
        let tid = kernel::current_tid();
        if let Some(entered) = ENTERED.get_ptr(tid) {
            // SAFETY: only this thread writes its entry, which is not copied: the stack is short.
            let _nothing_to_tell = exited(unsafe { &*entered }, result);
            forget(tid);
        }
        0
    }

    #[inline(always)]
    fn exited(entered: &Entered, result: i64) -> Option<()> {
        if !scope::contains_current() {
            return None;
        }
        let subject = Subject::current()?;
        let cred = task::credentials(Ptr::current())?;
        let error = if entered.call == Call::Setfsuid as u32 {
            denied(subject.ids.fsuid == entered.ids.fsuid, entered, result)
        } else if entered.call == Call::Setfsgid as u32 {
            denied(subject.ids.fsgid == entered.ids.fsgid, entered, result)
        } else if result < 0 {
            result.unsigned_abs() as u32
        } else {
            0
        };
        count(&subject, CREDENTIALS + (entered.call & 15) * 2 + u32::from(error != 0));
        let time = kernel::now();
        if !emit::wanted(Kind::Credentials, &subject, time) {
            return None;
        }
        const LEN: usize = size_of::<Header>() + size_of::<Credentials>();
        let Some(slot) = emit::reserve::<LEN>(Kind::Credentials) else {
            emit::ring_full(Kind::Credentials);
            return None;
        };
        let body = slot.body::<Credentials>();
        // SAFETY: the slot has the body's size behind the header, and is aligned to 8. Member by member: the whole would
        // stand on the stack first, which is short.
        unsafe {
            (&raw mut (*body).call).write(entered.call);
            (&raw mut (*body).error).write(error);
            (&raw mut (*body).arguments).write(entered.arguments);
            (&raw mut (*body).old).write(entered.ids);
            (&raw mut (*body).old_capabilities).write(entered.capabilities);
            (&raw mut (*body).new_capabilities).write(task::capabilities(cred).unwrap_or(Capabilities::NONE));
            (&raw mut (*body).old_groups).write(entered.groups);
            (&raw mut (*body).new_groups).write(groups(cred));
        }
        slot.submit(Kind::Credentials, &subject, time, LEN, 0);
        Some(())
    }

    /// setfsuid and setfsgid return the old id whatever they do: `EPERM` where the id stayed, and was
    /// not what was asked for. Asked and returned ids are both those of the caller's user namespace;
    /// -1 asks for nothing.
    #[inline(always)]
    fn denied(stayed: bool, entered: &Entered, returned: i64) -> u32 {
        let asked = entered.arguments[0] as u32;
        u32::from(stayed && asked != returned as u32 && asked != u32::MAX)
    }

    #[inline(always)]
    fn groups(cred: Ptr) -> u32 {
        cred.follow(offset!(cred_group_info))
            .and_then(|groups| groups.read(offset!(group_info_ngroups)))
            .unwrap_or(0)
    }
}
