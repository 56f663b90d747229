//! The wall clock is set.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::{Value, json};
use tellwire_tests::{Agent, at, ecs, program::Program, until};

/// Seconds since 1970, and how the time is written: forward, and back to before the first line.
const TIMES: [(i64, &str); 2] = [(1_924_992_000, "2031-01-01T"), (1_640_995_200, "2022-01-01T")];

/// The wall clock as it was before: this value sets it so again.
struct Kept(f64);

impl Kept {
    fn now() -> Self {
        Self(offset())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        #[expect(clippy::cast_possible_truncation, reason = "a second more or less")]
        set(clock_gettime(ClockId::Boottime).tv_sec + self.0 as i64);
    }
}

fn set(seconds: i64) {
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: 0 }).expect("setting the clock");
}

/// Seconds from the boot's time to the wall's.
fn offset() -> f64 {
    seconds(ClockId::Realtime) - seconds(ClockId::Boottime)
}

fn seconds(clock: ClockId) -> f64 {
    Duration::try_from(clock_gettime(clock)).expect("a time after the clock began").as_secs_f64()
}

fn changes(agent: &Agent) -> Vec<Value> {
    let is_it = |line: &Value| at(line, "event.action").is_some_and(|action| action == "clock_changed");
    agent.own_events().into_iter().filter(is_it).collect()
}

fn number(line: &Value, name: &str) -> f64 {
    let number = at(line, &format!("tellwire.clock.{name}")).and_then(Value::as_f64);
    number.expect("a number")
}

fn has_time(line: &Value, day: &str) -> bool {
    at(line, "@timestamp").and_then(Value::as_str).is_some_and(|time| time.starts_with(day))
}

#[test]
#[ignore = "sets the machine's clock: `cargo xtask vm` runs it"]
fn a_clock_that_is_set_is_told_and_later_lines_have_the_new_time() {
    let agent = Agent::start();
    let program = agent.subfolder("clock").join("program");
    Program::Exit(0).write(&program);
    let _kept = Kept::now();
    for (count, (time, day)) in (1..).zip(TIMES) {
        let before = offset();
        set(time);
        let after = offset();
        let told = until("the agent tells of the clock", || {
            let changes = changes(&agent);
            (changes.len() >= count).then_some(changes)
        });
        assert_eq!(told.len(), count, "{told:#?}");
        let line = told.last().expect("a line");
        // The agent takes a second for a clock that drifts.
        let near = |name: &str, value: f64| {
            assert!((number(line, name) - value).abs() < 1.0, "{name} is not {value}: {line}");
        };
        near("old_offset", before);
        near("new_offset", after);
        near("step_seconds", after - before);
        assert!(has_time(line, day), "not of {day}: {line}");
        let faults = ecs::faults(line);
        assert!(faults.is_empty(), "{faults:?} in {line}");

        let mut child = agent.exec(&program, &["program"]);
        agent.settle(&mut child);
        for action in ["exec", "exit"] {
            let line = agent.expect(child.pid, action, &json!({}));
            assert!(has_time(&line, day), "not of {day}: {line}");
        }
    }
    let stopped = agent.stop();
    assert!(stopped.status.success(), "{:?}", stopped.log);
}
