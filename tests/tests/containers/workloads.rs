//! Metrics by workload: exact sums, whoever comes and goes, within the budget.

use std::fs;

use tellwire_tests::{cri::Made, until};

use crate::names::Node;

const EXECS: &str = "tellwire_workload_execs_total";

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

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
fn five_hundred_containers_fit_the_budget_of_series() {
    let node = Node::new(true, "");
    let start = resident(node.agent.pid());
    for number in 0..500 {
        let mut made = Made::new(number, &format!("app{number}-7d5c9b8f6d-x2v9k"));
        made.annotations.insert("config".to_owned(), "x".repeat(2000));
        node.runtime.make(&made);
        node.exec(&made, &["true"]).wait();
    }
    known(&node, 500);
    sums_are_exact(&node);
    let metrics = node.agent.scrape();
    let series = metrics.series("");
    let full = resident(node.agent.pid());
    println!("500 containers: {series} series, {start} KiB resident at the start, {full} KiB then");
    assert!(series <= 1_000, "{series} series");
    assert!(metrics.get("tellwire_series_overflow_total", &[("metric", "workloads")]) > 0);
    assert!(full < 64 << 10, "{full} KiB resident");
}
