//! Lines to stdout.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use super::writer::{Target, Trouble, write};
use crate::config::Style;

/// Whether stdout gets lines for people.
pub(super) fn is_pretty(style: Style) -> bool {
    match style {
        Style::Auto => io::stdout().is_terminal(),
        Style::Pretty => true,
        Style::Json => false,
    }
}

/// Not [`io::Stdout`], whose lock a stalled reader would hold against everyone else.
pub(super) struct Stdout(File);

impl Stdout {
    pub(super) fn open() -> io::Result<Self> {
        io::stdout().as_fd().try_clone_to_owned().map(|fd| Self(fd.into()))
    }
}

impl From<File> for Stdout {
    fn from(file: File) -> Self {
        Self(file)
    }
}

impl Target for Stdout {
    fn write(&mut self, bytes: &[u8], from: usize) -> (usize, Result<(), Trouble>) {
        let (upto, result) = write(&self.0, bytes, from);
        let trouble = |error: io::Error| match error.kind() {
            // Stdout is shared with other processes, and one of them made it non-blocking.
            io::ErrorKind::WouldBlock => Trouble::Again,
            io::ErrorKind::BrokenPipe => Trouble::Gone(error),
            _ => Trouble::Retry(error),
        };
        (upto, result.map_err(trouble))
    }
}
