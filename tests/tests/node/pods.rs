//! Pods of a containerd that is a service, whose cgroups systemd makes: the driver that Kubernetes recommends, on v2 alone.

use std::path::Path;

use k8s_cri::v1::NamespaceMode;
use serde_json::{Value, json};
use tellwire_tests::{
    at,
    containerd::{APP, Containerd, Pod},
    ecs, until,
};

use crate::service::{Service, scrape, systemctl};

/// Where the agent looks for it by itself.
const SOCKET: &str = "/run/containerd/containerd.sock";

const PODS: [(&str, &str, &str); 3] = [
    ("cart-7d5c9b8f6d-x2v9k", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e71", "burstable"),
    ("cart-7d5c9b8f6d-zq7wn", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e72", "besteffort"),
    ("cart-7d5c9b8f6d-b2c4d", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e73", "guaranteed"),
];

/// Containers one after the other, in one pod.
const MANY: u32 = 30;

const CALLS: [&str; 3] = ["/bin/sh", "-c", "/bin/true"];

fn containerd() -> Containerd {
    systemctl(&["start", "containerd"]);
    Containerd::at(Path::new(SOCKET))
}

fn pod(number: usize) -> Pod {
    let (name, uid, class) = PODS[number];
    Pod { name, uid, class, network: NamespaceMode::Node }
}

fn of_container(lines: Vec<Value>, id: &str) -> Vec<Value> {
    lines.into_iter().filter(|line| at(line, "container.id").is_some_and(|found| found == id)).collect()
}

#[test]
#[ignore = "needs containers by systemd: `cargo xtask vm` runs it"]
fn pods_of_the_systemd_driver_are_named_by_what_the_agent_finds_by_itself() {
    let containerd = containerd();
    let service = Service::start("[agent]\nprofile = \"full\"\n");
    until("the runtime is found", || (scrape().get("tellwire_runtime_up", &[]) == 1).then_some(()));
    for pod in [pod(0), pod(1), pod(2)] {
        let sandbox = containerd.sandbox(pod.config(&pod.slice()));
        let id = sandbox.start(pod.container(&CALLS));
        let names = json!({
            "container": { "id": id, "name": "server", "runtime": "containerd", "image.name": APP },
            "k8s": {
                "namespace.name": "shop",
                "container.name": "server",
                "pod": { "uid": pod.uid, "name": pod.name, "qos": pod.class },
            },
        });
        for action in ["container_created", "container_started", "container_stopped"] {
            let line = service.expect(&json!({ "event.action": action, "container.id": id }));
            assert_eq!(ecs::faults(&line), Vec::<String>::new());
        }
        let exec = json!({ "event.action": "exec", "process.args": CALLS });
        let mut wanted = names.as_object().expect("fields").clone();
        wanted.extend(exec.as_object().expect("fields").clone());
        service.expect(&Value::Object(wanted));
        for line in of_container(service.lines(), &id) {
            assert_eq!(at(&line, "k8s.pod.uid"), Some(&json!(pod.uid)), "{line}");
        }
    }
    let metrics = scrape();
    assert_eq!(metrics.get("tellwire_ledger_balanced", &[]), 1);
    assert_eq!(metrics.get("tellwire_events_lost_total", &[]), 0);
}

#[test]
#[ignore = "needs containers by systemd: `cargo xtask vm` runs it"]
fn containers_have_their_names_on_their_first_line() {
    let containerd = containerd();
    let service = Service::start("");
    until("the runtime is found", || (scrape().get("tellwire_runtime_up", &[]) == 1).then_some(()));
    let pod = pod(0);
    let sandbox = containerd.sandbox(pod.config(&pod.slice()));
    let begun = std::time::Instant::now();
    let ids: Vec<String> = (0..MANY)
        .map(|attempt| {
            let mut config = pod.container(&CALLS);
            config.metadata.as_mut().expect("its name").attempt = attempt;
            sandbox.start(config)
        })
        .collect();
    let rate = f64::from(MANY) / begun.elapsed().as_secs_f64();
    for id in &ids {
        service.expect(&json!({ "event.action": "container_stopped", "container.id": id }));
    }
    let lines = service.lines();
    let first = |id: &String| {
        // What the runtime itself tells comes with the names of course.
        let of_kernel = |line: &&Value| at(line, "event.action") != Some(&json!("container_created"));
        let mut lines = lines.iter().filter(|line| at(line, "container.id").is_some_and(|found| found == id));
        lines.find(of_kernel).cloned().expect("a line of it")
    };
    let named = ids.iter().filter(|id| at(&first(id), "k8s.pod.name").is_some()).count();
    println!(
        "{named} of {MANY} containers of a real containerd had names on their first line, at {rate:.1} a second"
    );
    assert_eq!(named, ids.len());
}
