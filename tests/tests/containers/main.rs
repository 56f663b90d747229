//! Real containers: their first process carries their id, and so does everything after it.
//!
//! Each test gives its engine a parent cgroup of the name that its agent watches. Engines run in no such
//! cgroup, so nothing of them is looked at.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests panic, they do not return errors"
)]
#![expect(clippy::print_stdout, reason = "figures that were measured are told beside the outcome")]

mod bundle;
mod containerd;
mod cri;
mod deployed;
mod docker;
mod dockerd;
mod image;
mod manifest;
mod many;
mod names;
mod pods;
mod robust;
mod runc;
mod scale;
#[path = "../prometheus/server.rs"]
#[expect(dead_code, reason = "the suite of Prometheus needs more of it")]
mod server;
mod shippers;
mod workloads;

use std::{fs, os::unix::fs::MetadataExt as _};

use serde_json::{Value, json};
use tellwire_tests::{Agent, Alone, at, program::Program, runtime::Cgroups};

/// A 64-digit id that no engine gave, and each caller has another.
fn made_up_id(seed: u8) -> String {
    format!("{seed:02x}").repeat(32)
}

/// An agent, and the cgroups of its name, which must go before it does.
fn agent() -> (Alone, Cgroups) {
    let agent = Agent::alone();
    let cgroups = Cgroups::of(agent.cgroup());
    (agent, cgroups)
}

/// A process of the host is in no container; and when it is told, all before it is too.
fn expect_host(agent: &Agent) {
    let program = agent.folder().join("host-program");
    if !program.exists() {
        Program::Exit(0).write(&program);
    }
    let mut child = agent.exec_below("host", &program, &["host-program"]);
    agent.settle(&mut child);
    let none = json!({ "container": null, "k8s": null });
    agent.expect(child.pid, "exec", &none);
    agent.expect(child.pid, "exit", &none);
}

/// The process of an event, as the host counts.
fn pid(event: &Value) -> u32 {
    let pid = at(event, "process.pid").and_then(Value::as_u64);
    pid.and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
}

/// The lines of executions in a pid namespace of their own: in containers.
fn isolated(events: &[Value]) -> impl Iterator<Item = &Value> {
    let host = namespace("self");
    events.iter().filter(move |event| {
        at(event, "tellwire.exec.namespaces.pid").and_then(Value::as_u64).is_some_and(|found| found != host)
    })
}

/// The inode of a process's pid namespace.
fn namespace(process: &str) -> u64 {
    fs::metadata(format!("/proc/{process}/ns/pid")).expect("a pid namespace").ino()
}
