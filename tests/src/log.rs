//! What an agent says about itself, on stderr.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use serde_json::Value;

use crate::wait::limit;

/// An agent may take so many times the usual limit to end.
const ENDS: u32 = 4;

/// What became of the records of one kind, as the agent says at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    pub seen: u64,
    pub submitted: u64,
    pub ring_full: u64,
    pub filtered: u64,
    pub throttled: u64,
    pub state_lost: u64,
    pub received: u64,
    pub decode_errors: u64,
}

impl Ledger {
    fn of(line: &Value) -> Self {
        let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("no {key} in {line}"));
        Self {
            seen: number("seen"),
            submitted: number("submitted"),
            ring_full: number("ring_full"),
            filtered: number("filtered"),
            throttled: number("throttled"),
            state_lost: number("state_lost"),
            received: number("received"),
            decode_errors: number("decode_errors"),
        }
    }

    /// Every record that was seen has one outcome, and what was submitted came through.
    pub fn is_exact(&self) -> bool {
        let Self { seen, submitted, ring_full, filtered, throttled, state_lost, received, decode_errors } =
            *self;
        seen == submitted + ring_full + filtered + throttled + state_lost
            && submitted == received
            && decode_errors == 0
    }
}

/// The lines so far, shared with the thread that reads them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    is_over: bool,
}

impl Log {
    /// Reads to the end.
    pub(crate) fn fill(&self, from: impl Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.change(|state| state.lines.push(line));
        }
        self.change(|state| state.is_over = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.grown.notify_all();
    }

    /// Waits until a line says so, or until there are no more lines; whether one did.
    pub(crate) fn wait_for(&self, message: &str) -> bool {
        // A line is read once: there may be thousands, and each wakes who waits.
        let (mut seen, mut is_said) = (0, false);
        self.wait(|state| {
            is_said = is_said || state.lines.iter().skip(seen).any(|line| says(line, message));
            seen = state.lines.len();
            is_said || state.is_over
        });
        is_said
    }

    /// All lines, once there are no more. The kernel takes probes on libraries away one after the other, those of all agents
    /// that end at the same time.
    pub(crate) fn all(&self) -> Vec<String> {
        self.wait_so_long(ENDS, |state| state.is_over);
        self.lines()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    fn wait(&self, ready: impl FnMut(&State) -> bool) {
        self.wait_so_long(1, ready);
    }

    /// With so many times the usual limit.
    fn wait_so_long(&self, times: u32, mut ready: impl FnMut(&State) -> bool) {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.grown.wait_timeout_while(state, limit() * times, |state| !ready(state));
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "the agent says nothing more:\n{}", state.lines.join("\n"));
    }
}

fn says(line: &str, message: &str) -> bool {
    parse(line).is_some_and(|line| line["message"] == message)
}

pub(crate) fn parse(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}

/// The ledgers of an agent's last lines, by record kind.
pub(crate) fn ledgers(lines: &[String]) -> BTreeMap<String, Ledger> {
    let lines = lines.iter().filter_map(|line| parse(line)).filter(|line| line["message"] == "ledger");
    lines.map(|line| (line["action"].as_str().unwrap_or_default().to_owned(), Ledger::of(&line))).collect()
}
