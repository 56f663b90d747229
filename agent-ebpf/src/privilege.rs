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
        macros::{map, tracepoint},
        maps::HashMap,
        programs::TracePointContext,
    };

    use super::{Call, Credentials, Entered};
    use crate::{
        counters::{CREDENTIALS, count},
        emit,
        kernel::{self, Pointer as _, Ptr, offset},
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

    /// hook: `syscalls:sys_enter_*` of the calls: `int __syscall_nr` at 8, arguments from 16 on.
    #[tracepoint]
    pub fn credentials_enter(ctx: TracePointContext) -> u32 {
        if entered(&ctx).is_none() {
            emit::state_lost(Kind::Credentials);
        }
        0
    }

    #[inline(always)]
    fn entered(ctx: &TracePointContext) -> Option<()> {
        if !scope::contains_current() {
            return Some(());
        }
        let read = |at| {
            // SAFETY: the format of the syscall entry tracepoints.
            unsafe { ctx.read_at::<u64>(at) }.unwrap_or(0)
        };
        // SAFETY: as above.
        let call = call(unsafe { ctx.read_at::<u32>(8) }.ok()?)?;
        let cred = task::credentials(Ptr::current())?;
        // Arguments beyond a call's own are what the registers hold; the agent knows how many count.
        let arguments = [read(16), read(24), read(32)];
        let entered = Entered {
            call: call as u32,
            groups: groups(cred),
            arguments,
            ids: task::ids(cred)?,
            capabilities: task::capabilities(cred)?,
        };
        ENTERED.insert(kernel::current_tid(), &entered, 0).ok()
    }

    /// hook: `syscalls:sys_exit_*` of the calls, `long ret` at 16.
    #[tracepoint]
    pub fn credentials_exit(ctx: TracePointContext) -> u32 {
        let _nothing_to_tell = exited(&ctx);
        0
    }

    #[inline(always)]
    fn exited(ctx: &TracePointContext) -> Option<()> {
        let tid = kernel::current_tid();
        // SAFETY: copied at once; only this thread writes its entry.
        let entered = unsafe { *ENTERED.get_ptr(tid)? };
        forget(tid);
        // SAFETY: the format of the syscall exit tracepoints.
        let result = unsafe { ctx.read_at::<i64>(16) }.ok()?;
        if !scope::contains_current() {
            return None;
        }
        let subject = Subject::current()?;
        let cred = task::credentials(Ptr::current())?;
        let error = if entered.call == Call::Setfsuid as u32 {
            denied(subject.ids.fsuid == entered.ids.fsuid, &entered, result)
        } else if entered.call == Call::Setfsgid as u32 {
            denied(subject.ids.fsgid == entered.ids.fsgid, &entered, result)
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
        // SAFETY: the slot has the body's size behind the header, and is aligned to 8.
        unsafe {
            slot.body::<Credentials>().write(Credentials {
                call: entered.call,
                error,
                arguments: entered.arguments,
                old: entered.ids,
                old_capabilities: entered.capabilities,
                new_capabilities: task::capabilities(cred).unwrap_or(Capabilities::NONE),
                old_groups: entered.groups,
                new_groups: groups(cred),
            });
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
