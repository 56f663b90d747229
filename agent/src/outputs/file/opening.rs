//! The file that lines are written to, and the folder that it lies in.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, Gid, OFlags, fchown, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::Errno;

use super::super::archive::folder;
use super::Settings;

/// An agent that is just ending may hold the file for so long.
const PATIENCE: Duration = Duration::from_millis(500);

/// Device and inode.
type Identity = (u64, u64);

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The open file.
pub(super) struct Live {
    pub(super) file: File,
    pub(super) identity: Identity,
    pub(super) is_regular: bool,
    /// It is a regular file at the path itself: a link would be put aside instead of what it leads to.
    pub(super) rotates: bool,
    /// It ends in the part of a line whose rest is still to come.
    pub(super) is_torn: bool,
    /// When it will be old enough to be put aside.
    due: Option<Instant>,
}

impl Live {
    pub(super) fn open(path: &Path, settings: &Settings) -> io::Result<Self> {
        let live = Self::unlocked(path, settings)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match live.lock() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    thread::park_timeout(PATIENCE / 50);
                }
                locked => return locked.map(|()| live),
            }
        }
    }

    fn unlocked(path: &Path, settings: &Settings) -> io::Result<Self> {
        let file = open(path, settings)?;
        let metadata = file.metadata()?;
        let is_regular = metadata.is_file();
        let rotates = is_regular && fs::symlink_metadata(path)?.is_file();
        let due = (!settings.max_age.is_zero()).then(|| due(&metadata, settings.max_age)).flatten();
        Ok(Self { file, identity: identity(&metadata), is_regular, rotates, is_torn: false, due })
    }

    /// Two that write to one file would each put it aside under the other's hands.
    fn lock(&self) -> io::Result<()> {
        if !self.is_regular {
            return Ok(());
        }
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let said = "another output or another tellwire writes to it: name another file";
                Err(io::Error::new(io::ErrorKind::ResourceBusy, said))
            }
            // A file system that knows no locks.
            _ => Ok(()),
        }
    }

    /// Opens what is at the path now; whether it is another file.
    pub(super) fn reopen(&mut self, path: &Path, settings: &Settings) -> io::Result<bool> {
        let mut live = Self::unlocked(path, settings)?;
        if live.identity == self.identity {
            // The lock is the old descriptor's: it goes first.
            live.is_torn = self.is_torn;
            *self = live;
            self.lock()?;
            return Ok(false);
        }
        live.lock()?;
        *self = live;
        Ok(true)
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }
}

/// When a file is old enough, by when it was made: a restart does not make it younger.
fn due(metadata: &Metadata, max_age: Duration) -> Option<Instant> {
    let made = metadata.created().ok().unwrap_or_else(SystemTime::now);
    // A clock that was set back makes no file older than new.
    let age = made.elapsed().unwrap_or_default().min(max_age);
    Instant::now().checked_add(max_age.saturating_sub(age))
}

/// Opens the file, or makes it with the mode and the group that are configured.
fn open(path: &Path, settings: &Settings) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Err(io::Error::other("a FIFO is no file: write to stdout and pipe that"));
    }
    // A FIFO that is put there meanwhile would have its reader waited for, but for this flag.
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = options.create(true).mode(0o600 & settings.mode).open(path)?;
            if let Err(error) = give(&file, settings) {
                fs::remove_file(path)?;
                return Err(error);
            }
            file
        }
        opened => opened?,
    };
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

fn give(file: &File, settings: &Settings) -> io::Result<()> {
    if let Some(group) = settings.group
        && file.metadata()?.gid() != group
    {
        fchown(file, None, Some(Gid::from_raw(group))).map_err(|error| {
            let error = io::Error::from(error);
            let said = format!("giving it to group {group}: {error}: be a member of it, or have CAP_CHOWN");
            io::Error::new(error.kind(), said)
        })?;
    }
    // Not the mode that a umask leaves.
    file.set_permissions(Permissions::from_mode(settings.mode))
}

/// The folder as it was when the agent started.
pub(super) struct Folder {
    path: PathBuf,
    mode: u32,
    owner: (u32, u32),
}

impl Folder {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let path = folder(path);
        let metadata = fs::metadata(&path)?;
        Ok(Self { path, mode: metadata.mode() & 0o7777, owner: (metadata.uid(), metadata.gid()) })
    }

    /// Makes the folder anew, as it was, if it is gone.
    pub(super) fn make(&self) -> io::Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        // Where the agent may not give it away, it stays its own.
        let _stays = chown(&self.path, Some(self.owner.0), Some(self.owner.1));
        fs::set_permissions(&self.path, Permissions::from_mode(self.mode))
    }
}
