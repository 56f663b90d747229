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

    /// What the command line's parser says, in one line: without how to use the command, which `--help` tells.
    pub(crate) fn command_line(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let told = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
        let lines: Vec<_> =
            told.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
        let line = lines.join("; ");
        let line = line.strip_prefix("error: ").unwrap_or(&line).replace(":; ", ": ").replace("; [", " [");
        Self { status: USAGE, reason: format!("{line}: see `tellwire --help`") }
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
