//! What Prometheus says that the agent counted.

use serde_json::{Value, json};
use tellwire_tests::{Agent, fork, program::Program, sys};

use crate::server::{Prometheus, get};

const EXECS: u32 = 10;

fn work(agent: &Agent) {
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    let mut child = agent.fork(|| {
        for _ in 0..EXECS {
            fork(|| sys::exec(&program, &["program"])).join();
        }
    });
    agent.settle(&mut child);
}

#[test]
fn prometheus_scrapes_what_was_done_and_sees_it_rise_from_zero() {
    let agent = Agent::start();
    let mut prometheus = Prometheus::start(agent.port());
    // Two scrapes from before, so that there is something to rise from.
    let success = "tellwire_execs_total{outcome=\"success\"}";
    prometheus.expect("up{job=\"tellwire\"}", 1.0);
    prometheus.wait_for(
        &format!("count_over_time({success}[1m])"),
        |counts| matches!(counts, [count] if *count >= 2.0),
    );
    prometheus.expect(success, 0.0);

    work(&agent);
    prometheus.expect(success, f64::from(EXECS));
    prometheus.expect("tellwire_execs_total{outcome=\"failure\"}", 0.0);
    prometheus.expect("sum(tellwire_process_exits_total)", f64::from(EXECS + 1));
    // It extrapolates to the ends of the range, so it can be more.
    let increase = format!("increase({success}[1m])");
    prometheus.wait_for(&increase, |values| matches!(values, [value] if *value >= f64::from(EXECS)));
    prometheus.expect("tellwire_ledger_balanced", 1.0);
    prometheus.expect("sum(tellwire_events_lost_total)", 0.0);
    // A histogram keeps what makes it one.
    let quantile = "histogram_quantile(0.99, sum by (le) (rate(tellwire_event_delivery_seconds_bucket[1m])))";
    prometheus.wait_for(quantile, |values| matches!(values, [seconds] if *seconds > 0.0));

    let targets = prometheus.ask("/api/v1/targets");
    let target = &targets["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&json!("up"), &json!("")), "{target}");
    let up = prometheus.query("min_over_time(up{job=\"tellwire\"}[1m])");
    assert_eq!(up, [1.0], "every scrape succeeds");

    // Types and help texts have come through, under the names that the samples have.
    let metadata = prometheus.ask("/api/v1/targets/metadata?match_target=%7Bjob%3D%22tellwire%22%7D");
    let metadata = metadata.as_array().expect("a list");
    for (name, kind) in [
        ("tellwire_execs", "counter"),
        ("tellwire_event_delivery_seconds", "histogram"),
        ("tellwire_ledger_balanced", "gauge"),
    ] {
        let is_it = |entry: &&Value| {
            entry["metric"].as_str().is_some_and(|metric| metric.trim_end_matches("_total") == name)
        };
        let entry = metadata.iter().find(is_it).unwrap_or_else(|| panic!("nothing about {name}"));
        assert_eq!(entry["type"], kind, "{entry}");
        assert_ne!(entry["help"], "", "{entry}");
    }
}

#[test]
fn the_deployed_alerts_are_quiet_while_all_is_well() {
    let agent = Agent::start();
    let mut prometheus = Prometheus::start(agent.port());
    work(&agent);
    prometheus.expect("tellwire_execs_total{outcome=\"success\"}", f64::from(EXECS));
    let rules = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules.yml");
    let rules = std::fs::read_to_string(rules).expect("the rules");
    let expressions: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(!expressions.is_empty(), "no expressions in the rules");
    for expression in expressions {
        assert_eq!(prometheus.query(expression), Vec::<f64>::new(), "{expression}");
    }
}

#[test]
fn the_format_is_the_one_that_was_asked_for() {
    let agent = Agent::shared();
    let format = |accept| {
        let answer = get(agent.port(), "/metrics", accept).expect("the agent's answer");
        let kind =
            answer.head.lines().find_map(|line| line.strip_prefix("content-type: ")).map(str::to_owned);
        (kind.expect("a content type"), answer.body)
    };
    // As Prometheus asks.
    let accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                  text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let (kind, body) = format(accept);
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(body.ends_with("# EOF\n"), "{body}");
    assert!(body.contains("# TYPE tellwire_execs counter\n"), "{body}");
    for accept in ["text/plain;version=0.0.4", "*/*"] {
        let (kind, body) = format(accept);
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        assert!(!body.contains("# EOF") && body.contains("# TYPE tellwire_execs_total counter\n"), "{body}");
    }
}
