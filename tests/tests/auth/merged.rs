//! A call of libpam that the agent sees and that libpam reports is one event.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tellwire_tests::{Agent, at, auditing::Auditing};

use crate::{
    flows::{self, Sources},
    ssh::{self, Sshd},
};

#[test]
fn what_both_report_is_told_once_and_names_both() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) = crate::agent_with("");
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    let _sshd = Sshd::start(&agent, &private);
    let mut logins = 0;
    for flow in flows::FLOWS.iter().chain(ssh::FLOWS) {
        flow.run(&agent, &private, Sources::Both);
        logins += flow.failed_logins(Sources::Both);
    }
    let events = agent.events();
    let (mut both, mut pam, mut audit, mut refused) = (0, 0, 0, 0);
    for event in &events {
        match sources(event).as_slice() {
            ["pam", "audit"] => both += 1,
            // What refused is no call of libpam.
            ["pam"] if at(event, "event.action") == Some(&json!("exit")) => refused += 1,
            ["pam"] => pam += 1,
            ["audit"] => {
                audit += 1;
                let op = at(event, "tellwire.audit.op").and_then(Value::as_str).unwrap_or_default();
                assert!(!op.starts_with("PAM:") || op == "PAM:bad_ident", "{event}");
            }
            _ => {}
        }
    }
    // libpam reports each of its calls. What it does not call itself stays: sshd's logins and sudo's commands.
    assert!(
        both > 40 && pam == 0 && audit > 10,
        "{both} by both, {pam} by PAM alone, {audit} by audit alone"
    );
    assert_eq!(refused, 1, "sudo's end, of who may not");
    // A wrong password is one event, though sshd and login report it as a login that failed; a wrong key is sshd's alone.
    let is_failed_login = |event: &&Value| {
        at(event, "event.action") == Some(&json!("user_login"))
            && at(event, "event.outcome") == Some(&json!("failure"))
    };
    assert_eq!(events.iter().filter(is_failed_login).count(), logins);
    let merged = agent.metric("tellwire_audit_records_total", &[("outcome", "merged")]);
    assert!(merged > both, "{merged} merged, {both} of them with calls");
    // Nothing is counted twice: each record has one line.
    let mut serials = BTreeMap::new();
    for event in &events {
        if let (Some(serial), Some(kind)) =
            (at(event, "tellwire.audit.serial"), at(event, "tellwire.audit.type"))
        {
            *serials.entry((serial.to_string(), kind.to_string())).or_insert(0) += 1;
        }
    }
    assert!(serials.values().all(|count| *count == 1), "{serials:?}");
    assert_exact(agent);
}

fn sources(event: &Value) -> Vec<&str> {
    let sources = at(event, "tellwire.auth.sources").and_then(Value::as_array);
    sources.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn assert_exact(agent: Agent) {
    let stopped = agent.stop();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    let is_loss = |event: &Value| at(event, "event.action") == Some(&json!("events_lost"));
    assert!(!stopped.own.iter().any(is_loss), "{:?}", stopped.own);
}
