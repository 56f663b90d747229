//! What the profile of a user who chooses none leaves out, and that none of it is lost.

use std::{
    net::{Ipv4Addr, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
};

use serde_json::{Value, json};
use tellwire_tests::{Agent, Setup, at, net, program::Program, sys};

fn agent() -> Agent {
    Agent::with(|| Setup::default().default_profile())
}

#[test]
fn connects_that_repeat_are_told_in_one_line_and_counted_each() {
    let agent = agent();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let (_socket, closed) = net::closed_port();
    let mut child = agent.fork(|| {
        for _ in 0..7 {
            drop(TcpStream::connect(to).expect("a connection"));
        }
        for _ in 0..2 {
            TcpStream::connect(closed).expect_err("nobody listens");
        }
    });
    agent.settle(&mut child);
    agent.expect_metric("tellwire_events_total", &[("action", "connect")], 9);
    agent.expect_metric("tellwire_lines_left_out_total", &[("action", "connect"), ("reason", "folded")], 6);
    assert_eq!(agent.metric("tellwire_connects_total", &[("outcome", "established")]), 7);
    // What is not told by then is told at the end.
    let events = agent.stop().events;
    let connects: Vec<_> =
        events.iter().filter(|event| at(event, "event.action") == Some(&json!("connect"))).collect();
    let port = |event: &&&Value| at(event, "destination.port").cloned();
    let [first, together] =
        connects.iter().filter(|event| port(event) == Some(json!(to.port()))).collect::<Vec<_>>()[..]
    else {
        panic!("{connects:#?}");
    };
    assert!(at(first, "source.port").is_some() && at(first, "tellwire.connect.count").is_none(), "{first}");
    assert_eq!(at(together, "tellwire.connect.count"), Some(&json!(6)), "{together}");
    let time = |event, field| at(event, field).and_then(Value::as_str).expect("a time");
    let times = [time(first, "@timestamp"), time(together, "event.start"), time(together, "@timestamp")];
    assert!(times.is_sorted(), "{times:?}");
    assert!(at(together, "source.bytes").is_some_and(Value::is_u64), "{together}");
    // Those that fail are told each.
    assert_eq!(connects.iter().filter(|event| port(event) == Some(json!(closed.port()))).count(), 2);
    child.join();
}

#[test]
fn what_is_told_together_does_not_wait_for_the_end() {
    let agent = Agent::with(|| Setup::default().default_profile().config("[agent]\nfold-window = '1s'"));
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut child = agent.fork(|| {
        for _ in 0..3 {
            drop(TcpStream::connect(to).expect("a connection"));
        }
    });
    child.wait();
    agent.expect(None, "connect", &json!({"tellwire.connect.count": 2, "destination.port": to.port()}));
    agent.expect_metric("tellwire_fold_lines_total", &[], 1);
    child.join();
}

#[test]
fn what_execs_tell_anyway_is_left_out_and_counted() {
    let agent = agent();
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    let mut child = agent.exec(&program, &["program", "argument"]);
    agent.settle(&mut child);
    let exec = agent.expect(child.pid, "exec", &json!({"process.args": ["program", "argument"]}));
    for field in ["process.parent.pid", "process.entity_id", "process.working_directory", "process.group.id"]
    {
        assert!(at(&exec, field).is_some(), "{field} is not in {exec}");
    }
    // The same as the user that it acts as, and what the kernel alone wants to know.
    for field in ["process.real_user", "event.sequence", "tellwire.exec.namespaces", "host.boot"] {
        assert!(at(&exec, field).is_none(), "{field} is in {exec}");
    }
    assert_eq!(agent.events_of(child.pid, "exit"), [Value::Null; 0]);
    agent.expect_metric("tellwire_lines_left_out_total", &[("action", "exit"), ("reason", "profile")], 1);
}

#[test]
fn a_credential_call_that_changes_nothing_is_left_out_and_one_that_fails_is_not() {
    let agent = agent();
    let mut child = agent.fork(|| {
        sys::credential_call(libc::SYS_setuid, [0; 3]).expect("root may");
        sys::become_user(4321);
        sys::credential_call(libc::SYS_setuid, [0; 3]).expect_err("nobody else may");
    });
    agent.settle(&mut child);
    assert_eq!(agent.events_of(child.pid, "setuid").len(), 1);
    agent.expect(child.pid, "setuid", &json!({"event.outcome": "failure", "error.code": "EPERM"}));
    agent.expect(child.pid, "setresuid", &json!({"event.outcome": "success"}));
    agent.expect_metric("tellwire_lines_left_out_total", &[("action", "setuid"), ("reason", "profile")], 1);
    agent.expect_metric("tellwire_events_total", &[("action", "setuid")], 2);
    child.join();
}

#[test]
fn a_type_that_is_named_is_told_whatever_the_profile_leaves_out() {
    let agent = Agent::with(|| Setup::default().default_profile().arguments(["--types", "exit,close"]));
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut child = agent.fork(|| {
        let stream = TcpStream::connect(to).expect("a connection");
        assert!(stream.as_raw_fd() >= 0);
    });
    agent.settle(&mut child);
    agent.expect(child.pid, "exit", &json!({}));
    agent.expect(child.pid, "close", &json!({"destination.port": to.port()}));
    assert_eq!(agent.events_of(child.pid, "connect"), [Value::Null; 0]);
    // The kernel sees to that.
    agent.expect_metric(
        "tellwire_kernel_records_total",
        &[("action", "connect"), ("outcome", "filtered")],
        1,
    );
    child.join();
}

#[test]
fn lines_say_where_they_come_from_and_the_arguments_in_one_piece_if_asked_to() {
    let config = "[agent]\ncommand-line = true\ncluster = 'blue'\nnode-name = 'node-7'\nlabels = ['team=payments', 'tier=2']\n";
    let agent = Agent::with(|| {
        Setup::default().default_profile().config(config).arguments(["--cloud-instance-id", "i-0abc"])
    });
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    let script = format!("{} one; exit 0", program.display());
    let mut child = agent.exec(Path::new("/bin/sh"), &["sh", "-c", &script]);
    agent.settle(&mut child);
    let origin = json!({
        "orchestrator.cluster.name": "blue", "cloud.instance.id": "i-0abc", "k8s": {"node": {"name": "node-7"}},
        "labels": {"team": "payments", "tier": "2"},
    });
    agent.expect(child.pid, "exec", &origin);
    let command_line = format!("sh -c {script}");
    agent.expect(child.pid, "exec", &json!({"process.command_line": command_line}));
    let parent = json!({"pid": child.pid, "command_line": command_line});
    agent.expect(None, "exec", &json!({"process.executable": program, "process.parent": parent}));
}
