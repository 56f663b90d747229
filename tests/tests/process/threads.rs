//! Processes of several threads, and children that share their parent's memory.

use std::{process::Command, sync::Arc, sync::Barrier, thread};

use serde_json::json;
use tellwire_tests::{Agent, exit_at_once, program::Program, sys};

use crate::folder_with_program;

const THREADS: usize = 16;

#[test]
fn a_thread_that_execs_becomes_the_process() {
    let (_folder, program) = folder_with_program("thread-execs");
    let agent = Agent::shared();
    for _ in 0..20 {
        let mut child = agent.fork(|| {
            let program = program.clone();
            for _ in 0..4 {
                thread::spawn(|| {
                    loop {
                        thread::park();
                    }
                });
            }
            // The leader waits for ever, and ends with the other threads.
            let thread = thread::spawn(move || sys::exec(&program, &["by a thread"]));
            thread.join().expect("never")
        });
        agent.settle(&mut child);
        let execs = agent.events_of(child.pid, "exec");
        assert_eq!(execs.len(), 1, "{execs:?}");
        assert_eq!(execs[0]["process"]["executable"], json!(program));
        let exits = agent.events_of(child.pid, "exit");
        assert_eq!(exits.len(), 1, "{exits:?}");
        assert_eq!(exits[0]["process"]["executable"], json!(program));
        assert_eq!(exits[0]["process"]["entity_id"], execs[0]["process"]["entity_id"]);
    }
}

#[test]
fn threads_that_end_at_once_are_one_exit() {
    let agent = Agent::alone();
    let rounds = if tellwire_tests::in_vm() { 10 } else { 100 };
    for round in 0..rounds {
        let mut child = agent.fork(|| {
            let barrier = Arc::new(Barrier::new(THREADS));
            for _ in 1..THREADS {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    barrier.wait();
                    sys::exit_thread()
                });
            }
            barrier.wait();
            // The leader goes as the others do, and the last one ends the process.
            if round % 2 == 0 {
                sys::exit_thread();
            }
        });
        assert!(child.wait().success());
        agent.expect(child.pid, "exit", &json!({"event.reason": "exited", "process.exit_code": 0}));
    }
    agent.expect_metric("tellwire_process_exits_total", &[], rounds);
    let exits = agent.end().iter().filter(|event| event["event"]["action"] == "exit").count() as u64;
    assert_eq!(exits, rounds);
}

#[test]
fn a_thread_of_an_ended_leader_is_still_the_process() {
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        thread::spawn(|| {
            sys::until_leader_is_gone();
            exit_at_once(3)
        });
        sys::exit_thread()
    });
    assert_eq!(child.wait().code(), Some(3));
    agent.settle(&mut child);
    let exits = agent.events_of(child.pid, "exit");
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!(exits[0]["process"]["exit_code"], 3);
}

#[test]
fn a_child_of_vfork_is_told_as_its_own_process() {
    let (folder, program) = folder_with_program("vfork");
    let last = folder.join("last");
    Program::Exit(0).write(&last);
    let agent = Agent::shared();
    let child = agent.fork(|| {
        // Without anything to do before exec, std lets the C library use vfork.
        let status = Command::new(&program).arg("by vfork").env_clear().status().expect("the program");
        assert!(status.success());
        sys::exec(&last, &["last"])
    });
    let parent = agent.expect(child.pid, "exec", &json!({"process.executable": last}));
    let parent = json!({"pid": child.pid, "entity_id": parent["process"]["entity_id"]});
    let args = json!([program, "by vfork"]);
    let event = agent.expect(
        None,
        "exec",
        &json!({"process": {"executable": program, "args": args, "parent": parent}}),
    );
    let pid = event["process"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    assert_ne!(pid, child.pid);
    agent.expect(pid, "exit", &json!({"process.exit_code": 0}));
    child.join();
}
