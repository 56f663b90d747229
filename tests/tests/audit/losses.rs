//! Storms of records: none is lost where there is room, and what is lost is counted.

use rustix::process::Signal;
use serde_json::json;
use tellwire_tests::{
    Agent, at,
    auditing::{self, Auditing},
    until,
};

use crate::{USER_LOGIN, become_known};

const STORM: u64 = 4_000;

fn storm(agent: &Agent) {
    let texts = (0..STORM).map(|number| {
        format!("op=login acct=\"root\" id=0 addr=10.0.{}.{} res=success", number / 256, number % 256)
    });
    let report = || {
        become_known();
        auditing::report(USER_LOGIN, texts);
    };
    agent.fork(report).join();
}

#[test]
fn a_storm_of_records_is_told_without_a_gap() {
    let _auditing = Auditing::on();
    let agent = Agent::alone();
    storm(&agent);
    agent.expect_metric("tellwire_events_total", &[("action", "user_login")], STORM);
    agent.expect_metric("tellwire_events_lost_total", &[], 0);
    let events = agent.end();
    let told = events.iter().filter(|event| at(event, "event.action") == Some(&json!("user_login")));
    assert_eq!(told.count() as u64, STORM);
}

#[test]
fn records_that_find_no_room_are_counted_and_told_as_lost() {
    let _auditing = Auditing::on();
    let agent = Agent::with_config("[auth]\npam = false\naudit-buffer-bytes = 4096\n");
    // Nobody reads meanwhile.
    agent.signal(Signal::STOP);
    storm(&agent);
    agent.signal(Signal::CONT);
    until("a loss", || (agent.metric("tellwire_audit_overruns_total", &[]) > 0).then_some(()));
    until("what was received", || {
        let told = agent.metric("tellwire_audit_received_total", &[]);
        let outcomes = agent.metric("tellwire_audit_records_total", &[]);
        (told == outcomes).then_some(())
    });
    assert_eq!(
        agent.metric("tellwire_events_lost_total", &[("stage", "audit")]),
        agent.metric("tellwire_audit_overruns_total", &[])
    );
    let stopped = agent.stop();
    let is_loss = |event: &&serde_json::Value| at(event, "event.action") == Some(&json!("events_lost"));
    let line = stopped.own.iter().find(is_loss).expect("a line of the loss");
    assert_eq!(at(line, "tellwire.lost.lost").map(|lost| &lost[0]["stage"]), Some(&json!("audit")), "{line}");
}
