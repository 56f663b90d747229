//! An audit record: a netlink message whose text the kernel began and a process went on with.
//!
//! `audit(1700000000.123:456): pid=7 uid=0 auid=1000 ses=3 subj=… msg='op=… acct="x" … res=failed'`. What stands
//! before `msg=` the kernel wrote (`audit_log_common_recv_msg`, kernel/audit.c, v6.18); what stands in it, whoever
//! has `CAP_AUDIT_WRITE`. The two are kept apart, so that a process cannot say that it is another one.

use std::borrow::Cow;

use thiserror::Error;

use super::{
    fields::{self, Value},
    kinds::{GROUP_BY_GPASSWD, Kind, LOGIN},
};
use crate::{
    events::{action::Action, text::text},
    redact::Redactor,
};

/// Bytes of `struct nlmsghdr`, include/uapi/linux/netlink.h (v6.18).
const HEADER: usize = 16;

/// What is kept of one value, in bytes: a path at the most.
const VALUE: usize = 4096;

/// Why a message is no record of ours.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum NotARecord {
    #[error("{0} bytes are too few")]
    Short(usize),
    /// It tells of other things.
    #[error("type {0}")]
    OtherType(u16),
    #[error("no time and number")]
    Stamp,
    #[error("no process id")]
    Pid,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: &'static Kind,
    /// By the wall clock, in nanoseconds since 1970; the kernel gives milliseconds.
    pub(crate) time: u64,
    /// Counts the events of the audit subsystem since boot; several records can share one.
    pub(crate) serial: u64,
    /// The process that wrote it, in the host's pid namespace.
    pub(crate) pid: u32,
    /// Its real user.
    pub(crate) uid: Option<u32>,
    pub(crate) login_uid: Option<u32>,
    pub(crate) session_id: Option<u32>,
    /// Of that process, where the reader still found it and asked.
    pub(crate) mount_namespace: Option<u32>,
    pub(crate) message: Message,
}

/// What the process says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// What was done: `PAM:authentication`, `login`, `add-user`.
    pub(crate) op: Option<String>,
    pub(crate) account: Option<String>,
    /// The user that it is about, where it is said by number.
    pub(crate) id: Option<u32>,
    pub(crate) group: Option<String>,
    /// The same by number.
    pub(crate) group_id: Option<u32>,
    /// The program, as it calls itself.
    pub(crate) exe: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) terminal: Option<String>,
    /// PAM modules that agreed, separated by commas.
    pub(crate) grantors: Option<String>,
    pub(crate) is_success: Option<bool>,
}

impl Record {
    /// Reads a message. Any bytes give a record or the reason why not.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, NotARecord> {
        let kind = kind(bytes)?;
        let payload = bytes.get(HEADER..).unwrap_or_default();
        // The kernel may end the text with NUL or a newline.
        let end = payload.iter().rposition(|byte| !matches!(byte, 0 | b'\n')).map_or(0, |last| last + 1);
        let payload = payload.get(..end).unwrap_or_default();
        let (time, serial, rest) = stamp(payload).ok_or(NotARecord::Stamp)?;
        let (outer, inner) = split(rest);
        let mut record = Self {
            kind,
            time,
            serial,
            pid: 0,
            uid: None,
            login_uid: None,
            session_id: None,
            mount_namespace: None,
            message: Message::default(),
        };
        let mut pid = None;
        for (key, value) in fields::of(outer) {
            match key {
                b"pid" => pid = pid.or(value.number()),
                b"uid" => record.uid = record.uid.or(value.number()),
                b"auid" => record.login_uid = record.login_uid.or(value.id()),
                b"ses" => record.session_id = record.session_id.or(value.id()),
                _ => {}
            }
        }
        record.pid = pid.filter(|pid| *pid != 0).ok_or(NotARecord::Pid)?;
        let text = if kind.number == LOGIN { outer } else { inner };
        record.message = Message::parse(text);
        if kind.number == LOGIN {
            // Whose login it is from here on.
            record.message.id = record.login_uid;
        }
        if record.message.is_of_gpasswd(kind) {
            record.kind = &GROUP_BY_GPASSWD;
        }
        if record.kind.is_about_group() {
            record.message.name_group();
        }
        Ok(record)
    }

    /// Without what redaction takes for a secret.
    pub(crate) fn redacted(mut self, redactor: &Redactor) -> Self {
        let Message {
            op,
            account,
            id: _,
            group,
            group_id: _,
            exe,
            hostname,
            address,
            terminal,
            grantors,
            is_success: _,
        } = &mut self.message;
        for value in [op, account, group, exe, hostname, address, terminal, grantors] {
            if let Some(value) = value
                && let Cow::Owned(redacted) = redactor.redacted(value.as_bytes())
            {
                *value = text(&redacted).into_owned();
            }
        }
        self
    }

    /// What tells a record from every other one of this boot, but for those that came twice.
    pub(crate) fn identity(&self) -> (u64, u64, u16) {
        (self.time, self.serial, self.kind.number)
    }
}

impl Message {
    fn parse(bytes: &[u8]) -> Self {
        let mut message = Self::default();
        for (key, value) in fields::of(bytes) {
            match key {
                b"op" => put(&mut message.op, value.plain()),
                b"acct" => put(&mut message.account, value.decoded().as_deref()),
                b"id" => message.id = message.id.or(value.id()),
                b"grp" | b"new_group" => put(&mut message.group, value.decoded().as_deref()),
                b"exe" => put(&mut message.exe, value.decoded().as_deref()),
                b"hostname" => put(&mut message.hostname, value.plain()),
                b"addr" => put(&mut message.address, value.plain()),
                b"terminal" | b"tty" => put(&mut message.terminal, value.plain()),
                b"grantors" => put(&mut message.grantors, value.plain()),
                b"res" | b"result" => message.is_success = message.is_success.or(outcome(value)),
                _ => {}
            }
        }
        message
    }

    /// Whether gpasswd says who became a member of a group, or ceased to be one: as if the group were an account, in
    /// the type that libpam has for accounts (`lib/cleanup.c` and `src/gpasswd.c` of shadow 4.13).
    fn is_of_gpasswd(&self, kind: &Kind) -> bool {
        kind.action == Action::UserAccount
            && self.exe.as_deref().is_some_and(|exe| exe.ends_with("/gpasswd"))
            && self.op.as_deref().is_some_and(|op| !op.starts_with("PAM:"))
    }

    /// Without a group of its own the record has the group where others have the account.
    fn name_group(&mut self) {
        if self.group.is_none() {
            (self.group, self.group_id) = (self.account.take(), self.id.take());
        }
    }
}

/// The first value of a key counts: what a process appends does not change it.
fn put(to: &mut Option<String>, value: Option<&[u8]>) {
    if let (None, Some(value)) = (&to, value) {
        *to = Some(text(value.get(..VALUE).unwrap_or(value)).into_owned());
    }
}

fn outcome(value: Value<'_>) -> Option<bool> {
    match value.plain()? {
        b"success" | b"1" | b"yes" => Some(true),
        b"failed" | b"0" | b"no" => Some(false),
        _ => None,
    }
}

fn kind(bytes: &[u8]) -> Result<&'static Kind, NotARecord> {
    let short = NotARecord::Short(bytes.len());
    let number = bytes.get(4..6).and_then(|bytes| bytes.try_into().ok()).ok_or(short)?;
    let number = u16::from_ne_bytes(number);
    if bytes.len() < HEADER {
        return Err(short);
    }
    Kind::of(number).ok_or(NotARecord::OtherType(number))
}

/// `audit(SECONDS.MILLISECONDS:SERIAL): `, and what follows.
fn stamp(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
    let rest = bytes.strip_prefix(b"audit(")?;
    let end = rest.iter().take(64).position(|byte| *byte == b')')?;
    let (inside, rest) = rest.split_at_checked(end)?;
    let inside = str::from_utf8(inside).ok()?;
    let (time, serial) = inside.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let nanos = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?;
    let time = nanos.checked_add(u64::from(millis.parse::<u16>().ok()?) * 1_000_000)?;
    let rest = rest.strip_prefix(b"):").or_else(|| rest.strip_prefix(b")"))?;
    Some((time, serial.parse().ok()?, rest))
}

/// What the kernel wrote, and what a process did.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    const MESSAGE: &[u8] = b" msg='";
    let Some(at) = bytes.windows(MESSAGE.len()).position(|part| part == MESSAGE) else { return (bytes, &[]) };
    let outer = bytes.get(..at).unwrap_or_default();
    let inner = bytes.get(at + MESSAGE.len()..).unwrap_or_default();
    // The kernel's own end: there can be more such signs in the text.
    (outer, inner.strip_suffix(b"'").unwrap_or(inner))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
