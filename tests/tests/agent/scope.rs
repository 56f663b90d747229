//! What is looked at and what makes a line.

use std::fs;

use serde_json::json;
use tellwire_tests::{Agent, Setup, fork, program::Program, sys};

use crate::{count, work};

#[test]
fn chosen_types_make_lines_and_metrics_count_all() {
    let agent = Agent::with(|| Setup::default().arguments(["--types", "exec"]));
    let done = work(&agent, 5, 5);
    for (action, expected) in [("exec", done.execs), ("exit", done.exits), ("connect", done.connects)] {
        agent.expect_metric("tellwire_events_total", &[("action", action)], expected);
    }
    agent.expect_metric("tellwire_connects_total", &[("outcome", "established")], done.connects);
    agent.expect_metric("tellwire_lines_total", &[("action", "exec")], done.execs);
    agent.expect_metric("tellwire_lines_total", &[], done.execs);
    let stopped = agent.stop();
    assert_eq!(stopped.events.len() as u64, done.execs);
    assert_eq!(count(&stopped.events, "exec"), done.execs);
}

#[test]
fn a_cgroup_below_is_looked_at_and_one_beside_is_not() {
    let agent = Agent::start();
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    // Made after the agent has started.
    let below = agent.cgroup().join("below/further");
    fs::create_dir_all(&below).expect("a cgroup");
    let enter = |cgroup: &std::path::Path| {
        fs::write(cgroup.join("cgroup.procs"), "0").expect("entering it");
        sys::exec(&program, &["program"])
    };
    let mut child = fork(|| enter(&below));
    child.wait();
    agent.expect(child.pid, "exec", &json!({"process.executable": program}));
    // What starts in there and leaves is not followed.
    let beside = agent.cgroup().parent().expect("the hierarchy").to_owned();
    let mut child = agent.fork(|| enter(&beside));
    child.wait();
    let mut last = agent.exec(&program, &["program"]);
    agent.settle(&mut last);
    assert_eq!(agent.events_of(child.pid, "exec").len(), 0);
    assert_eq!(agent.metric("tellwire_kernel_seen_total", &[("action", "exec")]), 2);
    let further = below.parent().expect("its parent").to_owned();
    fs::remove_dir(below).expect("removing it");
    fs::remove_dir(further).expect("removing it");
}

#[test]
fn two_agents_each_tell_their_own() {
    let agents = [Agent::start(), Agent::start()];
    for agent in &agents {
        work(agent, 3, 3);
    }
    for agent in &agents {
        agent.expect_metric("tellwire_events_total", &[("action", "exec")], 3);
        agent.expect_metric("tellwire_events_total", &[("action", "connect")], 3);
    }
}
