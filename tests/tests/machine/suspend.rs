//! The machine sleeps: time goes on, and a clock that stands still meanwhile would be behind for ever.

use std::{fs, time::Duration};

use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};
use serde_json::{Value, json};
use tellwire_tests::{Agent, at, program::Program};

/// A day, in seconds.
const DAY: f64 = 86_400.0;

fn seconds(clock: ClockId) -> f64 {
    Duration::try_from(clock_gettime(clock)).expect("a time after the clock began").as_secs_f64()
}

/// How long the machine has slept since it was started.
fn asleep() -> f64 {
    seconds(ClockId::Boottime) - seconds(ClockId::Monotonic)
}

/// Sleeps as deep as it goes. The alarm is in whole seconds, and one in the next is missed.
fn sleep() {
    let write =
        |path: &str, text: &str| fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    write("/sys/class/rtc/rtc0/wakealarm", "+3");
    write("/sys/power/state", "mem");
}

/// The seconds of the day when a line was made.
fn second_of_day(line: &Value) -> f64 {
    let time = at(line, "@timestamp").and_then(Value::as_str).expect("a time");
    let part = |from, to| time.get(from..to).and_then(|part| part.parse::<f64>().ok()).expect("a number");
    part(11, 13) * 3600.0 + part(14, 16) * 60.0 + part(17, 29)
}

#[test]
#[ignore = "puts the machine to sleep: `cargo xtask vm` runs it"]
fn times_and_durations_go_on_while_the_machine_sleeps() {
    let agent = Agent::start();
    let folder = agent.subfolder("sleep");
    let (waits, ends) = (folder.join("waits"), folder.join("ends"));
    Program::Wait.write(&waits);
    Program::Exit(0).write(&ends);
    let mut sleeper = agent.exec(&waits, &["waits"]);
    agent.expect(sleeper.pid, "exec", &json!({}));

    let before = asleep();
    sleep();
    let slept = asleep() - before;
    assert!(slept > 0.5, "the machine slept for {slept} s only");

    sleeper.kill(Signal::TERM);
    sleeper.wait();
    let exit = agent.expect(sleeper.pid, "exit", &json!({}));
    let lived = at(&exit, "event.duration").and_then(Value::as_u64).expect("a duration");
    assert!(Duration::from_nanos(lived).as_secs_f64() >= slept, "slept for {slept} s: {exit}");

    let begun = seconds(ClockId::Realtime);
    let mut child = agent.exec(&ends, &["ends"]);
    child.wait();
    let ended = seconds(ClockId::Realtime);
    let told = second_of_day(&agent.expect(child.pid, "exec", &json!({})));
    let after = (told - begun).rem_euclid(DAY);
    assert!(after <= ended - begun, "told at {told}, done between {begun} and {ended}");

    let stopped = agent.stop();
    assert!(stopped.status.success(), "{:?}", stopped.log);
    let set = stopped.own.iter().any(|line| at(line, "event.action") == Some(&json!("clock_changed")));
    assert!(!set, "sleep is no change of the clock: {:?}", stopped.own);
}
