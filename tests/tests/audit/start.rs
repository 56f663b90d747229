//! Agents that may not read records, or shall not; that are elsewhere, or find what another one left.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::{process::Signal, thread::CapabilitySet};
use serde_json::json;
use tellwire_tests::{
    Agent, Setup,
    auditing::{self, Auditing},
    net, sys,
};

use crate::{USER_LOGIN, become_known};

#[test]
fn what_an_agent_that_was_killed_left_on_is_put_back_at_the_next_start() {
    let auditing = Auditing::off();
    let notes = tempfile::tempdir().expect("a folder");
    let off = format!("[agent]\nstate-dir = \"{}\"\n", notes.path().display());
    let on = format!("{off}[auth]\npam = false\naudit-enable = true\n");
    let agent = Agent::with_config(&on);
    agent.signal(Signal::KILL);
    agent.wait();
    assert_eq!(auditing::enabled(), 1);
    // One that wants it on takes it over.
    let agent = Agent::with_config(&on);
    agent.signal(Signal::KILL);
    agent.wait();
    let agent = Agent::with_config(&off);
    assert_eq!(auditing::enabled(), 0);
    agent.stop();
    // What somebody else switched on stays.
    drop(auditing);
    let _auditing = Auditing::on();
    Agent::with_config(&on).stop();
    assert_eq!(auditing::enabled(), 1);
}

#[test]
fn an_agent_that_may_not_read_records_says_so_and_goes_on() {
    let agent = Agent::with(|| {
        Setup::default().before(|| {
            sys::drop_from_bounding_set(&[CapabilitySet::AUDIT_READ]);
            Ok(())
        })
    });
    let (status, body) = agent.get("/readyz");
    assert_eq!(status, 200);
    assert!(
        body.contains("\"degraded\"") && body.contains("audit records: missing CAP_AUDIT_READ"),
        "{body}"
    );
    agent.expect_metric("tellwire_audit_connected", &[], 0);
    let child = agent.fork(|| ());
    agent.expect(child.pid, "exit", &json!({}));
}

#[test]
fn an_agent_that_shall_not_read_records_does_not() {
    let agent = Agent::with_config("[auth]\npam = false\naudit = false\n");
    agent.expect_metric("tellwire_audit_connected", &[], 0);
    assert!(agent.get("/readyz").1.contains("\"ready\""));
}

/// The kernel tells in the initial network namespace only: an agent in another one goes there for the socket.
#[test]
fn an_agent_in_a_network_of_its_own_hears_the_hosts_records() {
    let _auditing = Auditing::on();
    let root = tempfile::tempdir().expect("a folder");
    host_root(root.path());
    let config = format!("[agent]\ncgroups = [\"{}{{cgroup}}\"]\n", root.path().display());
    let arguments = ["--host-root".into(), root.path().as_os_str().to_owned()];
    let agent = Agent::with(|| {
        Setup::default().config(&config).arguments(&arguments).before(|| {
            net::own_network();
            Ok(())
        })
    });
    let child = agent.fork(|| {
        become_known();
        auditing::report(USER_LOGIN, ["op=login acct=\"root\" addr=192.0.2.1 res=failed"]);
    });
    agent.expect(child.pid, "user_login", &json!({"user.name": "root", "source.ip": "192.0.2.1"}));
}

/// The root as it is, but for the network namespace of its first process, which not everybody may know: it is ours.
fn host_root(root: &Path) {
    let link_all = |from: &Path, to: &Path, except: &str| {
        for entry in fs::read_dir(from).expect("a folder").flatten() {
            if entry.file_name() != except {
                symlink(entry.path(), to.join(entry.file_name())).expect("a link");
            }
        }
    };
    link_all(Path::new("/"), root, "proc");
    let (proc, first) = (root.join("proc"), root.join("proc/1/ns"));
    fs::create_dir_all(&first).expect("a folder");
    for name in ["sys", "cgroups", "self"] {
        symlink(Path::new("/proc").join(name), proc.join(name)).expect("a link");
    }
    symlink(format!("/proc/{}/ns/net", std::process::id()), first.join("net")).expect("a link");
}
