//! What a call explains is explained however fast it comes after what it follows.
//!
//! Calls come by another ring than forks and execs do: the agent must not take one for the other's cause.

use std::{fs, os::unix::fs::chown};

use serde_json::{Value, json};
use tellwire_tests::{Agent, fork, program, program::Program, sys};

const ROUNDS: usize = 10;

/// Runs `work` in a process that was forked where the agent looks, several times.
fn assert_explained(agent: &Agent, work: impl Fn() -> Value) {
    for _ in 0..ROUNDS {
        let mut child = agent.fork(|| {
            let child = fork(&work);
            let pid = child.pid;
            child.join();
            pid
        });
        agent.settle(&mut child);
        let pid = child.join().as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
        assert_eq!(agent.events_of(pid, "credentials_changed"), [Value::Null; 0]);
    }
}

#[test]
fn a_call_right_after_a_fork_is_explained() {
    let agent = Agent::shared();
    let program = agent.subfolder("after-fork").join("program");
    Program::Exit(0).write(&program);
    assert_explained(agent, || {
        sys::become_user(1000);
        sys::exec(&program, &["program"])
    });
}

#[test]
fn a_call_right_after_an_exec_is_explained() {
    let agent = Agent::shared();
    let program = agent.subfolder("after-exec").join("program");
    Program::Setuid(1000).write(&program);
    assert_explained(agent, || sys::exec(&program, &["program"]));
}

#[test]
fn a_set_id_program_that_goes_on_to_change_its_ids_is_explained() {
    let agent = Agent::shared();
    let program = agent.subfolder("set-id").join("program");
    // What sudo and su do: they become root by their mode, and then who they are to be.
    Program::Setuid(2000).write(&program);
    chown(&program, Some(0), Some(0)).expect("root's");
    program::set_mode(&program, 0o4755);
    assert!(fs::metadata(&program).is_ok());
    assert_explained(agent, || {
        sys::become_user(1000);
        sys::exec(&program, &["program"])
    });
    let credentials = json!({"old": {"uid": "1000", "euid": "0"}, "new": {"uid": "2000", "euid": "2000"}});
    agent.expect(
        None,
        "setuid",
        &json!({"process.executable": program, "tellwire.credentials": credentials}),
    );
}
