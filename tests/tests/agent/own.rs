//! What the agent tells of itself: the family `agent`.

use std::{collections::BTreeMap, fs};

use rustix::process::Signal;
use serde_json::{Value, json};
use tellwire_tests::{Agent, Setup, Stopped, at, bpf, ecs, within_limit};

use crate::{count, work};

fn actions(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| at(line, "event.action")?.as_str()).collect()
}

fn one<'l>(lines: &'l [Value], action: &str) -> &'l Value {
    let mut found = lines.iter().filter(|line| at(line, "event.action").is_some_and(|found| found == action));
    let line = found.next();
    assert!(line.is_some() && found.next().is_none(), "not one {action} in {lines:?}");
    line.expect("it is there")
}

fn number(line: &Value, path: &str) -> f64 {
    at(line, path).and_then(Value::as_f64).expect("a number")
}

fn count_at(line: &Value, path: &str) -> u64 {
    at(line, path).and_then(Value::as_u64).expect("a count")
}

fn stopped(agent: Agent, signal: Signal) -> Stopped {
    agent.signal(signal);
    let stopped = agent.wait();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    stopped
}

#[test]
fn a_run_begins_and_ends_with_a_line_and_the_ledger_counts_every_line_between() {
    let agent = Agent::start();
    let pid = agent.pid();
    let done = work(&agent, 5, 5);
    let stopped = stopped(agent, Signal::INT);
    assert_eq!(actions(&stopped.own), ["agent_started", "ledger", "agent_stopped"]);
    for line in &stopped.own {
        let faults = ecs::faults(line);
        assert!(faults.is_empty(), "{faults:#?}\nin {line}");
        assert_eq!(at(line, "process.pid"), Some(&json!(pid)), "{line}");
        assert_eq!(at(line, "process.name"), Some(&json!("tellwire")), "{line}");
        assert!(at(line, "process.executable").is_some() && at(line, "user.id").is_some(), "{line}");
        assert_eq!(at(line, "agent.name"), Some(&json!("tellwire")), "{line}");
        assert_eq!(at(line, "agent.ephemeral_id"), at(&stopped.own[0], "agent.ephemeral_id"), "{line}");
    }
    let started = one(&stopped.own, "agent_started");
    assert_eq!(at(started, "tellwire.started.blind_seconds"), None, "{started}");
    let probes = at(started, "tellwire.started.probes").and_then(Value::as_array).expect("a list");
    let exec = probes.iter().find(|probe| probe["name"] == "exec").expect("the probe");
    assert_eq!(exec, &json!({"name": "exec", "attached": true, "by": "raw tracepoint"}));
    let settings = at(started, "tellwire.started.settings").and_then(Value::as_array).expect("a list");
    assert!(settings.iter().any(|setting| setting["key"] == "agent.cgroups"), "{settings:?}");

    let ledger = one(&stopped.own, "ledger");
    assert_eq!(at(ledger, "tellwire.ledger.balanced"), Some(&json!(true)));
    assert_eq!(at(ledger, "tellwire.ledger.last"), Some(&json!(true)));
    let lines = at(ledger, "tellwire.ledger.lines").and_then(Value::as_array).expect("a list");
    let made: BTreeMap<&str, u64> = lines
        .iter()
        .map(|line| (line["action"].as_str().expect("text"), line["made"].as_u64().expect("a number")))
        .collect();
    for (action, made) in &made {
        let own = u64::from(*action == "agent_started");
        assert_eq!(count(&stopped.events, action) + own, *made, "{action}");
    }
    assert_eq!((made["exec"], made["exit"], made["connect"]), (done.execs, done.exits, done.connects));
    let kernel = at(ledger, "tellwire.ledger.kernel").and_then(Value::as_array).expect("a list");
    let exec = kernel.iter().find(|kind| kind["action"] == "exec").expect("the kind");
    assert_eq!((&exec["seen"], &exec["received"]), (&json!(done.execs), &json!(done.execs)));

    let end = one(&stopped.own, "agent_stopped");
    assert_eq!(at(end, "event.reason"), Some(&json!("SIGINT")));
    assert_eq!(at(end, "event.outcome"), Some(&json!("success")));
    assert_eq!(count_at(end, "tellwire.stopped.lines"), made.values().sum::<u64>() + 1);
    assert!(number(end, "tellwire.stopped.uptime_seconds") > 0.0);
    assert_eq!(count_at(end, "tellwire.stopped.lost"), 0);
}

/// The one test that waits a minute: what an operator reads of an agent that runs is told by its timer, not by its end.
#[test]
fn once_a_minute_a_ledger_says_that_all_adds_up() {
    let agent = Agent::start();
    let done = work(&agent, 20, 20);
    let ledger =
        || agent.own_events().into_iter().find(|line| at(line, "event.action") == Some(&json!("ledger")));
    let ledger = (0..12).find_map(|_| within_limit(ledger)).expect("a ledger within two minutes");
    assert_eq!(at(&ledger, "tellwire.ledger.last"), Some(&json!(false)), "{ledger}");
    assert_eq!(at(&ledger, "tellwire.ledger.balanced"), Some(&json!(true)), "{ledger}");
    let kernel = at(&ledger, "tellwire.ledger.kernel").and_then(Value::as_array).expect("a list");
    for (action, number) in [("exec", done.execs), ("connect", done.connects), ("exit", done.exits)] {
        let row = kernel.iter().find(|row| row["action"] == action).expect("the kind");
        assert_eq!((&row["seen"], &row["received"]), (&json!(number), &json!(number)), "{ledger}");
    }
    assert_eq!(actions(&stopped(agent, Signal::TERM).own).last(), Some(&"agent_stopped"));
}

#[test]
fn the_next_run_says_how_long_nobody_looked() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!("[agent]\nstate-dir = '{}'\n", folder.path().join("a/state").display());
    let run = |signal| {
        let agent = Agent::with_config(&config);
        agent.expect(agent.pid(), "agent_started", &json!({}));
        agent.signal(signal);
        agent.wait().own
    };
    let first = run(Signal::TERM);
    let started = one(&first, "agent_started");
    assert_eq!(at(started, "tellwire.started.last_run"), None);
    let second = run(Signal::KILL);
    let last_run = |lines: &[Value]| {
        let line = one(lines, "agent_started");
        let blind = number(line, "tellwire.started.blind_seconds");
        assert!(blind > 0.0 && blind < 60.0, "{blind}");
        at(line, "tellwire.started.last_run").cloned().expect("a run before")
    };
    let id = |lines: &[Value]| at(&lines[0], "agent.ephemeral_id").cloned().expect("an id");
    let clean =
        |lines: &[Value], clean| json!({"ephemeral_id": id(lines), "clean": clean, "rebooted": false});
    assert_eq!(last_run(&second), clean(&first, true));
    let third = run(Signal::TERM);
    assert_eq!(last_run(&third), clean(&second, false));
}

#[test]
fn without_its_notes_it_goes_on_and_says_so_once() {
    let agent = Agent::start();
    // Another one with the same folder.
    let config = format!("[agent]\nstate-dir = '{}'\n", agent.folder().join("state").display());
    let second = Agent::with_config(&config);
    for (agent, state) in [(agent, "ready"), (second, "degraded")] {
        let (status, body) = agent.get("/readyz");
        assert_eq!(status, 200);
        assert!(body.contains(&format!("\"status\":\"{state}\"")), "{body}");
        work(&agent, 2, 0);
        let stopped = stopped(agent, Signal::TERM);
        let said = stopped.log.iter().filter(|line| line.contains("another agent uses it")).count();
        assert_eq!(said, usize::from(state == "degraded"), "{:?}", stopped.log);
        assert_eq!(actions(&stopped.own).first(), Some(&"agent_started"));
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "").expect("a file");
    let agent = Agent::with_config(&format!("[agent]\nstate-dir = '{}'\n", file.path().display()));
    assert!(agent.get("/readyz").1.contains("state-dir"));
    stopped(agent, Signal::TERM);
}

#[test]
fn what_small_rings_lose_is_told() {
    let agent = Agent::with_config("[kernel]\nring-bytes = 4096\npoll-interval = \"100ms\"\n");
    work(&agent, 300, 2000);
    let stopped = stopped(agent, Signal::TERM);
    let lines =
        stopped.own.iter().filter(|line| at(line, "event.action").is_some_and(|a| a == "events_lost"));
    let mut told: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in lines {
        assert_eq!(at(line, "event.outcome"), Some(&json!("failure")));
        let (from, to) = (at(line, "tellwire.lost.from"), at(line, "tellwire.lost.to"));
        assert!(from.and_then(Value::as_str) < to.and_then(Value::as_str), "{line}");
        for loss in at(line, "tellwire.lost.lost").and_then(Value::as_array).expect("a list") {
            let text = |key: &str| loss[key].as_str().expect("text").to_owned();
            *told.entry((text("action"), text("stage"))).or_default() +=
                loss["count"].as_u64().expect("a number");
        }
    }
    let full = stopped.ledgers.iter().filter(|(_, ledger)| ledger.ring_full > 0);
    let full: BTreeMap<_, _> =
        full.map(|(action, ledger)| ((action.clone(), "ring".to_owned()), ledger.ring_full)).collect();
    assert!(!full.is_empty(), "a ring of a page holds all of it?");
    assert_eq!(told, full);
    let end = one(&stopped.own, "agent_stopped");
    assert_eq!(count_at(end, "tellwire.stopped.lost"), full.values().sum::<u64>());
}

#[test]
fn what_the_throttle_holds_back_is_told_and_is_no_failure() {
    let agent = Agent::with_config("[kernel]\nthrottle-process = 10\n");
    work(&agent, 100, 0);
    // Not only at the end.
    let line = agent.expect(agent.pid(), "events_lost", &json!({"event.outcome": "success"}));
    let losses = at(&line, "tellwire.lost.lost").and_then(Value::as_array).expect("a list");
    assert!(losses.iter().all(|loss| loss["stage"] == "throttle"), "{line}");
    let stopped = stopped(agent, Signal::TERM);
    assert_eq!(count_at(one(&stopped.own, "agent_stopped"), "tellwire.stopped.lost"), 0);
}

#[test]
fn a_program_that_somebody_detaches_is_told() {
    let agent = Agent::start();
    assert_eq!(agent.metric("tellwire_probe_attached", &[("probe", "connect_denied")]), 1);
    assert_eq!(bpf::detach_from_cgroups(agent.pid()), 2);
    let fields = json!({
        "event.outcome": "failure",
        "tellwire.probe": {"name": "connect_denied", "by": "cgroup hook", "attached": false},
    });
    let line = agent.expect(agent.pid(), "probe_lost", &fields);
    assert!(ecs::faults(&line).is_empty(), "{line}");
    agent.expect_metric("tellwire_probe_attached", &[("probe", "connect_denied")], 0);
    agent.expect_metric("tellwire_events_total", &[("action", "probe_lost")], 1);
    let (status, body) = agent.get("/readyz");
    assert!(status == 200 && body.contains("probe connect_denied is not attached any more"), "{body}");
    stopped(agent, Signal::TERM);
}

#[test]
fn a_terminal_shows_it_too() {
    let output = tempfile::NamedTempFile::new().expect("a file");
    let agent = Agent::with(|| {
        let stdout = output.as_file().try_clone().expect("another descriptor");
        Setup::default().output("stdout").arguments(["--pretty"]).stdout(stdout)
    });
    stopped(agent, Signal::TERM);
    let text = fs::read_to_string(output.path()).expect("what it showed");
    for part in
        ["agent_started", "probes, a first run", "ledger", "balanced", "agent_stopped", "SIGTERM after"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
