//! Names of users and groups, from the host's passwd and group files.
//!
//! Not from NSS, which in a pod would answer for the pod. So users who live in LDAP, in
//! systemd-userdb or in the passwd file of a container have no name here.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tracing::debug;

/// A name may lag behind the file by this much.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A larger file is refused: it would be read on the event path, and no passwd file is so large.
const MAX_LEN: u64 = 16 * 1024 * 1024;

/// The users and groups of the host.
#[derive(Debug)]
pub(crate) struct Users {
    passwd: Names,
    group: Names,
    /// The clock is not asked for every name: the pipeline says what time it is.
    now: Instant,
}

impl Users {
    /// `etc` is the host's /etc directory; in a pod it is mounted elsewhere, say at /host/etc.
    pub(crate) fn new(etc: &Path) -> Self {
        Self {
            passwd: Names::new(etc.join("passwd")),
            group: Names::new(etc.join("group")),
            now: Instant::now(),
        }
    }

    /// Sets the time that the names are asked for at.
    pub(crate) fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    pub(crate) fn user_name(&mut self, uid: u32) -> Option<Arc<str>> {
        self.passwd.get(uid, self.now)
    }

    /// The id of a user of the host.
    pub(crate) fn user_id(&mut self, name: &str) -> Option<u32> {
        self.passwd.id(name, self.now)
    }

    pub(crate) fn group_name(&mut self, gid: u32) -> Option<Arc<str>> {
        self.group.get(gid, self.now)
    }
}

/// The id of a group, by the group file at this path.
pub(crate) fn group_id(path: &Path, name: &str) -> io::Result<Option<u32>> {
    let (text, _) = read(path)?;
    let mut entries = text.split(|&byte| byte == b'\n').filter_map(entry);
    Ok(entries.find(|(_, found)| *found == name).map(|(id, _)| id))
}

/// One of the two files: in both, the first field is the name and the third is the id.
#[derive(Debug)]
struct Names {
    path: PathBuf,
    by_id: ById,
    by_name: ByName,
    /// The version of the file that `by_id` was read from, if there was a file.
    version: Option<Version>,
    checked: Option<Instant>,
}

/// What changes when a file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    len: u64,
    mtime: (i64, i64),
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), len: metadata.len(), mtime: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl Names {
    fn new(path: PathBuf) -> Self {
        Self { path, by_id: ById::default(), by_name: ByName::default(), version: None, checked: None }
    }

    fn get(&mut self, id: u32, now: Instant) -> Option<Arc<str>> {
        self.look(now);
        self.by_id.get(&id).cloned()
    }

    fn id(&mut self, name: &str, now: Instant) -> Option<u32> {
        self.look(now);
        self.by_name.get(name).copied()
    }

    /// Reads the file again, if it is time to and it is another one.
    fn look(&mut self, now: Instant) {
        let is_due =
            self.checked.is_none_or(|checked| now.saturating_duration_since(checked) >= CHECK_INTERVAL);
        if is_due {
            self.checked = Some(now);
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        let version = fs::metadata(&self.path).ok().map(|metadata| Version::of(&metadata));
        if version == self.version {
            return;
        }
        match read(&self.path) {
            Ok((text, version)) => {
                (self.by_id, self.by_name) = parse(&text);
                self.version = Some(version);
            }
            Err(error) => {
                // Names that may be wrong are worse than none. The next check tries again.
                debug!(path = %self.path.display(), %error, "names are not resolved");
                (self.by_id, self.by_name) = Default::default();
                self.version = None;
            }
        }
    }
}

/// The content, and the version of exactly this content: the file may have been replaced since
/// it was looked at.
fn read(path: &Path) -> io::Result<(Vec<u8>, Version)> {
    // Opening a FIFO would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    let version = Version::of(&file.metadata()?);
    if version.len > MAX_LEN {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut text = Vec::new();
    // What is appended meanwhile changes the version, so the next check reads it.
    file.take(version.len).read_to_end(&mut text)?;
    Ok((text, version))
}

type ById = FxHashMap<u32, Arc<str>>;
type ByName = FxHashMap<Arc<str>, u32>;

/// The first entry for an id wins, as with `getpwuid`; and for a name, as with `getpwnam`.
fn parse(text: &[u8]) -> (ById, ByName) {
    let (mut by_id, mut by_name) = (ById::default(), ByName::default());
    for (id, name) in text.split(|&byte| byte == b'\n').filter_map(entry) {
        let name: Arc<str> = name.into();
        by_id.entry(id).or_insert_with(|| Arc::clone(&name));
        by_name.entry(name).or_insert(id);
    }
    (by_id, by_name)
}

fn entry(line: &[u8]) -> Option<(u32, &str)> {
    let mut fields = line.split(|&byte| byte == b':');
    let name = str::from_utf8(fields.next()?).ok()?;
    let id = str::from_utf8(fields.nth(1)?).ok()?;
    // `+name` and `-name` are directives to merge in NIS, not users.
    if name.is_empty() || name.starts_with(['#', '+', '-']) {
        return None;
    }
    // `parse` alone would take `+0` for root.
    if !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((id.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    struct Etc {
        dir: TempDir,
        users: Users,
        now: Instant,
    }

    impl Etc {
        fn new(passwd: impl AsRef<[u8]>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let users = Users::new(dir.path());
            let etc = Self { dir, users, now: Instant::now() };
            etc.write(passwd);
            etc
        }

        fn write(&self, passwd: impl AsRef<[u8]>) {
            fs::write(self.passwd(), passwd).unwrap();
        }

        fn passwd(&self) -> PathBuf {
            self.dir.path().join("passwd")
        }

        fn user(&mut self, uid: u32) -> Option<String> {
            self.users.set_time(self.now);
            self.users.user_name(uid).map(|name| name.to_string())
        }

        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn users_and_groups_are_found_by_id() {
        let mut etc = Etc::new("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n");
        fs::write(etc.dir.path().join("group"), "root:x:0:\nwheel:x:10:web,root\nlast:x:11:").unwrap();
        assert_eq!(etc.user(0).as_deref(), Some("root"));
        assert_eq!(etc.user(1000).as_deref(), Some("web"));
        assert_eq!(etc.user(10), None);
        etc.users.set_time(etc.now);
        assert_eq!(etc.users.group_name(10).as_deref(), Some("wheel"));
        assert_eq!(etc.users.group_name(11).as_deref(), Some("last"));
        assert_eq!(etc.users.group_name(1000), None);
    }

    #[test]
    fn a_user_is_found_by_name() {
        let mut etc = Etc::new("root:x:0:0::/:\ntoor:x:0:0::/:\nweb:x:9:9::/:\n");
        etc.users.set_time(etc.now);
        let mut id = |name| etc.users.user_id(name);
        assert_eq!([id("root"), id("toor"), id("web"), id("nobody")], [Some(0), Some(0), Some(9), None]);
    }

    #[test]
    fn the_first_entry_for_an_id_wins() {
        let mut etc = Etc::new("root:x:0:0::/:\ntoor:x:0:0::/:\n");
        assert_eq!(etc.user(0).as_deref(), Some("root"));
    }

    #[test]
    fn malformed_lines_are_skipped() {
        let mut etc = Etc::new(
            b"\n:\n::::\nnot a line\n# comment:x:1:1\n+\n+::::::\n+nis:x:2:2\n-nis:x:2:2\n:x:3:3::/:\n\
              sign:x:+4:4::/:\nhuge:x:4294967296:5::/:\nword:x:five:5::/:\nshort:x\n\
              caf\xff:x:6:6::/:\nsp:x: 7:7::/:\nlast:x:4294967295:8::/:\nweb:x:9:9::/:",
        );
        for uid in 0..9 {
            assert_eq!(etc.user(uid), None, "{uid}");
        }
        assert_eq!(etc.user(9).as_deref(), Some("web"));
        assert_eq!(etc.user(u32::MAX).as_deref(), Some("last"));
    }

    #[test]
    fn a_changed_file_is_read_again_after_the_interval() {
        let mut etc = Etc::new("old:x:1:1::/:\n");
        assert_eq!(etc.user(1).as_deref(), Some("old"));
        etc.write("newer:x:1:1::/:\n");
        etc.wait(9);
        assert_eq!(etc.user(1).as_deref(), Some("old"));
        etc.wait(1);
        assert_eq!(etc.user(1).as_deref(), Some("newer"));
    }

    #[test]
    fn a_file_replaced_by_one_of_the_same_length_and_time_is_read_again() {
        let mut etc = Etc::new("old:x:1:1::/:\n");
        assert_eq!(etc.user(1).as_deref(), Some("old"));
        let mtime = fs::metadata(etc.passwd()).unwrap().modified().unwrap();
        let next = etc.dir.path().join("passwd+");
        fs::write(&next, "new:x:1:1::/:\n").unwrap();
        File::options().write(true).open(&next).unwrap().set_modified(mtime).unwrap();
        fs::rename(next, etc.passwd()).unwrap();
        etc.wait(10);
        assert_eq!(etc.user(1).as_deref(), Some("new"));
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let mut etc = Etc::new("old:x:1:1::/:\n");
        let mtime = fs::metadata(etc.passwd()).unwrap().modified().unwrap();
        assert_eq!(etc.user(1).as_deref(), Some("old"));
        // The same inode, length and time: only a read would tell.
        etc.write("new:x:1:1::/:\n");
        File::options().write(true).open(etc.passwd()).unwrap().set_modified(mtime).unwrap();
        etc.wait(10);
        assert_eq!(etc.user(1).as_deref(), Some("old"));
    }

    #[test]
    fn a_missing_file_means_no_names_until_it_appears() {
        let mut etc = Etc::new("");
        fs::remove_file(etc.passwd()).unwrap();
        assert_eq!(etc.user(1), None);
        etc.users.set_time(etc.now);
        assert_eq!(etc.users.group_name(1), None);
        etc.write("web:x:1:1::/:\n");
        etc.wait(10);
        assert_eq!(etc.user(1).as_deref(), Some("web"));
        fs::remove_file(etc.passwd()).unwrap();
        etc.wait(10);
        assert_eq!(etc.user(1), None);
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let mut etc = Etc::new("web:x:1:1::/:\n");
        let file = File::options().write(true).open(etc.passwd()).unwrap();
        file.set_len(MAX_LEN + 1).unwrap();
        assert_eq!(etc.user(1), None);
        file.set_len(MAX_LEN).unwrap();
        etc.wait(10);
        assert_eq!(etc.user(1).as_deref(), Some("web"));
    }

    #[test]
    fn something_that_is_not_a_file_is_refused() {
        let mut etc = Etc::new("");
        fs::remove_file(etc.passwd()).unwrap();
        fs::create_dir(etc.passwd()).unwrap();
        assert_eq!(etc.user(0), None);
    }

    #[test]
    fn a_clock_reading_from_before_the_last_check_is_harmless() {
        let mut etc = Etc::new("web:x:1:1::/:\n");
        let earlier = etc.now;
        etc.wait(60);
        assert_eq!(etc.user(1).as_deref(), Some("web"));
        etc.users.set_time(earlier);
        assert_eq!(etc.users.user_name(1).as_deref(), Some("web"));
    }
}
