//! The end: everything that was seen is written, and the books balance.

use std::time::Instant;

use rustix::process::Signal;
use tellwire_tests::{Agent, Ledger, Setup, limit};

use crate::{count, work};

#[test]
fn what_happened_until_the_signal_is_in_the_file() {
    for signal in [Signal::TERM, Signal::INT] {
        let agent = Agent::start();
        let done = work(&agent, 60, 60);
        agent.signal(signal);
        let stopped = agent.wait();
        assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
        for (action, expected) in [("exec", done.execs), ("exit", done.exits), ("connect", done.connects)] {
            assert_eq!(count(&stopped.events, action), expected, "{action}");
            let ledger = stopped.ledgers[action];
            assert_eq!((ledger.seen, ledger.received), (expected, expected), "{action}");
        }
        assert!(stopped.ledgers.values().all(Ledger::is_exact), "{:?}", stopped.ledgers);
        // A line for each kind of record.
        let kinds: Vec<_> = stopped.ledgers.keys().map(String::as_str).collect();
        let expected = [
            "cgroup_mkdir",
            "cgroup_rmdir",
            "close",
            "connect",
            "credentials",
            "exec",
            "exec_failed",
            "exit",
            "fork",
            "pam",
        ];
        assert_eq!(kinds, expected);
    }
}

#[test]
fn a_duration_ends_it_by_itself() {
    let start = Instant::now();
    let agent = Agent::with(|| Setup::default().arguments(["--duration", "1s"]));
    let done = work(&agent, 2, 0);
    let stopped = agent.wait();
    assert!(start.elapsed().as_secs() >= 1);
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    assert_eq!(count(&stopped.events, "exec"), done.execs);
}

#[test]
fn an_idle_agent_ends_at_once_and_with_nothing_said_of_anyone() {
    let agent = Agent::start();
    let start = Instant::now();
    let stopped = agent.stop();
    assert!(start.elapsed() < limit());
    assert_eq!(stopped.status.code(), Some(0));
    assert_eq!(stopped.events.len(), 0, "{:?}", stopped.events);
    assert!(stopped.ledgers.iter().all(|(kind, ledger)| ledger.seen == 0 || kind.starts_with("cgroup")));
}
