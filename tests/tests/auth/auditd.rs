//! auditd beside the agent: it has its records as before, and they are ours.

use std::{collections::BTreeSet, fs, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};
use tellwire_tests::{Agent, Child, at, auditing::Auditing, private::Private, runtime, sys, until};
use tempfile::TempDir;

use crate::{
    flows::{self, Sources},
    ssh::{self, Sshd},
};

/// Type, number and process.
type Record = (String, u64, u64);

/// What both have of the same logins.
struct Compared {
    ours: BTreeSet<Record>,
    theirs: BTreeSet<Record>,
    /// Lines of ours that name both sources.
    both: u64,
    /// Records that are no line of their own.
    merged: u64,
}

#[test]
fn auditd_and_the_agent_have_the_same_records() {
    let Compared { ours, theirs, merged, .. } = compare(crate::agent(""), Sources::Audit);
    assert_eq!(theirs, ours);
    assert_eq!(merged, 0);
}

/// Where calls of libpam are seen too, what sshd and login say once more of a wrong password has no line; nothing else is missing.
#[test]
fn auditd_has_nothing_that_the_agent_did_not_tell_by_calls_of_libpam() {
    let Compared { ours, theirs, both, merged } = compare(crate::agent_with(""), Sources::Both);
    let told_before: Vec<_> = theirs.difference(&ours).collect();
    assert!(told_before.iter().all(|(kind, ..)| kind == "USER_LOGIN"), "{told_before:?}");
    assert_eq!(told_before.len() as u64, merged - both, "{told_before:?}");
}

fn compare((agent, private, folder): (Agent, Private, TempDir), sources: Sources) -> Compared {
    let _auditing = Auditing::on();
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    let log = folder.path().join("audit.log");
    let mut auditd = auditd(&private, folder.path(), &log);
    until("auditd", || fs::read_to_string(&log).is_ok_and(|log| log.contains("DAEMON_START")).then_some(()));
    let _sshd = Sshd::start(&agent, &private);
    for flow in flows::FLOWS.iter().chain(ssh::FLOWS) {
        flow.run(&agent, &private, sources);
    }
    let events = agent.events();
    let pids: BTreeSet<u64> = events.iter().filter_map(|event| at(event, "process.pid")?.as_u64()).collect();
    let reported = || events.iter().filter(|event| crate::is_reported(event));
    let ours: BTreeSet<Record> = reported().map(record).collect();
    assert!(ours.len() > 60, "{ours:?}");
    // What other programs of the machine report meanwhile is none of ours.
    let theirs = || -> BTreeSet<Record> {
        let log = fs::read_to_string(&log).expect("auditd's log");
        log.lines().filter_map(theirs).filter(|(_, _, pid)| pids.contains(pid)).collect()
    };
    until("auditd's records", || theirs().is_superset(&ours).then_some(()));
    let theirs = theirs();
    auditd.kill(Signal::TERM);
    auditd.wait();
    assert_eq!(agent.metric("tellwire_audit_overruns_total", &[]), 0);
    let is_both = |event: &&Value| at(event, "tellwire.auth.sources") == Some(&json!(["pam", "audit"]));
    let both = reported().filter(is_both).count() as u64;
    let merged = agent.metric("tellwire_audit_records_total", &[("outcome", "merged")]);
    Compared { ours, theirs, both, merged }
}

fn auditd(private: &Private, folder: &Path, log: &Path) -> Child {
    let config = folder.join("auditd");
    fs::create_dir(&config).expect("a folder");
    let text = format!(
        "log_file = {}\nwrite_logs = yes\nlog_format = RAW\nflush = NONE\nlocal_events = yes\nspace_left = 1\n\
         admin_space_left = 0\nspace_left_action = IGNORE\nadmin_space_left_action = IGNORE\n\
         disk_full_action = IGNORE\ndisk_error_action = IGNORE\nmax_log_file_action = IGNORE\n",
        log.display()
    );
    fs::write(config.join("auditd.conf"), text).expect("its configuration");
    fs::create_dir(config.join("plugins.d")).expect("a folder");
    let program = runtime::program("auditd", "auditd");
    let config = config.display().to_string();
    tellwire_tests::fork(|| {
        private.enter();
        sys::exec(&program, &["auditd", "-n", "-s", "nochange", "-c", &config])
    })
}

/// A line of ours as a record.
fn record(event: &Value) -> Record {
    let number = |path| at(event, path).and_then(Value::as_u64).expect("a number");
    let kind = at(event, "tellwire.audit.type").and_then(Value::as_str).expect("a type").to_owned();
    (kind, number("tellwire.audit.serial"), number("process.pid"))
}

/// A line of auditd's: `type=USER_AUTH msg=audit(1700000000.123:456): pid=7 …`. Records of other things are none of ours.
fn theirs(line: &str) -> Option<Record> {
    let (kind, rest) = line.strip_prefix("type=")?.split_once(' ')?;
    let (_, rest) = rest.split_once(':')?;
    let (serial, rest) = rest.split_once("): pid=")?;
    let (pid, _) = rest.split_once(' ')?;
    let is_other = ["SYSCALL", "PROCTITLE", "CONFIG_CHANGE", "DAEMON_START", "SERVICE_START", "CRYPTO"];
    (!is_other.iter().any(|other| kind.starts_with(other)))
        .then(|| Some((kind.to_owned(), serial.parse().ok()?, pid.parse().ok()?)))
        .flatten()
}
