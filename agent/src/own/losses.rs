//! What was lost so far, and what was lost since: what `tellwire_events_lost_total` counts, and the throttle.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tellwire_ebpf::{counters::Ledger, wire::Kind};

use crate::{books::Books, events::action::Action, lines::own::LossFacts, outputs::Registry};

/// By action and stage, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Losses(BTreeMap<(&'static str, &'static str), u64>);

impl Losses {
    pub(crate) fn read(ledgers: &[Ledger; Kind::COUNT], books: &Books, outputs: &Registry) -> Self {
        let mut losses = Self::default();
        let load = |counters: &[AtomicU64], index: usize| {
            counters.get(index).map_or(0, |counter| counter.load(Relaxed))
        };
        for (kind, ledger) in Kind::ALL.iter().zip(ledgers) {
            let swept = if *kind == Kind::Connect { books.swept_lost.load(Relaxed) } else { 0 };
            losses.add(kind.name(), "ring", ledger.ring_full);
            losses.add(kind.name(), "state", ledger.state_lost + swept);
            losses.add(kind.name(), "decode", load(&books.decode_errors, *kind as usize));
            losses.add(kind.name(), "throttle", ledger.throttled);
        }
        losses.add("audit", "audit", books.audit.lost());
        let outputs = outputs.all();
        for action in Action::ALL {
            losses.add(action.name(), "output", load(&books.encode_errors, *action as usize));
            for (_, stats) in &outputs {
                losses.add(action.name(), "output", load(&stats.dropped_by_action, *action as usize));
            }
        }
        losses
    }

    fn add(&mut self, action: &'static str, stage: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry((action, stage)).or_default() += count;
        }
    }

    /// What came since `before`.
    pub(crate) fn since(&self, before: &Self) -> Vec<LossFacts> {
        let loss = |(&(action, stage), count): (&(&'static str, &'static str), &u64)| {
            let count = count.saturating_sub(before.0.get(&(action, stage)).copied().unwrap_or(0));
            (count > 0).then_some(LossFacts { action, stage, count })
        };
        self.0.iter().filter_map(loss).collect()
    }

    /// Without the throttle, which does what it is for.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().filter(|((_, stage), _)| *stage != "throttle").map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_is_told() {
        let mut before = Losses::default();
        before.add("exec", "ring", 3);
        before.add("exit", "ring", 2);
        let mut after = before.clone();
        after.add("exec", "ring", 4);
        after.add("exec", "throttle", 9);
        after.add("exit", "output", 0);
        let loss = |action, stage, count| LossFacts { action, stage, count };
        assert_eq!(after.since(&before), [loss("exec", "ring", 4), loss("exec", "throttle", 9)]);
        assert_eq!(after.since(&after), []);
        assert_eq!(after.total(), 9);
    }
}
