//! Supplementary groups and capabilities.

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};
use tellwire_tests::{Agent, sys};

use crate::assert_explained;

#[test]
fn setgroups_tells_how_many_there_were_and_are() {
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        sys::setgroups(&[1, 2, 3]).expect("root may");
        sys::setgroups(&[]).expect("root may");
    });
    for (old, new) in [(3, 0), (json_groups(), 3)] {
        let credentials = json!({"old.groups": old, "new.groups": new, "evidence": "call"});
        agent.expect(
            child.pid,
            "setgroups",
            &json!({"event.outcome": "success", "tellwire.credentials": credentials}),
        );
    }
    assert_explained(agent, &mut child);
    child.join();
}

/// How many groups this process has, and so a child of it.
fn json_groups() -> u64 {
    rustix::process::getgroups().expect("the groups").len() as u64
}

#[test]
fn setgroups_can_be_denied() {
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        sys::become_user(1000);
        let error = sys::setgroups(&[0]).expect_err("denied");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    });
    let credentials = json!({"old.groups": 0, "new.groups": 0});
    let fields =
        json!({"event.outcome": "failure", "error.code": "EPERM", "tellwire.credentials": credentials});
    agent.expect(child.pid, "setgroups", &fields);
    assert_explained(agent, &mut child);
    child.join();
}

#[test]
fn capset_tells_capabilities_that_were_dropped() {
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        sys::capset(|sets| {
            sets.effective = CapabilitySet::CHOWN | CapabilitySet::KILL;
            sets.permitted = CapabilitySet::CHOWN | CapabilitySet::KILL | CapabilitySet::NET_ADMIN;
        })
        .expect("root may");
    });
    let new = json!({
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"],
    });
    let event = agent.expect(
        child.pid,
        "capset",
        &json!({"event.outcome": "success", "tellwire.credentials": {"new.capabilities": new, "asked": null}}),
    );
    let old = event["tellwire"]["credentials"]["old"]["capabilities"]["effective"].as_array().cloned();
    assert!(old.is_some_and(|old| old.len() > 30 && old.contains(&json!("CAP_SETUID"))), "{event}");
    assert_explained(agent, &mut child);
    child.join();
}

#[test]
fn capset_can_be_denied() {
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        sys::become_user(1000);
        let error = sys::capset(|sets| sets.permitted = CapabilitySet::SYS_ADMIN).expect_err("denied");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    });
    let none = json!({"effective": Value::Array(Vec::new()), "permitted": Value::Array(Vec::new())});
    let credentials = json!({"old.capabilities": none, "new.capabilities": none});
    let fields =
        json!({"event.outcome": "failure", "error.code": "EPERM", "tellwire.credentials": credentials});
    agent.expect(child.pid, "capset", &fields);
    assert_explained(agent, &mut child);
    child.join();
}

/// The kernel takes capabilities away with the ids; an exec says what is left.
#[test]
fn an_exec_says_which_capabilities_the_process_has() {
    let agent = Agent::shared();
    let program = agent.subfolder("capabilities").join("program");
    tellwire_tests::program::Program::Exit(0).write(&program);
    let child = agent.fork(|| {
        sys::drop_from_bounding_set(&[CapabilitySet::SYS_ADMIN, CapabilitySet::SYS_PTRACE]);
        sys::exec(&program, &["program"])
    });
    let event = agent.expect(child.pid, "exec", &json!({"process.executable": program}));
    let effective =
        event["process"]["thread"]["capabilities"]["effective"].as_array().cloned().unwrap_or_default();
    assert!(
        effective.contains(&json!("CAP_CHOWN")) && !effective.contains(&json!("CAP_SYS_ADMIN")),
        "{event}"
    );
    let child = agent.fork(|| {
        sys::become_user(1000);
        sys::exec(&program, &["program"])
    });
    // None at all is what one expects of a user, and is not said.
    agent.expect(child.pid, "exec", &json!({"process.executable": program, "process.thread": null}));
}
