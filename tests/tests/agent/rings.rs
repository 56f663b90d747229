//! Rings that are too small: what finds no room makes no line, and is counted all the same.

use serde_json::json;
use tellwire_tests::{Agent, Ledger, until};

use crate::{count, work};

const EXECS: u64 = 300;
const CONNECTS: u64 = 2000;

#[test]
fn small_rings_lose_lines_and_no_count() {
    for bytes in [4096, 65536] {
        let agent =
            Agent::with_config(&format!("[kernel]\nring-bytes = {bytes}\npoll-interval = \"100ms\"\n"));
        let done = std::thread::scope(|threads| {
            let working = threads.spawn(|| work(&agent, EXECS, CONNECTS));
            let mut scrapes = 0;
            // A reader of the metrics never sees books that do not add up.
            until("the end of the work", || {
                let metrics = agent.scrape();
                assert_eq!(metrics.get("tellwire_ledger_balanced", &[]), 1);
                scrapes += 1;
                working.is_finished().then_some(())
            });
            assert!(scrapes > 1);
            working.join().expect("the work")
        });
        for (action, expected) in [("exec", done.execs), ("exit", done.exits), ("connect", done.connects)] {
            agent.expect_metric("tellwire_events_total", &[("action", action)], expected);
        }
        let metrics = agent.scrape();
        let lost = metrics.get("tellwire_events_lost_total", &[("stage", "ring")]);
        if bytes == 4096 {
            assert!(lost > 0, "a ring of a page holds all of it?");
        }
        let stopped = agent.stop();
        assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
        assert!(stopped.ledgers.values().all(Ledger::is_exact), "{:?}", stopped.ledgers);
        let full: u64 = stopped.ledgers.values().map(|ledger| ledger.ring_full).sum();
        assert_eq!(full, lost);
        for (action, expected) in [("exec", done.execs), ("exit", done.exits), ("connect", done.connects)] {
            let ledger = stopped.ledgers[action];
            assert_eq!(ledger.seen, expected, "{action}");
            assert_eq!(count(&stopped.events, action), ledger.submitted, "{action}");
        }
    }
}

#[test]
fn a_throttled_cgroup_loses_lines_and_no_count() {
    let agent = Agent::with_config("[kernel]\nthrottle-process = 10\n");
    let done = work(&agent, 100, 0);
    agent.expect_metric("tellwire_events_total", &[("action", "exec")], done.execs);
    agent.expect_metric("tellwire_events_total", &[("action", "exit")], done.exits);
    let stopped = agent.stop();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    assert!(stopped.ledgers.values().all(Ledger::is_exact), "{:?}", stopped.ledgers);
    let ledger = stopped.ledgers["exec"];
    assert_eq!((ledger.seen, ledger.submitted + ledger.throttled), (done.execs, done.execs));
    assert!(ledger.throttled > 0, "{ledger:?}");
    assert_eq!(count(&stopped.events, "exec"), ledger.submitted);
}

#[test]
fn an_exec_too_large_for_the_ring_is_counted() {
    let agent = Agent::with_config("[kernel]\nring-bytes = 4096\n");
    let program = agent.folder().join("program");
    tellwire_tests::program::Program::Exit(0).write(&program);
    let large = "x".repeat(10_000);
    let mut child = agent.exec(&program, &[large.as_str()]);
    agent.settle(&mut child);
    agent.expect_metric("tellwire_execs_total", &[("outcome", "success")], 1);
    agent.expect_metric("tellwire_kernel_records_total", &[("action", "exec"), ("outcome", "ring_full")], 1);
    // What comes after it is seen.
    let child = agent.exec(&program, &["small"]);
    agent.expect(child.pid, "exec", &json!({"process.args": ["small"]}));
}
