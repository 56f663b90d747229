//! Facts of the family `auth`, and how they look to a person.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Line,
    fields::{Id, User},
};

/// A group, as the program names it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Group {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

/// What an audit record says.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AuditFacts {
    /// Its type, as auditd writes it: `USER_LOGIN`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Its number, as in auditd's log: `audit(TIME:SERIAL)`.
    pub(crate) serial: u64,
    /// What was done: `PAM:authentication`, `login`, `add-user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) op: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) terminal: Option<String>,
    /// PAM modules that agreed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) grantors: Vec<String>,
    /// The program, as it calls itself, where it is not known otherwise or is known otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exe: Option<String>,
    /// `userspace`: a program with `CAP_AUDIT_WRITE` said so, and only its process and its login are the kernel's word.
    /// `kernel`: all of it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evidence: Option<&'static str>,
}

/// Who is behind a process that acts as somebody else than the user who logged in.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LoginFacts {
    /// The user who logged in.
    pub(crate) user: User,
    /// How they came to be somebody else, the latest first.
    pub(crate) path: Vec<LoginStep>,
}

/// A program that made somebody of somebody else.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LoginStep {
    /// `sudo`, `su`.
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// Who ran it.
    pub(crate) by: Id,
}

/// Many failed authentications within a short time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct BruteforceFacts {
    /// What the failures have in common: `source` or `user`.
    pub(crate) by: &'static str,
    /// `begun`, `succeeded` where one of them succeeded after all, or `ended` after a window without a failure.
    pub(crate) state: &'static str,
    pub(crate) failures: u64,
    /// Different names of users that were tried, up to 64.
    pub(crate) users: u32,
    /// Different addresses that it came from, up to 64. Of IPv6 each network of 64 bits is one.
    pub(crate) sources: u32,
    /// RFC 3339.
    pub(crate) first: String,
    pub(crate) last: String,
    /// An authentication from there, or of that user, succeeded since it began.
    pub(crate) succeeded: bool,
}

/// For a person at a terminal; nothing for lines of other families.
pub(super) fn summary(line: &Line<'_>) -> Option<String> {
    let address = || {
        let source = line.source.as_ref()?;
        source.ip.map(|ip| ip.to_string()).or_else(|| source.address.clone())
    };
    let from = address().map_or_else(String::new, |address| format!(" from {address}"));
    if let Some(burst) = &line.tellwire.bruteforce {
        let BruteforceFacts { state, failures, users, sources, .. } = burst.as_ref();
        return Some(format!("{failures} failures, {users} users, {sources} addresses{from}: {state}"));
    }
    let audit = line.tellwire.audit.as_ref()?;
    let op = audit.op.as_deref().unwrap_or(audit.kind);
    Some(format!("{op} {}{from}", line.event.outcome.unwrap_or_default()))
}
