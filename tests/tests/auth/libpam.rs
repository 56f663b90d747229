//! Logins of real programs where nothing is audited, as on most machines: calls of libpam say it all.

use std::fs;

use serde_json::{Value, json};
use tellwire_tests::{Agent, Setup, at, auditing::Auditing};

use crate::{
    ALICE, BOB,
    flows::{self, Flow, Sources, Told},
    ssh::{self, Sshd},
};

#[test]
fn what_libpam_shows_alone() {
    let _auditing = Auditing::off();
    let (agent, private, _folder) = crate::agent_with("");
    agent.expect_metric("tellwire_audit_enabled", &[], 0);
    let _sshd = Sshd::start(&agent, &private);
    for flow in flows::FLOWS.iter().chain(ssh::FLOWS) {
        let before = agent.events().len();
        flow.go(&agent, &private);
        for (told, event) in flow.expect(&agent, before, Sources::Pam) {
            flow.assert_facts(told, &event);
        }
    }
    assert_silent_of_audit(&agent);
}

/// libpam agrees, sudo does not, and nothing but its end says so. The profile that users have by default tells no other end.
#[test]
fn sudo_that_refuses_whom_libpam_accepted_says_so_by_its_end() {
    let _auditing = Auditing::off();
    let (agent, private, _folder) = crate::agent_of(|| Setup::default().default_profile(), flows::prepare);
    for flow in [&flows::FAILS_IN_A_SESSION, flows::flow("sudo by who may not, with the right password")] {
        flow.go(&agent, &private);
    }
    let refused = json!({
        "event.outcome": "failure",
        "process": {"executable": "/usr/bin/sudo", "exit_code": 1},
        "tellwire.auth": {"service": "sudo", "remote_user": BOB.name, "proof": true, "sources": ["pam"]},
    });
    let end = agent.expect(None, "exit", &refused);
    let accepted =
        json!({"event.outcome": "success", "user.name": BOB.name, "tellwire.auth.service": "sudo"});
    let proof = agent.expect(None, "pam_account", &accepted);
    let transaction = |event| at(event, "tellwire.auth.transaction").cloned();
    assert_eq!(transaction(&end), transaction(&proof));
    let stopped = agent.stop();
    let ends = stopped.events.iter().filter(|event| at(event, "event.action") == Some(&json!("exit")));
    assert_eq!(ends.count(), 1);
}

fn assert_silent_of_audit(agent: &Agent) {
    let by_audit = |event: &Value| crate::is_reported(event);
    assert!(!agent.events().iter().any(by_audit));
}

impl Flow {
    /// What a line of libpam's says beside what happened to whom.
    fn assert_facts(&self, told: &Told, event: &Value) {
        let text = |path| at(event, path).and_then(Value::as_str).unwrap_or_default();
        let name = self.name;
        assert_eq!(text("tellwire.auth.service"), self.caller.service, "{name}: {event}");
        assert_eq!(text("source.ip"), self.caller.source, "{name}: {event}");
        let terminal = text("tellwire.auth.tty");
        let is_right = terminal.starts_with(self.caller.terminal)
            && terminal.is_empty() == self.caller.terminal.is_empty();
        assert!(is_right, "{name}: {event}");
        let asks_for_proof = matches!(told.op, "PAM:accounting" | "PAM:session_open" | "PAM:setcred");
        let is_proven = self.has("PAM:authentication");
        let proof = asks_for_proof.then_some(is_proven);
        assert_eq!(at(event, "tellwire.auth.proof"), proof.map(Value::from).as_ref(), "{name}: {event}");
        // Since when the session is the user's own, setcred does not say: sshd calls it before, login behind.
        let login = match told.op {
            "PAM:setcred" => return,
            "PAM:session_open" | "PAM:session_close" if self.logs_in() => Some(ALICE.id.to_string()),
            _ => own_login(),
        };
        assert_eq!(at(event, "process.login_uid"), login.map(Value::from).as_ref(), "{name}: {event}");
    }

    fn has(&self, op: &str) -> bool {
        self.told.iter().any(|told| told.op == op && told.outcome == "success")
    }

    /// The kernel is told whose session it is.
    fn logs_in(&self) -> bool {
        self.told.iter().any(|told| told.action == "login_uid_set")
    }
}

/// The login uid that what the test starts has from the test.
fn own_login() -> Option<String> {
    let login = fs::read_to_string("/proc/self/loginuid").expect("a kernel with auditing");
    Some(login.trim().to_owned()).filter(|login| *login != u32::MAX.to_string())
}
