//! Cgroups as a kubelet has them made, in both ways to name them.

use serde_json::json;
use tellwire_tests::Agent;

use crate::{agent, bundle::Bundle, expect_host, made_up_id};

const UID: &str = "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e5f";

/// Runs a container in a cgroup, and expects what the path says of it in the first and the last line.
fn expect_pod(name: &str, qos: &str, id: &str, runtime: Option<&str>, below: &str) {
    let (agent, cgroups) = agent();
    let args = ["/bin/sh", "-c", "/bin/usleep 50000"];
    let pid = Bundle::new(&agent, name, &cgroups.path(below), &args).run();
    let fields = json!({
        "container": { "id": id, "runtime": runtime },
        "k8s.pod": { "uid": UID, "qos": qos },
    });
    agent.expect(pid, "exec", &json!({ "process.args": args }));
    for action in ["exec", "exit"] {
        agent.expect(pid, action, &fields);
    }
    expect_host(&agent);
    balanced(&agent);
}

fn balanced(agent: &Agent) {
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
    agent.expect_metric("tellwire_events_lost_total", &[], 0);
}

#[test]
fn the_cgroupfs_driver_names_pod_and_class() {
    let id = made_up_id(0xb1);
    // More than one engine makes such a path.
    expect_pod("burstable", "burstable", &id, None, &format!("kubepods/burstable/pod{UID}/{id}"));
    let id = made_up_id(0xb3);
    expect_pod("guaranteed", "guaranteed", &id, None, &format!("kubepods/pod{UID}/{id}"));
}

#[test]
fn the_systemd_driver_names_pod_class_and_engine() {
    let id = made_up_id(0xb2);
    let uid = UID.replace('-', "_");
    let below = format!(
        "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice/cri-containerd-{id}.scope"
    );
    expect_pod("systemd", "besteffort", &id, Some("containerd"), &below);
    let id = made_up_id(0xb4);
    let below = format!("kubepods.slice/kubepods-pod{uid}.slice/crio-{id}.scope");
    expect_pod("crio", "guaranteed", &id, Some("cri-o"), &below);
}
