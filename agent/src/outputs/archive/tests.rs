//! Rotated files: names, order, limit, compression.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use flate2::read::GzDecoder;
use jiff::Timestamp;

use super::{Archive, Form, OutputStats, STAMP, STAMP_LEN, folder, parse};

impl Archive {
    /// No file can be put aside any more.
    pub(in super::super) fn block_rotation(&self) {
        // A microsecond more is more than a time can be.
        let last = "99991230T220000.999999Z";
        fs::write(self.files.path(last, Form::Plain), "").unwrap();
    }
}

/// The rotated files beside a file, the oldest first.
pub(in super::super) fn rotated(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.", path.file_name().unwrap().to_str().unwrap());
    let entries = fs::read_dir(folder(path)).unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix);
    let mut found: Vec<_> = entries.filter(is_ours).collect();
    found.sort();
    found
}

/// What is in the rotated files and the file, in order. The compressor may be at work meanwhile.
pub(in super::super) fn read_all(path: &Path) -> String {
    let mut all = String::new();
    let mut last = None;
    for path in rotated(path) {
        let text = path.to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "part") {
            continue;
        }
        let stem = text.trim_end_matches(".gz").to_owned();
        // For a moment there are both.
        if last.replace(stem.clone()) == Some(stem.clone()) {
            continue;
        }
        let gzip = PathBuf::from(format!("{stem}.gz"));
        match fs::read_to_string(&stem) {
            Ok(text) => all.push_str(&text),
            Err(_) => all.push_str(&unpack(&gzip)),
        }
    }
    all.push_str(&fs::read_to_string(path).unwrap());
    all
}

fn unpack(path: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

fn open(path: &Path, limit: u64) -> (Archive, Arc<OutputStats>) {
    let stats = Arc::<OutputStats>::default();
    (Archive::open(path, limit, false, stats.clone()).unwrap(), stats)
}

#[test]
fn only_exact_names_are_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _) = open(&folder.path().join("events"), 0);
    let ours = |name: &str| archive.files.ours(name.as_ref()).map(|(_, form)| form);
    assert_eq!(ours("events.20261124T111530.123456Z"), Some(Form::Plain));
    assert_eq!(ours("events.20261124T111530.123456Z.gz"), Some(Form::Gzip));
    assert_eq!(ours("events.20261124T111530.123456Z.gz.part"), Some(Form::Part));
    for name in [
        "events",
        "events.1",
        "events.gz",
        "other.20261124T111530.123456Z",
        "events20261124T111530.123456Z",
        "events.20261124T111530.123456",
        "events.20261124T111530.123456z",
        "events.20261324T111530.123456Z",
        "events.20261124T111530.12345 Z",
        "events.2026112 T111530.123456Z",
        "events.20261124T111530.123456Z.zst",
        "events.20261124T111530.123456Z.gz.part.old",
        "events.a.20261124T111530.123456Z",
    ] {
        assert_eq!(ours(name), None, "{name}");
    }
    let stamp = Timestamp::now().strftime(STAMP).to_string();
    assert_eq!(stamp.len(), STAMP_LEN);
    assert_eq!(parse(&stamp).unwrap().strftime(STAMP).to_string(), stamp);
}

#[test]
fn names_go_up_even_where_the_clock_stands_or_is_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let (archive, stats) = open(&path, 0);
    for (second, text) in [(1_800_000_000, "1"), (1_800_000_000, "2"), (1_700_000_000, "3")] {
        fs::write(&path, text).unwrap();
        archive.rotate(&path, Timestamp::from_second(second).unwrap()).unwrap();
    }
    let texts: Vec<_> = rotated(&path).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert_eq!(texts, ["1", "2", "3"]);
    assert_eq!(stats.rotations.load(Relaxed), 3);
}

#[test]
fn the_oldest_are_deleted_and_what_is_not_ours_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let file = |name: &str| folder.path().join(name);
    for (name, len) in [
        ("events.20260101T000000.000000Z.gz", 40),
        ("events.20260102T000000.000000Z", 40),
        ("events.20260103T000000.000000Z", 40),
        ("events.20260101T000000.000000Z.gz.bak", 4000),
        ("events.1", 4000),
        ("another", 4000),
    ] {
        fs::write(file(name), vec![b'x'; len]).unwrap();
    }
    fs::create_dir(file("events.20260101T000000.000001Z")).unwrap();
    let (archive, stats) = open(&path, 150);
    archive.make_room(30);
    assert_eq!(stats.deleted.load(Relaxed), 0);
    archive.make_room(31);
    assert!(!file("events.20260101T000000.000000Z.gz").exists());
    assert!(file("events.20260102T000000.000000Z").exists());
    archive.make_room(1000);
    assert_eq!((rotated(&path).len(), stats.deleted.load(Relaxed)), (3, 3));
}

#[test]
fn what_a_crash_left_is_put_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let file = |name: &str| folder.path().join(format!("events.{name}"));
    // One that was being compressed, and one that was done but for the removal of its plain form.
    for name in [
        "20260101T000000.000000Z",
        "20260101T000000.000000Z.gz.part",
        "20260102T000000.000000Z",
        "20260102T000000.000000Z.gz",
    ] {
        fs::write(file(name), "x").unwrap();
    }
    open(&path, 0);
    let names = ["20260101T000000.000000Z", "20260102T000000.000000Z.gz"];
    assert_eq!(rotated(&path), names.map(file));
}

#[test]
fn compressed_files_hold_the_same_and_have_the_same_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let (archive, _) = open(&path, 0);
    let text = "{\"a\":1}\n".repeat(100_000);
    fs::write(&path, &text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    archive.rotate(&path, Timestamp::now()).unwrap();
    // Too small to gain anything.
    fs::write(&path, "x\n").unwrap();
    archive.rotate(&path, Timestamp::now()).unwrap();
    archive.files.compress_all();
    let files = rotated(&path);
    assert_eq!(files.len(), 2);
    assert!(files[0].extension().is_some_and(|extension| extension == "gz"));
    assert_eq!(unpack(&files[0]), text);
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o664);
    assert_eq!(fs::read_to_string(&files[1]).unwrap(), "x\n");
    let known = archive.files.known();
    assert_eq!(known.sum(), fs::metadata(&files[0]).unwrap().len() + 2);
}

#[test]
fn a_file_that_is_deleted_while_it_is_compressed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let (archive, _) = open(&path, 10);
    fs::write(&path, "{\"a\":1}\n".repeat(1000)).unwrap();
    archive.rotate(&path, Timestamp::now()).unwrap();
    let stamp = archive.files.known().rotated[0].stamp.clone();
    archive.make_room(5);
    assert_eq!(rotated(&path), Vec::<PathBuf>::new());
    // As if it had been opened before.
    fs::write(archive.files.path(&stamp, Form::Plain), "x".repeat(1000)).unwrap();
    archive.files.compress(&stamp, 1000).unwrap();
    assert!(!archive.files.path(&stamp, Form::Part).exists());
    assert!(!archive.files.path(&stamp, Form::Gzip).exists());
}
