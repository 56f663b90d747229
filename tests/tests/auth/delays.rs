//! A wrong password makes its giver wait, which is Debian's default: libpam's record comes at once, the call returns seconds later.

use serde_json::{Value, json};
use tellwire_tests::{Setup, at, auditing::Auditing, private::append};

use crate::{
    ALICE, BOB, WRONG,
    flows::{self, Flow, allow_sudo},
    ssh::{self, Sshd},
};

/// `pam_unix` asks for two seconds, of which libpam makes no less than one: `_pam_compute_delay`,
/// `libpam/pam_delay.c` of Linux-PAM 1.5.2.
const LEAST: u64 = 1_000_000_000;

/// sudo asks once.
fn one_guess() {
    allow_sudo();
    append("/etc/sudoers", "Defaults passwd_tries=1\n");
}

#[test]
fn a_wrong_password_that_one_waits_for_is_one_event_with_what_it_cost() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) = crate::agent_of(Setup::default, one_guess);
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    let _sshd = Sshd::start(&agent, &private);
    let sudo = Flow {
        program: &["/usr/bin/sudo", "-k", "true"],
        answers: &[("assword", WRONG)],
        told: &[],
        ..*flows::flow("sudo with wrong passwords")
    };
    let ssh = ssh::FLOWS.iter().find(|flow| flow.name == "a wrong password").expect("a flow");
    for (flow, user) in [(flows::flow("su with a wrong password"), BOB), (&sudo, ALICE), (ssh, ALICE)] {
        flow.go(&agent, &private);
        let both = json!({
            "event": {"outcome": "failure", "code": "PAM_AUTH_ERR"},
            "user.name": user.name,
            "tellwire.auth": {"service": flow.caller.service, "sources": ["pam", "audit"]},
            "tellwire.audit.op": "PAM:authentication",
        });
        let event = agent.expect(None, "pam_authenticate", &both);
        let duration = at(&event, "event.duration").and_then(Value::as_u64);
        assert!(duration.is_some_and(|duration| duration > LEAST), "{event}");
    }
    let stopped = agent.stop();
    let tells = |action: &str| {
        let is_one = |event: &&Value| at(event, "event.action") == Some(&json!(action));
        stopped.events.iter().filter(is_one).count()
    };
    assert_eq!((tells("pam_authenticate"), tells("user_auth")), (3, 0));
}
