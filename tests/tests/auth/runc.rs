//! Logins of every kind in a container of a real runc, which libpam reports to the kernel from namespaces of its own.

use std::{fs, os::unix::fs::chroot, path::Path};

use rustix::process::chdir;
use serde_json::{Value, json};
use tellwire_tests::{
    Agent, Overlay, at,
    auditing::Auditing,
    debian, fork, oci,
    runtime::{self, Cgroups},
    until,
};

use crate::{
    ALICE, BOB,
    flows::{self, Sources},
    place::Container,
    releases::PACKAGES,
    ssh,
};

const ID: &str = "jailed";

/// What engines grant by default, as far as these programs need it.
const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Users of the container are no users of the machine: their names are told since its own passwd file has them.
#[test]
fn every_login_in_a_container_of_runc_is_told_once_and_names_both_sources() {
    let image = debian::root("trixie", PACKAGES);
    let _auditing = Auditing::on();
    let agent = Agent::start();
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    let cgroups = Cgroups::of(agent.cgroup());
    let root = Overlay::new(agent.folder(), ID, &image);
    fork(|| prepare(&root.0)).join();
    let bundle = agent.subfolder(ID);
    let config = config(&root.0, &cgroups).to_string();
    fs::write(bundle.join("config.json"), config).expect("the bundle's configuration");
    let container = Container { id: ID, state: bundle.join("state") };
    let run = ["run", "--detach", "--bundle", bundle.to_str().expect("a path of text"), ID];
    runtime::run(oci::runc(&container.state).args(run));
    // The machine's own, and the container's: it is known before somebody logs in.
    agent.expect_metric("tellwire_libraries_attached", &[], 2);
    let port = ssh::PORT.to_string();
    until("sshd", || {
        let mut scan = oci::runc(&container.state);
        let keys = scan.args(["exec", ID, "ssh-keyscan", "-p", &port, "127.0.0.1"]).output().expect("runc");
        (!keys.stdout.is_empty()).then_some(())
    });
    for flow in flows::FLOWS.iter().chain(ssh::FLOWS) {
        flow.run(&agent, &container, Sources::Both);
    }
    let events = agent.events();
    // A container has less than who made it, and none of all this is what an exploit does.
    let changed = |event: &&Value| at(event, "event.action") == Some(&json!("credentials_changed"));
    assert_eq!(events.iter().find(changed), None);
    for login in events.iter().filter(|event| at(event, "tellwire.auth.sources").is_some()) {
        assert_eq!(at(login, "container.id"), Some(&json!(ID)), "{login}");
    }
}

/// Accounts, and what the flows need; in the image's root directory, by a process that ends.
fn prepare(root: &Path) {
    chroot(root).expect("the root");
    chdir("/").expect("the root");
    for account in [ALICE, BOB] {
        account.add();
    }
    flows::prepare();
    ssh::keys();
}

/// sshd is what the container runs.
fn config(root: &Path, cgroups: &Cgroups) -> Value {
    let daemon = ssh::daemon();
    let run = ["sh", "-c", "mkdir /run/sshd && exec \"$@\"", "sh"];
    let args: Vec<_> = run.into_iter().chain(daemon.iter().map(String::as_str)).collect();
    let mut config = oci::config(root, &cgroups.path(ID), &args);
    config["process"]["noNewPrivileges"] = json!(false);
    config["process"]["capabilities"] =
        json!({ "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES });
    config["root"]["readonly"] = json!(false);
    for place in ["/dev", "/run"] {
        oci::mount(&mut config, oci::scratch(place));
    }
    let terminals = ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let terminals =
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": terminals });
    oci::mount(&mut config, terminals);
    config
}
