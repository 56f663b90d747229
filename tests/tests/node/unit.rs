//! The unit, as systemd runs it.

use std::{fs, process::Command};

use serde_json::json;
use tellwire_tests::{at, get, runtime, until};

use crate::service::{CONFIG, Service, expect_property, property, scrape, systemctl, try_systemctl};

const OTHER: &str = "[Service]\nType=oneshot\nExecStart=/bin/busybox true seen\n";

#[test]
#[ignore = "asks the first process: `cargo xtask vm` runs it"]
fn the_service_looks_once_it_is_active_and_its_end_is_a_clean_one() {
    let service = Service::start("");
    assert_eq!(property("tellwire", "ActiveState"), "active");
    assert_eq!(property("tellwire", "StatusText"), "watching");
    let pid = Service::pid();
    let (status, body) = get(9477, "/readyz");
    assert_eq!(status, 200, "{body}");
    for probe in ["exec", "exit", "connect", "credentials"] {
        assert_eq!(scrape().get("tellwire_probe_attached", &[("probe", probe)]), 1, "{probe}");
    }
    // A program of another service.
    fs::write("/run/systemd/system/other.service", OTHER).expect("a unit");
    systemctl(&["daemon-reload"]);
    systemctl(&["start", "other"]);
    let line = service.expect(&json!({
        "event.action": "exec", "process.args": ["/bin/busybox", "true", "seen"], "process.parent.pid": 1,
    }));
    assert_eq!(at(&line, "container"), None, "{line}");

    fs::write(CONFIG, "[agent]\nprofile = \"full\"\n").expect("the configuration");
    systemctl(&["reload", "tellwire"]);
    service.expect(&json!({ "event.action": "config_changed", "event.outcome": "success" }));
    assert_eq!(property("tellwire", "MainPID"), pid);

    systemctl(&["stop", "tellwire"]);
    assert_eq!(property("tellwire", "Result"), "success");
    assert_eq!(property("tellwire", "ExecMainStatus"), "0");
    service.expect(&json!({ "event.action": "agent_stopped" }));
}

#[test]
#[ignore = "asks the first process: `cargo xtask vm` runs it"]
fn an_agent_that_is_stuck_is_started_again_and_says_how_long_nobody_looked() {
    let service = Service::start("");
    let before = Service::pid();
    // Without a stop and without a word: what a deadlock looks like from outside.
    systemctl(&["kill", "--signal", "STOP", "--kill-whom", "main", "tellwire"]);
    expect_property("tellwire", "NRestarts", "1");
    expect_property("tellwire", "ActiveState", "active");
    assert_ne!(Service::pid(), before);
    let again = until("another start is told", || {
        let started = |line: &serde_json::Value| at(line, "event.action") == Some(&json!("agent_started"));
        service.lines().into_iter().filter(started).nth(1)
    });
    // At least from the watchdog's end to the start after it.
    let blind = at(&again, "tellwire.started.blind_seconds").and_then(serde_json::Value::as_f64);
    assert!(blind.is_some_and(|seconds| seconds > 5.0), "{again}");
}

#[test]
#[ignore = "asks the first process: `cargo xtask vm` runs it"]
fn a_wrong_configuration_is_not_tried_again_and_again() {
    let _stopped = Service::start("");
    systemctl(&["stop", "tellwire"]);
    fs::write(CONFIG, "[agent]\nno-such-key = 1\n").expect("the configuration");
    assert!(!try_systemctl(&["start", "tellwire"]));
    assert_eq!(property("tellwire", "ExecMainStatus"), "64");
    // One that is to be started again after its five seconds is `activating`.
    assert_eq!(property("tellwire", "ActiveState"), "failed");
    assert_eq!(property("tellwire", "NRestarts"), "0");
    let journal =
        runtime::run(Command::new("/usr/bin/journalctl").args(["--no-pager", "--unit", "tellwire"]));
    assert!(journal.contains("no-such-key") && journal.contains(CONFIG), "{journal}");
}
