//! The rules at the place where lines are made: what the tables know of an event, as rules see it.

use std::sync::Arc;

use crate::{
    books::Books,
    enrich::{containers::Containers, users::Users, who::Who},
    events::exec::Exec,
    kernel::filter::KernelFilter,
    lines::{Line, fields::SampledFacts},
    pipeline::LeftOut,
    rules::{Facts, Marks, Rules, Sampled, Verdict, What},
};

/// Rules at work in the pipeline, and the kernel's part of them. By default there are none.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    rules: Option<Rules>,
    filter: Option<Arc<KernelFilter>>,
    /// Counts the rules that were put to work.
    epoch: u64,
}

/// What the rules found of an event: the next one that is the same to them need not be looked at anew.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    epoch: u64,
    uid: u32,
    user_name: Option<Arc<str>>,
    /// The container's names were known.
    is_named: bool,
    matched: Box<[u16]>,
}

impl Judge {
    pub(crate) fn new(filter: Arc<KernelFilter>) -> Self {
        Self { filter: Some(filter), ..Self::default() }
    }

    /// Puts rules to work in the place of those that were, here and in the kernel. The next event is judged by them.
    pub(crate) fn replace(&mut self, rules: Rules, containers: &Containers) {
        if let Some(Err(error)) = self.filter.as_ref().map(|filter| filter.apply(&rules, containers)) {
            tracing::warn!(%error, "no rules in the kernel: the agent judges alone");
        }
        self.rules = Some(rules).filter(|rules| !rules.is_empty());
        self.epoch += 1;
    }

    /// What the rules found of the event of `who` that was judged last.
    pub(super) fn judged(&self, who: &Who, users: &mut Users) -> Judged {
        let uid = who.subject.ids.euid;
        let is_named = is_named(who);
        let Some(rules) = &self.rules else {
            return Judged { epoch: self.epoch, uid, is_named, ..Judged::default() };
        };
        Judged {
            epoch: self.epoch,
            uid,
            user_name: rules.asks_names().then(|| users.user_name(uid)).flatten(),
            is_named,
            matched: rules.matched(),
        }
    }

    /// Whether an event of `who` is the same to the rules as the one of `judged`, if all else is the same.
    pub(super) fn knows(&self, judged: &Judged, who: &Who, users: &mut Users) -> bool {
        let uid = who.subject.ids.euid;
        judged.epoch == self.epoch
            && judged.uid == uid
            && judged.is_named == is_named(who)
            && (!self.rules.as_ref().is_some_and(Rules::asks_names)
                || users.user_name(uid) == judged.user_name)
    }

    /// What the line of an event says that [`Judge::knows`].
    pub(super) fn judge_known(&self, judged: &Judged, what: What, books: &Books) -> Option<Marks> {
        let Some(rules) = &self.rules else { return Some(Marks::default()) };
        told(rules.judge_matched(&judged.matched), what, books)
    }

    /// What an event's line says of the rules; `None` if it makes none, which is counted.
    pub(super) fn judge(
        &mut self,
        what: What,
        who: &Who,
        exec: Option<&Exec<'_>>,
        users: &mut Users,
        books: &Books,
    ) -> Option<Marks> {
        let Some(rules) = &mut self.rules else { return Some(Marks::default()) };
        let args = |line: &mut String| {
            if let Some(exec) = exec {
                exec.command_line(line);
            }
        };
        let uid = who.subject.ids.euid;
        let names = who.container.as_ref().and_then(|container| container.names());
        let facts = Facts {
            what,
            executable: who.executable.as_deref(),
            args: exec.is_some().then_some(&args),
            uid,
            user_name: rules.asks_names().then(|| users.user_name(uid)).flatten(),
            container: who.container.as_ref().map(|container| container.id.as_str()),
            container_name: names.and_then(|names| names.container.as_deref()),
            namespace: names.and_then(|names| names.namespace()),
            image: names.and_then(|names| names.image.as_deref()),
        };
        told(rules.judge(&facts), what, books)
    }

    pub(super) fn cgroup_made(&self, hierarchy: u64, id: u64, containers: &Containers) {
        if let (Some(filter), Some(_)) = (&self.filter, &self.rules)
            && let Some(container) = containers.known_at(hierarchy, id)
        {
            filter.cgroup_made(hierarchy, id, container);
        }
    }

    pub(super) fn cgroup_removed(&self, hierarchy: u64, id: u64) {
        if let (Some(filter), Some(_)) = (&self.filter, &self.rules) {
            filter.cgroup_removed(hierarchy, id);
        }
    }
}

/// Whether its container's names are known: rules may ask for them.
fn is_named(who: &Who) -> bool {
    who.container.as_ref().is_some_and(|container| container.names().is_some())
}

fn told(verdict: Verdict, what: What, books: &Books) -> Option<Marks> {
    match verdict {
        Verdict::Line(marks) => Some(marks),
        Verdict::LeftOut => {
            books.leave_out(what.action, LeftOut::Rule);
            None
        }
    }
}

impl Line<'_> {
    /// Says what the rules say of it.
    pub(super) fn mark(&mut self, marks: Marks) {
        let Marks { tags, sampled } = marks;
        self.tags = tags;
        self.tellwire.sampled = sampled.map(|Sampled { rule, one_in }| SampledFacts { rule, one_in });
    }
}
