//! A root directory, of the host or of a container: its libraries and its users.
//!
//! What is in there is anybody's. Paths are resolved within it, so that no link leads out; nothing is opened but plain
//! files, and nothing on FUSE, which could keep its reader waiting for ever.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat, openat2};
use rustix::mount::{OpenTreeFlags, open_tree};

/// Where distributions keep libraries, below `/lib`, `/usr/lib` and the like.
const FOLDERS: [&str; 4] = ["lib", "usr/lib", "lib64", "usr/lib64"];

/// Debian's folders for each architecture, below `lib` and `usr/lib`. Those of 32 bits are looked into as well, so that
/// it can be said that they are not covered.
const ARCHITECTURES: [&str; 4] =
    ["x86_64-linux-gnu", "aarch64-linux-gnu", "i386-linux-gnu", "arm-linux-gnueabihf"];

/// The library's name for the dynamic linker, which all programs use.
const LIBRARY: &str = "libpam.so.0";

/// A larger library is none.
const LIBRARY_BYTES: u64 = 16 << 20;

/// A larger passwd file is not read: a container's is small.
const PASSWD_BYTES: u64 = 4 << 20;

// include/uapi/linux/magic.h (v6.18).
const OVERLAYFS: u32 = 0x794c_7630;
const FUSE: u32 = 0x6573_5546;

/// What tells root directories apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RootId {
    /// Inode number of the mount namespace.
    pub(crate) namespace: u32,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What tells files apart that are probed.
///
/// The mounts of overlays over one lower file have a device each and share the file, whose probes work in all of them;
/// what is copied up has another time of change. Elsewhere the device counts: snapshots have files that look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    /// None of an overlay.
    device: Option<u64>,
    inode: u64,
    size: i64,
    /// Seconds and nanoseconds.
    modified: (i64, u64),
    changed: (i64, u64),
}

impl FileId {
    fn new(stat: &Stat, is_overlay: bool) -> Self {
        #[expect(clippy::useless_conversion, reason = "the members' types differ between architectures")]
        Self {
            device: (!is_overlay).then_some(stat.st_dev.into()),
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec.into()),
            changed: (stat.st_ctime, stat.st_ctime_nsec.into()),
        }
    }
}

/// A root directory that is open.
#[derive(Debug)]
pub(crate) struct RootDirectory {
    directory: OwnedFd,
    device: u64,
    inode: u64,
    /// Whether other file systems that are mounted in it are entered.
    crosses: bool,
}

/// A library that was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: FileId,
    /// As it was asked for, from the root on.
    pub(crate) path: PathBuf,
    file: File,
}

impl RootDirectory {
    /// Opens a directory. Of a container's own mounts none is entered: it says itself what is behind them.
    pub(crate) fn open(path: &Path, crosses: bool) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())?;
        let stat = fstat(&directory)?;
        Ok(Self { directory, device: stat.st_dev, inode: stat.st_ino, crosses })
    }

    /// Opens what is mounted at a place, by a mount of the agent's own that stands nowhere: what is opened in it
    /// keeps nobody from taking the other one away.
    pub(crate) fn mounted(place: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let directory = open_tree(CWD, place, flags)?;
        let stat = fstat(&directory)?;
        Ok(Self { directory, device: stat.st_dev, inode: stat.st_ino, crosses: false })
    }

    /// What it is in a mount namespace.
    pub(crate) fn id(&self, namespace: u32) -> RootId {
        RootId { namespace, device: self.device, inode: self.inode }
    }

    /// Every libpam in the usual places, each file once.
    pub(crate) fn libraries(&self) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        let in_folders = FOLDERS.into_iter().map(PathBuf::from);
        let below = ["lib", "usr/lib"].into_iter().flat_map(|folder| {
            ARCHITECTURES.into_iter().map(move |architecture| Path::new(folder).join(architecture))
        });
        for path in in_folders.chain(below).map(|folder| folder.join(LIBRARY)) {
            if let Ok((file, id)) = self.file(&path)
                && found.iter().all(|other| other.id != id)
            {
                found.push(Found { id, path, file });
            }
        }
        found
    }

    /// The users that its passwd file names, each handed to `take`; and the file, to see when it is another one.
    pub(crate) fn users(&self, take: impl FnMut(&[u8])) -> io::Result<()> {
        let (file, id) = self.passwd()?;
        let text = read(&file, id.size, PASSWD_BYTES)?;
        text.split(|byte| *byte == b'\n')
            .filter_map(|line| line.split(|byte| *byte == b':').next())
            .filter(|name| !name.is_empty() && !matches!(name.first(), Some(b'+' | b'-' | b'#')))
            .for_each(take);
        Ok(())
    }

    /// Which passwd file it has now.
    pub(crate) fn passwd_id(&self) -> Option<FileId> {
        self.passwd().ok().map(|(_, id)| id)
    }

    fn passwd(&self) -> io::Result<(File, FileId)> {
        self.file(Path::new("etc/passwd"))
    }

    /// Opens a plain file in it.
    fn file(&self, path: &Path) -> io::Result<(File, FileId)> {
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if !self.crosses {
            resolve |= ResolveFlags::NO_XDEV;
        }
        // First without opening it: a FIFO waits for its other end, and a device does what it likes.
        let place = openat2(&self.directory, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        let stat = fstat(&place)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("no plain file"));
        }
        let magic = fstatfs(&place)?.f_type;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "magic numbers have 32 bits"
        )]
        let magic = magic as u32;
        if magic == FUSE {
            return Err(io::Error::other("a file on FUSE"));
        }
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        Ok((file, FileId::new(&stat, magic == OVERLAYFS)))
    }
}

impl Found {
    /// The file's bytes.
    pub(crate) fn bytes(&self) -> io::Result<Vec<u8>> {
        read(&self.file, self.id.size, LIBRARY_BYTES)
    }

    /// The file, to attach to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

fn read(file: &File, size: i64, most: u64) -> io::Result<Vec<u8>> {
    if u64::try_from(size).map_err(io::Error::other)? > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        time::{Duration, SystemTime},
    };

    use super::*;

    struct Made(tempfile::TempDir);

    impl Made {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, path: &str) -> PathBuf {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        fn libraries(&self) -> Vec<Found> {
            RootDirectory::open(self.0.path(), false).unwrap().libraries()
        }

        fn contents(&self) -> Vec<Vec<u8>> {
            self.libraries().iter().map(|found| found.bytes().unwrap()).collect()
        }
    }

    #[test]
    fn a_library_is_found_in_each_usual_place_and_once() {
        for place in ["lib", "usr/lib64", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"] {
            let root = Made::new();
            fs::write(root.path(&format!("{place}/libpam.so.0.85.1")), place).unwrap();
            symlink("libpam.so.0.85.1", root.path(&format!("{place}/libpam.so.0"))).unwrap();
            assert_eq!(root.contents(), [place.as_bytes()]);
        }
        let root = Made::new();
        fs::write(root.path("usr/lib/libpam.so.0"), "one").unwrap();
        symlink("usr/lib", root.path("lib")).unwrap();
        assert_eq!(root.contents(), [b"one"]);
    }

    #[test]
    fn a_link_that_would_lead_out_of_the_root_stays_in_it() {
        let outside = Made::new();
        fs::write(outside.path("secret"), "outside").unwrap();
        let root = Made::new();
        symlink(outside.path("secret"), root.path("lib/libpam.so.0")).unwrap();
        assert_eq!(root.contents(), [[0_u8; 0]; 0]);
        // The same path in the root is what such a link means there.
        let inside = outside.path("secret").strip_prefix("/").unwrap().display().to_string();
        fs::write(root.path(&inside), "inside").unwrap();
        assert_eq!(root.contents(), [b"inside"]);
        let up = Made::new();
        symlink("../../../../../../../../etc/hostname", up.path("lib/libpam.so.0")).unwrap();
        assert_eq!(up.contents(), [[0_u8; 0]; 0]);
        let magic = Made::new();
        symlink("/proc/self/exe", magic.path("lib/libpam.so.0")).unwrap();
        assert_eq!(magic.contents(), [[0_u8; 0]; 0]);
    }

    #[test]
    fn what_is_no_plain_file_is_not_opened() {
        let root = Made::new();
        fs::create_dir(root.path("lib/libpam.so.0")).unwrap();
        let fifo = root.path("usr/lib/libpam.so.0");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _device = rustix::fs::mknodat(
            CWD,
            root.path("lib64/libpam.so.0"),
            FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(1, 5),
        );
        assert!(root.libraries().is_empty());
    }

    #[test]
    fn a_file_that_is_written_or_replaced_is_another_one() {
        let root = Made::new();
        let path = root.path("lib/libpam.so.0");
        fs::write(&path, "one").unwrap();
        let id = || root.libraries()[0].id;
        let first = id();
        assert_eq!(first, id());
        // Time may stand still between two writes; what is set does not.
        let later = SystemTime::now() + Duration::from_secs(5);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        let touched = id();
        assert_ne!(first, touched);
        fs::write(root.path("other"), "one").unwrap();
        fs::rename(root.path("other"), &path).unwrap();
        assert_ne!(touched, id());
    }

    #[test]
    fn users_are_those_of_the_root_s_own_file() {
        let root = Made::new();
        fs::write(
            root.path("etc/passwd"),
            "root:x:0:0::/:/bin/sh\n\n+nis\n#no:x\nann:x:1000:1000::/:/bin/sh",
        )
        .unwrap();
        let mut names = Vec::new();
        let directory = RootDirectory::open(root.0.path(), false).unwrap();
        directory.users(|name| names.push(name.to_vec())).unwrap();
        assert_eq!(names, [&b"root"[..], b"ann"]);
    }
}
