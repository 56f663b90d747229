//! The end of a process: how, and what it used.

use std::{env, fs, hint, os::unix::process::ExitStatusExt as _, sync::mpsc, thread, time::Duration};

use rustix::{
    process::{Resource, Rlimit, Signal, setrlimit},
    time::{ClockId, Timespec, clock_gettime},
};
use serde_json::{Value, json};
use tellwire_tests::{Agent, ecs, exit_at_once, in_vm, program::Program, sys};

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

const MILLISECOND: u64 = 1_000_000;

#[test]
fn what_a_process_used_is_what_it_measured_itself() {
    const MEBIBYTE: u64 = 1 << 20;
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        let memory = vec![1_u8; 64 << 20];
        while cpu_time() < 60 * MILLISECOND {
            hint::black_box(&memory);
        }
        // A thread's time counts too. It is joined before the kernel has released it.
        thread::spawn(|| use_cpu(40 * MILLISECOND)).join().expect("the thread");
        json!({"cpu": cpu_time(), "rss": sys::peak_rss()})
    });
    agent.settle(&mut child);
    let event = agent.expect(child.pid, "exit", &json!({"process.exit_code": 0}));
    let measured = child.join();
    expect_cpu_time(&event, number(&measured, "cpu"));
    let (rss, rss_measured) = (number(&event, "tellwire.exit.peak_rss"), number(&measured, "rss"));
    assert!(rss >= 64 * MEBIBYTE && rss.abs_diff(rss_measured) < 8 * MEBIBYTE, "{rss} of {measured}");
}

#[test]
fn the_time_of_threads_that_end_with_the_process_counts() {
    let agent = Agent::shared();
    for (threads, each) in [(8, 20 * MILLISECOND), (60, MILLISECOND), (100, MILLISECOND)] {
        let mut child = agent.fork(|| {
            let (done, used) = mpsc::channel();
            for _ in 0..threads {
                let done = done.clone();
                thread::spawn(move || {
                    use_cpu(each);
                    done.send(()).expect("the leader");
                    loop {
                        thread::park();
                    }
                });
            }
            use_cpu(50 * MILLISECOND);
            used.iter().take(threads).for_each(drop);
            cpu_time()
        });
        agent.settle(&mut child);
        let event = agent.expect(child.pid, "exit", &json!({"process.exit_code": 0}));
        let measured = child.join().as_u64().expect("a number");
        expect_cpu_time(&event, measured);
    }
}

#[test]
fn the_time_of_a_leader_that_ended_before_its_threads_counts() {
    let agent = Agent::shared();
    let measured = agent.subfolder("leader").join("measured");
    let mut child = agent.fork(|| {
        use_cpu(60 * MILLISECOND);
        let measured = measured.clone();
        thread::spawn(move || {
            sys::until_leader_is_gone();
            fs::write(measured, cpu_time().to_string()).expect("writing down the time");
            exit_at_once(0)
        });
        sys::exit_thread()
    });
    assert_eq!(child.wait().code(), Some(0));
    let event = agent.expect(child.pid, "exit", &json!({"process.exit_code": 0}));
    let measured = fs::read_to_string(measured).expect("what was measured");
    expect_cpu_time(&event, measured.parse().expect("a number"));
}

/// Holds a line to the time that the process had used before its end.
#[track_caller]
fn expect_cpu_time(event: &Value, measured: u64) {
    let cpu = number(event, "tellwire.exit.cpu_time");
    let slack = if in_vm() { 1000 } else { 100 } * MILLISECOND;
    assert!(measured <= cpu && cpu < measured + slack, "{cpu} of {measured}");
}

/// Lets the thread use so much time, in nanoseconds.
fn use_cpu(time: u64) {
    let used = || nanoseconds(clock_gettime(ClockId::ThreadCPUTime));
    let end = used() + time;
    while used() < end {}
}

/// CPU time of this process so far, in nanoseconds.
fn cpu_time() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
