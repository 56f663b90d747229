//! What the agent costs calls that it does not look at.

use std::time::{Duration, Instant};

use tellwire_tests::{Agent, attached_by};

/// So few that nothing comes in between in most rounds, whatever else the machine does.
const CALLS: u32 = 500;

/// The best of them is taken: nothing makes a round shorter than it is.
const ROUNDS: u32 = 1_000;

/// Probes that look at system calls, where they cannot look at the kernel's functions.
const PROBES: [&str; 4] = ["connect_errno", "exec_failed", "credentials", "container_roots"];

/// A tracepoint of any system call makes the kernel take the slow way with every one: half as long again was measured on 5.10, where
/// one of the probes has no other way.
#[test]
#[ignore = "compares times, and nothing else may run: `cargo xtask vm` runs it"]
fn system_calls_cost_what_they_did_where_functions_are_hooked() {
    let without = best();
    let agent = Agent::start();
    let with = best();
    drop(agent);
    let without = without.min(best());
    let times = with.as_secs_f64() / without.as_secs_f64();
    println!("{CALLS} getppid: {without:?} without the agent, {with:?} with it, {times:.2} times as long");
    let ways = PROBES.map(attached_by);
    println!("{PROBES:?} by {ways:?}");
    let limit = if ways.iter().all(|way| way == "kernel functions") { 1.2 } else { 2.0 };
    assert!(times < limit, "{times:.2} times as long, and not less than {limit:.1}");
}

/// The shortest time that so many calls took.
fn best() -> Duration {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            // One that the C library does not answer itself.
            let _parent = std::hint::black_box(rustix::process::getppid());
        }
        start.elapsed()
    };
    (0..ROUNDS).map(round).min().expect("a round")
}
