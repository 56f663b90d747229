//! Callers of another ABI: 32-bit programs, whose calls the tracepoints of system calls do not show.

use serde_json::{Value, json};
use tellwire_tests::{
    Agent, attached_by,
    compat::{self, Call},
};
#[cfg(target_arch = "x86_64")]
use tellwire_tests::{in_vm, is_degraded};

/// Of arm64 only newer kernels let functions be hooked.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_functions_that_all_abis_share_are_hooked_where_the_kernel_lets_them_be() {
    for probe in ["credentials", "exec_failed", "connect_errno"] {
        let by = attached_by(probe);
        let is_degraded = probe == "exec_failed" && is_degraded("failed_execs_of_32_bit_programs");
        // Debian's kernels do, but for what the agent says itself; of another it is not known here.
        let may_be_second = !in_vm() || is_degraded;
        assert!(by == "kernel functions" || may_be_second && by == "syscall tracepoints", "{probe}: {by}");
    }
}

#[test]
fn a_call_of_a_32_bit_program_is_told_as_the_call_or_at_the_latest_at_the_next_event() {
    if !compat::runs() {
        return;
    }
    let agent = Agent::shared();
    let program = agent.subfolder("setuid-32-bit").join("program");
    compat::write(&program, &[Call::Setuid(4321)]);
    let mut child = agent.exec(&program, &["program"]);
    agent.settle(&mut child);
    assert!(child.wait().success());
    let changes = json!({"old.uid": "0", "new.uid": "4321"});
    let evidence = if attached_by("credentials") == "kernel functions" {
        let call = json!({"old.uid": "0", "new.uid": "4321", "asked": ["4321"], "evidence": "call"});
        agent.expect(child.pid, "setuid", &json!({"event.outcome": "success", "tellwire.credentials": call}));
        assert_eq!(agent.events_of(child.pid, "credentials_changed"), [Value::Null; 0]);
        "call"
    } else {
        agent.expect(child.pid, "credentials_changed", &json!({"tellwire.credentials": changes}));
        "comparison"
    };
    let told =
        agent.events_of(child.pid, "setuid").len() + agent.events_of(child.pid, "credentials_changed").len();
    assert_eq!(told, 1, "by {evidence}");
}
