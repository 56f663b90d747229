//! Notices that a file has another content: an editor's rename, a write in place, the `..data` symlink that
//! Kubernetes swaps under a mounted `ConfigMap`, a file that was not there.
//!
//! Every step of the way to the file is watched in the directory that it stands in, symlinks included, and
//! the file itself, since who mounted a single file changes it by another name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout};

/// Changes that follow each other so closely are one: an editor writes, renames, removes.
const QUIET: Duration = Duration::from_millis(200);

/// Changes that do not stop are looked at all the same.
const LONGEST: Duration = Duration::from_secs(2);

/// As many symlinks in a row as the kernel follows.
const HOPS: usize = 40;

/// Whatever gives a name another file, or a file another content.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CLOSE_WRITE);

/// A file that is watched by its path.
#[derive(Debug)]
pub(crate) struct FileWatch {
    path: PathBuf,
    armed: Armed,
    /// None while there is no such file.
    content: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Armed {
    inotify: AsyncFd<OwnedFd>,
    steps: Vec<(i32, OsString)>,
    file: Option<i32>,
}

impl FileWatch {
    /// Needs a tokio runtime. What the file holds now is no news.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let armed = Armed::new(&path)?;
        let content = fs::read(&path).ok();
        Ok(Self { path, armed, content })
    }

    /// Returns when the content is another one.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        loop {
            self.armed.touched().await?;
            self.settle().await?;
            if self.look() {
                return Ok(());
            }
        }
    }

    /// Takes what the file holds now as known; whether it was not.
    pub(crate) fn look(&mut self) -> bool {
        let content = fs::read(&self.path).ok();
        let is_new = content != self.content;
        self.content = content;
        is_new
    }

    /// Waits until nothing more happens, on the way that leads to the file by then.
    async fn settle(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + LONGEST;
        loop {
            // Before the file is read, so that no change falls in between.
            self.armed = Armed::new(&self.path)?;
            let touched = tokio::select! {
                touched = timeout(QUIET, self.armed.touched()) => touched,
                () = sleep(deadline.saturating_duration_since(Instant::now())) => return Ok(()),
            };
            match touched {
                Ok(touched) => touched?,
                Err(_quiet) => return Ok(()),
            }
        }
    }
}

impl Armed {
    fn new(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut steps = Vec::new();
        for (directory, name) in steps_to(path) {
            // A directory that goes away meanwhile is told by the one that it stood in.
            if let Ok(watch) = inotify::add_watch(&inotify, &directory, EVENTS) {
                steps.push((watch, name));
            }
        }
        let file = inotify::add_watch(&inotify, path, WatchFlags::CLOSE_WRITE).ok();
        Ok(Self { inotify: register(inotify)?, steps, file })
    }

    /// Returns when a step of the way changes.
    async fn touched(&self) -> io::Result<()> {
        loop {
            let mut guard = self.inotify.readable().await?;
            let is_ours = self.read()?;
            guard.clear_ready();
            if is_ours {
                return Ok(());
            }
        }
    }

    /// Whether any of what happened is on the way.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut is_ours = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    // Without a name it is the file, or events that were too many for the queue.
                    is_ours |= name.is_none_or(|name| {
                        self.steps.iter().any(|(watch, step)| *watch == event.wd() && step == name)
                    }) || self.file == Some(event.wd());
                }
                Err(Errno::AGAIN) => return Ok(is_ours),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[expect(unsafe_code, reason = "the descriptor must stay the same while it is registered")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is one and the same until it is dropped with the registration.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// The names that lead to a file, each with the directory that it stands in, up to the first that is missing.
fn steps_to(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut steps = Vec::new();
    let mut at = PathBuf::from("/");
    let mut left: Vec<OsString> = parts(path);
    let mut hops = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        steps.push((at.clone(), part.clone()));
        let here = at.join(&part);
        match fs::read_link(&here) {
            Ok(target) => {
                hops += 1;
                if hops > HOPS {
                    break;
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                left.extend(parts(&target));
            }
            Err(_) if here.is_dir() => at = here,
            Err(_) => break,
        }
    }
    steps
}

/// The names of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{FileWatch, QUIET, steps_to};

    const DEADLINE: Duration = Duration::from_secs(20);

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/tellwire.toml");
        fs::create_dir(folder.path().join("etc")).unwrap();
        (folder, path)
    }

    async fn expect_change(watch: &mut FileWatch, change: impl FnOnce()) {
        change();
        timeout(DEADLINE, watch.changed()).await.expect("it is noticed").unwrap();
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_noticed_once() {
        let (folder, path) = folder();
        let mut watch = FileWatch::new(&path).unwrap();
        expect_change(&mut watch, || fs::write(&path, "a").unwrap()).await;
        expect_change(&mut watch, || fs::write(&path, "b").unwrap()).await;
        expect_change(&mut watch, || {
            fs::write(folder.path().join("etc/new"), "c").unwrap();
            fs::rename(folder.path().join("etc/new"), &path).unwrap();
        })
        .await;
        expect_change(&mut watch, || fs::remove_file(&path).unwrap()).await;
        expect_change(&mut watch, || {
            fs::remove_dir_all(folder.path().join("etc")).unwrap();
            fs::create_dir(folder.path().join("etc")).unwrap();
            fs::write(&path, "d").unwrap();
        })
        .await;
        // The same content, and another file beside it, are no change.
        fs::write(&path, "d").unwrap();
        fs::write(folder.path().join("etc/other"), "x").unwrap();
        assert!(timeout(QUIET * 3, watch.changed()).await.is_err());
    }

    #[tokio::test]
    async fn a_mounted_config_map_is_noticed_when_its_link_is_swapped() {
        let (folder, path) = folder();
        let mount = folder.path().join("mount");
        let version = |name: &str, text: &str| {
            fs::create_dir_all(mount.join(name)).unwrap();
            fs::write(mount.join(name).join("tellwire.toml"), text).unwrap();
            symlink(name, mount.join("..data_tmp")).unwrap();
            fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        };
        version("..1", "a");
        symlink("..data/tellwire.toml", mount.join("tellwire.toml")).unwrap();
        symlink("../mount/tellwire.toml", &path).unwrap();
        let mut watch = FileWatch::new(&path).unwrap();
        for (name, text) in [("..2", "b"), ("..3", "c")] {
            expect_change(&mut watch, || version(name, text)).await;
        }
    }

    #[tokio::test]
    async fn a_file_that_is_changed_by_another_name_is_noticed() {
        let (folder, path) = folder();
        let other = folder.path().join("other");
        fs::write(&other, "a").unwrap();
        fs::hard_link(&other, &path).unwrap();
        let mut watch = FileWatch::new(&path).unwrap();
        expect_change(&mut watch, || fs::write(&other, "b").unwrap()).await;
    }

    #[test]
    fn the_way_ends_where_a_name_is_missing_or_turns_in_circles() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let steps = steps_to(&root.join("a/b"));
        assert_eq!(steps.last().unwrap(), &(root.clone(), "a".into()));
        symlink("loop", root.join("loop")).unwrap();
        assert!(steps_to(&root.join("loop/x")).len() > 40);
        assert_eq!(steps_to(Path::new("/")), []);
    }
}
