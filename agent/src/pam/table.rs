//! Which root directories there are, which libraries each has, and what is attached for them.
//!
//! A file is attached to once, however many roots share it, by the path of one of them. The kernel holds the mount of
//! that path for as long; so when that root goes and others stay, the file is attached to by the path of another one.

use std::sync::atomic::Ordering::Relaxed;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    books::{Outcome, PamBooks},
    root::{FileId, Found, RootDirectory, RootId},
    symbols,
};
use crate::kernel::libraries::{Attachment, Libraries};

/// Files of a root that were replaced while it lived: programs that began before have them still.
const REPLACED: usize = 4;

/// Roots that are known at the most. A container beyond is not looked into, which is counted.
const ROOTS: usize = 8192;

/// Attaches to files.
pub(super) trait Attach {
    type Link: Copy;

    fn attach(&self, found: &Found) -> Result<Self::Link, String>;

    fn detach(&self, link: Self::Link);
}

impl Attach for Libraries {
    type Link = Attachment;

    fn attach(&self, found: &Found) -> Result<Attachment, String> {
        let bytes = found.bytes().map_err(|error| error.to_string())?;
        let offsets = symbols::offsets(&bytes, &self.functions()).map_err(|error| error.to_string())?;
        self.attach(std::os::fd::AsFd::as_fd(found.file()), |function| offsets.get(function).copied())
            .map_err(|error| format!("{error:#}"))
    }

    fn detach(&self, link: Attachment) {
        self.detach(link);
    }
}

/// The roots and the files.
#[derive(Debug)]
pub(super) struct Table<A: Attach> {
    attach: A,
    roots: FxHashMap<RootId, Vec<FileId>>,
    files: FxHashMap<FileId, Shared<A::Link>>,
    /// Files that cannot be attached to, and why; each is tried once.
    refused: FxHashMap<FileId, String>,
}

/// A file that is attached to.
#[derive(Debug)]
struct Shared<L> {
    link: L,
    /// Whose path it was attached by.
    by: RootId,
    roots: FxHashSet<RootId>,
}

/// What a look into a root found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Paths of libraries that are attached to, from the root on.
    pub(super) attached: Vec<String>,
    /// Paths of those that are not, and why.
    pub(super) refused: Vec<(String, String)>,
}

impl<A: Attach> Table<A> {
    pub(super) fn new(attach: A) -> Self {
        Self {
            attach,
            roots: FxHashMap::default(),
            files: FxHashMap::default(),
            refused: FxHashMap::default(),
        }
    }

    pub(super) fn knows(&self, root: &RootId) -> bool {
        self.roots.contains_key(root)
    }

    /// Looks into a root, whether it is known or not, and attaches to what is new in it.
    pub(super) fn look(&mut self, id: RootId, directory: &RootDirectory, books: &PamBooks) -> Seen {
        let mut seen = Seen::default();
        if self.roots.len() >= ROOTS && !self.knows(&id) {
            books.count(Outcome::NoRoom);
            return seen;
        }
        let libraries = directory.libraries();
        let mut now: Vec<FileId> = Vec::with_capacity(libraries.len());
        for found in &libraries {
            let path = format!("/{}", found.path.display());
            match self.take(id, found, books) {
                Ok(()) => {
                    now.push(found.id);
                    seen.attached.push(path);
                }
                Err(why) => seen.refused.push((path, why)),
            }
        }
        let before = self.roots.remove(&id).unwrap_or_default();
        let replaced: Vec<_> = before.into_iter().filter(|file| !now.contains(file)).collect();
        let (kept, left) = replaced.split_at(replaced.len().min(REPLACED));
        now.extend(kept);
        self.roots.insert(id, now);
        for file in left {
            self.leave(*file, id, books);
        }
        self.publish(books);
        seen
    }

    /// Sees to it that a file is attached to for this root as well.
    fn take(&mut self, id: RootId, found: &Found, books: &PamBooks) -> Result<(), String> {
        if let Some(shared) = self.files.get_mut(&found.id) {
            shared.roots.insert(id);
            return Ok(());
        }
        if let Some(why) = self.refused.get(&found.id) {
            return Err(why.clone());
        }
        match self.attach.attach(found) {
            Ok(link) => {
                books.count(Outcome::Attached);
                let shared = Shared { link, by: id, roots: FxHashSet::from_iter([id]) };
                self.files.insert(found.id, shared);
                Ok(())
            }
            Err(why) => {
                books.count(Outcome::Refused);
                if self.refused.len() >= ROOTS {
                    self.refused.clear();
                }
                self.refused.insert(found.id, why.clone());
                Err(why)
            }
        }
    }

    /// Forgets a root: nobody is in it any more.
    pub(super) fn gone(&mut self, id: RootId, books: &PamBooks) {
        for file in self.roots.remove(&id).unwrap_or_default() {
            self.leave(file, id, books);
        }
        self.publish(books);
    }

    fn leave(&mut self, file: FileId, id: RootId, books: &PamBooks) {
        let Some(shared) = self.files.get_mut(&file) else { return };
        shared.roots.remove(&id);
        if shared.roots.is_empty() {
            self.attach.detach(shared.link);
            self.files.remove(&file);
            books.count(Outcome::Released);
        }
    }

    /// Attaches to files by another path whose root is gone, where others have them. `open` opens a root.
    pub(super) fn move_on(&mut self, open: impl Fn(RootId) -> Option<RootDirectory>, books: &PamBooks) {
        for (file, shared) in &mut self.files {
            if shared.roots.contains(&shared.by) {
                continue;
            }
            let other = shared.roots.iter().find_map(|root| {
                let libraries = open(*root)?.libraries();
                Some((*root, libraries.into_iter().find(|found| found.id == *file)?))
            });
            // First the new, then the old: in between each call is told once all the same.
            if let Some((root, found)) = other
                && let Ok(link) = self.attach.attach(&found)
            {
                self.attach.detach(shared.link);
                (shared.link, shared.by) = (link, root);
                books.count(Outcome::Moved);
            }
        }
    }

    fn publish(&self, books: &PamBooks) {
        books.files.store(self.files.len() as u64, Relaxed);
        books.roots.store(self.roots.len() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        fs,
        path::Path,
        time::{Duration, SystemTime},
    };

    use super::*;

    /// Counts what is attached; what begins with `no` it refuses.
    #[derive(Debug, Default)]
    struct Fake {
        next: Cell<u32>,
        attached: RefCell<Vec<u32>>,
    }

    impl Attach for &Fake {
        type Link = u32;

        fn attach(&self, found: &Found) -> Result<u32, String> {
            if found.bytes().unwrap().starts_with(b"no") {
                return Err("refused".into());
            }
            self.next.set(self.next.get() + 1);
            self.attached.borrow_mut().push(self.next.get());
            Ok(self.next.get())
        }

        fn detach(&self, link: u32) {
            let mut attached = self.attached.borrow_mut();
            let at = attached.iter().position(|one| *one == link).expect("it was attached");
            attached.remove(at);
        }
    }

    fn root(text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("lib")).unwrap();
        fs::write(library(root.path()), text).unwrap();
        root
    }

    fn library(root: &Path) -> std::path::PathBuf {
        root.join("lib/libpam.so.0")
    }

    fn open(root: &Path) -> RootDirectory {
        RootDirectory::open(root, false).unwrap()
    }

    /// One directory as the root of several namespaces: containers that share a file.
    fn id(root: &Path, namespace: u32) -> RootId {
        open(root).id(namespace)
    }

    #[test]
    fn a_file_is_attached_to_once_and_until_its_last_root_is_gone() {
        let (fake, books) = (Fake::default(), PamBooks::default());
        let mut table = Table::new(&fake);
        let root = root("yes");
        let ids = [1, 2, 3].map(|namespace| id(root.path(), namespace));
        for id in ids {
            let seen = table.look(id, &open(root.path()), &books);
            assert_eq!(seen.attached, ["/lib/libpam.so.0"]);
        }
        assert_eq!(*fake.attached.borrow(), [1]);
        table.gone(ids[0], &books);
        // The one whose path it was is gone: another one's path takes its place.
        table.move_on(|_| Some(open(root.path())), &books);
        assert_eq!(*fake.attached.borrow(), [2]);
        table.move_on(|_| Some(open(root.path())), &books);
        assert_eq!(*fake.attached.borrow(), [2]);
        table.gone(ids[1], &books);
        table.gone(ids[2], &books);
        assert!(fake.attached.borrow().is_empty());
        assert_eq!((books.files.load(Relaxed), books.roots.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_file_that_is_replaced_is_attached_to_and_the_old_one_stays_for_a_while() {
        let (fake, books) = (Fake::default(), PamBooks::default());
        let mut table = Table::new(&fake);
        let root = root("yes");
        let id = id(root.path(), 1);
        for round in 0..10 {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + round);
            fs::File::options().write(true).open(library(root.path())).unwrap().set_modified(time).unwrap();
            table.look(id, &open(root.path()), &books);
            table.look(id, &open(root.path()), &books);
        }
        assert_eq!(*fake.attached.borrow(), [6, 7, 8, 9, 10]);
        table.gone(id, &books);
        assert!(fake.attached.borrow().is_empty());
    }

    #[test]
    fn what_cannot_be_attached_to_is_said_and_tried_once() {
        let (fake, books) = (Fake::default(), PamBooks::default());
        let mut table = Table::new(&fake);
        let root = root("no");
        for namespace in 0..3 {
            let seen = table.look(id(root.path(), namespace), &open(root.path()), &books);
            assert_eq!(seen.refused, [("/lib/libpam.so.0".into(), "refused".into())]);
        }
        assert_eq!(books.outcome(Outcome::Refused), 1);
    }
}
