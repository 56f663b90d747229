//! What is known of a handle: kept from `pam_start` on, added to by `pam_set_item`, let go by `pam_end`.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};

use super::{Pam, Service, TEXT_AT, Transaction, TransactionKey};
use crate::{
    counters::{PAM_REFUSED, SESSIONS_CLOSED, count},
    kernel::{self, Pointer as _, Ptr, copy_user_str, offset},
    wire::Subject,
};

/// Written when `pam_start` returns, over what is there, and by the first call of a forked child. Removed by
/// `pam_end`; the agent sweeps those of processes that have ended. Where it is full, calls are told without names.
#[map]
static TRANSACTIONS: HashMap<TransactionKey, Transaction> = HashMap::with_max_entries(super::TRANSACTIONS, 0);

/// Nothing, to begin with: a value of this size has no room on the stack. Never written.
#[map]
static NO_TRANSACTION: Array<Transaction> = Array::with_max_entries(1, 0);

/// Generations of processes that a handle is looked for in: who forked, and who forked that one.
const ANCESTORS: usize = 3;

/// The items of a transaction that are looked at, by their numbers as texts. All others, passwords above all, are never
/// read.
#[inline(always)]
pub(super) fn text_of_item(item: u32) -> Option<u32> {
    match item {
        // PAM_SERVICE, PAM_USER, PAM_RHOST, PAM_RUSER, PAM_TTY.
        1 => Some(0),
        2 => Some(1),
        4 => Some(2),
        8 => Some(3),
        3 => Some(4),
        _ => None,
    }
}

/// Begins a transaction; `service` and `user` are the caller's strings.
#[inline(never)]
pub(super) fn begin(subject: &Subject, handle: u64, service: u64, user: u64) -> Option<()> {
    let key = TransactionKey { handle, tgid: subject.tgid, reserved: 0 };
    if let Some(old) = TRANSACTIONS.get_ptr(&key) {
        // SAFETY: a pointer into a map's value.
        end_sessions(subject, unsafe { &*old });
    }
    let nothing = NO_TRANSACTION.get(0)?;
    if TRANSACTIONS.insert(&key, nothing, 0).is_err() {
        count(subject, PAM_REFUSED);
        return None;
    }
    let transaction = TRANSACTIONS.get_ptr_mut(&key)?;
    // SAFETY: a pointer into a map's value, which no other thread knows of yet.
    unsafe {
        (*transaction).process_start = subject.start;
        (*transaction).time = kernel::now();
        (*transaction).origin = subject.tgid;
        (*transaction).service_class = Service::Other as u32;
    }
    put(transaction, 0, service);
    put(transaction, 1, user);
    Some(())
}

/// Puts one of the caller's strings in the place of a text. A null pointer is no text.
#[inline(never)]
pub(super) fn put(transaction: *mut Transaction, text: u32, from: u64) -> u32 {
    match text {
        0 => {
            place::<0, 32>(transaction, from);
            classify(transaction);
        }
        1 => place::<1, 64>(transaction, from),
        2 => place::<2, 64>(transaction, from),
        3 => place::<3, 32>(transaction, from),
        _ => place::<4, 32>(transaction, from),
    }
    0
}

#[inline(always)]
fn place<const TEXT: usize, const SIZE: usize>(transaction: *mut Transaction, from: u64) {
    // SAFETY: a pointer into a map's value; the text's place is in it.
    let to = unsafe { (&raw mut (*transaction).texts).cast::<u8>().add(TEXT_AT[TEXT]) };
    for word in 0..SIZE / 8 {
        // SAFETY: as above; the texts are aligned to 8.
        unsafe { to.cast::<u64>().add(word).write_volatile(0) };
    }
    let (mut bits, mut length) = (0, 0);
    if from != 0 {
        // SAFETY: the place has that size.
        match unsafe { copy_user_str::<SIZE>(from, to) } {
            Some(len) => {
                length = (len - 1) as u8;
                if len == SIZE {
                    bits = Pam::CUT << TEXT;
                }
            }
            None => bits = Pam::UNREADABLE << TEXT,
        }
    }
    // SAFETY: a pointer into a map's value.
    unsafe {
        (*transaction).lengths[TEXT] = length;
        let others = (*transaction).bits & !((Pam::CUT | Pam::UNREADABLE) << TEXT);
        (*transaction).bits = others | bits;
    }
}

#[inline(always)]
fn classify(transaction: *mut Transaction) {
    const fn word(name: [u8; 8]) -> u64 {
        u64::from_le_bytes(name)
    }
    // SAFETY: a pointer into a map's value; the service stands first, and is aligned to 8.
    let (name, rest) = unsafe {
        let words = (&raw const (*transaction).texts).cast::<u64>();
        (words.read_volatile(), words.add(1).read_volatile())
    };
    let service = if rest == 0 {
        match name {
            n if n == word(*b"sshd\0\0\0\0") => Service::Sshd,
            n if n == word(*b"sudo\0\0\0\0") || n == word(*b"sudo-i\0\0") => Service::Sudo,
            n if n == word(*b"su\0\0\0\0\0\0") || n == word(*b"su-l\0\0\0\0") => Service::Su,
            n if n == word(*b"runuser\0") => Service::Su,
            n if n == word(*b"login\0\0\0") || n == word(*b"remote\0\0") => Service::Login,
            _ => Service::Other,
        }
    } else if name == word(*b"runuser-") && rest == word(*b"l\0\0\0\0\0\0\0") {
        Service::Su
    } else {
        Service::Other
    };
    // SAFETY: a pointer into a map's value.
    unsafe { (*transaction).service_class = service as u32 };
}

/// The transaction of a handle that this process has, or has from an ancestor: then this process gets one of its own,
/// since what it sets from here on is its own.
#[inline(never)]
pub(super) fn find(subject: &Subject, handle: u64) -> *mut Transaction {
    // A null pointer in the place of an option: a function returns one register.
    search(subject, handle).unwrap_or_default()
}

#[inline(always)]
fn search(subject: &Subject, handle: u64) -> Option<*mut Transaction> {
    let key = TransactionKey { handle, tgid: subject.tgid, reserved: 0 };
    if let Some(transaction) = TRANSACTIONS.get_ptr_mut(&key)
        // SAFETY: a pointer into a map's value.
        && unsafe { (*transaction).process_start } == subject.start
    {
        return Some(transaction);
    }
    let mut task = Ptr::current();
    for _ in 0..ANCESTORS {
        task = task.follow(offset!(task_real_parent))?;
        let tgid = task.read::<u32>(offset!(task_tgid))?;
        let Some(theirs) = TRANSACTIONS.get_ptr_mut(TransactionKey { handle, tgid, reserved: 0 }) else {
            continue;
        };
        let start = task.follow(offset!(task_group_leader))?.read::<u64>(offset!(task_start_boottime))?;
        // SAFETY: a pointer into a map's value.
        if unsafe { (*theirs).process_start } != start {
            continue;
        }
        // SAFETY: as above.
        if TRANSACTIONS.insert(&key, unsafe { &*theirs }, 0).is_err() {
            return Some(theirs);
        }
        let own = TRANSACTIONS.get_ptr_mut(&key)?;
        // SAFETY: a pointer into a map's value, which no other thread knows of yet.
        unsafe {
            (*own).process_start = subject.start;
            (*own).sessions = 0;
        }
        return Some(own);
    }
    None
}

/// The entry that keeps the sessions of a transaction: that of the process which began it, or this one if that is gone.
#[inline(always)]
pub(super) fn origin(transaction: *mut Transaction, subject: &Subject, handle: u64) -> *mut Transaction {
    // SAFETY: a pointer into a map's value.
    let tgid = unsafe { (*transaction).origin };
    if tgid == subject.tgid {
        return transaction;
    }
    let Some(first) = TRANSACTIONS.get_ptr_mut(TransactionKey { handle, tgid, reserved: 0 }) else {
        return transaction;
    };
    // SAFETY: as above. They are one transaction if they began as one.
    if unsafe { (*first).time == (*transaction).time } { first } else { transaction }
}

/// Lets go of this process's entry.
#[inline(never)]
pub(super) fn end(subject: &Subject, handle: u64) -> u32 {
    let key = TransactionKey { handle, tgid: subject.tgid, reserved: 0 };
    if let Some(transaction) = TRANSACTIONS.get_ptr(&key) {
        // SAFETY: a pointer into a map's value.
        end_sessions(subject, unsafe { &*transaction });
        let _gone = TRANSACTIONS.remove(&key);
    }
    0
}

/// What is open when its transaction ends is closed by nobody any more.
#[inline(always)]
fn end_sessions(subject: &Subject, transaction: &Transaction) {
    if transaction.sessions != 0 {
        crate::counters::count_by(
            subject,
            SESSIONS_CLOSED + class(transaction.service_class),
            u64::from(transaction.sessions),
        );
    }
}

/// The service's number, with a bound that the verifier knows.
#[inline(always)]
pub(super) fn class(service: u32) -> u32 {
    if service <= Service::Other as u32 { service } else { Service::Other as u32 }
}
