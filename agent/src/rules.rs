//! Rules: which events make lines, and what marks them.
//!
//! `spec` checks a rule, `index` finds all that match an event at once, [`Rules::judge`] does what they say, and
//! `pushdown` finds what the kernel can do by itself. The agent always judges by all rules: what the kernel lets
//! through, since its tables lag behind or are full, comes to the same end.

mod args;
mod bits;
mod counts;
mod facts;
mod index;
mod pushdown;
mod spec;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::{bits::Bits, index::Index};
pub(crate) use self::{
    counts::{RuleBooks, RuleCounts},
    facts::{Facts, What},
    pushdown::{Placement, Table, plan},
    spec::{Effect, Refused, Spec},
};
use crate::config::Rule;

/// What the rules make of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No line; the rule has counted it.
    LeftOut,
    Line(Marks),
}

/// What a line says of the rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) tags: Vec<Arc<str>>,
    pub(crate) sampled: Option<Sampled>,
}

/// The line stands for several events.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sampled {
    pub(crate) rule: Arc<str>,
    pub(crate) one_in: u32,
}

/// Rules at work.
#[derive(Debug)]
pub(crate) struct Rules {
    specs: Vec<Spec>,
    index: Index,
    counts: Vec<Arc<RuleCounts>>,
    hit: Bits,
}

/// Checks the rules of a configuration.
pub(crate) fn specs(rules: &[Rule]) -> Result<Vec<Spec>, Refused> {
    let specs = spec::specs(rules)?;
    match Index::new(&specs) {
        Ok(_) => Ok(specs),
        Err(error) => Err(Refused {
            rule: rules.len().saturating_sub(1),
            key: "",
            index: None,
            wrong: format!("the patterns of all rules take too much memory ({error})"),
            instead: "write fewer or simpler ones".into(),
        }),
    }
}

/// Where each rule of a checked configuration is judged.
pub(crate) fn placements(rules: &[Rule]) -> Vec<Placement> {
    spec::specs(rules).map(|specs| plan(&specs).1).unwrap_or_default()
}

impl Rules {
    /// Rules at work. Those that were at work before, by their name, go on counting in `books`.
    pub(crate) fn new(rules: &[Rule], books: &RuleBooks) -> anyhow::Result<Self> {
        let specs = spec::specs(rules)
            .map_err(|refused| anyhow::anyhow!("{}: {}", refused.wrong, refused.instead))?;
        Ok(Self {
            index: Index::new(&specs)?,
            counts: books.renew(&specs),
            hit: Bits::none(specs.len()),
            specs,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    pub(crate) fn specs(&self) -> &[Spec] {
        &self.specs
    }

    pub(crate) fn counts(&self) -> &[Arc<RuleCounts>] {
        &self.counts
    }

    /// Whether [`Facts::user_name`] is asked for.
    pub(crate) fn asks_names(&self) -> bool {
        self.index.asks_names()
    }

    /// What becomes of an event that would make a line. Counts for the rules that had a say.
    pub(crate) fn judge(&mut self, facts: &Facts<'_>) -> Verdict {
        if self.specs.is_empty() {
            return Verdict::Line(Marks::default());
        }
        self.index.find(facts, &mut self.hit);
        self.act(|| self.hit.iter())
    }

    /// The rules that matched the event that was judged last.
    pub(crate) fn matched(&self) -> Box<[u16]> {
        self.hit.iter().filter_map(|rule| u16::try_from(rule).ok()).collect()
    }

    /// The same for an event that these rules match, see [`Rules::matched`].
    pub(crate) fn judge_matched(&self, matched: &[u16]) -> Verdict {
        self.act(|| matched.iter().copied().map(usize::from))
    }

    fn act<M: Iterator<Item = usize>>(&self, matched: impl Fn() -> M) -> Verdict {
        let Self { specs, counts, .. } = self;
        let mut marks = Marks::default();
        let matching = || matched().filter_map(|rule| Some((specs.get(rule)?, counts.get(rule)?)));
        for (spec, counts) in matching() {
            match &spec.effect {
                Effect::Tag(_) => continue,
                Effect::Drop => {
                    counts.leave_out(1);
                    return Verdict::LeftOut;
                }
                Effect::Keep => counts.let_through(),
                Effect::Sample(one_in) => {
                    if !chosen(&spec.name, counts.total(), *one_in) {
                        counts.leave_out(1);
                        return Verdict::LeftOut;
                    }
                    counts.let_through();
                    marks.sampled = Some(Sampled { rule: Arc::clone(&spec.name), one_in: *one_in });
                }
            }
            break;
        }
        // The line is made: only now do tags count. Behind the rule that decided, none is asked.
        for (spec, counts) in matching() {
            let Effect::Tag(tags) = &spec.effect else { break };
            counts.let_through();
            for tag in tags {
                if !marks.tags.contains(tag) {
                    marks.tags.push(Arc::clone(tag));
                }
            }
        }
        Verdict::Line(marks)
    }
}

/// Of each `one_in` events that follow one another exactly one, at a place that differs from group to group: events
/// that come in a pattern are sampled as fairly as any, and the same events give the same lines.
fn chosen(rule: &str, number: u64, one_in: u32) -> bool {
    let one_in = u64::from(one_in.max(1));
    let group = number / one_in;
    let seed = rule.bytes().fold(group, |seed, byte| mixed(seed ^ u64::from(byte)));
    number % one_in == mixed(seed) % one_in
}

/// The finalizer of splitmix64.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
