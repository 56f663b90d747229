//! The thread that compresses rotated files, one after the other, at the lowest priority.
//!
//! A compressed file appears whole or not at all: it is made under another name, and its plain form goes only once
//! it is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{Gid, fchown};
use rustix::process::setpriority_process;
use tracing::warn;

use super::{Files, Form, Rotated, absent_is_fine};

const NICE: i32 = 19;

/// Read at a time. After each, it is seen whether the file is still wanted.
const CHUNK: usize = 256 * 1024;

pub(super) struct Compressor {
    nudge: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    pub(super) fn start(files: Arc<Files>) -> io::Result<Self> {
        let (nudge, nudges) = sync_channel(1);
        let thread = thread::Builder::new().name("compress".into()).spawn(move || {
            // Where this is not allowed, it is only less polite. Nothing means the thread that calls.
            let _impolite = setpriority_process(None, NICE);
            for () in nudges {
                files.compress_all();
            }
        })?;
        Ok(Self { nudge: Some(nudge), thread: Some(thread) })
    }

    /// There may be something to do. If it was told already, that is enough.
    pub(super) fn nudge(&self) {
        let _is_full = self.nudge.as_ref().map(|nudge| nudge.try_send(()));
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.nudge = None;
        if let Some(thread) = self.thread.take() {
            // It has said why, if it ended by a panic.
            let _panicked = thread.join();
        }
    }
}

impl Files {
    /// Those that fail stay as they are until the next rotation.
    pub(super) fn compress_all(&self) {
        let mut failed: Vec<String> = Vec::new();
        loop {
            let known = self.known();
            if known.is_over {
                break;
            }
            let is_next = |file: &&Rotated| file.form == Form::Plain && !failed.contains(&file.stamp);
            let Some(Rotated { stamp, size, .. }) = known.rotated.iter().find(is_next).cloned() else {
                break;
            };
            drop(known);
            if let Err(error) = self.compress(&stamp, size) {
                // A file that would become larger is better as it is.
                if !matches!(error.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::Interrupted) {
                    warn!(file = %self.path(&stamp, Form::Plain).display(), %error, "rotated file not compressed");
                }
                failed.push(stamp);
            }
        }
    }

    pub(super) fn compress(&self, stamp: &str, size: u64) -> io::Result<()> {
        let (plain, part) = (self.path(stamp, Form::Plain), self.path(stamp, Form::Part));
        let mut known = self.known();
        // A gzip file is larger than what is in it by a header, and by a few bytes for each block that does not compress.
        known.reserved = size + size / 512 + 128;
        self.keep_limit(&mut known);
        drop(known);
        let made = self.make(stamp, &plain, &part, size);
        let mut known = self.known();
        known.reserved = 0;
        let place = known.rotated.iter().position(|file| file.stamp == stamp && file.form == Form::Plain);
        let finished = match (made, place) {
            // It was deleted meanwhile, and what came of it must not outlive it.
            (_, None) => Ok(None),
            // By somebody else.
            (Err(error), Some(place)) if error.kind() == io::ErrorKind::NotFound && !plain.exists() => {
                known.rotated.remove(place);
                Ok(None)
            }
            (Err(error), Some(_)) => Err(error),
            (Ok(size), Some(place)) => {
                fs::rename(&part, self.path(stamp, Form::Gzip)).map(|()| Some((size, place)))
            }
        };
        match finished {
            Ok(Some((size, place))) => {
                if let Some(file) = known.rotated.get_mut(place) {
                    (file.form, file.size) = (Form::Gzip, size);
                }
                fs::remove_file(plain)
            }
            Ok(None) => absent_is_fine(fs::remove_file(part)),
            Err(error) => {
                absent_is_fine(fs::remove_file(part))?;
                Err(error)
            }
        }
    }

    /// Makes the compressed file; how large it is.
    fn make(&self, stamp: &str, plain: &Path, part: &Path, size: u64) -> io::Result<u64> {
        let mut from = File::open(plain)?;
        let like = from.metadata()?;
        let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
        if to.metadata()?.gid() != like.gid() {
            fchown(&to, None, Some(Gid::from_raw(like.gid())))?;
        }
        to.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
        let mut to = GzEncoder::new(to, Compression::default());
        let mut chunk = vec![0; CHUNK];
        loop {
            let len = from.read(&mut chunk)?;
            let Some(read) = chunk.get(..len).filter(|read| !read.is_empty()) else { break };
            to.write_all(read)?;
            let known = self.known();
            if known.is_over {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // Others wait for this file's room.
            if !known.rotated.iter().any(|file| file.stamp == stamp) {
                return Err(io::ErrorKind::NotFound.into());
            }
            drop(known);
            if to.get_ref().metadata()?.len() > size {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        let to = to.finish()?;
        let len = to.metadata()?.len();
        if len > size {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        to.sync_all()?;
        Ok(len)
    }
}
