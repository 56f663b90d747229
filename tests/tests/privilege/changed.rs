//! Changes that no call explains: what is seen when a process has ids that it should not have.
//!
//! System calls of 32-bit programs pass the tracepoints of system calls by, as an exploit does: they stand for it
//! here, and the agent hooks nothing else, whatever the kernel offers. On x86-64 a 64-bit program can make them as well.

#[cfg(target_arch = "x86_64")]
use std::net::{Ipv4Addr, TcpStream};

use serde_json::json;
use tellwire_tests::{
    Agent, at,
    compat::{self, Call},
    program::Program,
};
#[cfg(target_arch = "x86_64")]
use tellwire_tests::{fork, net, sys};

use crate::Ids;

const CHANGED: Ids = Ids { uid: 4321, euid: 4321, suid: 4321, fsuid: 4321, ..Ids::ROOT };

const TRACEPOINTS: &str = "[kernel]\nfunction-hooks = false\n";

#[test]
fn ids_that_changed_by_no_call_that_was_seen_show_at_the_exit() {
    if !compat::runs() {
        return;
    }
    let agent = Agent::alone_with_config(TRACEPOINTS);
    let program = agent.subfolder("changed").join("program");
    compat::write(&program, &[Call::Setuid(4321)]);
    // The agent has met the process before it changes.
    let mut child = agent.exec(&program, &["program"]);
    let event = agent.expect(
        child.pid,
        "credentials_changed",
        &json!({
            "event": {
                "category": ["iam"], "type": ["change"], "sequence": null, "dataset": "tellwire.privilege", "severity": 4,
            },
            "user.id": "4321",
            "process.executable": program,
            "tellwire.credentials": {
                "old": Ids::ROOT.told(), "new": CHANGED.told(), "evidence": "comparison", "asked": null,
            },
        }),
    );
    agent.settle(&mut child);
    assert!(child.wait().success());
    assert_eq!(agent.events_of(child.pid, "credentials_changed").len(), 1);
    let exit = agent.expect(child.pid, "exit", &json!({"user.id": "4321"}));
    assert_eq!(at(&event, "process.entity_id"), at(&exit, "process.entity_id"));
    agent.expect_metric("tellwire_events_total", &[("action", "credentials_changed")], 1);
}

#[cfg(target_arch = "x86_64")]
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
    if !compat::runs() {
        return;
    }
    let agent = Agent::alone_with_config(TRACEPOINTS);
    let folder = agent.subfolder("changed-before-exec");
    let (changes, program) = (folder.join("changes"), folder.join("program"));
    compat::write(&changes, &[Call::Setuid(4321), Call::Exec(&program)]);
    Program::Exit(0).write(&program);
    let mut child = agent.exec(&changes, &["changes"]);
    agent.settle(&mut child);
    assert!(child.wait().success());
    let fields =
        json!({"process.executable": program, "tellwire.credentials": {"old.euid": "0", "new.euid": "4321"}});
    agent.expect(child.pid, "credentials_changed", &fields);
    assert_eq!(agent.events_of(child.pid, "credentials_changed").len(), 1);
}
