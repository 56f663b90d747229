//! Short lives, and many of them.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tellwire_tests::{Agent, Child, at, fork, program::Program, sys};

use crate::{folder_with_program, number};

#[test]
fn a_process_that_lives_a_millisecond_is_told_in_full() {
    let (_folder, program) = folder_with_program("short");
    let agent = Agent::shared();
    let mut shortest = Duration::MAX;
    for round in 0..20 {
        let args = ["short".to_owned(), round.to_string()];
        let child = agent.exec(&program, &args);
        let process = json!({"executable": program, "args": args, "working_directory": std::env::current_dir().expect("one")});
        agent.expect(child.pid, "exec", &json!({ "process": process }));
        let exit = agent.expect(child.pid, "exit", &json!({"process.executable": program}));
        shortest = shortest.min(Duration::from_nanos(number(&exit, "event.duration")));
    }
    assert!(shortest < Duration::from_millis(50) || tellwire_tests::in_vm(), "{shortest:?}");
}

#[test]
fn a_storm_of_children_is_counted_and_told_to_the_last_one() {
    const CHILDREN: u64 = 200;
    let agent = Agent::alone();
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    let mut storm = agent.fork(|| {
        let children: Vec<Child> = (0..CHILDREN).map(|_| fork(|| sys::exec(&program, &["child"]))).collect();
        for child in children {
            child.join();
        }
    });
    assert!(storm.wait().success());
    agent.settle(&mut storm);
    agent.expect_metric("tellwire_execs_total", &[("outcome", "success")], CHILDREN);
    agent.expect_metric("tellwire_execs_total", &[("outcome", "failure")], 0);
    agent.expect_metric("tellwire_process_exits_total", &[("reason", "exited")], CHILDREN + 1);
    agent.expect_metric("tellwire_process_exits_total", &[], CHILDREN + 1);
    agent.expect_metric("tellwire_events_lost_total", &[], 0);

    let events = agent.end();
    let pids = |action: &str| {
        let events = events.iter().filter(|event| event["event"]["action"] == action);
        let pids: Vec<u64> = events.map(|event| number(event, "process.pid")).collect();
        let distinct: BTreeSet<u64> = pids.iter().copied().collect();
        assert_eq!(pids.len(), distinct.len(), "a process twice in {action}");
        distinct
    };
    let (execs, mut exits) = (pids("exec"), pids("exit"));
    assert_eq!(execs.len() as u64, CHILDREN);
    assert!(exits.remove(&storm.pid.into()));
    assert_eq!(execs, exits);
    for event in events.iter().filter(|event| event["event"]["action"] == "exec") {
        assert_eq!(at(event, "process.parent.pid"), Some(&json!(storm.pid)), "{event}");
        assert_eq!(at(event, "process.executable"), Some(&json!(program)), "{event}");
    }
    // No entity is another's.
    let entities: BTreeSet<&str> =
        events.iter().filter_map(|event| at(event, "process.entity_id")?.as_str()).collect();
    assert_eq!(entities.len() as u64, CHILDREN + 1);
}
