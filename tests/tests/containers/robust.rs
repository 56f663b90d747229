//! Runtimes that hang, die and lie: the agent goes on, says so, and catches up.

use std::collections::HashMap;

use k8s_cri::v1::{Container, ContainerMetadata};
use serde_json::json;
use tellwire_tests::{
    cri::{Made, Manners},
    until,
};

use crate::names::{Node, named};

fn readiness(node: &Node) -> String {
    node.agent.get("/readyz").1
}

fn expect_named(node: &Node, made: &Made) {
    node.agent.expect(None, "container_named", &named(made));
    let child = node.exec(made, &["true"]);
    node.agent.expect(child.pid, "exec", &named(made));
}

#[test]
fn a_runtime_that_hangs_costs_names_and_nothing_else() {
    let node = Node::new(true, "");
    node.runtime.behave(Manners::Hangs);
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    let mut child = node.exec(&made, &["true"]);
    node.agent.settle(&mut child);
    node.agent.expect(child.pid, "exec", &json!({ "container.id": made.id, "k8s.pod.name": null }));
    until("it is said", || readiness(&node).contains("no answer within 2 s").then_some(()));
    node.agent.expect_metric("tellwire_runtime_up", &[], 0);
    node.runtime.make(&made);
    node.runtime.behave(Manners::Honest);
    expect_named(&node, &made);
    until("it is not said any more", || (!readiness(&node).contains("container names")).then_some(()));
    node.agent.expect_metric("tellwire_ledger_balanced", &[], 1);
}

#[test]
fn a_runtime_that_dies_is_heard_again_when_it_is_back() {
    let mut node = Node::new(true, "");
    node.runtime.die();
    until("it is said", || readiness(&node).contains("container names").then_some(()));
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    let mut child = node.exec(&made, &["true"]);
    node.agent.settle(&mut child);
    node.runtime.make(&made);
    node.runtime.listen();
    expect_named(&node, &made);
    node.agent.expect_metric("tellwire_runtime_up", &[], 1);
    let said = node.agent.log().iter().filter(|line| line.contains("goes on without")).count();
    assert!((1..=3).contains(&said), "it is said once for each reason, not {said} times");
}

#[test]
fn a_runtime_that_lies_names_nobody_by_it() {
    let node = Node::new(false, "");
    node.runtime.behave(Manners::WrongIds);
    let other = Made::new(7, "other-7d5c9b8f6d-x2v9k");
    node.runtime.make(&other);
    for (id, name) in [
        ("../../etc".to_owned(), "server".to_owned()),
        (String::new(), "server".to_owned()),
        ("1".repeat(64), "a\u{1b}[31m\n".repeat(1000)),
        ("2".repeat(64), "x".repeat(1 << 20)),
    ] {
        node.runtime.add(Container {
            id,
            metadata: Some(ContainerMetadata { name, attempt: 0 }),
            labels: HashMap::from([("app".to_owned(), "y".repeat(1000))]),
            ..Container::default()
        });
    }
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    let mut child = node.exec(&made, &["true"]);
    node.agent.settle(&mut child);
    node.agent.expect(child.pid, "exec", &json!({ "container.id": made.id, "container.name": null }));
    until("nonsense is counted", || {
        (node.agent.metric("tellwire_runtime_refused_total", &[]) >= 2).then_some(())
    });
    // Of what could be a name at most 512 bytes are taken.
    let loud = Made { id: "1".repeat(64), ..Made::new(8, "loud") };
    node.exec(&loud, &["true"]).wait();
    let line = node.agent.expect(None, "exec", &json!({ "container.id": loud.id }));
    let name = line["container"]["name"].as_str().unwrap_or_default();
    assert!(name.len() <= 512, "{name}");
    node.runtime.make(&made);
    node.runtime.behave(Manners::Honest);
    expect_named(&node, &made);
}
