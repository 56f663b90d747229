//! Metrics and health, as whoever asks sees them. Nobody works where the shared agent looks.

use serde_json::{Value, json};
use tellwire_tests::Agent;

#[test]
fn an_agent_that_does_all_its_work_is_ready() {
    let agent = Agent::shared();
    assert_eq!(agent.get("/healthz"), (200, "ok\n".to_owned()));
    let (status, body) = agent.get("/readyz");
    assert_eq!(status, 200);
    let mut report: Value = serde_json::from_str(&body).expect("JSON");
    // Whether the kernel's auditing is on is the machine's business.
    report.as_object_mut().expect("an object").remove("notes");
    assert_eq!(report, json!({"status": "ready", "degraded": []}));
    assert_eq!(agent.get("/nothing").0, 404);
}

#[test]
fn every_metric_has_a_help_text_and_every_label_set_starts_at_zero() {
    let agent = Agent::shared();
    let (_, text) = agent.get("/metrics");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let has = |what: &str| [name, family].iter().any(|name| text.contains(&format!("# {what} {name} ")));
        assert!(has("HELP") && has("TYPE"), "{name}");
    }
    let metrics = agent.scrape();
    for (name, labels) in [
        ("tellwire_execs_total", [("outcome", "failure")]),
        ("tellwire_process_exits_total", [("reason", "oom_killed")]),
        ("tellwire_connects_total", [("outcome", "timed_out")]),
        ("tellwire_privilege_changes_total", [("call", "capset")]),
        ("tellwire_events_lost_total", [("stage", "output")]),
        ("tellwire_events_total", [("action", "credentials_changed")]),
    ] {
        assert_eq!(metrics.get(name, &labels), 0, "{name}");
    }
    assert_eq!(metrics.get("tellwire_ledger_balanced", &[]), 1);
    assert_eq!(metrics.get("tellwire_ring_bytes", &[("ring", "process")]), 2 << 20);
}
