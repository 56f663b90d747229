//! Recorded ring bytes → golden lines: everything right of the ring, with no kernel.
//!
//! `tellwire run --record FILE` writes a recording; `TELLWIRE_BLESS=1 cargo test replay` writes the golden
//! lines anew. The recordings are those of one wire version: a new one needs new recordings.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use serde_json::{Value, json};
use tellwire_ebpf::{exec::Exec, wire::Header};
use tokio::sync::mpsc;

use super::{Outbox, Selection, State, recording::records};
use crate::{
    books::{Books, Sequences},
    config::{Output, Profile},
    enrich::{containers::Containers, processes::Processes, users::Users},
    events::{self, Event},
    host::HostRoot,
    lines::{
        clock::Clock,
        fields::{Boot, Host},
        origin::{Agent, Origin, Place},
    },
    metrics::Histograms,
    outputs::{Encodings, Fanout, Observer},
};

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/pipeline/testdata");

/// The lines of a recording, on a host that never changes.
fn replay(recording: &[u8], profile: Profile, books: &Books) -> String {
    let etc = tempfile::tempdir().unwrap();
    fs::write(etc.path().join("passwd"), "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
        .unwrap();
    fs::write(etc.path().join("group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    let boot = "00000000-0000-4000-8000-000000000000".to_owned();
    let host =
        Host { name: Some("node-1".into()), id: Some("0".repeat(32)), boot: Boot { id: boot.clone() } };
    let processes = Processes::new(boot, 1024, u64::MAX);
    let users = Users::new(etc.path());
    let origin = Origin::new(&host, &Agent::new("an-id".into()), Place::default()).unwrap();
    let mut state =
        State::new(processes, Containers::default(), users, origin, u64::MAX, Histograms::default());
    state.clock = Clock::fixed(1_800_000_000_000_000_000);
    let observer: Observer = Arc::new(|_| {});
    let output = Output { to: Vec::new(), ..Output::default() };
    let fanout = Fanout::open(&output, &HostRoot::new("/")).unwrap().start(1 << 20, &observer).unwrap();
    let mut outbox = Outbox::new(fanout, Selection::of(profile));
    outbox.encode(Encodings { json: true, pretty: true });
    let (removed, _gone) = mpsc::channel(16);
    for (ring, record) in records(recording) {
        state.record(ring, record, &mut outbox, books, &removed);
    }
    String::from_utf8(outbox.pending().to_vec()).unwrap()
}

#[tokio::test]
async fn recordings_give_their_golden_lines() {
    let mut recordings = 0;
    for entry in fs::read_dir(TESTDATA).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rec") {
            continue;
        }
        recordings += 1;
        let recording = fs::read(&path).unwrap();
        for (profile, golden) in [(Profile::Full, "ndjson"), (Profile::Default, "default.ndjson")] {
            compare(&path.with_extension(golden), &replay(&recording, profile, &Books::default()));
        }
    }
    assert!(recordings > 0, "no recording in {TESTDATA}");
}

fn compare(golden: &Path, lines: &str) {
    if std::env::var_os("TELLWIRE_BLESS").is_some() {
        fs::write(golden, lines).unwrap();
    }
    let expected = fs::read_to_string(golden).unwrap();
    for (number, (line, expected)) in lines.lines().zip(expected.lines()).enumerate() {
        let (line, expected): (Value, Value) =
            (serde_json::from_str(line).unwrap(), serde_json::from_str(expected).unwrap());
        assert_eq!(line, expected, "{}:{}", golden.display(), number + 1);
    }
    assert_eq!(lines.lines().count(), expected.lines().count(), "{}", golden.display());
}

#[tokio::test]
async fn records_that_are_cut_give_errors_that_are_counted() {
    let recording = fs::read(Path::new(TESTDATA).join("shell.rec")).unwrap();
    let whole = records(&recording);
    let mut damaged = Vec::new();
    for (number, (ring, record)) in whole.iter().enumerate() {
        let cut = record.len() * (number % 7) / 7;
        damaged.push(*ring as u8);
        damaged.extend(u32::try_from(cut).unwrap().to_le_bytes());
        damaged.extend(&record[..cut]);
    }
    let books = Books::default();
    let lines = replay(&damaged, Profile::Full, &books);
    let errors: u64 = books.decode_errors.iter().map(|counter| counter.load(Relaxed)).sum();
    assert!(errors + books.unknown_records.load(Relaxed) > 0);
    assert!(lines.lines().count() < whole.len());
}

/// What an exploit does that is root in a container: nothing of its ids changes.
#[tokio::test]
async fn an_exec_with_a_bounding_set_that_grew_is_told_with_what_it_was() {
    const SYS_ADMIN: u64 = 1 << 21;
    let bounding = size_of::<Header>() + std::mem::offset_of!(Exec, capabilities.bounding);
    let bounding = bounding..bounding + size_of::<u64>();
    let recording = fs::read(Path::new(TESTDATA).join("shell.rec")).unwrap();
    let changed = |recording: &[u8]| -> Vec<Value> {
        let lines = replay(recording, Profile::Full, &Books::default());
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"]["action"] == "credentials_changed").collect()
    };
    assert_eq!(changed(&recording).len(), 0);
    // The shell and what became it have less than what the shell runs then.
    let (mut lowered, mut execs) = (Vec::new(), 0);
    for (ring, record) in records(&recording) {
        let mut record = record.to_vec();
        if matches!(events::decode(&record), Ok((_, Event::Exec(_)))) {
            execs += 1;
            if execs <= 2 {
                let set = u64::from_le_bytes(record[bounding.clone()].try_into().unwrap());
                record[bounding.clone()].copy_from_slice(&(set & !SYS_ADMIN).to_le_bytes());
            }
        }
        lowered.push(ring as u8);
        lowered.extend(u32::try_from(record.len()).unwrap().to_le_bytes());
        lowered.extend(&record);
    }
    let told = changed(&lowered);
    assert_eq!(told.len(), execs - 2);
    for line in told {
        let [old, new] = ["old", "new"].map(|side| {
            let bounding = line["tellwire"]["credentials"][side]["bounding"].as_array().unwrap();
            bounding.contains(&json!("CAP_SYS_ADMIN"))
        });
        assert!(!old && new, "{line}");
        assert_eq!(line["event"]["severity"], 4);
    }
}

#[test]
fn sequences_of_a_recording_have_no_gap() {
    let recording = fs::read(Path::new(TESTDATA).join("shell.rec")).unwrap();
    let mut sequences = Sequences::default();
    for (ring, record) in records(&recording) {
        sequences.take(ring, &events::decode(record).unwrap().0);
    }
    assert_eq!(sequences.gaps(), 0);
}
