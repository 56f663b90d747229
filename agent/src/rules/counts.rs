//! What the rules did, by rule.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::spec::{Effect, Spec};

/// Counters of one rule.
#[derive(Debug)]
pub(crate) struct RuleCounts {
    name: Arc<str>,
    effect: Effect,
    /// Events that made no line, in the kernel or here.
    left_out: AtomicU64,
    /// Events that made one.
    let_through: AtomicU64,
}

impl RuleCounts {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn leave_out(&self, events: u64) {
        self.left_out.fetch_add(events, Relaxed);
    }

    pub(super) fn let_through(&self) {
        self.let_through.fetch_add(1, Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.left_out.load(Relaxed) + self.let_through.load(Relaxed)
    }

    /// What became of the events: the label `effect`, and how many.
    pub(crate) fn effects(&self) -> Vec<(&'static str, u64)> {
        let (left_out, let_through) = (self.left_out.load(Relaxed), self.let_through.load(Relaxed));
        match self.effect {
            Effect::Drop => vec![("drop", left_out)],
            Effect::Keep => vec![("keep", let_through)],
            Effect::Sample(_) => vec![("keep", let_through), ("drop", left_out)],
            Effect::Tag(_) => vec![("tag", let_through)],
        }
    }
}

/// The counters of all rules, for whoever scrapes them.
#[derive(Debug, Default)]
pub(crate) struct RuleBooks(RwLock<Vec<Arc<RuleCounts>>>);

impl RuleBooks {
    /// The counters of new rules: a rule that was there with the same name and effect goes on counting.
    pub(super) fn renew(&self, specs: &[Spec]) -> Vec<Arc<RuleCounts>> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let counts: Vec<_> = specs
            .iter()
            .map(|spec| {
                let before = current.iter().find(|before| {
                    before.name == spec.name
                        && std::mem::discriminant(&before.effect) == std::mem::discriminant(&spec.effect)
                });
                before.map_or_else(|| Arc::new(RuleCounts::new(spec)), Arc::clone)
            })
            .collect();
        current.clone_from(&counts);
        counts
    }

    pub(crate) fn current(&self) -> Vec<Arc<RuleCounts>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RuleCounts {
    fn new(spec: &Spec) -> Self {
        Self {
            name: Arc::clone(&spec.name),
            effect: spec.effect.clone(),
            left_out: AtomicU64::new(0),
            let_through: AtomicU64::new(0),
        }
    }
}
