//! Lines to a file.
//!
//! Whole lines only: what a full disk cuts off is taken back. A file that was moved or deleted is
//! made anew.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::writer::{Target, Trouble, write};

/// For root and the group that may read logs.
const MODE: u32 = 0o640;

pub(super) struct Appender {
    path: PathBuf,
    file: File,
    identity: Identity,
    /// The last write failed: open it again.
    is_suspect: bool,
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

impl Appender {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, identity) = open(path)?;
        Ok(Self { path: path.into(), file, identity, is_suspect: false })
    }

    /// Writes to what is at the path now. Says from where on to write there.
    fn follow(&mut self, bytes: &[u8], from: usize) -> io::Result<usize> {
        let is_there = fs::metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if is_there && !self.is_suspect {
            return Ok(from);
        }
        let (file, identity) = open(&self.path)?;
        let is_same = identity == self.identity;
        (self.file, self.identity, self.is_suspect) = (file, identity, false);
        Ok(if is_same { from } else { line_start(bytes, from) })
    }

    /// Takes back the part of a line that ends the file. `before` is how long the file was, and
    /// `from` to `upto` is what was written since. Says from where on to go on.
    fn take_back(&self, before: u64, bytes: &[u8], from: usize, upto: usize) -> usize {
        let start = line_start(bytes, upto);
        // What cannot be taken back is finished first.
        if start >= from && self.cut(before, (start - from) as u64, (upto - from) as u64).is_some() {
            start
        } else {
            upto
        }
    }

    /// Cuts off what follows the first `keep` of the `written` bytes.
    fn cut(&self, before: u64, keep: u64, written: u64) -> Option<()> {
        let metadata = self.file.metadata().ok().filter(Metadata::is_file)?;
        // Else someone else writes to it too, and what would be cut is theirs.
        let is_ours = metadata.len() == before + written;
        is_ours.then(|| self.file.set_len(before + keep).ok()).flatten()
    }

    fn append(&mut self, bytes: &[u8], from: usize) -> (usize, io::Result<()>) {
        let from = match self.follow(bytes, from) {
            Ok(from) => from,
            Err(error) => return (from, Err(error)),
        };
        let before = match self.file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return (from, Err(error)),
        };
        match write(&self.file, bytes, from) {
            (upto, Ok(())) => (upto, Ok(())),
            (upto, Err(error)) => {
                self.is_suspect = true;
                (self.take_back(before, bytes, from, upto), Err(error))
            }
        }
    }
}

impl Target for Appender {
    fn write(&mut self, bytes: &[u8], from: usize) -> (usize, Result<(), Trouble>) {
        let (upto, result) = self.append(bytes, from);
        (upto, result.map_err(Trouble::Retry))
    }
}

fn open(path: &Path) -> io::Result<(File, Identity)> {
    // Opening a FIFO would wait for its reader.
    if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Err(io::Error::other("a FIFO is no file: write to stdout and pipe that"));
    }
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, identity(&metadata)))
}

/// Where the line that holds the byte before `upto`, or ends there, begins; `upto` if it ends there.
fn line_start(bytes: &[u8], upto: usize) -> usize {
    let before = bytes.get(..upto).unwrap_or(bytes);
    before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Appender, Target as _, line_start};

    #[test]
    fn a_line_starts_after_the_newline_before_it() {
        let starts: Vec<_> = (0..=7).map(|upto| line_start(b"ab\ncd\ne", upto)).collect();
        assert_eq!(starts, [0, 0, 0, 3, 3, 3, 6, 6]);
    }

    #[test]
    fn lines_are_appended_and_others_cannot_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        for _ in 0..2 {
            let (upto, result) = Appender::open(&path).unwrap().write(b"one\ntwo\n", 0);
            result.unwrap();
            assert_eq!(upto, 8);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\none\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn half_a_line_is_taken_back_unless_someone_else_writes_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let bytes = b"one\ntwo\n";
        let file = Appender::open(&path).unwrap();
        fs::write(&path, "zero\none\ntw").unwrap();
        assert_eq!(file.take_back(5, bytes, 0, 6), 4);
        assert_eq!(fs::read_to_string(&path).unwrap(), "zero\none\n");

        fs::write(&path, "zero\none\ntwsomebody").unwrap();
        assert_eq!(file.take_back(5, bytes, 0, 6), 6);
        assert_eq!(fs::read_to_string(&path).unwrap(), "zero\none\ntwsomebody");
    }

    #[test]
    fn a_file_that_was_moved_is_made_anew_and_gets_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("events"), folder.path().join("events.1"));
        let mut file = Appender::open(&path).unwrap();
        file.write(b"one\ntwo\n", 0).1.unwrap();
        fs::rename(&path, &moved).unwrap();
        // As if half of a line had gone to the old one.
        file.write(b"three\nfour\n", 8).1.unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    }

    #[test]
    fn a_fifo_is_refused_instead_of_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        let error = Appender::open(&path).err().unwrap().to_string();
        assert_eq!(error, "a FIFO is no file: write to stdout and pipe that");
    }
}
