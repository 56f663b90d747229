//! Lines to a file.
//!
//! Whole lines only: what a full disk cuts off is taken back. A file that was moved or deleted is
//! made anew, its folder too. One that is full or old enough is put aside, see [`Archive`].

mod opening;
#[cfg(test)]
pub(super) mod tests;

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use memchr::memchr;
use tracing::warn;

use super::archive::Archive;
use super::writer::{Target, Trouble, Written, write};
use super::{Batch, OutputStats, line_start};
use crate::config::{Group, OutputFile};
use crate::enrich::users::group_id;
use crate::host::HostRoot;
use opening::{Folder, Live, identity};

/// What is configured of files.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// 0 for no limit, as for all three.
    pub(super) max_bytes: u64,
    pub(super) max_age: Duration,
    pub(super) total_bytes: u64,
    pub(super) compress: bool,
    pub(super) mode: u32,
    /// None for that of the agent, or of a folder that gives it to its files.
    pub(super) group: Option<u32>,
}

impl Settings {
    /// Looks the group up on the host.
    pub(super) fn new(config: &OutputFile, host: &HostRoot) -> io::Result<Self> {
        let OutputFile { max_bytes, max_age, total_bytes, compress, mode, group } = config;
        let group = match group {
            Group::Own => None,
            Group::Id(id) => Some(*id),
            Group::Name(name) => Some(group_id(&host.join("/etc/group"), name)?.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("the host has no group {name}"))
            })?),
        };
        Ok(Self {
            max_bytes: max_bytes.get(),
            max_age: max_age.get(),
            total_bytes: total_bytes.get(),
            compress: *compress,
            mode: mode.get(),
            group,
        })
    }
}

pub(super) struct Appender {
    path: PathBuf,
    settings: Settings,
    folder: Folder,
    live: Live,
    /// For a regular file.
    archive: Option<Archive>,
    /// The last write failed: open it again.
    is_suspect: bool,
    /// A rotation failed; that is said once.
    is_stuck: bool,
}

impl Appender {
    pub(super) fn open(path: &Path, settings: Settings, stats: Arc<OutputStats>) -> io::Result<Self> {
        let folder = Folder::of(path)?;
        let live = Live::open(path, &settings)?;
        let archive = if live.is_regular && (settings.max_bytes != 0 || !settings.max_age.is_zero()) {
            Some(Archive::open(path, settings.total_bytes, settings.compress, stats)?)
        } else {
            None
        };
        Ok(Self { path: path.into(), settings, folder, live, archive, is_suspect: false, is_stuck: false })
    }

    /// Sees to it that what is written to is what is at the path now.
    fn follow(&mut self) -> io::Result<()> {
        let is_there = fs::metadata(&self.path).is_ok_and(|found| identity(&found) == self.live.identity);
        if is_there && !self.is_suspect {
            return Ok(());
        }
        self.folder.make()?;
        if self.live.reopen(&self.path, &self.settings)?
            && let Some(archive) = &self.archive
        {
            archive.refresh();
        }
        self.is_suspect = false;
        Ok(())
    }

    /// Up to where lines may be written into a file that has `before` bytes; none if it is full.
    fn fits(&self, bytes: &[u8], from: usize, before: u64) -> Option<usize> {
        let room = match self.settings.max_bytes {
            0 => u64::MAX,
            max => max.saturating_sub(before),
        };
        let upto = usize::try_from(room).ok().and_then(|room| from.checked_add(room)).unwrap_or(usize::MAX);
        if upto >= bytes.len() {
            return Some(bytes.len());
        }
        let whole = line_start(bytes, upto);
        if whole > from {
            return Some(whole);
        }
        // A line that is begun is finished, and one that is larger than any file has one for itself.
        (self.live.is_torn || before == 0).then(|| line_end(bytes, from))
    }

    /// Puts the file aside, so that a new one is made.
    fn rotate(&mut self, archive: &Archive) -> io::Result<()> {
        archive.rotate(&self.path, Timestamp::now())?;
        self.is_stuck = false;
        self.follow()
    }

    /// What is written next: up to where, into a file that has how many bytes.
    fn prepare(&mut self, bytes: &[u8], from: usize) -> io::Result<(usize, u64)> {
        let before = self.live.len()?;
        if !self.live.rotates {
            return Ok((bytes.len(), before));
        }
        let Some(archive) = self.archive.take() else { return Ok((bytes.len(), before)) };
        let prepared = self.make_room(&archive, bytes, from, before);
        self.archive = Some(archive);
        prepared
    }

    fn make_room(
        &mut self,
        archive: &Archive,
        bytes: &[u8],
        from: usize,
        mut before: u64,
    ) -> io::Result<(usize, u64)> {
        let is_old = before > 0 && !self.live.is_torn && self.live.is_due();
        let mut end = self.fits(bytes, from, before).filter(|_| !is_old);
        if end.is_none() {
            match self.rotate(archive) {
                Ok(()) => {
                    before = self.live.len()?;
                    end = self.fits(bytes, from, before);
                }
                // Lines go on into a file that is too large, rather than nowhere; but not beyond the limit of all.
                Err(error) => {
                    if !std::mem::replace(&mut self.is_stuck, true) {
                        warn!(file = %self.path.display(), %error, "file not rotated");
                    }
                    let limit = self.settings.total_bytes;
                    if limit != 0 && before.saturating_add((bytes.len() - from) as u64) > limit {
                        return Err(error);
                    }
                    self.follow()?;
                    before = self.live.len()?;
                }
            }
        }
        let end = end.unwrap_or(bytes.len());
        archive.make_room(before.saturating_add((end - from) as u64));
        Ok((end, before))
    }

    /// Takes back the part of a line that ends the file. `before` is how long the file was, and
    /// `from` to `upto` is what was written since. Says from where on to go on.
    fn take_back(&mut self, before: u64, bytes: &[u8], from: usize, upto: usize) -> usize {
        let start = line_start(bytes, upto);
        // What cannot be taken back is finished first.
        if start >= from && self.cut(before, (start - from) as u64, (upto - from) as u64).is_some() {
            start
        } else {
            self.live.is_torn = start != upto;
            upto
        }
    }

    /// Cuts off what follows the first `keep` of the `written` bytes.
    fn cut(&self, before: u64, keep: u64, written: u64) -> Option<()> {
        let metadata = self.live.file.metadata().ok().filter(Metadata::is_file)?;
        // Else someone else writes to it too, and what would be cut is theirs.
        let is_ours = metadata.len() == before + written;
        is_ours.then(|| self.live.file.set_len(before + keep).ok()).flatten()
    }

    /// Writes what fits into one file.
    fn append(&mut self, bytes: &[u8], mut from: usize) -> (usize, io::Result<()>) {
        let prepared = self.follow().and_then(|()| {
            if !self.live.is_torn {
                from = line_start(bytes, from);
            }
            self.prepare(bytes, from)
        });
        let (end, before) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return (from, Err(error)),
        };
        match write(&self.live.file, bytes.get(..end).unwrap_or(bytes), from) {
            (upto, Ok(())) => {
                self.live.is_torn = false;
                (upto, Ok(()))
            }
            (upto, Err(error)) => {
                self.is_suspect = true;
                (self.take_back(before, bytes, from, upto), Err(error))
            }
        }
    }
}

impl Target for Appender {
    fn write(&mut self, batch: &Batch, from: usize) -> Written {
        let mut upto = from;
        while upto < batch.bytes.len() {
            let result;
            (upto, result) = self.append(&batch.bytes, upto);
            if let Err(error) = result {
                return Written::new(upto, Err(error.into()));
            }
        }
        Written::new(upto, Ok(()))
    }

    fn ticks(&self) -> bool {
        true
    }

    /// A file that was moved away is made anew even if no line comes, and one that is old enough is put aside.
    fn tick(&mut self) -> Result<(), Trouble> {
        self.follow()?;
        self.prepare(&[], 0)?;
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), Trouble> {
        self.is_suspect = true;
        Ok(self.follow()?)
    }
}

/// Where the line that goes on at `from` ends, with its newline.
fn line_end(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    memchr(b'\n', rest).map_or(bytes.len(), |newline| from + newline + 1)
}
