//! The section `auth`: logins and the like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::UnknownUserNames;
use super::values::{Count, Size, Time};

/// Logins, failed ones too, and who becomes somebody else. docs/auth.md and docs/audit.md say what is seen and what
/// is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the file")]
pub(crate) struct Auth {
    /// Whether calls of libpam are told, on the host and in every container: each libpam is found and probed, at some
    /// microseconds for each call of it.
    pub(crate) pam: bool,
    /// Whether the returns of libpam's functions are probed as well. Without it calls are told without their results,
    /// and a name that is asked for is not known. Where a probed return would end confined processes, as on some
    /// kernels from 6.11 to 6.13, the agent finds that out at start and does without by itself.
    pub(crate) library_returns: bool,
    /// Whether libpam is looked for in each overlay that is mounted on the host, which is before the container starts
    /// that it is for: so its first login is seen however soon it comes.
    pub(crate) watch_mounts: bool,
    /// Whether the kernel's audit records of authentication and accounts are read: what sshd, libpam, sudo and others
    /// report. They are read beside auditd or without it, by the multicast group, and take `CAP_AUDIT_READ`.
    pub(crate) audit: bool,
    /// Whether the agent switches the kernel's auditing on where it is off, for as long as it runs; without it, where
    /// no auditd has done so, programs' reports are dropped in the kernel. It is for the whole machine, and takes
    /// `CAP_AUDIT_CONTROL`. An agent that is killed leaves it on until the next start.
    pub(crate) audit_enable: bool,
    /// What the kernel keeps of audit records until the agent reads them, in bytes. Records beyond are lost, counted.
    pub(crate) audit_buffer_bytes: Size<4096, { 64 << 20 }>,
    /// What is told of a user name that is in no passwd file of the host or of the container, and that has never
    /// succeeded: people type passwords where they are asked for their name. "withhold" takes it out of everything,
    /// recordings too, "show" tells it.
    pub(crate) unknown_user_names: UnknownUserNames,
    /// So many failed authentications from one address, or for one user, within the window are a burst.
    pub(crate) burst_failures: Count<2, 10_000>,
    /// The window. A burst is over when none has failed for as long.
    pub(crate) burst_window: Time<1_000, 3_600_000>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            pam: true,
            library_returns: true,
            watch_mounts: true,
            audit: true,
            audit_enable: false,
            audit_buffer_bytes: const { Size::new(1 << 20) },
            unknown_user_names: UnknownUserNames::Withhold,
            burst_failures: const { Count::new(10) },
            burst_window: const { Time::from_millis(60_000) },
        }
    }
}
