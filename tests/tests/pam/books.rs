//! The books: every call is counted, told once and lost never; sessions add up.

use std::{collections::BTreeMap, time::Instant};

use tellwire_tests::{Agent, Setup, in_vm};

use crate::helper::{Form, command, lines, run, settle};

/// Transactions in each of the processes that run at the same time; an emulated machine makes a few a second.
fn each() -> u32 {
    if in_vm() { 10 } else { 500 }
}

const PROCESSES: u32 = 4;
/// Between two of a process: 250 a second in all, more than is asked for. The agent is not optimised here, nor alone.
const PAUSE_MS: u32 = 16;

#[test]
fn hundreds_of_transactions_a_second_are_all_counted_and_all_told() {
    let agent = Agent::alone();
    let steps = ["item4=192.0.2.7", "auth", "account", "cred", "open", "close"];
    let calls = 5;
    let begun = Instant::now();
    let mut helpers: Vec<_> = (0..PROCESSES)
        .map(|_| {
            let mut command = command(Form::Linked, "sshd", "root", &steps);
            command.env("PAM_REPEAT", each().to_string()).env("PAM_PAUSE_MS", PAUSE_MS.to_string());
            agent.spawn(&mut command)
        })
        .collect();
    for helper in &mut helpers {
        assert!(helper.wait().success());
    }
    let took = begun.elapsed();
    let transactions = u64::from(each() * PROCESSES);
    agent.settle(&mut helpers[0]);
    let rate = f64::from(each() * PROCESSES) / took.as_secs_f64();
    println!("{transactions} transactions of {calls} calls, {rate:.0} a second");

    for (service, outcome, value) in [
        ("sshd", "success", transactions),
        ("sshd", "failure", 0),
        ("sshd", "denied", 0),
        ("other", "success", 0),
    ] {
        agent.expect_metric(
            "tellwire_auth_attempts_total",
            &[("service", service), ("outcome", outcome)],
            value,
        );
    }
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines(&agent) {
        *told.entry(line["event"]["action"].as_str().expect("an action").to_owned()).or_default() += 1;
        assert_eq!(line["user"]["name"], "root", "{line}");
    }
    assert_eq!(told.len(), calls);
    for (action, count) in told {
        assert_eq!(count, transactions, "{action}");
        agent.expect_metric("tellwire_events_total", &[("action", &action)], transactions);
    }
    agent.expect_metric("tellwire_auth_untracked_total", &[], 0);
    agent.expect_metric("tellwire_auth_sessions_opened_total", &[("service", "sshd")], transactions);
    agent.expect_metric("tellwire_auth_sessions", &[], 0);
    agent.expect_metric("tellwire_events_lost_total", &[], 0);
    agent.end();
}

/// Tasks that preempt each other in the middle of a program must not write over what the other has begun.
#[test]
fn calls_of_processes_that_preempt_each_other_are_not_mixed_up() {
    const SERVICES: [&str; 5] = ["sshd", "sudo", "refuses", "login", "locked"];
    let transactions = 40;
    let agent = Agent::alone();
    let helper = |service: &&'static str| {
        let mut command = command(Form::Linked, service, "root", &["auth", "account"]);
        (agent.spawn(command.env("PAM_REPEAT", transactions.to_string())), *service)
    };
    let mut helpers: Vec<_> = SERVICES.iter().chain(&SERVICES).map(helper).collect();
    for (helper, _) in &mut helpers {
        agent.settle(helper);
    }
    let services: BTreeMap<u32, &str> =
        helpers.iter().map(|(helper, service)| (helper.pid, *service)).collect();
    let lines = lines(&agent);
    for line in &lines {
        let pid = line["process"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let service = pid.and_then(|pid| services.get(&pid));
        assert_eq!(line["tellwire"]["auth"]["service"].as_str(), service.copied(), "{line}");
        assert_eq!(line["user"]["name"], "root", "{line}");
    }
    assert_eq!(lines.len(), 2 * transactions * helpers.len());
}

#[test]
fn services_have_their_own_counters() {
    let agent = Agent::alone();
    for (service, steps) in [
        ("sshd", &["auth", "account"][..]),
        ("sudo", &["auth"]),
        ("login", &["auth", "auth"]),
        ("locked", &["auth", "account"]),
        ("nothing", &["auth"]),
    ] {
        run(&agent, service, "root", steps);
    }
    for (service, outcome, value) in [
        ("sshd", "success", 1),
        ("sshd", "denied", 0),
        ("sudo", "success", 1),
        ("login", "failure", 2),
        ("other", "success", 1),
        ("other", "failure", 1),
        ("other", "denied", 1),
        ("su", "success", 0),
    ] {
        agent.expect_metric(
            "tellwire_auth_attempts_total",
            &[("service", service), ("outcome", outcome)],
            value,
        );
    }
    // What rules and metrics go by holds without lines as well.
    let quiet = Agent::with(|| Setup::default().arguments(["--types", "exec"]));
    settle(&quiet, &mut command(Form::Linked, "sshd", "root", &["auth"]));
    quiet.expect_metric("tellwire_auth_attempts_total", &[("service", "sshd"), ("outcome", "success")], 1);
    assert!(lines(&quiet).is_empty());
}

#[test]
fn sessions_that_are_open_are_counted_until_they_end_in_whatever_way() {
    let agent = Agent::alone();
    let sessions = |service: &str, value| {
        agent.expect_metric("tellwire_auth_sessions", &[("service", service)], value);
    };
    run(&agent, "sshd", "root", &["open", "open", "close", "close"]);
    sessions("sshd", 0);
    // The transaction is ended, and the session with it.
    run(&agent, "sshd", "root", &["open"]);
    sessions("sshd", 0);
    // A child's copy is let go of; the session is the parent's.
    run(&agent, "sudo", "root", &["open", "fork-end", "close"]);
    sessions("sudo", 0);
    // A close without an open takes nothing from the others.
    run(&agent, "sudo", "root", &["close"]);
    sessions("sudo", 0);
    agent.expect_metric("tellwire_auth_sessions_opened_total", &[("service", "sshd")], 3);
    // It ends without a word: the agent finds out.
    run(&agent, "login", "root", &["open", "abort"]);
    agent.expect_metric("tellwire_auth_sessions_opened_total", &[("service", "login")], 1);
    sessions("login", 0);
    agent.expect_metric("tellwire_map_entries", &[("map", "pam_transactions")], 0);
}
