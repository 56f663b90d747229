//! What ECS has no name for, of authentication.

use schemars::JsonSchema;
use serde::Serialize;

/// An attempt to be somebody, or what follows from it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AuthFacts {
    /// What the program called itself to PAM, such as `sshd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tty: Option<String>,
    /// The user on the other side, as the program tells it: of `sudo` and `su` who calls them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_user: Option<String>,
    /// The program asked PAM to say nothing to the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) silent: Option<bool>,
    /// Whether `pam_authenticate` had accepted a proof in this transaction: a session that is opened without one was
    /// opened by other means, such as a key that sshd checks itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proof: Option<bool>,
    /// The same on all lines from `pam_start` to `pam_end`, those of forked children too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transaction: Option<String>,
    /// A user name was given that is no known user: see `auth.unknown-user-names`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_withheld: Option<bool>,
    /// The transaction's beginning was not seen, so no name of it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) untracked: Option<bool>,
    /// What could not be read from the program's memory: `service`, `user`, `remote_host`, `remote_user` or `tty`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unreadable: Vec<&'static str>,
    /// What was longer than a record holds, and is cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) truncated: Vec<&'static str>,
    /// Who reported it: `pam`.
    pub(crate) sources: [&'static str; 1],
}
