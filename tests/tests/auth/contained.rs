//! Logins in a container: its accounts are its own, and its lines say which container it is.

use std::fs;

use serde_json::json;
use tellwire_tests::{Agent, at, auditing::Auditing, debian, private::Private, runtime::Cgroups};

use crate::{
    ALICE, BOB,
    flows::{self, Sources},
    releases::PACKAGES,
    ssh::{self, Sshd},
};

const ID: &str = "9b1fd63e2c1f4b6a8f0f5f1c2f3d4e5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4";

/// What libpam never hears of: only sshd's own report names the user, whom this machine does not know.
#[test]
fn what_sshd_reports_in_a_container_names_the_users_of_the_container() {
    let root = debian::root("trixie", PACKAGES);
    let _auditing = Auditing::on();
    let folder = tempfile::tempdir().expect("a folder");
    let private = Private::in_root(&root, folder.path(), &[ALICE, BOB], flows::prepare);
    let agent = Agent::start();
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    let _cgroups = Cgroups::of(agent.cgroup());
    let cgroup = agent.cgroup().join("docker").join(ID);
    fs::create_dir_all(&cgroup).expect("a container's cgroup");
    let sshd = Sshd::start_in(&agent, &private, Some(&cgroup));
    for name in ["a wrong key", "the right key, after a wrong one", "an unknown user"] {
        let flow = ssh::FLOWS.iter().find(|flow| flow.name == name).expect("a flow");
        flow.run(&agent, &private, Sources::Both);
    }
    let alice = json!({
        "event.outcome": "failure",
        "user.name": ALICE.name,
        "container.id": ID,
        "tellwire.auth.sources": ["audit"],
    });
    agent.expect(None, "user_login", &alice);
    agent.expect(None, "pam_session_open", &json!({"user.name": ALICE.name, "container.id": ID}));
    drop(sshd);
    for event in agent.events() {
        let is_told = at(&event, "process.args").is_none() && event.to_string().contains("tw-nobody");
        assert!(!is_told, "{event}");
    }
}
