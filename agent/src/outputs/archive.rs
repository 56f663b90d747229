//! The rotated files beside an output's file: their names, their sum, and what is deleted to keep it.
//!
//! `events.ndjson` becomes `events.ndjson.20261124T111530.123456Z`, and in time that with `.gz`. Only names of
//! exactly this form are ever counted, compressed or deleted: whatever else lies there is somebody else's.

mod compress;
#[cfg(test)]
pub(super) mod tests;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tracing::warn;

use super::OutputStats;
use compress::Compressor;

/// How a stamp is written: sorted by name, files are sorted by time.
const STAMP: &str = "%Y%m%dT%H%M%S.%6fZ";
const STAMP_LEN: usize = "20261124T111530.123456Z".len();

/// The rotated files of one output.
pub(super) struct Archive {
    files: Arc<Files>,
    compressor: Option<Compressor>,
}

/// Shared with the thread that compresses.
struct Files {
    folder: PathBuf,
    /// The name of the file that is written to.
    name: OsString,
    /// For all files together with the one that is written to; 0 for no limit.
    limit: u64,
    stats: Arc<OutputStats>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The oldest first.
    rotated: Vec<Rotated>,
    /// The size that the file that is written to has or is about to have.
    live: u64,
    /// What a file that is being compressed may take, at the most.
    reserved: u64,
    /// Nothing more is compressed.
    is_over: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rotated {
    stamp: String,
    form: Form,
    size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Plain,
    Gzip,
    /// A `.gz` that is not finished.
    Part,
}

impl Form {
    const ALL: [Self; 3] = [Self::Plain, Self::Gzip, Self::Part];

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Part => ".gz.part",
        }
    }
}

impl Archive {
    /// Of the file at `path`. What a crash has left behind is put in order.
    pub(super) fn open(
        path: &Path,
        limit: u64,
        compresses: bool,
        stats: Arc<OutputStats>,
    ) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let files = Arc::new(Files { folder: folder(path), name, limit, stats, known: Mutex::default() });
        files.tidy()?;
        let compressor = compresses.then(|| Compressor::start(files.clone())).transpose()?;
        let archive = Self { files, compressor };
        archive.refresh();
        Ok(archive)
    }

    /// Looks again at what is there.
    pub(super) fn refresh(&self) {
        // Not one that is finished between the look and what is made of it.
        let mut known = self.files.known();
        match self.files.scan() {
            Ok(rotated) => known.rotated = rotated,
            // Whatever is wrong with the folder will show where its file is opened.
            Err(error) => warn!(folder = %self.files.folder.display(), %error, "rotated files not listed"),
        }
        drop(known);
        if let Some(compressor) = &self.compressor {
            compressor.nudge();
        }
    }

    /// Gives the file another name. Those who read it go on reading: it is the same file.
    pub(super) fn rotate(&self, path: &Path, now: Timestamp) -> io::Result<()> {
        let stamp = self.files.stamp(now)?;
        fs::rename(path, self.files.path(&stamp, Form::Plain))?;
        self.files.stats.rotations.fetch_add(1, Relaxed);
        self.refresh();
        Ok(())
    }

    /// Deletes the oldest until there is room for a file of this size beside the rotated ones.
    pub(super) fn make_room(&self, size: u64) {
        let mut known = self.files.known();
        known.live = size;
        self.files.keep_limit(&mut known);
    }
}

impl Drop for Archive {
    /// The next one of the same file must not meet the thread of this one.
    fn drop(&mut self) {
        self.files.known().is_over = true;
    }
}

impl Known {
    fn sum(&self) -> u64 {
        self.rotated.iter().map(|rotated| rotated.size).sum::<u64>() + self.live + self.reserved
    }
}

impl Files {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the oldest until all is within the limit.
    fn keep_limit(&self, known: &mut Known) {
        while self.limit != 0 && known.sum() > self.limit && !known.rotated.is_empty() {
            let Rotated { stamp, form, .. } = known.rotated.remove(0);
            match fs::remove_file(self.path(&stamp, form)) {
                Ok(()) => {
                    self.stats.deleted.fetch_add(1, Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // The next look at the folder finds it again.
                Err(error) => warn!(file = stamp, %error, "rotated file not deleted"),
            }
        }
    }

    fn path(&self, stamp: &str, form: Form) -> PathBuf {
        let mut name = self.name.clone();
        name.push(format!(".{stamp}{}", form.suffix()));
        self.folder.join(name)
    }

    /// Later than all that are there, even where the clock was set back: the order of names is that of lines.
    fn stamp(&self, now: Timestamp) -> io::Result<String> {
        let newest = self.scan()?.pop().map(|rotated| rotated.stamp);
        let mut stamp = now.strftime(STAMP).to_string();
        if let Some(newest) = newest.filter(|newest| *newest >= stamp) {
            let newest = parse(&newest).ok_or(io::ErrorKind::InvalidData)?;
            let next = newest.checked_add(jiff::SignedDuration::from_micros(1)).map_err(io::Error::other)?;
            stamp = next.strftime(STAMP).to_string();
        }
        Ok(stamp)
    }

    /// What is there, the oldest first.
    fn scan(&self) -> io::Result<Vec<Rotated>> {
        let mut rotated = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some((stamp, form)) = self.ours(&entry.file_name()) else { continue };
            // One that is being compressed is in the sum by what is reserved for it.
            if form == Form::Part {
                continue;
            }
            match entry.metadata() {
                Ok(found) if found.is_file() => rotated.push(Rotated { stamp, form, size: found.len() }),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        rotated.sort();
        Ok(rotated)
    }

    /// The stamp and the form of a rotated file of ours.
    fn ours(&self, name: &OsStr) -> Option<(String, Form)> {
        let rest = name.as_bytes().strip_prefix(self.name.as_bytes())?.strip_prefix(b".")?;
        let (stamp, suffix) = str::from_utf8(rest).ok()?.split_at_checked(STAMP_LEN)?;
        let form = Form::ALL.into_iter().find(|form| form.suffix() == suffix)?;
        parse(stamp)?;
        Some((stamp.to_owned(), form))
    }

    /// Removes a compressed file that was not finished, and the plain form of one that was.
    fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_left = match self.ours(&entry.file_name()) {
                Some((_, Form::Part)) => true,
                Some((stamp, Form::Plain)) => self.path(&stamp, Form::Gzip).is_file(),
                Some((_, Form::Gzip)) | None => false,
            };
            if is_left && entry.file_type()?.is_file() {
                absent_is_fine(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where the file lies.
pub(super) fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

/// What the stamp says, if it is one: exactly as it is written, not merely something that can be read.
fn parse(stamp: &str) -> Option<Timestamp> {
    let (second, fraction) = stamp.strip_suffix('Z')?.split_once('.')?;
    if fraction.len() != 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let second = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", second).ok()?;
    let micros = jiff::SignedDuration::from_micros(fraction.parse().ok()?);
    let time = second.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().checked_add(micros).ok()?;
    (time.strftime(STAMP).to_string() == stamp).then_some(time)
}
