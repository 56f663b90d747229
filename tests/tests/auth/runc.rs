//! Logins in a container of a real runc, which libpam reports to the kernel from namespaces of its own.

use std::fs;

use serde_json::json;
use tellwire_tests::{
    Agent,
    auditing::Auditing,
    debian, oci,
    runtime::{self, Cgroups},
};

use crate::releases::PACKAGES;

const ID: &str = "jailed";

#[test]
fn a_session_in_a_container_of_runc_is_told_once_and_names_both_sources() {
    let root = debian::root("trixie", PACKAGES);
    let _auditing = Auditing::on();
    let agent = Agent::start();
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    let cgroups = Cgroups::of(agent.cgroup());
    let bundle = agent.subfolder(ID);
    let mut config = oci::config(&root, &cgroups.path(ID), &["/usr/bin/sleep", "600"]);
    // What engines grant by default, as far as su needs it.
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_SETGID", "CAP_SETUID", "CAP_DAC_OVERRIDE"];
    config["process"]["capabilities"] =
        json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
    // Other tests have it mounted, so that it cannot be made read-only; what su writes goes to the places below.
    config["root"]["readonly"] = json!(false);
    for place in ["/dev", "/run", "/var/log"] {
        oci::mount(&mut config, oci::scratch(place));
    }
    fs::write(bundle.join("config.json"), config.to_string()).expect("the bundle's configuration");
    let runc = |args: &[&str]| runtime::run(oci::runc(&bundle.join("state")).args(args));
    // The machine's own, and then the container's: it is known before somebody logs in.
    agent.expect_metric("tellwire_libraries_attached", &[], 1);
    runc(&["run", "--detach", "--bundle", bundle.to_str().expect("a path of text"), ID]);
    agent.expect_metric("tellwire_libraries_attached", &[], 2);
    runc(&["exec", ID, "/usr/bin/su", "nobody", "--shell", "/usr/bin/true"]);
    for action in ["pam_authenticate", "pam_account", "pam_session_open", "pam_session_close"] {
        agent.expect(
            None,
            action,
            &json!({
                "event.outcome": "success",
                "user.name": "nobody",
                "container.id": ID,
                "process.executable": "/usr/bin/su",
                "tellwire.auth.service": "su",
                "tellwire.auth.sources": ["pam", "audit"],
            }),
        );
    }
    runc(&["delete", "--force", ID]);
}
