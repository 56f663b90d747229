//! Where the host does not give all that is wanted: the agent does what it can and says what it cannot.

use std::{io, os::unix::process::CommandExt as _, path::Path, process::Command};

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};
use tellwire_tests::{Agent, Setup, output, program::Program, sys, tellwire};

use crate::work;

/// What `run` says in a process that was prepared, and its exit status.
#[expect(unsafe_code, reason = "what runs between fork and exec is unsafe by its nature")]
fn refused(prepare: fn() -> io::Result<()>) -> (i32, String) {
    let arguments = ["run", "--duration", "100ms", "--listen", "none", "--output", "none"];
    let mut command: Command = tellwire(arguments);
    // SAFETY: system calls only.
    unsafe { command.pre_exec(prepare) };
    let output = output(&mut command);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(said.lines().count(), 1, "not one line: {said}");
    (output.status.code().expect("an exit status"), said)
}

#[test]
fn without_root_it_says_which_capability_is_missing() {
    let (status, said) = refused(|| {
        sys::become_user(65534);
        Ok(())
    });
    assert_eq!(status, 77);
    assert!(said.starts_with("tellwire: missing CAP_BPF: run as root"), "{said}");
}

#[test]
fn without_the_kernel_s_types_it_says_what_to_build_in() {
    let (status, said) = refused(|| {
        sys::private_mounts()?;
        sys::cover("/sys/kernel/btf")
    });
    assert_eq!(status, 69);
    assert!(
        said.starts_with(
            "tellwire: this kernel does not tell its types (/sys/kernel/btf/vmlinux: No such file"
        ),
        "{said}"
    );
    assert!(said.contains("CONFIG_DEBUG_INFO_BTF") && said.contains("--btf FILE"), "{said}");
}

/// As in a pod that was not given the host's tracefs, nor the right to mount it.
fn without_tracefs() -> io::Result<()> {
    sys::private_mounts()?;
    sys::cover("/sys/kernel/tracing")?;
    if Path::new("/sys/kernel/debug/tracing").exists() {
        sys::cover("/sys/kernel/debug")?;
    }
    sys::drop_from_bounding_set(&[CapabilitySet::SYS_ADMIN]);
    Ok(())
}

#[test]
fn without_tracefs_it_watches_what_needs_none_and_says_what_is_missing() {
    let agent = Agent::with(|| Setup::default().before(without_tracefs));
    let (status, body) = agent.get("/readyz");
    assert_eq!(status, 200, "{body}");
    let report: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(report["status"], "degraded", "{body}");
    let reasons = report["degraded"].to_string();
    for (probe, attached) in [
        ("exec", 1),
        ("exit", 1),
        ("connect", 1),
        ("connect_errno", 0),
        ("exec_failed", 0),
        ("credentials", 0),
    ] {
        agent.expect_metric("tellwire_probe_attached", &[("probe", probe)], attached);
        let is_named = reasons.contains(&format!("probe {probe} is not attached"));
        assert_eq!(is_named, attached == 0, "{probe} in {reasons}");
    }
    assert_eq!(agent.get("/healthz"), (200, "ok\n".to_owned()));

    let done = work(&agent, 3, 3);
    agent.expect_metric("tellwire_events_total", &[("action", "exec")], done.execs);
    agent.expect_metric("tellwire_events_total", &[("action", "connect")], done.connects);
    // A change that no probe sees shows by comparison.
    let program = agent.folder().join("changes");
    Program::Setuid(1000).write(&program);
    let child = agent.exec(&program, &["program"]);
    let credentials = json!({"old.euid": "0", "new.euid": "1000", "evidence": "comparison"});
    agent.expect(child.pid, "credentials_changed", &json!({"tellwire.credentials": credentials}));
    let stopped = agent.stop();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
}

#[test]
fn check_says_why_a_probe_is_not_attached() {
    let mut command = tellwire(["check", "--json"]);
    let output = prepared(&mut command);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for probe in report["probes"].as_array().expect("a list") {
        // Uprobes need CAP_SYS_ADMIN, which is gone too.
        let needs_what_is_gone =
            ["connect_errno", "exec_failed", "credentials", "container_roots", "pam_results"]
                .iter()
                .any(|name| probe["probe"] == *name);
        assert_eq!(probe["attached"], !needs_what_is_gone, "{probe}");
        assert_eq!(probe["reason"].is_string(), needs_what_is_gone, "{probe}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[expect(unsafe_code, reason = "what runs between fork and exec is unsafe by its nature")]
fn prepared(command: &mut Command) -> std::process::Output {
    // SAFETY: system calls only.
    unsafe { command.pre_exec(without_tracefs) };
    output(command)
}
