//! Mounts that become root directories: an engine mounts a container's image, and starts the container some time later.
//!
//! The first probe on a file takes the kernel an RCU grace period, longer than a program takes to log in that does
//! nothing else before. By the time that a container's first program runs it is too late; when its image is
//! mounted it is not. The kernel says that the table of mounts has changed, and the table says how.

use std::{
    collections::hash_map::Entry,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::io::{Interest, unix::AsyncFd};

use super::root::RootId;
use crate::host::HostRoot;

/// A larger table is not read: on such a host containers are found when they start.
const TABLE_BYTES: u64 = 16 << 20;

/// What engines mount images as.
const KIND: &[u8] = b"overlay";

/// The table of mounts, and the roots that were found in it.
#[derive(Debug)]
pub(super) struct Mounts {
    table: AsyncFd<File>,
    /// Where the paths of the table begin.
    base: PathBuf,
    known: FxHashMap<u64, Option<RootId>>,
}

/// What has changed since the last look.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// By the mount's id: where it is.
    pub(super) new: Vec<(u64, PathBuf)>,
    pub(super) gone: Vec<RootId>,
}

impl Mounts {
    /// The table of the host's first process, or that of the agent where it looks at its own host and may not see the
    /// other's. What is mounted already is known: containers that run are found by their processes.
    pub(super) fn open(host: &HostRoot) -> io::Result<Self> {
        let is_host = host.join("/") == Path::new("/");
        let of = |process: &str| -> io::Result<(File, PathBuf)> {
            let folder = host.join(&format!("/proc/{process}"));
            // To look into it takes more than to read the table.
            std::fs::metadata(folder.join("root/proc"))?;
            Ok((File::open(folder.join("mountinfo"))?, folder.join("root")))
        };
        let (table, base) = of("1").or_else(|error| if is_host { of("self") } else { Err(error) })?;
        let table = watch(table)?;
        let mut mounts = Self { table, base, known: FxHashMap::default() };
        mounts.changes()?;
        Ok(mounts)
    }

    /// Waits for a change.
    pub(super) async fn changed(&self) -> io::Result<()> {
        self.table.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }

    /// Looks for what has changed.
    pub(super) fn changes(&mut self) -> io::Result<Changes> {
        let mut text = Vec::new();
        let mut table = self.table.get_ref();
        table.seek(SeekFrom::Start(0))?;
        table.take(TABLE_BYTES).read_to_end(&mut text)?;
        // The kernel tells of the next change once it was asked whether there was one.
        let mut asked = [rustix::event::PollFd::new(table, rustix::event::PollFlags::PRI)];
        let _ready = rustix::event::poll(&mut asked, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
        let mut changes = Changes::default();
        let mut there = FxHashSet::default();
        for (id, place) in text.split(|byte| *byte == b'\n').filter_map(overlay) {
            there.insert(id);
            if let Entry::Vacant(place_of) = self.known.entry(id) {
                place_of.insert(None);
                changes.new.push((id, self.base.join(place.strip_prefix("/").unwrap_or(&place))));
            }
        }
        self.known.retain(|id, root| {
            let stays = there.contains(id);
            if !stays {
                changes.gone.extend(*root);
            }
            stays
        });
        Ok(changes)
    }

    /// A mount is this root, until it is gone.
    pub(super) fn is(&mut self, id: u64, root: RootId) {
        if let Some(known) = self.known.get_mut(&id) {
            *known = Some(root);
        }
    }
}

#[expect(unsafe_code, reason = "the descriptor must stay the same while it is registered")]
fn watch(table: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a file is one and the same descriptor until it is dropped with the registration.
    unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY) }.map_err(Into::into)
}

/// The id and the place of an overlay's mount, of a line of the table: `proc_pid_mountinfo(5)`.
fn overlay(line: &[u8]) -> Option<(u64, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let place = fields.nth(3)?;
    // Optional fields end at a dash.
    fields.find(|field| *field == b"-")?;
    (fields.next()? == KIND).then(|| (id, PathBuf::from(std::ffi::OsString::from_vec(unescaped(place)))))
}

/// The kernel writes spaces, tabs, newlines and backslashes of paths as three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        let digits = rest.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => bytes.push(*first),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_says_which_overlay_is_where() {
        let line = b"812 28 0:61 / /run/a\\040b/rootfs rw,relatime shared:9 master:3 - overlay overlay rw,lowerdir=/l";
        assert_eq!(overlay(line), Some((812, "/run/a b/rootfs".into())));
        assert_eq!(overlay(b"28 1 254:0 / / rw,relatime - ext4 /dev/root rw"), None);
        for broken in [&b""[..], b"7", b"x 28 0:61 / /r rw - overlay o rw", b"7 28 0:61 / /r rw overlay"] {
            assert_eq!(overlay(broken), None);
        }
        assert_eq!(unescaped(b"a\\134b\\9\\"), b"a\\b\\9\\");
    }
}
