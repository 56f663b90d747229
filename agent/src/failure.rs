//! How the agent ends when it cannot go on: one line, and an exit status that scripts can rely on.

use std::{fmt, process::ExitCode};

/// sysexits.h; 77 is for a missing privilege.
const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const SOFTWARE: u8 = 70;
const PRIVILEGE: u8 = 77;

/// Why, and with which status.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    reason: String,
}

impl Failure {
    /// The command line or the configuration makes no sense.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(USAGE, error)
    }

    /// The kernel does not offer what it takes.
    pub(crate) fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self::new(UNAVAILABLE, error)
    }

    /// Ours to mend.
    pub(crate) fn bug(error: impl Into<anyhow::Error>) -> Self {
        Self::new(SOFTWARE, error)
    }

    /// The process may not do what it must.
    pub(crate) fn privilege(error: impl Into<anyhow::Error>) -> Self {
        Self::new(PRIVILEGE, error)
    }

    fn new(status: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { status, reason: format!("{:#}", error.into()) }
    }

    pub(crate) fn status(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}
