//! Outputs that do not take what they are given: the agent goes on, and counts what is lost to the line.

use std::{
    fs,
    io::{BufRead as _, BufReader, PipeReader, pipe},
    time::Instant,
};

use serde_json::Value;
use tellwire_tests::{Agent, Setup, limit, until};

use crate::work;

/// As little as it takes.
const SMALL_QUEUE: &str = "[output]\nqueue-bytes = 65536\n";

/// Works more than a small queue and a pipe hold together, until all of it has become lines; how many there are.
fn overflow(agent: &Agent) -> u64 {
    let done = work(agent, 250, 250);
    let all = done.execs + done.exits + done.connects;
    agent.expect_metric("tellwire_lines_total", &[], all);
    all
}

/// An agent that writes to a pipe, and the pipe's other end.
fn with_pipe() -> (Agent, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    let setup = || {
        let writer = writer.try_clone().expect("another descriptor");
        Setup::default().config(SMALL_QUEUE).output("stdout").stdout(writer)
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
    let agent = Agent::with(|| Setup::default().config(SMALL_QUEUE).output("file:/dev/full"));
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
        let setup = Setup::default().output("stdout").stdout(writer);
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
