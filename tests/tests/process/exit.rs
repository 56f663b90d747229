//! The end of a process: how, and what it used.

use std::{env, fs, hint, os::unix::process::ExitStatusExt as _, thread, time::Duration};

use rustix::{
    process::{Resource, Rlimit, Signal, setrlimit},
    time::{ClockId, clock_gettime},
};
use serde_json::json;
use tellwire_tests::{Agent, ecs, in_vm, program::Program, sys, until};

use crate::{number, text};

#[test]
fn an_exit_says_its_code_and_how_long_the_process_lived() {
    let agent = Agent::shared();
    let folder = agent.subfolder("codes");
    for code in [0, 1, 7, 255] {
        let program = folder.join(format!("exits-{code}"));
        Program::Exit(code).write(&program);
        let mut child = agent.exec(&program, &["program"]);
        assert_eq!(child.wait().code(), Some(code.into()));
        let event = agent.expect(
            child.pid,
            "exit",
            &json!({
                "event": {
                    "category": ["process"], "type": ["end"], "reason": "exited", "outcome": null,
                    "dataset": "tellwire.process",
                },
                "process": {"exit_code": code, "executable": program, "args": null},
                "tellwire.exit": {"signal": null, "core_dumped": null, "oom_killed": null},
            }),
        );
        assert_eq!(text(&event, "process.end"), text(&event, "@timestamp"));
        assert!(ecs::is_time(text(&event, "process.end")));
        // A program that does nothing, but the machine may be slow.
        let lived = Duration::from_nanos(number(&event, "event.duration"));
        assert!(!lived.is_zero() && lived < tellwire_tests::limit(), "{lived:?}");
    }
}

#[test]
fn a_signal_is_named() {
    let agent = Agent::shared();
    let program = agent.subfolder("signals").join("waits");
    Program::Wait.write(&program);
    for (signal, name) in [(Signal::KILL, "SIGKILL"), (Signal::TERM, "SIGTERM"), (Signal::USR1, "SIGUSR1")] {
        let mut child = agent.exec(&program, &["program"]);
        agent.expect(child.pid, "exec", &json!({"process.executable": program}));
        child.kill(signal);
        assert_eq!(child.wait().signal(), Some(signal.as_raw()));
        agent.expect(
            child.pid,
            "exit",
            &json!({
                "event.reason": "signaled",
                "process.exit_code": null,
                "tellwire.exit": {"signal": name, "core_dumped": null},
            }),
        );
    }
}

#[test]
fn a_core_dump_is_told_where_there_was_one() {
    let agent = Agent::shared();
    let folder = agent.subfolder("core");
    let program = folder.join("waits");
    Program::Wait.write(&program);
    for size in [0, 1 << 20] {
        let mut child = agent.fork(|| {
            env::set_current_dir(&folder).expect("the folder");
            setrlimit(Resource::Core, Rlimit { current: Some(size), maximum: Some(size) }).expect("a limit");
            sys::exec(&program, &["program"])
        });
        agent.expect(child.pid, "exec", &json!({"process.executable": program}));
        child.kill(Signal::ABORT);
        let status = child.wait();
        assert_eq!(status.signal(), Some(libc::SIGABRT));
        // Whether the kernel could write it is the host's affair; what the parent was told is what counts.
        let (dumped, reason) =
            if status.core_dumped() { (json!(true), "core_dumped") } else { (json!(null), "signaled") };
        agent.expect(
            child.pid,
            "exit",
            &json!({"event.reason": reason, "tellwire.exit": {"signal": "SIGABRT", "core_dumped": dumped}}),
        );
    }
}

#[test]
fn what_a_process_used_is_what_it_measured_itself() {
    const MEBIBYTE: u64 = 1 << 20;
    const MILLISECOND: u64 = 1_000_000;
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        let memory = vec![1_u8; 64 << 20];
        while cpu_time() < 60 * MILLISECOND {
            hint::black_box(&memory);
        }
        // A thread's time counts too.
        let thread = thread::spawn(|| {
            let end = cpu_time() + 40 * MILLISECOND;
            while cpu_time() < end {}
        });
        thread.join().expect("the thread");
        // It is joined before the kernel has added its time to the process's; a process that ends meanwhile is told without it.
        until("the end of the thread", || {
            (fs::read_dir("/proc/self/task").expect("threads").count() == 1).then_some(())
        });
        json!({"cpu": cpu_time(), "rss": sys::peak_rss()})
    });
    agent.settle(&mut child);
    let event = agent.expect(child.pid, "exit", &json!({"process.exit_code": 0}));
    let measured = child.join();
    let (cpu, rss) = (number(&event, "tellwire.exit.cpu_time"), number(&event, "tellwire.exit.peak_rss"));
    let slack = if in_vm() { 1000 } else { 100 } * MILLISECOND;
    assert!(number(&measured, "cpu") <= cpu && cpu < number(&measured, "cpu") + slack, "{cpu} of {measured}");
    let rss_measured = number(&measured, "rss");
    assert!(rss >= 64 * MEBIBYTE && rss.abs_diff(rss_measured) < 8 * MEBIBYTE, "{rss} of {measured}");
}

/// CPU time of this process so far, in nanoseconds.
fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
