//! Rules: what they leave out makes no line and is counted, by rule; metrics count it all the same.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, TcpStream},
    path::Path,
};

use serde_json::{Value, json};
use tellwire_tests::{Agent, Setup, Stopped, at, fork, net, output, program::Program, sys, tellwire, until};

use crate::{count, work};

const ID: &str = "04fa7377143cd0256f28cfa588020589290e40a8f622c50ee63112281ebe537d";

fn decided(agent: &Agent, rule: &str, effect: &str) -> u64 {
    agent.metric("tellwire_rule_events_total", &[("rule", rule), ("effect", effect)])
}

/// Stops the agent; whatever the rules did, its books are exact.
fn stop(agent: Agent) -> Stopped {
    let stopped = agent.stop();
    assert!(stopped.status.success(), "{}", stopped.log.join("\n"));
    for (kind, ledger) in &stopped.ledgers {
        assert!(ledger.is_exact(), "{kind}: {ledger:?}");
    }
    stopped
}

#[test]
fn a_program_that_a_rule_drops_makes_no_line_and_is_counted() {
    let agent = Agent::with_config(
        "[[rules]]\nname = 'noisy'\neffect = 'drop'\nactions = ['exec', 'exit']\nexecutables = ['/**/noisy']\n",
    );
    let [noisy, other] = ["noisy", "other"].map(|name| {
        let path = agent.folder().join(name);
        Program::Exit(0).write(&path);
        path
    });
    let mut first = agent.exec(&noisy, &["noisy"]);
    let mut second = agent.exec(&other, &["other"]);
    agent.settle(&mut first);
    agent.settle(&mut second);
    assert_eq!(agent.events_of(first.pid, "exec").len(), 0);
    assert_eq!(agent.events_of(first.pid, "exit").len(), 0);
    assert_eq!(agent.events_of(second.pid, "exec").len(), 1);
    assert_eq!(decided(&agent, "noisy", "drop"), 2);
    for action in ["exec", "exit"] {
        agent.expect_metric("tellwire_events_total", &[("action", action)], 2);
        agent.expect_metric("tellwire_lines_left_out_total", &[("action", action)], 1);
    }
    stop(agent);
}

#[test]
fn a_rule_can_ask_for_arguments() {
    let agent = Agent::with_config(
        "[[rules]]\nname = 'probe'\neffect = 'drop'\nargs = ['^curl .*--max-time \\d+ .*/healthz$']\n",
    );
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    let mut healthy = agent.exec(&program, &["curl", "--max-time", "5", "http://x/healthz"]);
    let mut other = agent.exec(&program, &["curl", "--max-time", "5", "http://x/healthz", "-v"]);
    agent.settle(&mut healthy);
    agent.settle(&mut other);
    assert_eq!(agent.events_of(healthy.pid, "exec").len(), 0);
    // Only the exec has arguments.
    assert_eq!(agent.events_of(healthy.pid, "exit").len(), 1);
    assert_eq!(agent.events_of(other.pid, "exec").len(), 1);
    assert_eq!(decided(&agent, "probe", "drop"), 1);
    stop(agent);
}

#[test]
fn the_kernel_drops_connects_by_destination_port_and_user() {
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let kept = net::Server::start(Ipv4Addr::LOCALHOST);
    let sixth = net::Server::start(Ipv6Addr::LOCALHOST);
    let (port, kept_port) = (server.address().port(), kept.address().port());
    let config = format!(
        "[[rules]]\nname = 'but-this'\neffect = 'keep'\nports = [{kept_port}]\n\
         [[rules]]\nname = 'local'\neffect = 'drop'\ndestinations = ['127.0.0.0/8']\nports = [{port}]\nusers = [0]\n\
         [[rules]]\nname = 'rest'\neffect = 'drop'\ndestinations = ['127.0.0.0/8']\nusers = [0]\n\
         [[rules]]\nname = 'nobody'\neffect = 'drop'\nactions = ['connect']\nusers = [65534]\n"
    );
    let agent = Agent::with_config(&config);
    let (_socket, closed) = net::closed_port();
    let mut child = agent.fork(|| {
        let connect = |address| drop(TcpStream::connect(address).expect("a connection"));
        for _ in 0..7 {
            connect(server.address());
        }
        for _ in 0..3 {
            connect(kept.address());
            connect(sixth.address());
        }
        TcpStream::connect(closed).expect_err("nobody listens");
        fork(|| {
            sys::become_user(1000);
            connect(server.address());
        })
        .join();
        fork(|| {
            sys::become_user(65534);
            connect(server.address());
            connect(sixth.address());
        })
        .join();
    });
    agent.settle(&mut child);
    child.join();
    assert_eq!(decided(&agent, "but-this", "keep"), 3);
    assert_eq!(decided(&agent, "local", "drop"), 7);
    assert_eq!(decided(&agent, "rest", "drop"), 1);
    assert_eq!(decided(&agent, "nobody", "drop"), 2);
    // Metrics know nothing of rules.
    agent.expect_metric("tellwire_connects_total", &[("outcome", "established")], 16);
    agent.expect_metric("tellwire_connects_total", &[("outcome", "refused")], 1);
    // All of it was done in the kernel: none of the ten became a record.
    agent.expect_metric("tellwire_lines_left_out_total", &[], 0);
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
    let stopped = stop(agent);
    let ledger = &stopped.ledgers["connect"];
    assert_eq!((ledger.seen, ledger.filtered, ledger.received), (17, 10, 7), "{ledger:?}");
    assert_eq!(count(&stopped.events, "connect"), 7);
}

#[test]
fn the_kernel_drops_what_a_container_does_from_its_first_process_on() {
    let agent = Agent::with_config(
        "[[rules]]\nname = 'noisy'\neffect = 'drop'\nactions = ['connect', 'exec_failed']\ncontainers = ['04fa7377143c']\n",
    );
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let container = agent.cgroup().join(format!("docker-{ID}.scope"));
    fs::create_dir(&container).expect("a cgroup");
    // The agent has heard of the cgroup once it has told what was there before.
    let mut before = agent.fork(|| drop(TcpStream::connect(server.address()).expect("a connection")));
    agent.settle(&mut before);
    let mut child = agent.fork(|| {
        fs::write(container.join("cgroup.procs"), "0").expect("entering it");
        drop(TcpStream::connect(server.address()).expect("a connection"));
        sys::execve(Path::new("/nowhere"), &["x"]);
        sys::execve(Path::new("/nowhere"), &["x"]);
    });
    agent.settle(&mut child);
    let pid = child.pid;
    child.join();
    assert_eq!(decided(&agent, "noisy", "drop"), 3);
    assert_eq!(agent.events_of(before.pid, "connect").len(), 1);
    for action in ["connect", "exec_failed"] {
        assert_eq!(agent.events_of(pid, action).len(), 0);
    }
    let stopped = stop(agent);
    assert_eq!(stopped.ledgers["connect"].filtered, 1);
    assert_eq!(stopped.ledgers["exec_failed"].filtered, 2);
}

#[test]
fn a_container_that_was_there_before_the_agent_is_dropped_too() {
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let agent = Agent::with(|| {
        Setup::default().config(
            "[[rules]]\nname = 'first'\neffect = 'drop'\nactions = ['connect']\ncontainers = ['04fa7377143c']\n\
             outcomes = ['success']\n",
        )
    });
    let container = agent.cgroup().join(format!("docker-{ID}.scope"));
    fs::create_dir(&container).expect("a cgroup");
    let second = Agent::with(|| {
        let cgroup = container.clone();
        Setup::default()
            .config(
                "[[rules]]\nname = 'second'\neffect = 'drop'\nactions = ['connect']\ncontainers = ['04fa7377143c']\n",
            )
            .arguments(["--cgroup".into(), cgroup.into_os_string()])
    });
    let mut child = agent.fork(|| {
        fs::write(container.join("cgroup.procs"), "0").expect("entering it");
        drop(TcpStream::connect(server.address()).expect("a connection"));
    });
    child.wait();
    child.join();
    until("the second agent's kernel side has counted", || {
        (decided(&second, "second", "drop") == 1).then_some(())
    });
    assert_eq!(stop(second).ledgers["connect"].filtered, 1);
    drop(agent);
}

#[test]
fn a_sample_is_exact_and_its_lines_say_so() {
    let agent = Agent::with_config(
        "[[rules]]\nname = 'one-of-ten'\neffect = 'sample'\none-in = 10\nactions = ['connect']\n",
    );
    let done = work(&agent, 1, 40);
    agent.expect_metric("tellwire_events_total", &[("action", "connect")], done.connects);
    until("all were judged", || {
        (decided(&agent, "one-of-ten", "drop") + decided(&agent, "one-of-ten", "keep") == 40).then_some(())
    });
    assert_eq!(decided(&agent, "one-of-ten", "keep"), 4);
    let stopped = stop(agent);
    assert_eq!(count(&stopped.events, "connect"), 4);
    let sampled = json!({"rule": "one-of-ten", "one_in": 10});
    for event in &stopped.events {
        let is_connect = at(event, "event.action").is_some_and(|action| action == "connect");
        assert_eq!(at(event, "tellwire.sampled"), is_connect.then_some(&sampled), "{event}");
    }
}

#[test]
fn tags_of_all_rules_stand_on_the_line_and_a_keep_goes_before_a_drop() {
    let agent = Agent::with_config(
        "[[rules]]\nname = 'root'\neffect = 'tag'\ntags = ['root', 'local']\nusers = ['root']\n\
         [[rules]]\nname = 'crown'\neffect = 'tag'\ntags = ['local', 'crown-jewel']\nexecutables = ['**/jewel']\n\
         [[rules]]\nname = 'but-jewel'\neffect = 'keep'\nexecutables = ['**/jewel']\n\
         [[rules]]\nname = 'all'\neffect = 'drop'\neven-authentication-failures = true\n",
    );
    let jewel = agent.folder().join("jewel");
    Program::Exit(0).write(&jewel);
    let mut child = agent.exec(&jewel, &["jewel"]);
    let mut failing = agent.fork(|| {
        sys::execve(Path::new("/nowhere"), &["x"]);
    });
    agent.settle(&mut child);
    agent.settle(&mut failing);
    agent.expect(child.pid, "exec", &json!({"tags": ["root", "local", "crown-jewel"]}));
    assert!(decided(&agent, "all", "drop") >= 2);
    let stopped = stop(agent);
    let actions: Vec<_> = stopped.events.iter().filter_map(|event| at(event, "event.action")).collect();
    assert_eq!(actions, [&Value::from("exec"), &Value::from("exit")]);
}

#[test]
fn rules_of_a_plain_agent_cost_no_field() {
    let agent = Agent::shared();
    let program = agent.folder().join("plain");
    Program::Exit(0).write(&program);
    let mut child = agent.exec(&program, &["plain"]);
    agent.settle(&mut child);
    agent.expect(child.pid, "exec", &json!({"tags": null, "tellwire.sampled": null}));
}

#[test]
fn check_and_show_say_where_each_rule_is_judged() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tellwire.toml");
    let config = "[[rules]]\nname = 'ten'\neffect = 'drop'\ndestinations = ['10.0.0.0/8']\n\
                  [[rules]]\nname = 'cc1'\neffect = 'drop'\nactions = ['exec']\nexecutables = ['**/cc1']\n";
    fs::write(&file, config).expect("writing it");
    let said = |arguments: &[&str]| {
        let output = output(tellwire(arguments).arg("--config").arg(&file));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for arguments in [&["check"][..], &["config", "show"]] {
        let text = said(arguments);
        assert!(text.contains("in the kernel for connect: all its conditions are known there"), "{text}");
        assert!(text.contains("in the agent: "), "{text}");
    }
    let report: Value = serde_json::from_str(&said(&["check", "--json"])).expect("JSON");
    assert_eq!(report["rules"][0]["in_kernel_for"], json!(["connect"]));
    assert_eq!(report["rules"][1]["in_kernel_for"], json!([]));
}

#[test]
fn connects_that_are_told_together_are_judged_one_by_one() {
    let config = "[[rules]]\nname = 'marked'\neffect = 'tag'\ntags = ['seen']\nactions = ['connect']\n\
                  [[rules]]\nname = 'theirs'\neffect = 'keep'\nactions = ['connect']\nusers = [4321]\n";
    let agent = Agent::with(|| Setup::default().default_profile().config(config));
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut child = agent.fork(|| {
        let connect = |times| {
            for _ in 0..times {
                drop(TcpStream::connect(to).expect("a connection"));
            }
        };
        connect(3);
        sys::become_user(4321);
        connect(2);
    });
    child.wait();
    agent.expect_metric("tellwire_rule_events_total", &[("rule", "theirs"), ("effect", "keep")], 2);
    agent.expect_metric("tellwire_rule_events_total", &[("rule", "marked"), ("effect", "tag")], 5);
    let folded = [("action", "connect"), ("reason", "folded")];
    agent.expect_metric("tellwire_lines_left_out_total", &folded, 4);
    agent.expect(child.pid, "connect", &json!({"destination.port": to.port(), "tags": ["seen"]}));
    stop(agent);
}
