//! Authentication: the calls that programs make of libpam, found in user space by uprobes on the library's file.
//!
//! `transactions` keeps what is known between `pam_start` and `pam_end`; `calls` tells each call when it returns.
//! Names of items, results and flags are those of Linux-PAM's `security/_pam_types.h` (1.5.2).

use crate::wire::{Span, names, wire};

#[cfg(target_arch = "bpf")]
mod calls;
#[cfg(target_arch = "bpf")]
mod transactions;

names! {
    /// A call that is told; an offset from [`crate::counters::PAM_CALLS`]. The name is the line's `event.action`.
    pub enum Call {
        Authenticate = 0 => "pam_authenticate",
        Account = 1 => "pam_account",
        Setcred = 2 => "pam_setcred",
        SessionOpen = 3 => "pam_session_open",
        SessionClose = 4 => "pam_session_close",
        Chauthtok = 5 => "pam_chauthtok",
    }
}

names! {
    /// Services as metrics have them, by the name that was given to `pam_start`.
    pub enum Service {
        Sshd = 0 => "sshd",
        /// `sudo` and `sudo-i`.
        Sudo = 1 => "sudo",
        /// `su`, `su-l`, `runuser` and `runuser-l`.
        Su = 2 => "su",
        /// `login` and `remote`.
        Login = 3 => "login",
        Other = 4 => "other",
    }
}

names! {
    /// What came of an attempt; an offset from [`crate::counters::AUTH`] and four times the service.
    pub enum Outcome {
        /// `pam_authenticate` accepted the proof.
        Success = 0 => "success",
        /// `pam_authenticate` refused.
        Failure = 1 => "failure",
        /// `pam_acct_mgmt` refused the account, whatever the proof.
        Denied = 2 => "denied",
        /// `pam_authenticate` was called, and its result is not known: it asked to be called again, or the returns of
        /// functions are not probed.
        Unknown = 3 => "unknown",
    }
}

/// Transactions that there is room for.
pub const TRANSACTIONS: u32 = 4096;

/// Texts of a transaction: service, user, remote host, remote user, terminal.
pub const TEXTS: usize = 5;

/// Where each text stands in [`Transaction::texts`].
pub const TEXT_AT: [usize; TEXTS] = [0, 32, 96, 160, 192];

/// Bytes of each text, its NUL included.
pub const TEXT_SIZE: [usize; TEXTS] = [32, 64, 64, 32, 32];

/// Bytes of all texts.
pub const TEXT_BYTES: usize = 224;

wire! {
    /// The body of a PAM record. The texts are the bytes that the program handed over, cut to [`TEXT_SIZE`].
    pub struct Pam {
        /// A [`Call`].
        pub call: u32,
        /// What the call returned, see `Pam::FLAG_NO_RESULT`.
        pub result: i32,
        /// The call's own flags, such as `PAM_SILENT`.
        pub call_flags: u32,
        /// `Pam::FLAG_*`, and what became of the texts: see [`Transaction::bits`].
        pub flags: u32,
        /// From entry to return, in nanoseconds; 0 without a result.
        pub duration: u64,
        /// The `pam_handle_t *`.
        pub handle: u64,
        /// When `pam_start` returned, CLOCK_BOOTTIME in nanoseconds; 0 where that was not seen.
        pub transaction: u64,
        /// Inode number of the process's mount namespace; 0 where it could not be read.
        pub mount_namespace: u32,
        /// A [`Service`].
        pub service_class: u32,
        pub service: Span,
        pub user: Span,
        pub remote_host: Span,
        pub remote_user: Span,
        pub terminal: Span,
    }

    /// What is known of a handle from `pam_start` to `pam_end`.
    pub struct Transaction {
        /// Start of the process, CLOCK_BOOTTIME in nanoseconds: a process id comes again.
        pub process_start: u64,
        /// When it began, CLOCK_BOOTTIME in nanoseconds.
        pub time: u64,
        /// The process that called `pam_start`; another one has the handle from it by fork.
        pub origin: u32,
        /// Bit n: text n could not be read. Bit 8 + n: text n was cut. Higher ones are `Pam::FLAG_*`.
        pub bits: u32,
        /// Sessions that are open; kept in the entry of `origin`.
        pub sessions: u32,
        /// A [`Service`].
        pub service_class: u32,
        /// Length of each text, without its NUL; the last three are not used.
        pub lengths: [u8; 8],
        pub texts: [u8; 224],
    }

    /// Key of a transaction. A forked child has the handle at the same address, in a process of its own.
    pub struct TransactionKey {
        /// The `pam_handle_t *`.
        pub handle: u64,
        pub tgid: u32,
        pub reserved: u32,
    }

    /// A call that has not returned.
    pub struct EnteredKey {
        pub tid: u32,
        /// A [`Call`], or one of the numbers behind them that make no record.
        pub call: u32,
        /// Where the stack stood at the function's first instruction: a module may call the function again.
        pub stack: u64,
    }

    /// What is kept from a call's entry to its return. `text` and `second` are pointers into the caller's memory.
    pub struct Entered {
        /// Start of the process, CLOCK_BOOTTIME in nanoseconds: a thread id comes again.
        pub process_start: u64,
        /// CLOCK_BOOTTIME in nanoseconds.
        pub time: u64,
        /// The handle; of `pam_start`, where it will be put.
        pub handle: u64,
        pub text: u64,
        pub second: u64,
        /// The call's flags; of `pam_set_item`, the type of the item.
        pub flags: u32,
        pub reserved: u32,
    }
}

impl Pam {
    /// `pam_start` was not seen, or there was no room for its transaction: no text is known.
    pub const FLAG_UNTRACKED: u32 = 1 << 16;
    /// The returns of functions are not probed.
    pub const FLAG_NO_RESULT: u32 = 1 << 17;
    /// `pam_authenticate` has succeeded in this transaction, this call included.
    pub const FLAG_PROVEN: u32 = 1 << 18;
    /// The user's name was there and is taken out: see the section `auth` of the configuration. Set by the agent.
    pub const FLAG_WITHHELD: u32 = 1 << 19;

    /// Bit of the first text that could not be read, and of the first that was cut.
    pub const UNREADABLE: u32 = 1;
    pub const CUT: u32 = 1 << 8;

    /// `PAM_SUCCESS`.
    pub const SUCCESS: i32 = 0;
    /// `PAM_INCOMPLETE`: call again.
    pub const INCOMPLETE: i32 = 31;
    /// `PAM_DATA_SILENT`, or-ed to the status of `pam_end`: a forked child lets go of its copy.
    pub const DATA_SILENT: u32 = 0x4000_0000;
}

/// Numbers of calls that make no record, behind those of [`Call`].
pub const START: u32 = 6;
pub const SET_ITEM: u32 = 7;

#[cfg(all(test, not(target_arch = "bpf")))]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_one_behind_the_other() {
        let mut at = 0;
        for (start, size) in TEXT_AT.iter().zip(TEXT_SIZE) {
            assert_eq!(*start, at);
            at += size;
        }
        assert_eq!(at, TEXT_BYTES);
    }
}
