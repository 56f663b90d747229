//! Authentication: a call of libpam with what is known of its transaction.

use tellwire_ebpf::pam::{Call, Pam as Wire};

use super::{DecodeError, Tail};

/// A call that has returned.
#[derive(Debug)]
pub(crate) struct Pam<'a> {
    pub(crate) wire: Wire,
    pub(crate) call: Call,
    pub(crate) service: &'a [u8],
    /// The account that the transaction is about; empty where it is not known, or withheld.
    pub(crate) user: &'a [u8],
    pub(crate) remote_host: &'a [u8],
    pub(crate) remote_user: &'a [u8],
    pub(crate) terminal: &'a [u8],
}

impl<'a> Pam<'a> {
    pub(super) fn new(wire: Wire, tail: Tail<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            call: Call::from_number(wire.call).ok_or(DecodeError::Number(wire.call))?,
            service: tail.get(wire.service)?,
            user: tail.get(wire.user)?,
            remote_host: tail.get(wire.remote_host)?,
            remote_user: tail.get(wire.remote_user)?,
            terminal: tail.get(wire.terminal)?,
            wire,
        })
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.wire.flags & flag != 0
    }

    /// What the call returned; `None` where that is not known.
    pub(crate) fn result(&self) -> Option<i32> {
        (!self.has(Wire::FLAG_NO_RESULT)).then_some(self.wire.result)
    }

    /// Whether the call went well: `None` where that is not known yet.
    pub(crate) fn is_success(&self) -> Option<bool> {
        self.result().filter(|result| *result != Wire::INCOMPLETE).map(|result| result == Wire::SUCCESS)
    }
}
