//! Lines to stdout.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use super::Batch;
use super::writer::{Target, Trouble, Written, write};
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
    fn write(&mut self, batch: &Batch, from: usize) -> Written {
        let (upto, result) = write(&self.0, &batch.bytes, from);
        // Would it block, another process that shares stdout has made it so.
        let trouble = |error: io::Error| match error.kind() {
            io::ErrorKind::BrokenPipe => Trouble::Gone(error),
            _ => error.into(),
        };
        Written::new(upto, result.map_err(trouble))
    }
}
