//! One file: whole lines, wherever it goes, and in what it is cut into.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::archive::tests::{read_all, rotated};
use super::super::{Batch, Counts, Fact, OutputStats};
use super::{Appender, Settings, Target as _, line_start};

/// Never rotates.
pub(in super::super) fn settings() -> Settings {
    Settings {
        max_bytes: 0,
        max_age: Duration::ZERO,
        total_bytes: 0,
        compress: false,
        mode: 0o640,
        group: None,
    }
}

fn open(path: &Path, settings: Settings) -> io::Result<(Appender, Arc<OutputStats>)> {
    let stats = Arc::<OutputStats>::default();
    Ok((Appender::open(path, settings, stats.clone())?, stats))
}

fn batch(text: &str) -> Batch {
    let fact = Fact { time: 0, wall: 0, ring: 0, action: 0, is_failure: false };
    let facts = vec![fact; text.lines().count()];
    Batch { bytes: text.to_owned().into(), counts: Counts::default(), facts: facts.into() }
}

fn write(file: &mut Appender, text: &str) {
    let written = file.write(&batch(text), 0);
    written.result.unwrap();
    assert_eq!(written.upto, text.len());
}

fn folder() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    (folder, path)
}

#[test]
fn a_line_starts_after_the_newline_before_it() {
    let starts: Vec<_> = (0..=7).map(|upto| line_start(b"ab\ncd\ne", upto)).collect();
    assert_eq!(starts, [0, 0, 0, 3, 3, 3, 6, 6]);
}

#[test]
fn lines_are_appended_and_others_cannot_read_them() {
    let (_folder, path) = folder();
    for _ in 0..2 {
        write(&mut open(&path, settings()).unwrap().0, "one\ntwo\n");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\none\ntwo\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn files_are_made_with_the_mode_and_the_group_and_others_keep_theirs() {
    let (folder, path) = folder();
    // One that this process may give files to, root or not.
    let group = fs::metadata(folder.path()).unwrap().gid();
    let settings = Settings { mode: 0o664, group: Some(group), max_bytes: 8, ..settings() };
    let (mut file, _) = open(&path, settings).unwrap();
    write(&mut file, "one\ntwo\nthree\n");
    for name in rotated(&path).into_iter().chain([path.clone()]) {
        let metadata = fs::metadata(name).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o664, group));
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    file.reopen().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn half_a_line_is_taken_back_unless_someone_else_writes_too() {
    let (_folder, path) = folder();
    let bytes = b"one\ntwo\n";
    let (mut file, _) = open(&path, settings()).unwrap();
    fs::write(&path, "zero\none\ntw").unwrap();
    assert_eq!(file.take_back(5, bytes, 0, 6), 4);
    assert_eq!(fs::read_to_string(&path).unwrap(), "zero\none\n");

    fs::write(&path, "zero\none\ntwsomebody").unwrap();
    assert_eq!(file.take_back(5, bytes, 0, 6), 6);
    assert_eq!(fs::read_to_string(&path).unwrap(), "zero\none\ntwsomebody");
}

#[test]
fn a_file_that_was_moved_is_made_anew_and_gets_whole_lines() {
    let (folder, path) = folder();
    let moved = folder.path().join("events.1");
    let (mut file, _) = open(&path, settings()).unwrap();
    write(&mut file, "one\ntwo\n");
    fs::rename(&path, &moved).unwrap();
    // As if half of a line had gone to the old one.
    file.live.is_torn = true;
    file.write(&batch("three\nfour\n"), 8).result.unwrap();
    assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
}

#[test]
fn a_file_that_was_moved_is_made_anew_without_a_line_and_on_demand() {
    let (folder, path) = folder();
    let (mut file, _) = open(&path, settings()).unwrap();
    for act in [Appender::tick, Appender::reopen] {
        fs::rename(&path, folder.path().join("moved")).unwrap();
        act(&mut file).unwrap();
        assert!(path.exists());
    }
}

#[test]
fn a_folder_that_vanished_is_made_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a/b");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o2750)).unwrap();
    let settings = Settings { max_bytes: 4, ..settings() };
    let (mut file, stats) = open(&folder.join("events"), settings).unwrap();
    write(&mut file, "one\ntwo\n");
    fs::remove_dir_all(root.path().join("a")).unwrap();
    write(&mut file, "three\n");
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o2750);
    assert_eq!(fs::read_to_string(folder.join("events")).unwrap(), "three\n");
    assert_eq!(stats.rotations.load(Relaxed), 1);
}

#[test]
fn a_file_that_two_write_to_is_refused() {
    let (_folder, path) = folder();
    let (file, _) = open(&path, settings()).unwrap();
    let error = open(&path, settings()).err().unwrap().to_string();
    assert_eq!(error, "another output or another tellwire writes to it: name another file");
    drop(file);
    open(&path, settings()).unwrap();
    // Opening its own again is no quarrel.
    let (mut file, _) = open(&path, settings()).unwrap();
    file.reopen().unwrap();
}

#[test]
fn what_is_no_regular_file_is_not_rotated() {
    let (folder, path) = folder();
    let small = || Settings { max_bytes: 4, max_age: Duration::from_nanos(1), ..settings() };
    let (mut file, _) = open(Path::new("/dev/null"), small()).unwrap();
    write(&mut file, "one\ntwo\n");
    // A link such as /dev/stderr: what it leads to is somebody else's.
    let target = folder.path().join("target");
    symlink(&target, &path).unwrap();
    fs::write(&target, "").unwrap();
    let (mut file, _) = open(&path, small()).unwrap();
    write(&mut file, "one\ntwo\n");
    assert_eq!(fs::read_to_string(&target).unwrap(), "one\ntwo\n");
    assert_eq!(rotated(&path), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_fifo_is_refused_instead_of_waited_for() {
    let (_folder, path) = folder();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    let error = open(&path, settings()).err().unwrap().to_string();
    assert_eq!(error, "a FIFO is no file: write to stdout and pipe that");
}

#[test]
fn a_file_that_is_old_enough_is_put_aside_even_without_a_line() {
    let (_folder, path) = folder();
    let (mut file, stats) = open(&path, Settings { max_age: Duration::from_nanos(1), ..settings() }).unwrap();
    // Nothing is in it.
    file.tick().unwrap();
    assert_eq!(stats.rotations.load(Relaxed), 0);
    write(&mut file, "one\n");
    file.tick().unwrap();
    assert_eq!((stats.rotations.load(Relaxed), fs::read_to_string(&path).unwrap().as_str()), (1, ""));
    assert_eq!(read_all(&path), "one\n");
    // A restart does not make a file younger, and a young one stays.
    drop(file);
    fs::write(&path, "two\n").unwrap();
    let (mut file, stats) = open(&path, Settings { max_age: Duration::from_hours(1), ..settings() }).unwrap();
    file.tick().unwrap();
    assert_eq!(stats.rotations.load(Relaxed), 0);
}

#[test]
fn a_file_that_cannot_be_put_aside_grows_up_to_the_limit_of_all() {
    let (folder, path) = folder();
    let (mut file, _) = open(&path, Settings { max_bytes: 4, total_bytes: 12, ..settings() }).unwrap();
    write(&mut file, "one\n");
    // A folder of the name that the rotated file would have stands in its way; whatever the time is.
    file.archive.as_ref().unwrap().block_rotation();
    write(&mut file, "two\n");
    let written = file.write(&batch("three\n"), 0);
    assert!(written.upto == 0 && written.result.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    drop(folder);
}

/// What happens to a file.
#[derive(Debug, Clone)]
enum Step {
    /// Lines of these lengths, their newlines not counted.
    Write(Vec<usize>),
    Restart,
    Reopen,
    Tick,
    /// Somebody else moves the file away, as logrotate does.
    Steal,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(4..60_usize, 1..12).prop_map(Step::Write),
        1 => Just(Step::Restart),
        1 => Just(Step::Reopen),
        1 => Just(Step::Tick),
        1 => Just(Step::Steal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_all_files_together_are_the_lines_in_order(
        steps in prop::collection::vec(step(), 1..20),
        max_bytes in 20..200_u64,
        limited in any::<bool>(),
        compress in any::<bool>(),
    ) {
        let (folder, path) = folder();
        let total_bytes = if limited { max_bytes * 3 } else { 0 };
        let settings = Settings { max_bytes, total_bytes, compress, ..settings() };
        let (mut file, mut stats) = open(&path, settings.clone()).unwrap();
        let (mut all, mut number, mut rotations, mut deleted) = (String::new(), 0, 0, 0);
        for step in steps {
            match step {
                Step::Write(lengths) => {
                    let mut text = String::new();
                    for length in lengths {
                        writeln!(text, "{number:0length$}").unwrap();
                        number += 1;
                    }
                    write(&mut file, &text);
                    all.push_str(&text);
                }
                Step::Restart => {
                    rotations += stats.rotations.load(Relaxed);
                    deleted += stats.deleted.load(Relaxed);
                    drop(file);
                    (file, stats) = open(&path, settings.clone()).unwrap();
                }
                Step::Reopen => file.reopen().unwrap(),
                Step::Tick => file.tick().unwrap(),
                Step::Steal => {
                    // What was in it is with whoever took it.
                    let stolen = fs::read_to_string(&path).unwrap();
                    fs::rename(&path, folder.path().join("stolen")).unwrap();
                    prop_assert!(all.ends_with(&stolen));
                    file.tick().unwrap();
                    all.truncate(all.len() - stolen.len());
                }
            }
            let live = fs::metadata(&path).unwrap().len();
            prop_assert!(live <= max_bytes || fs::read_to_string(&path).unwrap().lines().count() == 1);
            if limited {
                // One that the compressor has just finished is there no more.
                let size = |path: &std::path::PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
                let sum: u64 = rotated(&path).iter().map(size).sum();
                prop_assert!(sum + live <= total_bytes, "{sum} + {live} > {total_bytes}");
            }
        }
        rotations += stats.rotations.load(Relaxed);
        deleted += stats.deleted.load(Relaxed);
        drop(file);
        let read = read_all(&path);
        if !compress {
            prop_assert_eq!(rotated(&path).len() as u64, rotations - deleted);
        }
        // The oldest are gone where there is a limit, whole files of them.
        prop_assert!(all.ends_with(&read), "{} does not end in {}", all, read);
        prop_assert!(limited || all == read);
    }
}
