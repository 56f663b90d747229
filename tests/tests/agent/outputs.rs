//! Outputs that do not take what they are given: the agent goes on, and counts what is lost to the line.

use std::{
    fs,
    io::{BufRead as _, BufReader, PipeReader, pipe},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::Command,
    time::Instant,
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::Signal,
};
use serde_json::Value;
use tellwire_tests::{Agent, at, limit, output as output_of, runtime, tellwire, until};

use crate::{quiet, work};

/// As little as it takes.
const SMALL_QUEUE: &str = "[output]\nqueue-bytes = 65536\n";

/// Works more than a small queue and a pipe hold together, until all of it has become lines; how many there are.
fn overflow(agent: &Agent) -> u64 {
    let done = work(agent, 250, 250);
    let all = done.lines();
    agent.expect_metric("tellwire_lines_total", &[], all);
    all
}

/// An agent that writes to a pipe, and the pipe's other end.
fn with_pipe() -> (Agent, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    let setup = || {
        let writer = writer.try_clone().expect("another descriptor");
        quiet().config(SMALL_QUEUE).output("stdout").stdout(writer)
    };
    let agent = Agent::with(setup);
    (agent, reader)
}

fn dropped(agent: &Agent, output: &str) -> u64 {
    let metrics = agent.scrape();
    let dropped = metrics.get("tellwire_output_dropped_total", &[("output", output)]);
    // Both books say the same.
    assert_eq!(metrics.get("tellwire_events_lost_total", &[("stage", "output")]), dropped);
    dropped
}

/// It must not die of it.
fn assert_alive_and_exact(agent: Agent) {
    assert_eq!(agent.get("/healthz").0, 200);
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
    let start = Instant::now();
    let stopped = agent.stop();
    assert!(start.elapsed() < limit());
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    assert!(stopped.ledgers.values().all(tellwire_tests::Ledger::is_exact), "{:?}", stopped.ledgers);
}

#[test]
fn a_reader_that_has_gone_costs_its_lines_and_nothing_else() {
    let (agent, reader) = with_pipe();
    drop(reader);
    let all = overflow(&agent);
    until("everything is lost", || (dropped(&agent, "stdout") == all).then_some(()));
    agent.expect_metric("tellwire_output_events_total", &[("output", "stdout")], 0);
    agent.expect_metric("tellwire_output_failed", &[("output", "stdout")], 1);
    assert_alive_and_exact(agent);
}

#[test]
fn a_reader_that_stands_still_costs_what_finds_no_room() {
    let (agent, reader) = with_pipe();
    let all = overflow(&agent);
    let lost = dropped(&agent, "stdout");
    assert!(lost > 0 && lost < all, "{lost} of {all}");
    // It goes on reading: what waited comes through, and whole lines only.
    let mut lines = BufReader::new(reader).lines();
    let mut read = 0;
    while read < all - lost {
        let line = lines.next().expect("another line").expect("a line");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert!(event["process"]["pid"].is_u64(), "{event}");
        read += 1;
    }
    agent.expect_metric("tellwire_output_events_total", &[("output", "stdout")], read);
    assert_eq!(dropped(&agent, "stdout"), lost);
    assert_alive_and_exact(agent);
}

#[test]
fn a_reader_that_stands_still_does_not_keep_the_agent_from_ending() {
    let (agent, _reader) = with_pipe();
    overflow(&agent);
    assert_alive_and_exact(agent);
}

#[test]
fn a_full_disk_costs_what_finds_no_room() {
    let agent = Agent::with(|| quiet().config(SMALL_QUEUE).output("file:/dev/full"));
    let all = overflow(&agent);
    agent.expect_metric("tellwire_output_failed", &[("output", "file")], 1);
    agent.expect_metric("tellwire_output_events_total", &[("output", "file")], 0);
    let lost = dropped(&agent, "file");
    assert!(lost > 0 && lost < all, "{lost} of {all}");
    assert!(agent.log().iter().any(|line| line.contains("No space left")), "{:?}", agent.log());
    assert_alive_and_exact(agent);
}

#[test]
fn a_stalled_output_does_not_touch_another() {
    let (_reader, writer) = pipe().expect("a pipe");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("other.ndjson");
    let agent = Agent::with(|| {
        let writer = writer.try_clone().expect("another descriptor");
        // With room for all of it: a small queue would lose a burst even to a disk.
        let setup = quiet().output("stdout").stdout(writer);
        setup.arguments(["--output", &format!("file:{}", file.display())])
    });
    let all = overflow(&agent);
    agent.expect_metric("tellwire_output_events_total", &[("output", "file")], all);
    agent.expect_metric("tellwire_output_dropped_total", &[("output", "file")], 0);
    assert_alive_and_exact(agent);
    let lines = fs::read_to_string(&file).expect("the other output").lines().count();
    assert_eq!(lines as u64, all);
}

#[test]
fn a_file_that_is_moved_away_is_made_anew() {
    let agent = Agent::start();
    let events = agent.folder().join("events.ndjson");
    work(&agent, 1, 0);
    agent.expect(None, "exec", &serde_json::json!({}));
    fs::rename(&events, agent.folder().join("moved.ndjson")).expect("moving it");
    work(&agent, 1, 0);
    until("a new file", || events.exists().then_some(()));
}

/// A file system of 256 KiB; the agent that writes to it must be dropped before.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=256k"))
            .expect("a small disk");
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).expect("taking the disk away");
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_what_finds_no_room_and_no_line_is_torn() {
    let disk = Disk::mount();
    let (events, filler) = (disk.0.path().join("events.ndjson"), disk.0.path().join("filler"));
    fs::write(&filler, vec![0; 200 << 10]).expect("filling the disk");
    let agent = Agent::with(|| quiet().config(SMALL_QUEUE).output(&format!("file:{}", events.display())));
    let all = overflow(&agent);
    agent.expect_metric("tellwire_output_failed", &[("output", "file")], 1);
    fs::remove_file(&filler).expect("room");
    agent.expect_metric("tellwire_output_failed", &[("output", "file")], 0);
    let lost = until("all is written or lost", || {
        let lost = dropped(&agent, "file");
        (agent.metric("tellwire_output_events_total", &[]) + lost == all).then_some(lost)
    });
    assert!(lost > 0 && lost < all, "{lost} of {all}");
    let said = |part: &str| agent.log().iter().filter(|line| line.contains(part)).count();
    assert_eq!((said("output fails"), said("output works again")), (1, 1), "{:?}", agent.log());
    assert_alive_and_exact(agent);
    assert_eq!(events_in(&fs::read_to_string(&events).expect("the file")), all - lost);
}

/// How many lines these are, each of which must be JSON.
fn events_in(text: &str) -> u64 {
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert!(at(&event, "process.pid").is_some_and(Value::is_u64), "{event}");
    }
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().count() as u64
}

#[test]
fn files_are_rotated_and_compressed_and_hold_every_line_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let events = folder.path().join("events.ndjson");
    let config = "[output.file]\nmax-bytes = '32 KiB'\nmode = '0600'\ngroup = '0'\n";
    let agent = Agent::with(|| quiet().config(config).output(&format!("file:{}", events.display())));
    let all = overflow(&agent);
    agent.expect_metric("tellwire_output_events_total", &[], all);
    let rotations = agent.metric("tellwire_output_rotations_total", &[("output", "file")]);
    assert!(rotations > 2, "{rotations}");
    let compressed = || {
        let entries =
            fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("a file").path());
        let mut files: Vec<PathBuf> = entries.filter(|path| *path != events).collect();
        files.sort();
        let is_done = files.iter().all(|file| file.extension().is_some_and(|extension| extension == "gz"));
        (is_done && files.len() as u64 == rotations).then_some(files)
    };
    let files = until("all is compressed", compressed);
    assert_alive_and_exact(agent);
    let mut text = runtime::run(Command::new(runtime::program("gzip", "gzip")).arg("-dc").args(&files));
    text.push_str(&fs::read_to_string(&events).expect("the file"));
    assert_eq!(events_in(&text), all);
    for file in files.iter().chain([&events]) {
        assert_eq!(fs::metadata(file).expect("the file").mode() & 0o777, 0o600);
    }
}

#[test]
fn a_hangup_opens_a_file_that_logrotate_moved_away() {
    let agent = Agent::start();
    let events = agent.folder().join("events.ndjson");
    let mut first = agent.exec("/bin/true", &["true", "before"]);
    agent.settle(&mut first);
    let moved = agent.folder().join("moved.ndjson");
    fs::rename(&events, &moved).expect("moving it");
    // As logrotate's `create` does.
    fs::write(&events, "").expect("a new file");
    agent.signal(Signal::HUP);
    until("it says so", || agent.log().iter().any(|line| line.contains("SIGHUP")).then_some(()));
    let mut second = agent.exec("/bin/true", &["true", "after"]);
    agent.settle(&mut second);
    let has = |path: &PathBuf, word: &str| fs::read_to_string(path).expect("a file").contains(word);
    assert!(has(&moved, "before") && !has(&moved, "after"));
    assert!(has(&events, "after") && !has(&events, "before"));
    agent.expect_metric("tellwire_output_dropped_total", &[], 0);
    assert_alive_and_exact(agent);
}

#[test]
fn a_folder_that_vanishes_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).expect("its folder");
    let events = logs.join("events.ndjson");
    let agent = Agent::with(|| quiet().output(&format!("file:{}", events.display())));
    fs::remove_dir_all(&logs).expect("taking it away");
    let all = overflow(&agent);
    agent.expect_metric("tellwire_output_events_total", &[], all);
    agent.expect_metric("tellwire_output_dropped_total", &[], 0);
    assert_alive_and_exact(agent);
    assert_eq!(events_in(&fs::read_to_string(&events).expect("the file")), all);
}

#[test]
fn two_agents_do_not_write_to_one_file() {
    let agent = Agent::start();
    let output = format!("file:{}", agent.folder().join("events.ndjson").display());
    let second =
        output_of(&mut tellwire(["run", "--listen", "none", "--duration", "100ms", "--output", &output]));
    assert_eq!(second.status.code(), Some(64));
    let said = String::from_utf8(second.stderr).expect("UTF-8");
    assert!(said.contains("another output or another tellwire writes to it"), "{said}");
}
