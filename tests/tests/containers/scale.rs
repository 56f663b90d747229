//! A node that is full, and one on which containers come and go for an hour: what the agent needs for it, and that no count
//! is lost. The binary is the one that the other tests have; `cargo xtask build --release --static` makes the one of the image.

use std::{
    fs,
    time::{Duration, Instant},
};

use tellwire_tests::{Child, Metrics, cri::Made, until};

use crate::names::Node;

const EXECS: &str = "tellwire_workload_execs_total";

/// What a full node may take: 30 MiB resident with the static binary, which is the one of the image, and a thousand series. A binary
/// with the host's C library has that library's pages and its allocator's reserves beside.
const RESIDENT: u64 = 30 << 10;
const RESIDENT_WITH_LIBRARIES: u64 = 45 << 10;
const SERIES: usize = 1_000;

/// A figure of `/proc/PID/status`, in KiB.
fn status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("the field").trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whether the agent is linked with the host's libraries.
fn has_libraries(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings").contains(".so")
}

/// What the kernel says that the agent's maps take, in KiB: `bpf_map_show_fdinfo` in kernel/bpf/syscall.c.
fn maps(pid: u32) -> u64 {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("its descriptors");
    let bytes = descriptors.filter_map(|file| {
        let text = fs::read_to_string(file.ok()?.path()).ok()?;
        // Programs have no map_type.
        text.contains("map_type:").then_some(())?;
        text.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse::<u64>().ok()
    });
    bytes.sum::<u64>() >> 10
}

fn figures(node: &Node, metrics: &Metrics) -> String {
    let pid = node.agent.pid();
    let (resident, own) = (status(pid, "VmRSS"), status(pid, "RssAnon"));
    let binary = fs::metadata(format!("/proc/{pid}/exe")).expect("its binary").len() >> 10;
    format!(
        "{resident} KiB resident ({own} its own), {} KiB of maps, {} series; a binary of {binary} KiB",
        maps(pid),
        metrics.series("")
    )
}

fn sums_are_exact(node: &Node, execs: u64) -> Metrics {
    node.agent.expect_metric("tellwire_execs_total", &[("outcome", "success")], execs);
    let metrics = node.agent.scrape();
    assert_eq!(metrics.get(EXECS, &[]), execs);
    for lost in ["tellwire_events_lost_total", "tellwire_table_refusals_total"] {
        assert_eq!(metrics.get(lost, &[]), 0, "{lost}");
    }
    metrics
}

#[test]
fn five_hundred_containers_at_once_fit_a_node() {
    let node = Node::new(true, "");
    let pods: Vec<Made> = (0..500)
        .map(|number| {
            let mut made = Made::new(number, &format!("app{number}-7d5c9b8f6d-x2v9k"));
            made.annotations.insert("config".to_owned(), "x".repeat(2000));
            made
        })
        .collect();
    let before = figures(&node, &node.agent.scrape());
    for made in &pods {
        node.runtime.make(made);
    }
    // What is scraped before its name is known stays __unnamed__.
    until("all are known", || {
        (node.agent.metric("tellwire_runtime_lookups_total", &[("outcome", "found")]) >= 500).then_some(())
    });
    let children: Vec<Child> = pods.iter().map(|made| node.exec(made, &["sleep", "600"])).collect();
    let metrics = sums_are_exact(&node, 500);
    println!("no container: {before}\n500 containers: {}", figures(&node, &metrics));
    assert!(metrics.series("") <= SERIES, "{} series", metrics.series(""));
    assert!(metrics.get("tellwire_series_overflow_total", &[("metric", "workloads")]) > 0);
    assert_eq!(metrics.get(EXECS, &[("workload", "__unnamed__")]), 0);
    let resident = status(node.agent.pid(), "VmRSS");
    let most = if has_libraries(node.agent.pid()) { RESIDENT_WITH_LIBRARIES } else { RESIDENT };
    assert!(resident <= most, "{resident} KiB resident");
    drop(children);
}

/// An hour's containers, at one a second, as fast as they come: what is remembered for a minute after a container's end is
/// remembered of all of them here, so memory may grow by that; a minute holds 60 of them on a node.
#[test]
fn an_hour_of_churn_leaves_series_flat_and_sums_exact() {
    const HOUR: usize = 3_600;
    const ROUND: usize = 600;
    let node = Node::new(true, "");
    let begun = Instant::now();
    let mut rounds = Vec::new();
    for number in 0..HOUR {
        let made = Made::new(number, &format!("job{number}-x2v9k"));
        node.runtime.make(&made);
        node.exec(&made, &["true"]).wait();
        fs::remove_dir(node.agent.cgroup().join(made.cgroup())).expect("the container's end");
        node.runtime.forget(&made);
        if (number + 1) % ROUND == 0 {
            let metrics = sums_are_exact(&node, number as u64 + 1);
            println!("{} containers: {}", number + 1, figures(&node, &metrics));
            rounds.push((metrics.series("tellwire_"), status(node.agent.pid(), "RssAnon")));
        }
    }
    let [(_, first), .., (_, last)] = rounds[..] else { panic!("no rounds") };
    // Names that come late let the first rounds have fewer.
    assert!(rounds.iter().all(|(found, _)| *found <= SERIES), "{rounds:?}");
    let each = last.saturating_sub(first) * 1024 / (HOUR - ROUND) as u64;
    println!("{HOUR} containers in {:?}: {each} bytes for each of the last minute", begun.elapsed());
    assert!(each <= REMEMBERED, "{each} bytes for each container that is gone: {rounds:?}");
    // Counters of cgroups that are gone leave the kernel's map; what they counted stays.
    let emptied = until_emptied(&node);
    assert!(emptied < 100, "{emptied} counters stay in the kernel's map");
    sums_are_exact(&node, HOUR as u64);
}

/// Of a container that is gone: its cgroups, its names and its processes, for at most a minute.
const REMEMBERED: u64 = 4 << 10;

/// Counters in the kernel's map, once it has been swept.
fn until_emptied(node: &Node) -> u64 {
    let begun = Instant::now();
    let entries = || node.agent.metric("tellwire_map_entries", &[("map", "cgroup_counters")]);
    // Twice the time between sweeps, of which a counter has to stand still for one.
    while entries() >= 100 && begun.elapsed() < Duration::from_secs(40) {
        let _waited = tellwire_tests::within_limit(|| (entries() < 100).then_some(()));
    }
    entries()
}
