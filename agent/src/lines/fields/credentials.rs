//! Credentials of a process before and after a call.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Capabilities, Id};

/// Credentials before and after.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CredentialFacts {
    pub(crate) old: Credentials,
    pub(crate) new: Credentials,
    /// The ids that the call asked for, as the caller's user namespace has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) asked: Vec<String>,
    /// How the change was seen: `call`, or `comparison` where the process simply had other ids.
    pub(crate) evidence: &'static str,
}

/// Ids of the host's own namespace; groups and capabilities where the call is about them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Credentials {
    pub(crate) uid: Id,
    pub(crate) euid: Id,
    pub(crate) suid: Id,
    pub(crate) fsuid: Id,
    pub(crate) gid: Id,
    pub(crate) egid: Id,
    pub(crate) sgid: Id,
    pub(crate) fsgid: Id,
    /// Number of supplementary groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) groups: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
    /// The capabilities that it can come to have: the bounding set, where that grew, which no call can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bounding: Option<Vec<&'static str>>,
    /// Inode number of the user namespace that the bounding set is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_namespace: Option<u32>,
}
