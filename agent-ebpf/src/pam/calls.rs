//! The calls: each is remembered at its entry and told at its return.
//!
//! A library can have two attachments where two overlay mounts share its file. Then each program runs twice: an entry
//! overwrites what it wrote, and of two returns the one whose removal succeeds tells. So no call is told twice.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated as helpers,
    macros::{map, uprobe, uretprobe},
    maps::HashMap,
    programs::{ProbeContext, RetProbeContext},
};

use super::{
    Call, Entered, EnteredKey, Outcome, Pam, SET_ITEM, START, Service, TEXT_AT, TEXT_BYTES, Transaction,
    transactions::{self, class, text_of_item},
};
use crate::{
    again,
    counters::{AUTH, PAM_CALLS, PAM_UNTRACKED, SESSIONS_CLOSED, SESSIONS_OPENED, count},
    emit,
    kernel::{self, Pointer as _, Ptr, offset},
    scope,
    wire::{Header, Kind, Span, Subject},
};

/// Written at a call's entry, removed at its return. The agent sweeps those of threads that have ended. Where it is
/// full, a call is counted as lost state.
#[map]
static CALLS: HashMap<EnteredKey, Entered> = HashMap::with_max_entries(4096, 0);

/// Where a `pt_regs` has the stack pointer, and by how much it has moved when the function has returned.
/// arch/x86/include/asm/ptrace.h, arch/arm64/include/uapi/asm/ptrace.h (v6.18).
#[cfg(bpf_target_arch = "x86_64")]
const STACK: (usize, u64) = (152, 8);
#[cfg(not(bpf_target_arch = "x86_64"))]
const STACK: (usize, u64) = (248, 0);

#[inline(always)]
fn stack(context: *mut core::ffi::c_void) -> u64 {
    // SAFETY: a member of the context.
    unsafe { context.cast::<u8>().add(STACK.0).cast::<u64>().read_volatile() }
}

/// A program for the entry of a function and one for its return. The arguments are those that are kept.
macro_rules! functions {
    ($($enter:ident, $return:ident: $call:expr, flags $flags:literal;)*) => {$(
        #[uprobe]
        pub fn $enter(ctx: ProbeContext) -> u32 {
            again::keep_to_task_stack(&ctx, &again::NEVER);
            let (Some(handle), Some(flags)) = (ctx.arg::<u64>(0), ctx.arg::<u64>($flags)) else { return 0 };
            let arguments = Arguments { handle, text: 0, second: 0, flags: flags as u32 };
            enter($call as u32, stack(ctx.as_ptr()), &arguments)
        }

        #[uretprobe]
        pub fn $return(ctx: RetProbeContext) -> u32 {
            again::keep_to_task_stack(&ctx, &again::NEVER);
            returned($call as u32, stack(ctx.as_ptr()), ctx.ret::<u64>() as i32)
        }
    )*};
}

// hook: `int pam_authenticate(pam_handle_t *pamh, int flags)` and the like, in the library's file.
// <https://github.com/linux-pam/linux-pam/blob/v1.5.2/libpam/include/security/pam_appl.h>
functions! {
    pam_authenticate_enter, pam_authenticate_return: Call::Authenticate, flags 1;
    pam_acct_mgmt_enter, pam_acct_mgmt_return: Call::Account, flags 1;
    pam_setcred_enter, pam_setcred_return: Call::Setcred, flags 1;
    pam_open_session_enter, pam_open_session_return: Call::SessionOpen, flags 1;
    pam_close_session_enter, pam_close_session_return: Call::SessionClose, flags 1;
    pam_chauthtok_enter, pam_chauthtok_return: Call::Chauthtok, flags 1;
}

/// hook: `int pam_start(const char *service, const char *user, const struct pam_conv *, pam_handle_t **)`.
#[uprobe]
pub fn pam_start_enter(ctx: ProbeContext) -> u32 {
    again::keep_to_task_stack(&ctx, &again::NEVER);
    start(&ctx, 3)
}

#[uretprobe]
pub fn pam_start_return(ctx: RetProbeContext) -> u32 {
    again::keep_to_task_stack(&ctx, &again::NEVER);
    returned(START, stack(ctx.as_ptr()), ctx.ret::<u64>() as i32)
}

/// hook: the same with the folder of the configuration before the last argument; since Linux-PAM 1.4.
#[uprobe]
pub fn pam_start_confdir_enter(ctx: ProbeContext) -> u32 {
    again::keep_to_task_stack(&ctx, &again::NEVER);
    start(&ctx, 4)
}

#[uretprobe]
pub fn pam_start_confdir_return(ctx: RetProbeContext) -> u32 {
    again::keep_to_task_stack(&ctx, &again::NEVER);
    returned(START, stack(ctx.as_ptr()), ctx.ret::<u64>() as i32)
}

#[inline(always)]
fn start(ctx: &ProbeContext, handle: usize) -> u32 {
    let (Some(text), Some(second), Some(handle)) =
        (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(handle))
    else {
        return 0;
    };
    enter(START, stack(ctx.as_ptr()), &Arguments { handle, text, second, flags: 0 })
}

/// hook: `int pam_set_item(pam_handle_t *pamh, int item_type, const void *item)`; `pam_get_user` calls it too.
#[uprobe]
pub fn pam_set_item_enter(ctx: ProbeContext) -> u32 {
    again::keep_to_task_stack(&ctx, &again::NEVER);
    let (Some(handle), Some(item), Some(text)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(2))
    else {
        return 0;
    };
    // Decided before anything is read: of a password not even the address is kept.
    if text_of_item(item as u32).is_none() {
        return 0;
    }
    enter(SET_ITEM, stack(ctx.as_ptr()), &Arguments { handle, text, second: 0, flags: item as u32 })
}

#[uretprobe]
pub fn pam_set_item_return(ctx: RetProbeContext) -> u32 {
    again::keep_to_task_stack(&ctx, &again::NEVER);
    returned(SET_ITEM, stack(ctx.as_ptr()), ctx.ret::<u64>() as i32)
}

/// hook: `int pam_end(pam_handle_t *pamh, int pam_status)`.
///
/// A forked child lets go of its copy with `PAM_DATA_SILENT` in the status, and some without: it is the process that
/// says whose entry goes.
#[uprobe]
pub fn pam_end_enter(ctx: ProbeContext) -> u32 {
    again::keep_to_task_stack(&ctx, &again::NEVER);
    if let Some(handle) = ctx.arg::<u64>(0)
        && scope::contains_current()
        && let Some(subject) = Subject::current()
    {
        transactions::end(&subject, handle);
    }
    0
}

/// What is kept of a call's arguments, see [`Entered`].
struct Arguments {
    handle: u64,
    text: u64,
    second: u64,
    flags: u32,
}

#[inline(never)]
fn enter(call: u32, stack: u64, arguments: &Arguments) -> u32 {
    if !scope::contains_current() {
        return 0;
    }
    let Some(process_start) = process_start() else { return 0 };
    let entered = Entered {
        process_start,
        time: kernel::now(),
        handle: arguments.handle,
        text: arguments.text,
        second: arguments.second,
        flags: arguments.flags,
        reserved: 0,
    };
    if kernel::has_entry_probes_alone() {
        alone(call, &entered);
        return 0;
    }
    let key = EnteredKey { tid: kernel::current_tid(), call, stack };
    if CALLS.insert(&key, &entered, 0).is_err() {
        emit::state_lost(Kind::Pam);
    }
    0
}

/// A call of which no return will be seen: what it says at its entry is all.
#[inline(always)]
fn alone(call: u32, entered: &Entered) {
    let key = EnteredKey { tid: kernel::current_tid(), call: START, stack: 0 };
    if call == START {
        if CALLS.insert(&key, entered, 0).is_err() {
            emit::state_lost(Kind::Pam);
        }
        return;
    }
    // The thread's last `pam_start` has returned by now, and where it put the handle says whether it is this one.
    if let Some(begun) = CALLS.get_ptr(&key) {
        // SAFETY: only this thread writes its entry.
        let begun = unsafe { &*begun };
        if begun.process_start == entered.process_start && handle_at(begun.handle) == Some(entered.handle) {
            let _untracked = started(begun);
            let _gone = CALLS.remove(&key);
        }
    }
    if call == SET_ITEM {
        let _untracked = item_set(entered);
    } else {
        let _nothing_to_tell = tell(call, entered, Pam::SUCCESS);
    }
}

#[inline(never)]
fn returned(call: u32, stack: u64, result: i32) -> u32 {
    let key = EnteredKey { tid: kernel::current_tid(), call, stack: stack.wrapping_sub(STACK.1) };
    let Some(entered) = CALLS.get_ptr(&key) else { return 0 };
    // SAFETY: only this thread writes its entry. It is copied before it is removed.
    let entered = unsafe { *entered };
    if CALLS.remove(&key).is_err() || process_start() != Some(entered.process_start) {
        return 0;
    }
    if call == START {
        if result == Pam::SUCCESS {
            let _untracked = started(&entered);
        }
    } else if call == SET_ITEM {
        if result == Pam::SUCCESS {
            let _untracked = item_set(&entered);
        }
    } else {
        let _nothing_to_tell = tell(call, &entered, result);
    }
    0
}

/// The start of the process that runs.
#[inline(always)]
fn process_start() -> Option<u64> {
    Ptr::current().follow(offset!(task_group_leader))?.read(offset!(task_start_boottime))
}

/// The strings are read now: at the entry their pages may not have been there, and the library has read them since.
/// Out of line, as are the others that need a subject: together they would need more than the stack of 512 bytes.
#[inline(never)]
fn started(entered: &Entered) -> Option<()> {
    let handle = handle_at(entered.handle)?;
    let subject = Subject::current()?;
    transactions::begin(&subject, handle, entered.text, entered.second)
}

/// The handle that `pam_start` put there.
#[inline(always)]
fn handle_at(place: u64) -> Option<u64> {
    let mut handle = 0_u64;
    // SAFETY: a place of 8 bytes; the helper checks the source.
    let failed = unsafe { helpers::bpf_probe_read_user((&raw mut handle).cast(), 8, place as *const _) };
    if failed == 0 { Some(handle) } else { None }
}

#[inline(never)]
fn item_set(entered: &Entered) -> Option<()> {
    let text = text_of_item(entered.flags)?;
    let subject = Subject::current()?;
    let transaction = transactions::find(&subject, entered.handle);
    if !transaction.is_null() {
        transactions::put(transaction, text, entered.text);
    }
    Some(())
}

#[inline(never)]
fn tell(call: u32, entered: &Entered, result: i32) -> Option<()> {
    let subject = Subject::current()?;
    let transaction = transactions::find(&subject, entered.handle);
    counted(call, result, entered.handle, &subject, transaction);
    let time = kernel::now();
    if !emit::wanted(Kind::Pam, &subject, time) {
        return None;
    }
    const LEN: usize = AT + TEXT_BYTES;
    let Some(slot) = emit::reserve::<LEN>(Kind::Pam) else {
        emit::ring_full(Kind::Pam);
        return None;
    };
    let body = slot.body::<Pam>();
    let alone = kernel::has_entry_probes_alone();
    // SAFETY: the slot has the body's size behind the header, and is aligned to 8.
    unsafe {
        (&raw mut (*body).call).write(call);
        (&raw mut (*body).result).write(result);
        (&raw mut (*body).call_flags).write(entered.flags);
        (&raw mut (*body).flags).write(if alone { Pam::FLAG_NO_RESULT } else { 0 });
        (&raw mut (*body).duration).write(if alone { 0 } else { time.saturating_sub(entered.time) });
        (&raw mut (*body).handle).write(entered.handle);
        (&raw mut (*body).mount_namespace).write(mount_namespace().unwrap_or(0));
    }
    // SAFETY: behind the body there is room for the texts.
    unsafe { copy(transaction, body, slot.base.add(AT).cast()) };
    slot.submit(Kind::Pam, &subject, time, LEN, 0);
    Some(())
}

const AT: usize = size_of::<Header>() + size_of::<Pam>();

/// Copies what is known of the transaction into a record.
///
/// # Safety
///
/// `body` is that of a slot, and `texts` has room for all of them.
#[inline(always)]
unsafe fn copy(transaction: *mut Transaction, body: *mut Pam, texts: *mut u64) {
    // SAFETY: the caller's promise; the transaction is a pointer into a map's value.
    unsafe {
        if transaction.is_null() {
            (&raw mut (*body).flags).write((*body).flags | Pam::FLAG_UNTRACKED);
            (&raw mut (*body).transaction).write(0);
            (&raw mut (*body).service_class).write(Service::Other as u32);
            (&raw mut (*body).service).write(Span::EMPTY);
            (&raw mut (*body).user).write(Span::EMPTY);
            (&raw mut (*body).remote_host).write(Span::EMPTY);
            (&raw mut (*body).remote_user).write(Span::EMPTY);
            (&raw mut (*body).terminal).write(Span::EMPTY);
            return;
        }
        (&raw mut (*body).flags).write((*body).flags | (*transaction).bits);
        (&raw mut (*body).transaction).write((*transaction).time);
        (&raw mut (*body).service_class).write((*transaction).service_class);
        let lengths = (*transaction).lengths;
        (&raw mut (*body).service).write(span(0, lengths[0]));
        (&raw mut (*body).user).write(span(1, lengths[1]));
        (&raw mut (*body).remote_host).write(span(2, lengths[2]));
        (&raw mut (*body).remote_user).write(span(3, lengths[3]));
        (&raw mut (*body).terminal).write(span(4, lengths[4]));
        let from = (&raw const (*transaction).texts).cast::<u64>();
        for word in 0..TEXT_BYTES / 8 {
            texts.add(word).write_volatile(from.add(word).read_volatile());
        }
    }
}

#[inline(always)]
fn span(text: usize, length: u8) -> Span {
    Span { start: (AT + TEXT_AT[text]) as u32, len: u32::from(length) }
}

/// Raises the counters of a call, and keeps the transaction's books.
#[inline(never)]
fn counted(call: u32, result: i32, handle: u64, subject: &Subject, transaction: *mut Transaction) -> u32 {
    count(subject, PAM_CALLS + (call & 7));
    if transaction.is_null() {
        count(subject, PAM_UNTRACKED);
        attempt(call, result, subject, Service::Other as u32);
        return 0;
    }
    // SAFETY: a pointer into a map's value.
    let service = class(unsafe { (*transaction).service_class });
    attempt(call, result, subject, service);
    if result != Pam::SUCCESS {
        return 0;
    }
    let first = transactions::origin(transaction, subject, handle);
    // SAFETY: pointers into a map's values. A transaction is one thread's at a time.
    unsafe {
        if call == Call::Authenticate as u32 && !kernel::has_entry_probes_alone() {
            (*transaction).bits |= Pam::FLAG_PROVEN;
            (*first).bits |= Pam::FLAG_PROVEN;
        } else if call == Call::SessionOpen as u32 {
            (*first).sessions += 1;
            count(subject, SESSIONS_OPENED + service);
        } else if call == Call::SessionClose as u32 && (*first).sessions != 0 {
            (*first).sessions -= 1;
            count(subject, SESSIONS_CLOSED + service);
        }
        if (*first).bits & Pam::FLAG_PROVEN != 0 {
            // The proof may have been given to a forked child: sshd's.
            (*transaction).bits |= Pam::FLAG_PROVEN;
        }
    }
    0
}

#[inline(always)]
fn attempt(call: u32, result: i32, subject: &Subject, service: u32) {
    let outcome = if call == Call::Authenticate as u32 {
        if kernel::has_entry_probes_alone() || result == Pam::INCOMPLETE {
            Outcome::Unknown
        } else if result == Pam::SUCCESS {
            Outcome::Success
        } else {
            Outcome::Failure
        }
    } else if call == Call::Account as u32 && result != Pam::SUCCESS {
        Outcome::Denied
    } else {
        return;
    };
    count(subject, AUTH + class(service) * 4 + outcome as u32);
}

/// Inode number of the process's mount namespace.
#[inline(always)]
fn mount_namespace() -> Option<u32> {
    let proxy = Ptr::current().follow(offset!(task_nsproxy))?;
    proxy.follow(offset!(nsproxy_mnt_ns))?.read(offset!(mnt_namespace_inum))
}
