//! Metrics by workload: exact sums, whoever comes and goes, within the budget.

use std::fs;

use tellwire_tests::{cri::Made, until};

use crate::names::{self, Node};

const EXECS: &str = "tellwire_workload_execs_total";

fn sums_are_exact(node: &Node) {
    let metrics = node.agent.scrape();
    let all = metrics.get("tellwire_execs_total", &[("outcome", "success")]);
    assert_eq!(metrics.get(EXECS, &[]), all);
}

fn known(node: &Node, count: u64) {
    until("all are known", || {
        (node.agent.metric("tellwire_runtime_lookups_total", &[("outcome", "found")]) >= count).then_some(())
    });
}

#[test]
fn a_workload_is_counted_over_its_pods() {
    let node = Node::new(true, "");
    let pods = ["cart-7d5c9b8f6d-x2v9k", "cart-7d5c9b8f6d-zq7wn", "db-0"];
    for (number, pod) in pods.iter().enumerate() {
        let made = Made::new(number, pod);
        node.runtime.make(&made);
        known(&node, number as u64 + 1);
        let mut child = node.exec(&made, &["true"]);
        node.agent.settle(&mut child);
    }
    let of = |workload| [("namespace", "shop"), ("workload", workload), ("container", "server")];
    node.agent.expect_metric(EXECS, &of("cart"), 2);
    node.agent.expect_metric(EXECS, &of("db"), 1);
    sums_are_exact(&node);
}

#[test]
fn churn_leaves_series_flat_and_sums_exact() {
    let node = Node::new(true, "[metrics]\nseries = 0\n");
    let mut before = 0;
    for number in 0..120 {
        let made = Made::new(number, &format!("job{number}-x2v9k"));
        node.runtime.make(&made);
        node.exec(&made, &["true"]).wait();
        fs::remove_dir(node.agent.cgroup().join(made.cgroup())).expect("the container's end");
        if number == 20 {
            before = node.agent.scrape().series("tellwire_");
        }
    }
    sums_are_exact(&node);
    node.agent.expect_metric("tellwire_execs_total", &[("outcome", "success")], 120);
    assert_eq!(node.agent.scrape().series("tellwire_"), before);
    let elsewhere = node.agent.metric(EXECS, &[("workload", "__overflow__")])
        + node.agent.metric(EXECS, &[("workload", "__unnamed__")]);
    assert_eq!(elsewhere, 120);
}

#[test]
fn the_budget_follows_a_reload_and_no_sum_goes_back() {
    let node = Node::new(true, "[metrics]\nseries = 0\n");
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    node.runtime.make(&made);
    known(&node, 1);
    let exec = || {
        let mut child = node.exec(&made, &["true"]);
        node.agent.settle(&mut child);
    };
    exec();
    node.agent.expect_metric(EXECS, &[("workload", "__overflow__")], 1);
    node.agent.configure(&names::config(&node.runtime, "[metrics]\npods = true\n"));
    node.agent.expect_metric("tellwire_events_total", &[("action", "config_changed")], 1);
    exec();
    node.agent.expect_metric(EXECS, &[("workload", "__overflow__")], 1);
    node.agent.expect_metric(EXECS, &[("workload", "cart"), ("pod", &made.pod), ("namespace", "shop")], 1);
    sums_are_exact(&node);
}
