//! Every line speaks the Elastic Common Schema, whatever it tells.

use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
};

use serde_json::{Value, json};
use tellwire_tests::{Agent, at, ecs, fork, net, program::Program, sys};

use crate::work;

/// One of each action, in some of their forms.
fn everything(agent: &Agent) {
    work(agent, 2, 2);
    let program = agent.folder().join("program");
    let waits = agent.folder().join("waits");
    Program::Wait.write(&waits);
    let (_socket, closed) = net::closed_port();
    let server = net::Server::start(Ipv6Addr::LOCALHOST);
    let mut child = agent.fork(|| {
        sys::execve(Path::new("/nowhere"), &["x"]);
        TcpStream::connect(closed).expect_err("nobody listens");
        drop(TcpStream::connect(server.address()).expect("a connection"));
        fork(|| {
            net::own_network();
            TcpStream::connect(SocketAddr::from(([192, 0, 2, 1], 443))).expect_err("no route");
        })
        .join();
        let killed = fork(|| sys::exec(&waits, &["\u{1b}[31m", "", "x\n"]));
        killed.kill(rustix::process::Signal::KILL);
        drop(killed);
        let calls = [
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setreuid,
            libc::SYS_setregid,
            libc::SYS_setresuid,
            libc::SYS_setresgid,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
        ];
        for number in calls {
            sys::credential_call(number, [0; 3]).expect("root may");
        }
        sys::setgroups(&[1, 2]).expect("root may");
        sys::capset(|_| ()).expect("root may");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(sys::setuid_by_int80(1000), 0);
        let long: Vec<String> = (0..20).map(|number| number.to_string().repeat(1000)).collect();
        sys::exec(&program, &long)
    });
    agent.settle(&mut child);
    child.join();
}

#[test]
fn every_line_of_every_action_keeps_to_the_schema() {
    let agent = Agent::start();
    everything(&agent);
    let events = agent.events();
    for event in &events {
        let faults = ecs::faults(event);
        assert!(faults.is_empty(), "{faults:#?}\nin {event}");
    }
    let actions: BTreeSet<&str> =
        events.iter().filter_map(|event| event["event"]["action"].as_str()).collect();
    // A change that no call explains is made by a system call that only one architecture has.
    assert_eq!(actions.len(), 15 + usize::from(cfg!(target_arch = "x86_64")), "{actions:?}");
    assert_common(&events);
    agent.expect_metric("tellwire_sequence_gaps_total", &[], 0);
}

/// What every line says; and no number of a record comes twice.
fn assert_common(events: &[Value]) {
    let mut numbers = BTreeSet::new();
    for event in events {
        let said = ["ecs.version", "event.kind", "tellwire.schema"].map(|path| at(event, path));
        assert_eq!(said, [Some(&json!("9.1.0")), Some(&json!("event")), Some(&json!(1))], "{event}");
        for path in ["process.entity_id", "process.name", "host.boot.id", "user.id"] {
            assert!(at(event, path).is_some_and(Value::is_string), "{path} in {event}");
        }
        // A derived event has no number: its record is another one's, or none.
        let is_derived = at(event, "event.action").is_some_and(|action| action == "credentials_changed")
            || at(event, "event.dataset").is_some_and(|dataset| dataset == "tellwire.agent");
        let number =
            ["tellwire.sequence_cpu", "tellwire.sequence_ring", "event.sequence"].map(|path| at(event, path));
        assert!(number.iter().all(|part| part.is_none() == is_derived), "{event}");
        assert!(
            is_derived || numbers.insert(number.map(|part| part.map(Value::to_string))),
            "twice: {event}"
        );
    }
}
