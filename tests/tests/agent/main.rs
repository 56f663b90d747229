//! The agent itself: how it starts, what it does where it cannot work as it should, and how it ends.

#![expect(clippy::expect_used, reason = "tests panic, they do not return errors")]

mod commands;
mod degraded;
mod http;
mod inputs;
mod lines;
mod outputs;
mod own;
mod profile;
mod redaction;
mod reload;
mod remote;
mod rings;
mod rules;
mod scope;
mod shipped;
mod stop;

use std::net::{Ipv4Addr, TcpStream};

use serde_json::Value;
use tellwire_tests::{Agent, Setup, at, fork, net, program::Program, sys};

/// What a workload did, by action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Done {
    execs: u64,
    exits: u64,
    connects: u64,
}

impl Done {
    /// The lines that it makes: each connection is opened and closed.
    fn lines(self) -> u64 {
        self.execs + self.exits + 2 * self.connects
    }
}

/// Runs programs and opens connections, and waits for the end of both.
fn work(agent: &Agent, execs: u64, connects: u64) -> Done {
    let program = agent.folder().join("program");
    if !program.exists() {
        Program::Exit(0).write(&program);
    }
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let mut child = agent.fork(|| {
        let connecting = fork(|| {
            for _ in 0..connects {
                drop(TcpStream::connect(server.address()).expect("a connection"));
            }
        });
        for _ in 0..execs {
            fork(|| sys::exec(&program, &["program", "with", "arguments"])).join();
        }
        connecting.join();
    });
    child.wait();
    child.join();
    Done { execs, exits: execs + 2, connects }
}

/// An agent whose lines are those of the workload, for tests that count them.
fn quiet() -> Setup {
    Setup::default().arguments(["--types", "exec,exec_failed,exit,connect,close"])
}

/// How many of the events have this action.
fn count(events: &[Value], action: &str) -> u64 {
    events.iter().filter(|event| at(event, "event.action").is_some_and(|found| found == action)).count()
        as u64
}
