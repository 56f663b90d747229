//! Changes that no call explains: what is seen when a process has ids that it should not have.
//!
//! System calls of 32-bit programs pass the tracepoints of system calls by, as an exploit does: they stand for it
//! here, and the agent hooks nothing else, whatever the kernel offers.

#![cfg(target_arch = "x86_64")]

use std::net::{Ipv4Addr, TcpStream};

use serde_json::json;
use tellwire_tests::{Agent, at, fork, net, program, program::Program, sys};

use crate::Ids;

const CHANGED: Ids = Ids { uid: 4321, euid: 4321, suid: 4321, fsuid: 4321, ..Ids::ROOT };

const TRACEPOINTS: &str = "[kernel]\nfunction-hooks = false\n";

#[test]
fn ids_that_changed_by_no_call_that_was_seen_show_at_the_exit() {
    let agent = Agent::alone_with_config(TRACEPOINTS);
    let mut child = agent.fork(|| {
        // The agent has met the process before it changes.
        sys::credential_call(libc::SYS_setuid, [0; 3]).expect("root may");
        assert_eq!(sys::setuid_by_int80(4321), 0);
    });
    let event = agent.expect(
        child.pid,
        "credentials_changed",
        &json!({
            "event": {
                "category": ["iam"], "type": ["change"], "sequence": null, "dataset": "tellwire.privilege", "severity": 4,
            },
            "user.id": "4321",
            "tellwire.credentials": {
                "old": Ids::ROOT.told(), "new": CHANGED.told(), "evidence": "comparison", "asked": null,
            },
        }),
    );
    agent.settle(&mut child);
    assert_eq!(agent.events_of(child.pid, "credentials_changed").len(), 1);
    let exit = agent.expect(child.pid, "exit", &json!({"user.id": "4321"}));
    assert_eq!(at(&event, "process.entity_id"), at(&exit, "process.entity_id"));
    child.join();
}

#[test]
fn ids_that_changed_show_at_the_next_event_and_once() {
    let agent = Agent::alone_with_config(TRACEPOINTS);
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let program = agent.subfolder("changed-exec").join("program");
    Program::Exit(0).write(&program);
    let mut child = agent.fork(|| {
        // Forked where the agent looks, and so known with the ids that it begins with.
        let child = fork(|| {
            drop(TcpStream::connect(to).expect("a connection"));
            assert_eq!(sys::setuid_by_int80(4321), 0);
            drop(TcpStream::connect(to).expect("a connection"));
            sys::exec(&program, &["program"])
        });
        let pid = child.pid;
        child.join();
        pid
    });
    agent.settle(&mut child);
    let pid = child.join().as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    let changed = agent.events_of(pid, "credentials_changed");
    assert_eq!(changed.len(), 1, "{changed:?}");
    let connects = agent.events_of(pid, "connect");
    assert_eq!(connects.iter().map(|event| event["user"]["id"].clone()).collect::<Vec<_>>(), ["0", "4321"]);
}

#[test]
fn an_exec_that_comes_with_other_ids_than_the_process_had_shows_them() {
    let agent = Agent::alone_with_config(TRACEPOINTS);
    let program = agent.subfolder("changed-before-exec").join("program");
    Program::Exit(0).write(&program);
    let mut child = agent.fork(|| {
        sys::credential_call(libc::SYS_setuid, [0; 3]).expect("root may");
        assert_eq!(sys::setuid_by_int80(4321), 0);
        sys::exec(&program, &["program"])
    });
    agent.settle(&mut child);
    let credentials = json!({"old.euid": "0", "new.euid": "4321"});
    agent.expect(child.pid, "credentials_changed", &json!({"tellwire.credentials": credentials}));
    assert_eq!(agent.events_of(child.pid, "credentials_changed").len(), 1);
}

#[test]
fn a_32_bit_program_that_changes_its_ids_shows_at_its_exit() {
    let agent = Agent::alone_with_config(TRACEPOINTS);
    let program = agent.folder().join("program");
    program::write(&program, &program::setuid_of_32_bits(4321), 0o755);
    let mut child = agent.exec(&program, &["program"]);
    assert!(child.wait().success());
    let credentials = json!({"old": Ids::ROOT.told(), "new": CHANGED.told()});
    agent.expect(
        child.pid,
        "credentials_changed",
        &json!({"process.executable": program, "tellwire.credentials": credentials}),
    );
    agent.expect_metric("tellwire_events_total", &[("action", "credentials_changed")], 1);
}
