//! An agent that no other test uses meanwhile: its own, or, where tests run one at a time, one that was there before.
//!
//! An agent's start takes seconds where the kernel is emulated, and is most of what the tests take there.

use std::{
    collections::BTreeMap,
    ops::Deref,
    process,
    sync::{Mutex, OnceLock, PoisonError},
};

use serde_json::Value;

use crate::{Agent, in_vm, log::Ledger, sys};

/// Agents that stay until the test binary ends, by their configuration. None is ever taken away, so that tests may keep it.
static KEPT: Mutex<BTreeMap<String, &'static Agent>> = Mutex::new(BTreeMap::new());

/// The kept agent of this configuration, which is started where it is not there or is no more.
pub(crate) fn kept(toml: &str) -> &'static Agent {
    // A child that a test forked has the handler too, and must not take the agents from the others.
    static OWNER: OnceLock<u32> = OnceLock::new();
    extern "C" fn at_exit() {
        if OWNER.get() == Some(&process::id()) {
            for agent in KEPT.lock().unwrap_or_else(PoisonError::into_inner).values() {
                agent.discard();
            }
        }
    }
    OWNER.get_or_init(|| {
        sys::at_exit(at_exit);
        process::id()
    });
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    match kept.get(toml) {
        Some(agent) if agent.is_there() => agent,
        _ => {
            let agent: &'static Agent = Box::leak(Box::new(Agent::with_config(toml)));
            kept.insert(toml.to_owned(), agent);
            agent
        }
    }
}

/// An agent for one test: its lines and counters begin with this value.
#[derive(Debug)]
pub struct Alone(Held);

#[derive(Debug)]
enum Held {
    Own(Box<Agent>),
    Kept(&'static Agent),
}

impl Alone {
    pub(crate) fn with_config(toml: &str) -> Self {
        if !in_vm() {
            return Self(Held::Own(Box::new(Agent::with_config(toml))));
        }
        let agent = kept(toml);
        agent.begin_anew();
        Self(Held::Kept(agent))
    }

    /// Holds its books against each other, and stops it if it is the test's own; gives the lines.
    pub fn end(self) -> Vec<Value> {
        match self.0 {
            Held::Own(agent) => {
                let stopped = agent.stop();
                assert!(stopped.status.success(), "{:?}", stopped.log);
                assert!(stopped.ledgers.values().all(Ledger::is_exact), "{:?}", stopped.ledgers);
                stopped.events
            }
            Held::Kept(agent) => {
                agent.expect_metric("tellwire_ledger_balanced", &[], 1);
                agent.events()
            }
        }
    }
}

impl Deref for Alone {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        match &self.0 {
            Held::Own(agent) => agent,
            Held::Kept(agent) => agent,
        }
    }
}
