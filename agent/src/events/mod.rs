//! Events: a record's bytes become an [`Event`], or an error that is counted. Never a panic.
//!
//! One file per family; the names are those of `agent-ebpf/src`. Events borrow from the record.

pub(crate) mod action;
pub(crate) mod exec;
pub(crate) mod pam;
pub(crate) mod paths;
pub(crate) mod text;
pub(crate) mod texts;

use tellwire_ebpf::{
    cgroup::Cgroup,
    close::Close,
    exec as wire_exec, exec_failed as wire_failed,
    network::Connect,
    pam::Pam as WirePam,
    privilege::{Call, Credentials},
    process::{Exit, Fork},
    wire::{Header, Kind, Span, VERSION},
};
use thiserror::Error;
use zerocopy::FromBytes;

use self::{
    exec::{Exec, ExecFailed},
    pam::Pam,
};

/// Why bytes are no event.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    #[error("{0} bytes are too few")]
    Short(usize),
    #[error("wire version {0}, not {VERSION}")]
    Version(u8),
    #[error("no record kind {0}")]
    Kind(u8),
    #[error("bytes {0}..+{1} are outside the record")]
    Span(u32, u32),
    #[error("{0} is none of the numbers known")]
    Number(u32),
}

/// What a record tells.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Fork(Fork),
    Exec(Exec<'a>),
    ExecFailed(ExecFailed<'a>),
    Exit(Exit),
    Connect(Connect),
    Close(Close),
    Credentials(Call, Credentials),
    Pam(Pam<'a>),
    CgroupMkdir(Cgroup, &'a [u8]),
    CgroupRmdir(Cgroup),
}

/// Decodes a record.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Header, Event<'_>), DecodeError> {
    let (header, rest) = Header::read_from_prefix(bytes).or(Err(DecodeError::Short(bytes.len())))?;
    if header.version != VERSION {
        return Err(DecodeError::Version(header.version));
    }
    let kind = Kind::from_number(header.kind.into()).ok_or(DecodeError::Kind(header.kind))?;
    let tail = Tail(bytes);
    let event = match kind {
        Kind::Fork => Event::Fork(body(rest)?),
        Kind::Exec => Event::Exec(Exec::new(body::<wire_exec::Exec>(rest)?, tail)?),
        Kind::ExecFailed => Event::ExecFailed(ExecFailed::new(body::<wire_failed::ExecFailed>(rest)?, tail)?),
        Kind::Exit => Event::Exit(body(rest)?),
        Kind::Connect => Event::Connect(body(rest)?),
        Kind::Close => Event::Close(body(rest)?),
        Kind::Credentials => {
            let credentials: Credentials = body(rest)?;
            let call = Call::from_number(credentials.call).ok_or(DecodeError::Number(credentials.call))?;
            Event::Credentials(call, credentials)
        }
        Kind::Pam => Event::Pam(Pam::new(body::<WirePam>(rest)?, tail)?),
        Kind::CgroupMkdir => {
            let cgroup: Cgroup = body(rest)?;
            Event::CgroupMkdir(cgroup, tail.get(cgroup.path)?)
        }
        Kind::CgroupRmdir => Event::CgroupRmdir(body(rest)?),
    };
    Ok((header, event))
}

fn body<T: FromBytes>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_prefix(bytes).map(|(body, _)| body).or(Err(DecodeError::Short(bytes.len())))
}

/// The record's bytes, for its spans.
#[derive(Clone, Copy)]
pub(crate) struct Tail<'a>(&'a [u8]);

impl<'a> Tail<'a> {
    pub(crate) fn get(self, span: Span) -> Result<&'a [u8], DecodeError> {
        let Span { start, len } = span;
        let end = start.checked_add(len).ok_or(DecodeError::Span(start, len))?;
        self.0.get(start as usize..end as usize).ok_or(DecodeError::Span(start, len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_decode_to_an_event_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..1200), kind in 0_u8..12, known in any::<bool>()) {
            if known && bytes.len() > 6 {
                bytes[4] = VERSION;
                bytes[5] = kind;
            }
            // Everything that is lazy in an event is looked at.
            if let Ok((_, Event::Exec(exec))) = decode(&bytes) {
                prop_assert!(exec.args().count() <= bytes.len());
                prop_assert!(!exec.executable.to_string().is_empty());
                prop_assert!(!exec.working_directory.to_string().is_empty());
            }
        }
    }

    #[test]
    fn a_record_of_another_build_is_refused() {
        let mut bytes = vec![0; 400];
        bytes[4] = VERSION + 1;
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Version(VERSION + 1));
    }
}
