//! Auditing that is off, and that the agent may switch.

use serde_json::{Value, json};
use tellwire_tests::{
    Agent,
    auditing::{self, Auditing},
    output, tellwire, until,
};

use crate::{USER_LOGIN, become_known};

#[test]
fn auditing_that_is_off_is_said_and_is_no_fault() {
    let _auditing = Auditing::off();
    let agent = Agent::alone();
    agent.expect_metric("tellwire_audit_connected", &[], 1);
    agent.expect_metric("tellwire_audit_enabled", &[], 0);
    let body = until("a note", || Some(agent.get("/readyz").1).filter(|body| body.contains("notes")));
    assert!(body.contains("\"ready\"") && body.contains("audit_enabled 0"), "{body}");
    assert_eq!(auditing::enabled(), 0);
    let report = output(&mut tellwire(["check", "--json"])).stdout;
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(
        (&report["audit"]["connected"], &report["audit"]["enabled"]),
        (&json!(true), &json!(false)),
        "{report}"
    );
}

#[test]
fn auditing_is_switched_on_if_the_configuration_says_so_and_put_back() {
    let _auditing = Auditing::off();
    let agent = Agent::with_config("[auth]\npam = false\naudit-enable = true\n");
    assert_eq!(auditing::enabled(), 1);
    let child = agent.fork(|| {
        become_known();
        auditing::report(USER_LOGIN, ["op=login acct=\"root\" res=failed"]);
    });
    agent.expect(child.pid, "user_login", &json!({"user.name": "root", "event.outcome": "failure"}));
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    let stopped = agent.stop();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    assert_eq!(auditing::enabled(), 0);
}
