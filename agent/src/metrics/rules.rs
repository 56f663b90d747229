//! What the rules of the configuration did.

use std::fmt::Error;

use super::encode::Sink;
use crate::{kernel::filter::KernelFilter, rules::RuleBooks};

pub(super) fn encode(rules: &RuleBooks, filter: &KernelFilter, sink: &mut Sink<'_>) -> Result<(), Error> {
    if let Err(error) = filter.collect() {
        tracing::error!(%error, "the kernel's counts of rules cannot be read");
    }
    let rules = rules.current();
    let samples: Vec<_> = rules
        .iter()
        .flat_map(|rule| {
            let sample = |(effect, value)| ([("rule", rule.name()), ("effect", effect)], value);
            rule.effects().into_iter().map(sample)
        })
        .collect();
    let samples: Vec<_> = samples.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
    sink.counter(
        "tellwire_rule_events_total",
        "Events that a rule of the configuration decided or tagged: drop made no line, keep and tag did. What the \
         kernel dropped by the rule is included.",
        &samples,
    )
}
