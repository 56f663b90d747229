//! Execs that gave no image.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use serde_json::json;
use tellwire_tests::{
    Agent, attached_by,
    compat::{self, Call},
    program, sys,
};

#[test]
fn an_exec_that_fails_says_why_and_on_what() {
    let agent = Agent::shared();
    let folder = agent.subfolder("failed");
    let (missing, plain, garbage) = (folder.join("missing"), folder.join("plain"), folder.join("garbage"));
    program::write(&plain, b"no program", 0o644);
    program::write(&garbage, b"no program either", 0o755);
    let too_long = Path::new("/").join("x".repeat(4200));
    for (path, errno, code) in [
        (missing.as_path(), libc::ENOENT, "ENOENT"),
        (Path::new(""), libc::ENOENT, "ENOENT"),
        (&plain, libc::EACCES, "EACCES"),
        (&garbage, libc::ENOEXEC, "ENOEXEC"),
        (&plain.join("below"), libc::ENOTDIR, "ENOTDIR"),
        (&too_long, libc::ENAMETOOLONG, "ENAMETOOLONG"),
    ] {
        let child = agent.fork(|| {
            let error = sys::execve(path, &["arguments are not told"]);
            assert_eq!(error.raw_os_error(), Some(errno), "{}", path.display());
        });
        // What is too long for a path is cut where a path ends.
        let told: String = path.display().to_string().chars().take(4095).collect();
        agent.expect(
            child.pid,
            "exec_failed",
            &json!({
                "event": {"category": ["process"], "outcome": "failure", "dataset": "tellwire.process"},
                "error.code": code,
                "tellwire.exec": {"filename": told, "evidence": "caller_memory"},
                "process.args": null,
            }),
        );
        child.join();
    }
}

#[test]
fn a_failed_exec_is_no_exec_and_the_next_one_is_its_own() {
    let agent = Agent::shared();
    let program = agent.subfolder("failed-first").join("program");
    program::Program::Exit(0).write(&program);
    let mut child = agent.fork(|| {
        for name in ["/nowhere/a", "/nowhere/b"] {
            sys::execve(Path::new(name), &["x"]);
        }
        sys::exec(&program, &["third"])
    });
    agent.settle(&mut child);
    let failed = agent.events_of(child.pid, "exec_failed");
    let names: Vec<_> = failed.iter().map(|event| &event["tellwire"]["exec"]["filename"]).collect();
    assert_eq!(names, [&json!("/nowhere/a"), &json!("/nowhere/b")]);
    let execs = agent.events_of(child.pid, "exec");
    assert_eq!(execs.len(), 1);
    assert_eq!(execs[0]["process"]["entity_id"], failed[0]["process"]["entity_id"]);
}

#[test]
fn an_awkward_path_that_fails_keeps_a_line_one_line() {
    let agent = Agent::shared();
    let path = Path::new(OsStr::from_bytes(b"/nowhere/\xff\n\x1b[2J\"\\x"));
    let child = agent.fork(|| sys::execve(path, &["x"]).raw_os_error());
    let told = "/nowhere/\\xff\n\u{1b}[2J\"\\\\x";
    agent.expect(child.pid, "exec_failed", &json!({"tellwire.exec.filename": told}));
    assert_eq!(child.join(), libc::ENOENT);
}

#[test]
fn a_path_that_cannot_be_read_is_told_without_it() {
    let agent = Agent::shared();
    let child = agent.fork(|| sys::execve_of_nothing().raw_os_error());
    agent.expect(child.pid, "exec_failed", &json!({"error.code": "EFAULT", "tellwire.exec.filename": ""}));
    assert_eq!(child.join(), libc::EFAULT);
}

/// Where functions can be hooked: the tracepoints of system calls do not show the calls of 32-bit programs.
#[test]
fn an_exec_of_a_32_bit_program_that_fails_says_so_where_the_kernel_lets_it_be_seen() {
    if !compat::runs() {
        return;
    }
    let agent = Agent::shared();
    let folder = agent.subfolder("failed-32-bit");
    let (program, missing) = (folder.join("program"), folder.join("missing"));
    compat::write(&program, &[Call::Exec(&missing)]);
    let mut child = agent.exec(&program, &["program"]);
    assert_eq!(child.wait().code(), Some(libc::ENOENT));
    agent.settle(&mut child);
    let told = agent.events_of(child.pid, "exec_failed");
    if attached_by("exec_failed") == "kernel functions" {
        let fields = json!({"error.code": "ENOENT", "tellwire.exec.filename": missing});
        agent.expect(child.pid, "exec_failed", &fields);
        assert_eq!(told.len(), 1);
    } else {
        assert_eq!(told.len(), 0, "then the note of the probe is wrong: {told:?}");
    }
}
