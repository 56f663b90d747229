//! A rule of the configuration, checked: what it asks of an event, and what it does.

use std::sync::Arc;

use globset::{Glob, GlobBuilder};
use regex::{Regex, RegexBuilder};
use rustc_hash::FxHashSet;

use super::facts::Outcome;
use crate::{
    config::{self, Network, Ports, Rule, RuleOutcome, UserSpec},
    events::action::{self, Action},
};

/// More would not be looked through by any person.
pub(super) const MAX_RULES: usize = 4096;

/// What a compiled regular expression may take, in bytes. Its time grows with the text alone, whatever it says.
const REGEX_BYTES: usize = 1 << 20;

/// Longer patterns are no patterns that a person wrote.
const PATTERN_LEN: usize = 4096;

/// A container's id is recognized by so many of its digits, as `docker ps` shows them.
pub(super) const ID_DIGITS: usize = 12;

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Drop,
    Keep,
    Sample(u32),
    Tag(Vec<Arc<str>>),
}

impl Effect {
    /// Whether an event can be without its line by this.
    pub(crate) fn leaves_out(&self) -> bool {
        matches!(self, Self::Drop | Self::Sample(_))
    }

    /// Whether later rules are not asked.
    pub(crate) fn decides(&self) -> bool {
        !matches!(self, Self::Tag(_))
    }
}

/// A rule; an empty list is no condition.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: Arc<str>,
    pub(crate) effect: Effect,
    /// By action: whether the rule can match it at all.
    pub(super) actions: [bool; Action::COUNT],
    pub(super) executables: Vec<Glob>,
    pub(super) args: Vec<Regex>,
    pub(super) users: Vec<UserSpec>,
    pub(super) containers: Vec<String>,
    pub(super) namespaces: Vec<Glob>,
    pub(super) images: Vec<Glob>,
    pub(super) destinations: Vec<Network>,
    pub(super) ports: Vec<Ports>,
    /// By the number of [`Outcome`]; `None` for any, even none at all.
    pub(super) outcomes: Option<[bool; 3]>,
}

/// Why a rule makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Which one, from 0.
    pub(crate) rule: usize,
    /// Which of its keys; empty for the rule itself.
    pub(crate) key: &'static str,
    /// Which element of the key's list.
    pub(crate) index: Option<usize>,
    pub(crate) wrong: String,
    pub(crate) instead: String,
}

/// A fault of one rule: key, element, what is wrong, what to write instead.
struct Fault(&'static str, Option<usize>, String, String);

/// Checks the rules, each by itself and against those before it.
pub(crate) fn specs(rules: &[Rule]) -> Result<Vec<Spec>, Refused> {
    let refused = |rule, Fault(key, index, wrong, instead)| Refused { rule, key, index, wrong, instead };
    let mut names = FxHashSet::default();
    let mut specs: Vec<Spec> = Vec::with_capacity(rules.len());
    for (number, rule) in rules.iter().enumerate() {
        if number >= MAX_RULES {
            let wrong = format!("more than {MAX_RULES} rules");
            return Err(refused(number, Fault("", None, wrong, "join rules: each takes lists".into())));
        }
        let spec = spec(rule).map_err(|fault| refused(number, fault))?;
        if !names.insert(&rule.name) {
            let wrong = format!("two rules are called {}", rule.name);
            return Err(refused(number, Fault("name", None, wrong, "write another name".into())));
        }
        if let Some(before) = specs.iter().find(|before| before.takes_all_of(&spec)) {
            let wrong =
                format!("rule {} is never reached: {} takes every event before it", spec.name, before.name);
            let instead = format!("move it above {}, or leave it out", before.name);
            return Err(refused(number, Fault("", None, wrong, instead)));
        }
        specs.push(spec);
    }
    Ok(specs)
}

fn spec(rule: &Rule) -> Result<Spec, Fault> {
    let name = name(&rule.name)?;
    // A list that is empty would be a condition that nothing meets.
    let empty = [
        ("actions", rule.actions.as_ref().map(Vec::len)),
        ("executables", rule.executables.as_ref().map(Vec::len)),
        ("args", rule.args.as_ref().map(Vec::len)),
        ("users", rule.users.as_ref().map(Vec::len)),
        ("containers", rule.containers.as_ref().map(Vec::len)),
        ("namespaces", rule.namespaces.as_ref().map(Vec::len)),
        ("images", rule.images.as_ref().map(Vec::len)),
        ("destinations", rule.destinations.as_ref().map(Vec::len)),
        ("ports", rule.ports.as_ref().map(Vec::len)),
        ("outcomes", rule.outcomes.as_ref().map(Vec::len)),
    ]
    .into_iter()
    .find(|(_, len)| *len == Some(0));
    if let Some((key, _)) = empty {
        let wrong = format!("rule {name}: an empty list, which nothing matches");
        return Err(Fault(key, None, wrong, "leave the key out to match everything".into()));
    }
    let outcomes = rule.outcomes.as_ref().map(|outcomes| {
        [RuleOutcome::Success, RuleOutcome::Failure, RuleOutcome::Unknown]
            .map(|outcome| outcomes.contains(&outcome))
    });
    let spec = Spec {
        effect: effect(rule, &name)?,
        actions: actions(rule, outcomes, &name)?,
        executables: globs("executables", rule.executables.as_deref(), is_path)?,
        args: regexes(rule.args.as_deref())?,
        users: rule.users.clone().unwrap_or_default(),
        containers: containers(rule.containers.as_deref())?,
        namespaces: globs("namespaces", rule.namespaces.as_deref(), |_| true)?,
        images: globs("images", rule.images.as_deref(), |_| true)?,
        destinations: rule.destinations.clone().unwrap_or_default(),
        ports: rule.ports.clone().unwrap_or_default(),
        outcomes,
        name,
    };
    check_failures(rule, &spec)?;
    Ok(spec)
}

/// A label of metrics, and a word in reports.
fn name(name: &str) -> Result<Arc<str>, Fault> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.len() <= 64 && name.chars().all(is_plain) {
        return Ok(name.into());
    }
    let instead = "write name = \"…\" with up to 64 letters, digits, \"-\", \"_\" and \".\"";
    if name.is_empty() {
        return Err(Fault("", None, "a rule without a name".into(), instead.into()));
    }
    Err(Fault("name", None, format!("{name:?} is no name of a rule"), instead.into()))
}

fn effect(rule: &Rule, name: &str) -> Result<Effect, Fault> {
    let Some(effect) = rule.effect else {
        let instead = "write effect = \"drop\", \"keep\", \"sample\" or \"tag\"".into();
        return Err(Fault("", None, format!("rule {name} has no effect"), instead));
    };
    let only = |key, other: config::Effect| {
        let wrong = format!("rule {name}: {key} means nothing where effect is \"{effect}\"");
        Err(Fault(key, None, wrong, format!("leave it out, or write effect = \"{other}\"")))
    };
    if rule.one_in.is_some() && effect != config::Effect::Sample {
        return only("one-in", config::Effect::Sample);
    }
    if rule.tags.is_some() && effect != config::Effect::Tag {
        return only("tags", config::Effect::Tag);
    }
    if rule.even_authentication_failures.is_some()
        && !matches!(effect, config::Effect::Drop | config::Effect::Sample)
    {
        return only("even-authentication-failures", config::Effect::Drop);
    }
    match effect {
        config::Effect::Drop => Ok(Effect::Drop),
        config::Effect::Keep => Ok(Effect::Keep),
        config::Effect::Sample => {
            let wrong = || format!("rule {name} does not say how many events make one line");
            let instead = "write one-in = 100, or another number, too";
            let one_in = rule.one_in.ok_or_else(|| Fault("effect", None, wrong(), instead.into()))?;
            Ok(Effect::Sample(one_in.get()))
        }
        config::Effect::Tag => match rule.tags.as_deref() {
            None | Some([]) => {
                let wrong = format!("rule {name} has no tags to add");
                Err(Fault("effect", None, wrong, "write tags = [\"…\"] too".into()))
            }
            Some(tags) => {
                let is_tag = |tag: &String| {
                    !tag.is_empty() && tag.len() <= 64 && !tag.contains(|c: char| c.is_control() || c == ' ')
                };
                if let Some(index) = tags.iter().position(|tag| !is_tag(tag)) {
                    let wrong = format!("rule {name}: {:?} is no tag", tags.get(index).map_or("", |tag| tag));
                    return Err(Fault(
                        "tags",
                        Some(index),
                        wrong,
                        "write 1 to 64 bytes without a space".into(),
                    ));
                }
                Ok(Effect::Tag(tags.iter().map(|tag| Arc::from(tag.as_str())).collect()))
            }
        },
    }
}

/// The actions that the rule names and that its other conditions leave.
fn actions(rule: &Rule, outcomes: Option<[bool; 3]>, name: &str) -> Result<[bool; Action::COUNT], Fault> {
    let named = rule.actions.as_deref().unwrap_or_default();
    if let Some(index) = named.iter().position(|named| !action::NAMES.contains(&named.as_str())) {
        let unknown = named.get(index).map_or("", |named| named);
        let wrong = format!("rule {name}: unknown event type {unknown}");
        return Err(Fault("actions", Some(index), wrong, config::nearest(unknown, action::NAMES)));
    }
    let mut actions = [false; Action::COUNT];
    for (possible, action) in actions.iter_mut().zip(Action::ALL) {
        *possible = (named.is_empty() || named.iter().any(|named| named == action.name()))
            && (rule.args.is_none() || *action == Action::Exec)
            && ((rule.destinations.is_none() && rule.ports.is_none()) || *action == Action::Connect)
            && outcomes
                .is_none_or(|outcomes| outcomes.iter().zip(possible_outcomes(*action)).any(|(a, b)| *a && b));
    }
    if actions.contains(&true) {
        return Ok(actions);
    }
    let instead = "args are of exec, destinations and ports of connect, and exec succeeds while exec_failed does \
                   not: write a rule for each";
    Err(Fault("", None, format!("no event can match all conditions of rule {name}"), instead.into()))
}

/// What `event.outcome` can be: success, failure, unknown.
fn possible_outcomes(action: Action) -> [bool; 3] {
    match action {
        Action::Exec | Action::CredentialsChanged => [true, false, false],
        // The end of a process has an outcome where it refused somebody.
        Action::ExecFailed | Action::Exit => [false, true, false],
        Action::Connect => [true; 3],
        // A record need not say how it went.
        action if action.dataset() == "tellwire.auth" => [true; 3],
        _ => [true, true, false],
    }
}

/// What nobody may lose by an oversight: who tried in vain to be somebody else, and who became it unseen.
fn is_guarded(action: Action, outcomes: Option<[bool; 3]>) -> bool {
    let is_failure = outcomes.is_none_or(|[_, failure, _]| failure) && possible_outcomes(action)[1];
    action == Action::CredentialsChanged
        || (is_failure && matches!(action.category(), "authentication" | "iam" | "session"))
}

fn check_failures(rule: &Rule, spec: &Spec) -> Result<(), Fault> {
    if !spec.effect.leaves_out() || rule.even_authentication_failures == Some(true) {
        return Ok(());
    }
    let guarded: Vec<&str> = Action::ALL
        .iter()
        .zip(spec.actions)
        .filter(|(action, possible)| *possible && is_guarded(**action, spec.outcomes))
        .map(|(action, _)| action.name())
        .collect();
    let Some(example) = guarded.first() else { return Ok(()) };
    let also = if guarded.len() > 1 { format!(" and {} more", guarded.len() - 1) } else { String::new() };
    let wrong = format!("rule {} would leave out authentication failures ({example}{also})", spec.name);
    let instead =
        "write actions without them, or even-authentication-failures = true if it is meant to".into();
    Err(Fault("effect", None, wrong, instead))
}

fn globs(
    key: &'static str,
    globs: Option<&[String]>,
    can_match: fn(&str) -> bool,
) -> Result<Vec<Glob>, Fault> {
    let glob = |(index, text): (usize, &String)| {
        if !can_match(text) {
            let wrong = format!("no file has a path like {text:?}");
            let instead = format!("write a path from the root, or {:?}", format!("**/{text}"));
            return Err(Fault(key, Some(index), wrong, instead));
        }
        let built = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        let is_short = text.len() <= PATTERN_LEN && !text.is_empty();
        built.ok().filter(|_| is_short).ok_or_else(|| {
            let instead = "write a glob, such as \"/usr/bin/*\" or \"/opt/**/bin/{a,b}[0-9]\"".into();
            Fault(key, Some(index), format!("{text:?} is no glob"), instead)
        })
    };
    globs.unwrap_or_default().iter().enumerate().map(glob).collect()
}

/// A path begins at the root; what has no name begins with what it is instead.
fn is_path(glob: &str) -> bool {
    glob.starts_with(['/', '*', '{', '[', '?']) || glob.starts_with("memfd:")
}

fn regexes(patterns: Option<&[String]>) -> Result<Vec<Regex>, Fault> {
    let regex = |(index, pattern): (usize, &String)| {
        let fault = |wrong, instead: &str| Fault("args", Some(index), wrong, instead.into());
        if pattern.is_empty() || pattern.len() > PATTERN_LEN {
            let wrong = format!("a regular expression of {} bytes", pattern.len());
            return Err(fault(wrong, "write one of 1 to 4096 bytes"));
        }
        RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                let wrong = format!("{pattern:?} would take more than 1 MiB of memory");
                fault(wrong, "write smaller repetitions, such as .* for .{0,10000}")
            }
            error => {
                // The library draws a picture; its last line says what is wrong.
                let said = error.to_string();
                let why = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
                fault(
                    format!("{pattern:?} is no regular expression ({why})"),
                    "write one, with a backslash before each sign that stands for itself",
                )
            }
        })
    };
    patterns.unwrap_or_default().iter().enumerate().map(regex).collect()
}

fn containers(containers: Option<&[String]>) -> Result<Vec<String>, Fault> {
    let containers = containers.unwrap_or_default();
    if let Some(index) = containers.iter().position(String::is_empty) {
        let instead = "write an id, its first 12 digits or more, or a name".into();
        return Err(Fault("containers", Some(index), "a container without a name".into(), instead));
    }
    Ok(containers.to_vec())
}

/// Whether this is the beginning of an id, or all of it.
pub(super) fn is_id(text: &str) -> bool {
    text.len() >= ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Spec {
    /// Whether no condition but the actions is left.
    fn asks_actions_only(&self) -> bool {
        let Self { name: _, effect: _, actions: _, outcomes, .. } = self;
        outcomes.is_none()
            && self.executables.is_empty()
            && self.args.is_empty()
            && self.users.is_empty()
            && self.containers.is_empty()
            && self.namespaces.is_empty()
            && self.images.is_empty()
            && self.destinations.is_empty()
            && self.ports.is_empty()
    }

    /// Whether every event that could match `later` ends here.
    fn takes_all_of(&self, later: &Self) -> bool {
        self.effect.decides()
            && self.asks_actions_only()
            && self.actions.iter().zip(later.actions).all(|(own, others)| *own || !others)
    }

    /// Whether it can match this action at all.
    pub(super) fn can_match(&self, action: Action) -> bool {
        self.actions.get(action as usize) == Some(&true)
    }

    /// Whether it allows this outcome.
    pub(super) fn allows(&self, outcome: Option<Outcome>) -> bool {
        match (self.outcomes, outcome) {
            (None, _) => true,
            (Some(allowed), Some(outcome)) => allowed.get(outcome as usize) == Some(&true),
            (Some(_), None) => false,
        }
    }
}
