//! The file in which the agent notes that it runs, so that the next run can say how long nobody looked.
//!
//! A run that is stopped says so; one that is killed leaves its last note, which is ten seconds old at the most.
//! The agent never fails for it: without the file it only knows less.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::lines::clock::{boot_now, wall_now};

/// How often it is noted that the agent runs.
pub(crate) const NOTE: Duration = Duration::from_secs(10);

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) ephemeral_id: String,
    boot_id: String,
    /// When it ran, `CLOCK_BOOTTIME` in nanoseconds: true within a boot, whatever the wall clock does.
    alive_boot: u64,
    /// The same in nanoseconds since 1970, for after another boot.
    alive_wall: u64,
    /// It was stopped then, and had told all that it knew.
    pub(crate) stopped: bool,
}

impl Note {
    pub(crate) fn new(ephemeral_id: String, boot_id: String) -> Self {
        Self { ephemeral_id, boot_id, alive_boot: 0, alive_wall: 0, stopped: false }
    }

    pub(crate) fn is_of_boot(&self, boot_id: &str) -> bool {
        self.boot_id == boot_id
    }

    /// How long it was from this note to a moment of the boot `boot_id`.
    pub(crate) fn until(&self, boot_id: &str, boot: u64, wall: u64) -> Duration {
        // Over a boot there is only the wall clock, which can have been set back.
        let (from, to) =
            if self.is_of_boot(boot_id) { (self.alive_boot, boot) } else { (self.alive_wall, wall) };
        Duration::from_nanos(to.saturating_sub(from))
    }
}

/// The file, held by this run.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    /// For as long as it is open, no other agent uses the file.
    _lock: File,
    note: Note,
}

impl StateFile {
    /// Takes the file in `folder` for this run; with it comes what the run before noted.
    pub(crate) fn open(folder: &Path, note: Note) -> io::Result<(Self, Option<Note>)> {
        DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        // The file itself is another one after each note, so what is locked stands beside it.
        let lock = writable().truncate(false).open(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            let taken = "another agent uses it: give each one its own agent.state-dir";
            if error == rustix::io::Errno::WOULDBLOCK { io::Error::other(taken) } else { error.into() }
        })?;
        let path = folder.join("state.json");
        let last = match fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(last) => Some(last),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the last run's note makes no sense");
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok((Self { path, _lock: lock, note }, last))
    }

    /// Notes that the agent runs, or that it has stopped at this boot time. The file is whole at any time.
    pub(crate) fn write(&mut self, stopped_at: Option<u64>) -> io::Result<()> {
        let now = boot_now();
        let at = stopped_at.unwrap_or(now);
        self.note.alive_boot = at;
        self.note.alive_wall = wall_now().saturating_sub(now.saturating_sub(at));
        self.note.stopped = stopped_at.is_some();
        let next = self.path.with_extension("next");
        let mut file = writable().truncate(true).open(&next)?;
        file.write_all(&serde_json::to_vec(&self.note)?)?;
        file.write_all(b"\n")?;
        fs::rename(next, &self.path)
    }
}

fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o640);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn note(run: &str) -> Note {
        Note::new(run.into(), "boot".into())
    }

    #[test]
    fn a_run_finds_what_the_one_before_noted() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a/b");
        let (mut state, last) = StateFile::open(&folder, note("1")).unwrap();
        assert_eq!(last, None);
        state.write(None).unwrap();
        drop(state);
        let (mut state, last) = StateFile::open(&folder, note("2")).unwrap();
        let last = last.unwrap();
        assert_eq!((last.ephemeral_id.as_str(), last.stopped), ("1", false));
        let at = boot_now();
        state.write(Some(at)).unwrap();
        drop(state);
        let (_, last) = StateFile::open(&folder, note("3")).unwrap();
        let last = last.unwrap();
        assert_eq!((last.stopped, last.until("boot", at + SECOND, 0)), (true, Duration::from_secs(1)));
    }

    #[test]
    fn two_agents_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateFile::open(folder.path(), note("1")).unwrap();
        let error = StateFile::open(folder.path(), note("2")).unwrap_err();
        assert!(error.to_string().contains("state-dir"), "{error}");
        drop(first);
        assert!(StateFile::open(folder.path(), note("2")).is_ok());
    }

    #[test]
    fn a_note_that_makes_no_sense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("state.json"), "{\"a\": 1").unwrap();
        let (mut state, last) = StateFile::open(folder.path(), note("1")).unwrap();
        assert_eq!(last, None);
        state.write(None).unwrap();
    }

    #[test]
    fn over_a_boot_the_wall_clock_tells() {
        let note = Note { alive_boot: 900 * SECOND, alive_wall: 5000 * SECOND, ..note("1") };
        assert_eq!(note.until("boot", 930 * SECOND, 0), Duration::from_secs(30));
        assert_eq!(note.until("other", 7 * SECOND, 5060 * SECOND), Duration::from_mins(1));
        // It was set back.
        assert_eq!(note.until("other", 7 * SECOND, 4000 * SECOND), Duration::ZERO);
    }
}
