//! Names of pods and containers on lines, as a runtime tells them.

use std::{
    fs, iter,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tellwire_tests::{
    Agent, Child, Setup, at,
    cri::{FakeRuntime, Made},
    runtime::{Cgroups, second_hierarchy},
    sys, until, until_moment,
};
use tempfile::TempDir;

use crate::bundle::Bundle;

/// An agent that asks a made-up runtime, and more of a configuration.
pub(crate) struct Node {
    // Fields are dropped in this order.
    pub(crate) cgroups: Cgroups,
    pub(crate) agent: Agent,
    pub(crate) runtime: FakeRuntime,
    folder: TempDir,
}

impl Node {
    pub(crate) fn new(tells: bool, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = FakeRuntime::start(&folder.path().join("cri.sock"), tells);
        let config = config(&runtime, more);
        Self::with(folder, runtime, || Setup::default().config(&config))
    }

    /// With the profile of a user who chooses none: credential calls of an engine's own process, which is in the
    /// container before its program is, make no line.
    fn of_default_profile(tells: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = FakeRuntime::start(&folder.path().join("cri.sock"), tells);
        let config = config(&runtime, "");
        Self::with(folder, runtime, || Setup::default().config(&config).default_profile())
    }

    fn with(folder: TempDir, runtime: FakeRuntime, setup: impl Fn() -> Setup) -> Self {
        let agent = Agent::with(setup);
        let this = Self { cgroups: Cgroups::of(agent.cgroup()), agent, runtime, folder };
        this.agent.expect_metric("tellwire_runtime_up", &[], 1);
        this
    }

    /// Runs a program in the container's cgroup, without an engine: the runtime may know the container or not.
    pub(crate) fn exec(&self, made: &Made, args: &[&str]) -> Child {
        exec(&self.agent, made, args)
    }
}

pub(crate) fn config(runtime: &FakeRuntime, more: &str) -> String {
    let socket = runtime.socket().display();
    let containers = format!("[containers]\nsockets = ['{socket}']\nlabels = ['app']\nresync = '1s'\n");
    format!("{containers}{more}\n")
}

fn exec(agent: &Agent, made: &Made, args: &[&str]) -> Child {
    let directory = agent.cgroup().join(made.cgroup());
    fs::create_dir_all(&directory).expect("a cgroup");
    // On a hybrid host counters are those of the v1 hierarchy, where a process is in a cgroup there.
    let second = second_hierarchy();
    agent.fork(|| {
        for cgroup in [&second, &directory] {
            fs::write(cgroup.join("cgroup.procs"), "0").expect("entering the cgroup");
        }
        sys::exec("/bin/busybox".as_ref(), args)
    })
}

/// What lines have of a container that is named.
pub(crate) fn named(made: &Made) -> Value {
    json!({
        "container": { "id": made.id, "name": "server", "image.name": made.image },
        "k8s.namespace.name": made.namespace,
        "k8s.pod": { "uid": made.uid, "name": made.pod, "label": { "app": "server" } },
        "k8s.container.name": "server",
    })
}

/// So many containers, and one begun in this time: ten a second.
const COUNT: usize = 60;
const PACE: Duration = Duration::from_millis(100);

/// Runs containers of a real runc at that pace; gives how many had names on their first line.
fn first_lines(tells: bool) -> usize {
    // An agent knows what ran when it started, of other tests too: ids that are not this one's alone would be theirs as well.
    static BEGUN: AtomicUsize = AtomicUsize::new(1);
    let base = BEGUN.fetch_add(1, Relaxed) * 10_000;
    let node = Node::of_default_profile(tells);
    let begun = Instant::now();
    let made: Vec<Made> = (0..COUNT)
        .zip(iter::successors(Some(begun), |moment| Some(*moment + PACE)))
        .map(|(number, moment)| {
            until_moment(moment);
            let made = Made::new(base + number, &format!("web-7d5c9b8f6d-x2v{number:02}"));
            node.runtime.make(&made);
            let cgroup = node.cgroups.path(&made.cgroup());
            Bundle::new(&node.agent, &format!("c{number}"), &cgroup, &["/bin/sh", "-c", ":"]).run();
            made
        })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let rate = COUNT as f64 / begun.elapsed().as_secs_f64();
    let is_of = |event: &&Value, made: &Made| at(event, "container.id").is_some_and(|id| *id == made.id);
    for made in &made {
        node.agent.expect(None, "container_stopped", &json!({ "container.id": made.id }));
    }
    let events = node.agent.events();
    let first = made.iter().filter_map(|made| {
        let first = events.iter().find(|event| is_of(event, made)).expect("a line of the container");
        at(first, "k8s.pod.name")
    });
    let named = first.count();
    let how = if tells { "by events" } else { "by asking" };
    println!("{named} of {COUNT} containers had names on their first line, at {rate:.1} a second, {how}");
    let at_once = [("kind", "names"), ("outcome", "at_once")];
    node.agent.expect_metric("tellwire_enrichments_total", &at_once, named as u64);
    node.agent.expect_metric("tellwire_ledger_balanced", &[], 1);
    let found = node.agent.metric("tellwire_runtime_lookups_total", &[("outcome", "found")]);
    assert!(found > 0, "some were in one of the lists that are read every second here, not all");
    named
}

/// Where all CPUs are taken by other tests the answer can come after the container's first program: what is asked is that
/// 99 of 100 are in time when the machine lets it be.
fn expect_names(tells: bool) {
    assert!((0..5).any(|_| first_lines(tells) * 100 >= COUNT * 99));
}

#[test]
fn the_first_line_has_names_where_the_runtime_tells_what_it_makes() {
    expect_names(true);
}

#[test]
fn the_first_line_has_names_where_the_runtime_has_to_be_asked() {
    expect_names(false);
}

#[test]
fn lines_have_all_names_and_the_labels_that_are_let_through() {
    let node = Node::new(true, "");
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    node.runtime.make(&made);
    until("the runtime's event is heard", || {
        (node.agent.metric("tellwire_runtime_lookups_total", &[("outcome", "found")]) == 1).then_some(())
    });
    let mut child = node.exec(&made, &["sh", "-c", ":"]);
    node.agent.settle(&mut child);
    for action in ["container_started", "exec", "exit"] {
        let line = node.agent.expect(child.pid, action, &named(&made));
        assert_eq!(tellwire_tests::ecs::faults(&line), Vec::<String>::new());
        assert_eq!(at(&line, "k8s.pod.label.secret"), None);
    }
    fs::remove_dir(node.agent.cgroup().join(made.cgroup())).expect("the container's end");
    let line = node.agent.expect(None, "container_stopped", &named(&made));
    assert_eq!(at(&line, "process"), None);
    assert_eq!(tellwire_tests::ecs::faults(&line), Vec::<String>::new());
}

#[test]
fn the_sandbox_is_marked() {
    let node = Node::new(true, "");
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    node.runtime.make(&made);
    let pause = Made { id: made.sandbox.clone(), ..made.clone() };
    node.exec(&pause, &["true"]).wait();
    let names = json!({ "k8s.pod.name": made.pod, "tellwire.sandbox": true, "container.name": null });
    until("a line with the names of the sandbox", || {
        node.exec(&pause, &["true"]).wait();
        let found = node.agent.events().iter().any(|event| {
            at(event, "tellwire.sandbox").is_some()
                && at(event, "event.action").is_some_and(|action| action == "exec")
        });
        found.then_some(())
    });
    node.agent.expect(None, "exec", &names);
}

#[test]
fn names_that_come_late_are_told_by_a_line_and_later_lines_have_them() {
    let node = Node::new(false, "");
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    let mut child = node.exec(&made, &["true"]);
    let first =
        node.agent.expect(child.pid, "exec", &json!({ "container.id": made.id, "k8s.pod.name": null }));
    child.wait();
    assert_eq!(at(&first, "k8s.pod.uid").and_then(Value::as_str), Some(made.uid.as_str()));
    node.runtime.make(&made);
    let line = node.agent.expect(None, "container_named", &named(&made));
    assert_eq!(tellwire_tests::ecs::faults(&line), Vec::<String>::new());
    let child = node.exec(&made, &["true"]);
    node.agent.expect(child.pid, "exec", &named(&made));
    node.agent.expect_metric("tellwire_enrichments_total", &[("kind", "names"), ("outcome", "late")], 1);
    node.agent.expect_metric("tellwire_ledger_balanced", &[], 1);
}

#[test]
fn what_runs_when_the_agent_starts_is_told_with_its_names() {
    let node = Node::new(true, "");
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    node.runtime.make(&made);
    let child = node.exec(&made, &["sleep", "600"]);
    node.agent.expect(child.pid, "exec", &json!({}));
    // The cgroup is the first agent's, and no flag says another: {cgroup}.
    let cgroup = format!("# {{cgroup}}\n[agent]\ncgroups = ['{}']\n", node.agent.cgroup().display());
    let second = Agent::with(|| Setup::default().config(&config(&node.runtime, &cgroup)));
    let line = second.expect(None, "container_running", &named(&made));
    assert_eq!(at(&line, "process"), None);
    assert_eq!(tellwire_tests::ecs::faults(&line), Vec::<String>::new());
    let told = second
        .events()
        .iter()
        .filter(|event| at(event, "event.action").is_some_and(|a| a == "container_running"))
        .count();
    assert_eq!(told, 1, "only what is in the cgroup is told");
    assert!(node.folder.path().exists());
}

#[test]
fn rules_know_names() {
    let rules = "[[rules]]\nname = 'quiet'\neffect = 'drop'\nnamespaces = ['kube-*']\nactions = ['exec', 'exit']\n\
                 [[rules]]\nname = 'shop'\neffect = 'tag'\ntags = ['shop']\nimages = ['registry.example/shop/*']\n";
    let node = Node::new(true, rules);
    let system = Made { namespace: "kube-system".to_owned(), ..Made::new(1, "proxy-x2v9k") };
    let cart = Made::new(2, "cart-7d5c9b8f6d-x2v9k");
    for made in [&system, &cart] {
        node.runtime.make(made);
    }
    until("both are known", || {
        (node.agent.metric("tellwire_runtime_lookups_total", &[("outcome", "found")]) == 2).then_some(())
    });
    let mut dropped = node.exec(&system, &["true"]);
    node.agent.settle(&mut dropped);
    let mut kept = node.exec(&cart, &["true"]);
    node.agent.settle(&mut kept);
    let line = node.agent.expect(kept.pid, "exec", &named(&cart));
    assert_eq!(line["tags"], json!(["shop"]));
    assert_eq!(node.agent.events_of(dropped.pid, "exec"), Vec::<Value>::new());
}
