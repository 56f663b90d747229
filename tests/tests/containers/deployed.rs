//! The `DaemonSet`'s pod in a real containerd, scraped by a real Prometheus at the pod's address.
//!
//! The pod is asked for as a kubelet asks, by what the manifests say, and has a network of its own; Prometheus runs in the
//! node's network, which is containerd's here. It has the scrape configurations that are shipped; what Kubernetes'
//! service discovery tells of the pod, a list tells it here.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::fd::AsFd as _,
    panic,
    path::Path,
    slice, thread,
};

use k8s_cri::v1::{Mount, NamespaceMode};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Map, Value, json};
use tellwire_tests::{
    Cgroup, Metrics, at,
    containerd::{Containerd, Pod, Sandbox},
    runtime::Cgroups,
    until,
};

use crate::{
    cri::PODS,
    image,
    manifest::{self, DaemonSet, Node, deployed},
    server::{Prometheus, get_from},
};

const NODE: &str = "node-a";
const CART: Pod = Pod {
    name: "cart-7d5c9b8f6d-x2v9k",
    uid: "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e61",
    class: "burstable",
    network: NamespaceMode::Pod,
};
/// Waits for a file, then executes and connects to where nobody listens.
const WORK: &str = "until [ -e /work/go ]; do /bin/usleep 50000; done\n\
    for i in 1 2 3 4 5 6 7; do /bin/true; done\n\
    for i in 1 2 3; do /bin/busybox nc 127.0.0.1 9; done\n\
    exec /bin/sleep 600";
const TRUE: u64 = 7;
const CONNECTS: f64 = 3.0;

/// Runs a closure in the network of a process.
fn in_network_of(pid: u32, work: impl FnOnce() + Send) {
    let worker = || {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("entering it");
        work();
    };
    if let Err(failure) = thread::scope(|scope| scope.spawn(worker).join()) {
        panic::resume_unwind(failure);
    }
}

/// The lines of the agent, from the log that the runtime keeps for the kubelet.
fn lines(folder: &Path) -> Vec<Value> {
    let log = fs::read_to_string(folder.join("logs/tellwire.log")).unwrap_or_default();
    let line = |line: &str| serde_json::from_str(line.split_once(" stdout F ")?.1).ok();
    log.lines().filter_map(line).collect()
}

fn is(line: &Value, field: &str, value: &str) -> bool {
    at(line, field).and_then(Value::as_str) == Some(value)
}

/// The first line of an action that has a field of this value.
fn line(folder: &Path, action: &str, field: &str, value: &str) -> Value {
    until(format_args!("{action} with {field} = {value}"), || {
        let is_it = |line: &Value| is(line, "event.action", action) && is(line, field, value);
        lines(folder).into_iter().find(is_it)
    })
}

/// Job by job, what a configuration asks for, with a list in the place of a service discovery.
fn configuration(jobs: &[Value], address: SocketAddr, discovered: &Map<String, Value>) -> String {
    let jobs = jobs.iter().map(|job| {
        let mut job = job.clone();
        let map = job.as_object_mut().expect("a map");
        if let Some(found) = map.remove("kubernetes_sd_configs") {
            assert_eq!(found, json!([{ "role": "pod" }]));
        }
        map.insert("static_configs".into(), json!([{ "targets": [address], "labels": discovered }]));
        job
    });
    let jobs: Vec<Value> = jobs.collect();
    // JSON is YAML.
    json!({ "global": { "scrape_interval": "1s", "scrape_timeout": "1s" }, "scrape_configs": jobs })
        .to_string()
}

/// The job that the Prometheus operator makes of the `PodMonitor`: what `generatePodMonitorConfig` of its
/// pkg/prometheus/promcfg.go does with these fields.
fn job_of_the_operator() -> Value {
    let monitor = deployed("kubernetes/monitoring/podmonitor.yaml");
    let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().expect("endpoints");
    let [endpoint] = endpoints.as_slice() else { panic!("not one endpoint") };
    let name = |name: &Value| {
        let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        name.as_str().expect("a name").chars().map(letter).collect::<String>()
    };
    let mut rules = Vec::new();
    for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels") {
        let source = format!("__meta_kubernetes_pod_label_{}", name(&key.as_str().into()));
        rules.push(json!({ "action": "keep", "source_labels": [source], "regex": value }));
    }
    let port = &endpoint["port"];
    rules.push(json!({
        "action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": port
    }));
    for (target, source) in
        [("namespace", "namespace"), ("container", "pod_container_name"), ("pod", "pod_name")]
    {
        rules.push(
            json!({ "target_label": target, "source_labels": [format!("__meta_kubernetes_{source}")] }),
        );
    }
    let label = format!("__meta_kubernetes_pod_label_{}", name(&monitor["spec"]["jobLabel"]));
    rules.push(json!({ "target_label": "job", "source_labels": [label], "regex": "(.+)" }));
    for relabeling in endpoint["relabelings"].as_array().expect("relabelings") {
        let keys: Vec<&str> = relabeling.as_object().expect("a map").keys().map(String::as_str).collect();
        assert_eq!(keys, ["sourceLabels", "targetLabel"]);
        let (sources, target) = (&relabeling["sourceLabels"], &relabeling["targetLabel"]);
        rules.push(json!({ "source_labels": sources, "target_label": target }));
    }
    json!({
        "job_name": "podMonitor/tellwire/tellwire/0",
        "honor_labels": endpoint["honorLabels"],
        "metrics_path": endpoint["path"],
        "relabel_configs": rules,
    })
}

/// Of the pod, the agent's and the cart's, until the end of all.
fn on_the_node(containerd: &Containerd, daemon_set: &DaemonSet, node: &Node<'_>) {
    let sandbox = containerd.sandbox(daemon_set.sandbox_config(node));
    let id = sandbox.start(daemon_set.container_config(node));
    let ip = sandbox.address();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let (port, path) = daemon_set.probe(probe);
        until(format_args!("{probe}; the agent's log:\n{}", said(node.folder)), || {
            get_from((ip, port).into(), &path, "*/*").ok().filter(|answer| answer.status == 200)
        });
    }
    assert!(!said(node.folder).contains("probe not attached"), "{}", said(node.folder));
    let cart = containerd.sandbox(CART.config(&node.cgroups.path(&CART.cgroup())));
    let work = node.folder.join("work");
    fs::create_dir(&work).expect("a folder");
    let mut server = CART.container(&["/bin/sh", "-c", WORK]);
    server.mounts.push(Mount {
        host_path: work.display().to_string(),
        container_path: "/work".into(),
        ..Default::default()
    });
    let server = cart.start(server);
    // Who it is is known before anybody scrapes: all that it did is under its name.
    let named = until("a line with the pod's name", || {
        let is_named =
            |line: &Value| is(line, "container.id", &server) && is(line, "k8s.pod.name", CART.name);
        lines(node.folder).into_iter().find(is_named)
    });
    assert_eq!(at(&named, "k8s.namespace.name"), Some(&"shop".into()), "{named}");
    assert_eq!(at(&named, "k8s.container.name"), Some(&"server".into()), "{named}");

    let metrics = (ip, daemon_set.port(&"metrics".into())).into();
    let discovered = daemon_set.discovered(node, &ip.to_string());
    // Each entry alone, as somebody takes it.
    let mut jobs = deployed("prometheus/scrape-kubernetes.yml")["scrape_configs"].take();
    let jobs = jobs.as_array_mut().expect("jobs");
    jobs.push(job_of_the_operator());
    let mut servers: Vec<Prometheus> = jobs
        .iter()
        .map(|job| Prometheus::with(&configuration(slice::from_ref(job), metrics, &discovered)))
        .collect();
    assert_eq!(servers.len(), 3);

    fs::write(work.join("go"), "").expect("a file");
    // The last that it executes.
    line(node.folder, "exec", "process.executable", "/bin/busybox");
    until("the last of its executions", || {
        let is_last =
            |line: &Value| is(line, "container.id", &server) && line["process"]["args"][0] == "/bin/sleep";
        lines(node.folder).iter().any(is_last).then_some(())
    });
    let of_server: Vec<Value> =
        lines(node.folder).into_iter().filter(|line| is(line, "container.id", &server)).collect();
    for line in &of_server {
        assert_eq!(at(line, "k8s.node.name"), Some(&NODE.into()), "{line}");
    }
    let execs: Vec<&Value> = of_server.iter().filter(|line| is(line, "event.action", "exec")).collect();
    let of_true = execs.iter().filter(|line| line["process"]["args"][0] == "/bin/true").count();
    assert_eq!(of_true as u64, TRUE);
    for prometheus in &mut servers {
        has_what_was_done(prometheus, u32::try_from(execs.len()).expect("a few"));
    }
    println!(
        "{} executions of {} lines; the agent has {} of memory",
        execs.len(),
        of_server.len(),
        memory(node, &id)
    );
    ends(&sandbox, &id, daemon_set, node);
}

/// By the names of where it happened, not of where the agent runs.
fn has_what_was_done(prometheus: &mut Prometheus, execs: u32) {
    let target = format!("job=\"tellwire\", node=\"{NODE}\", instance=\"{NODE}\"");
    prometheus.expect(&format!("up{{{target}}}"), 1.0);
    let server = format!("{target}, namespace=\"shop\", pod=\"{}\", container=\"server\"", CART.name);
    prometheus.expect(&format!("tellwire_workload_execs_total{{{server}, workload=\"cart\"}}"), execs.into());
    let failed = format!("tellwire_workload_connects_total{{{server}, outcome=\"failed\"}}");
    prometheus.expect(&failed, CONNECTS);
    prometheus.expect(&format!("tellwire_ledger_balanced{{{target}}}"), 1.0);
    prometheus.expect(&format!("sum(tellwire_events_lost_total{{{target}}})"), 0.0);
    prometheus.expect(&format!("min(tellwire_probe_attached{{{target}}})"), 1.0);
    let own =
        format!("count(tellwire_workload_execs_total{{{target}, pod=\"{}\"}}) or vector(0)", manifest::POD);
    prometheus.expect(&own, 0.0);
}

fn ends(sandbox: &Sandbox<'_>, id: &str, daemon_set: &DaemonSet, node: &Node<'_>) {
    let seconds = daemon_set.spec()["terminationGracePeriodSeconds"].as_i64().expect("seconds");
    assert_eq!(sandbox.stop(id, seconds), 0, "{}", said(node.folder));
    line(node.folder, "agent_stopped", "k8s.node.name", NODE);
    assert!(node.folder.join("state/state.json").exists(), "the note for the next agent on this node");
}

fn said(folder: &Path) -> String {
    fs::read_to_string(folder.join("logs/tellwire.log")).unwrap_or_default()
}

/// What the kernel counts of the container's memory, the pages of its programs and rings among it.
fn memory(node: &Node<'_>, id: &str) -> String {
    let folders =
        Cgroups::directories(&node.cgroups.path(&format!("kubepods/burstable/pod{}/{id}", manifest::UID)));
    let files = ["memory.current", "memory.usage_in_bytes"];
    let mut found = folders.iter().flat_map(|folder| files.map(|file| fs::read_to_string(folder.join(file))));
    let bytes: u64 =
        found.find_map(Result::ok).and_then(|text| text.trim().parse().ok()).expect("its memory");
    format!("{} KiB", bytes >> 10)
}

fn deploy(daemon_set: &DaemonSet, work: impl FnOnce(&Containerd, &DaemonSet, &Node<'_>) + Send) {
    let folder = tempfile::tempdir().expect("a folder");
    let containerd = Containerd::start();
    containerd.import(&image::archive());
    let watched = Cgroup::new();
    let cgroups = Cgroups::of(watched.path());
    let name = watched.path().file_name().and_then(|name| name.to_str()).expect("a cgroup's name");
    let socket = containerd.socket();
    // Of this machine nothing is looked at but the test's own pods.
    let more = format!(
        "cgroups = ['{name}']\n[containers]\nsockets = ['{}']\n[metrics]\npods = true\n",
        socket.display()
    );
    let node = Node { name: NODE, cgroups: &cgroups, folder: folder.path(), more };
    in_network_of(containerd.pid(), || work(&containerd, daemon_set, &node));
}

#[test]
fn prometheus_scrapes_the_privileged_pod_and_finds_what_a_pod_did() {
    deploy(&DaemonSet::base(), on_the_node);
}

#[test]
fn prometheus_scrapes_the_pod_with_capabilities_and_finds_what_a_pod_did() {
    deploy(&DaemonSet::with_capabilities(), on_the_node);
}

/// Pods of all classes beside the agent's.
fn beside_pods_of_each_class(containerd: &Containerd, daemon_set: &DaemonSet, node: &Node<'_>) {
    let sandbox = containerd.sandbox(daemon_set.sandbox_config(node));
    let id = sandbox.start(daemon_set.container_config(node));
    line(node.folder, "agent_started", "k8s.node.name", NODE);
    for ((name, uid), class) in PODS.into_iter().zip(["burstable/", "besteffort/", ""]) {
        let pod = Pod { name, uid, class, network: NamespaceMode::Node };
        let beside = containerd.sandbox(pod.config(&node.cgroups.path(&pod.cgroup())));
        let server = beside.start(pod.container(&["/bin/sh", "-c", "/bin/usleep 200000"]));
        // The shell ends last.
        let line = until(format_args!("the end of {name}; the agent's log:\n{}", said(node.folder)), || {
            let is_it = |line: &Value| {
                is(line, "container.id", &server)
                    && is(line, "event.action", "exit")
                    && is(line, "k8s.pod.name", name)
            };
            lines(node.folder).into_iter().find(is_it)
        });
        let qos = if class.is_empty() { "guaranteed" } else { class.trim_end_matches('/') };
        for (field, value) in [
            ("k8s.pod.qos", qos),
            ("k8s.pod.uid", uid),
            ("k8s.namespace.name", "shop"),
            ("k8s.container.name", "server"),
            ("k8s.node.name", NODE),
        ] {
            assert!(is(&line, field, value), "{field} is not {value}: {line}");
        }
    }
    // Some sandboxes keep everybody from the namespaces of their first process, root too: there are no records to be had
    // there, and the agent says so.
    let may_enter = File::open("/proc/1/ns/net").is_ok();
    let address = (sandbox.address(), daemon_set.port(&"metrics".into())).into();
    let answer = get_from(address, "/metrics", "*/*").expect("the agent's answer");
    let connected = Metrics::parse(&answer.body).get("tellwire_audit_connected", &[]);
    println!("audit records from the pod: {connected}; the host's network may be entered: {may_enter}");
    assert_eq!(connected, u64::from(may_enter), "{}", said(node.folder));
    assert!(may_enter || said(node.folder).contains("network namespace"), "{}", said(node.folder));
    ends(&sandbox, &id, daemon_set, node);
}

#[test]
fn the_agent_s_pod_names_pods_of_each_class_beside_it() {
    deploy(&DaemonSet::base().with_argument("--profile=full"), beside_pods_of_each_class);
}
