//! The section `auth`: logins and the like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::UnknownUserNames;

/// Logins, failed ones too, and who becomes somebody else. docs/auth.md says what is seen and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Auth {
    /// Whether calls of libpam are told, on the host and in every container: each libpam is found and probed, at some
    /// microseconds for each call of it.
    pub(crate) pam: bool,
    /// What is told of a user name that is in no passwd file of the host or of the container, and that has never
    /// succeeded: people type passwords where they are asked for their name. "withhold" takes it out of everything,
    /// recordings too, "show" tells it.
    pub(crate) unknown_user_names: UnknownUserNames,
}

impl Default for Auth {
    fn default() -> Self {
        Self { pam: true, unknown_user_names: UnknownUserNames::Withhold }
    }
}
