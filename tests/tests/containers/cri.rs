//! Pods of a real containerd, by the container runtime interface.

use std::time::Instant;

use k8s_cri::v1::NamespaceMode;
use serde_json::json;
use tellwire_tests::{
    Agent, Setup, at,
    containerd::{APP, Containerd, Pod},
    runtime::Cgroups,
};

pub(crate) const PODS: [(&str, &str); 3] = [
    ("cart-7d5c9b8f6d-x2v9k", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e51"),
    ("cart-7d5c9b8f6d-zq7wn", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e52"),
    ("cart-7d5c9b8f6d-b2c4d", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e53"),
];

#[test]
fn pods_of_a_real_containerd_are_named_from_their_first_line_on() {
    let containerd = Containerd::start();
    let socket = containerd.socket();
    let config = format!("[containers]\nsockets = ['{}']\nlabels = ['app']\n", socket.display());
    let agent = Agent::with(|| Setup::default().config(&config));
    let cgroups = Cgroups::of(agent.cgroup());
    agent.expect_metric("tellwire_runtime_up", &[], 1);
    let mut named = 0;
    for ((name, uid), class) in PODS.into_iter().zip(["burstable", "besteffort", "guaranteed"]) {
        let pod = Pod { name, uid, class, network: NamespaceMode::Node };
        let sandbox = containerd.sandbox(pod.config(&cgroups.path(&pod.cgroup())));
        let id = sandbox.start(pod.container(&["/bin/sh", "-c", "/bin/usleep 50000"]));
        let fields = json!({
            "container": { "id": id, "name": "server", "runtime": "containerd", "image.name": APP },
            "k8s": {
                "namespace.name": "shop",
                "container.name": "server",
                "pod": { "uid": pod.uid, "name": pod.name, "qos": class, "label": { "app": "cart" } },
            },
        });
        agent.expect(None, "container_stopped", &json!({ "container.id": id }));
        let line = agent.expect(None, "exit", &fields);
        assert_eq!(tellwire_tests::ecs::faults(&line), Vec::<String>::new());
        let events = agent.events();
        let has_names_at_once = |id: &str| {
            let first =
                events.iter().find(|event| at(event, "container.id").is_some_and(|found| found == id));
            first.is_some_and(|first| at(first, "k8s.pod.name").is_some())
        };
        named += usize::from(has_names_at_once(&id));
        let of_sandbox =
            json!({ "container.id": sandbox.id, "k8s.pod.name": pod.name, "tellwire.sandbox": true });
        // The sandbox is listed once it runs; its names mostly come after its first line.
        if !has_names_at_once(&sandbox.id) {
            agent.expect(None, "container_named", &of_sandbox);
        }
        drop(sandbox);
        agent.expect(None, "container_stopped", &of_sandbox);
    }
    println!("{named} of 3 containers of a real containerd had names on their first line");
    assert!(named >= 2, "{named} of 3");
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
}

/// Containers one after the other, as fast as containerd makes them. This one is asked, since it tells of nothing before 1.7: on a
/// machine whose CPUs are all taken the answer can come after the container's first program.
#[test]
fn containers_of_a_real_containerd_are_named_at_the_rate_that_it_makes_them() {
    const COUNT: u32 = 40;
    let containerd = Containerd::start();
    let config = format!("[containers]\nsockets = ['{}']\n", containerd.socket().display());
    let agent = Agent::with(|| Setup::default().config(&config).default_profile());
    let cgroups = Cgroups::of(agent.cgroup());
    agent.expect_metric("tellwire_runtime_up", &[], 1);
    let (name, uid) = PODS[0];
    let pod = Pod { name, uid, class: "burstable", network: NamespaceMode::Node };
    let sandbox = containerd.sandbox(pod.config(&cgroups.path(&pod.cgroup())));
    let begun = Instant::now();
    let start = |attempt| {
        let mut config = pod.container(&["/bin/sh", "-c", "/bin/true"]);
        config.metadata.as_mut().expect("its name").attempt = attempt;
        sandbox.start(config)
    };
    let ids: Vec<String> = (0..COUNT).map(start).collect();
    let rate = f64::from(COUNT) / begun.elapsed().as_secs_f64();
    for id in &ids {
        agent.expect(None, "container_stopped", &json!({ "container.id": id }));
    }
    let events = agent.events();
    let is_named = |id: &&String| {
        let first = events.iter().find(|event| at(event, "container.id").is_some_and(|found| found == *id));
        at(first.expect("a line of it"), "k8s.pod.name").is_some()
    };
    let named = ids.iter().filter(is_named).count();
    println!(
        "{named} of {COUNT} containers of a real containerd had names on their first line, at {rate:.1} a second"
    );
    assert!(named * 10 >= ids.len() * 9, "{named} of {COUNT}");
}
