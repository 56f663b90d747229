//! Another release of Debian: OpenSSH 10, of which `sshd-session` and `sshd-auth` do the work, and Linux-PAM 1.7.

use tellwire_tests::{Agent, auditing::Auditing, debian, private::Private};

use crate::{
    ALICE, BOB,
    flows::{self, Sources},
    ssh::{self, Sshd},
};

pub(crate) const PACKAGES: &[&str] = &["openssh-server", "openssh-client", "openssl", "sudo", "login"];

/// The agent is on the machine, where none of these accounts is: it is told to show their names.
fn try_all(config: &str, sources: Sources) {
    let root = debian::root("trixie", PACKAGES);
    let _auditing = Auditing::on();
    let folder = tempfile::tempdir().expect("a folder");
    let private = Private::in_root(&root, folder.path(), &[ALICE, BOB], flows::prepare);
    let agent = Agent::with_config(config);
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    let _sshd = Sshd::start(&agent, &private);
    for flow in flows::FLOWS.iter().chain(ssh::FLOWS).filter(|flow| !flow.is_withheld()) {
        flow.run(&agent, &private, sources);
    }
}

#[test]
fn every_login_of_debian_13_is_reported() {
    try_all("[auth]\npam = false\nunknown-user-names = \"show\"\n", Sources::Audit);
}

/// Its libpam is found in a root directory of its own.
#[test]
fn calls_of_debian_13s_libpam_and_its_reports_are_one_event() {
    try_all("[auth]\nunknown-user-names = \"show\"\n", Sources::Both);
}
