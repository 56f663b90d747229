//! Redaction: passwords, tokens and keys are taken out of what programs say before anything else sees it.
//!
//! It stands between the rings and everything else ([`Redactor::record`]): the tables, the lines, the terminal and
//! the recordings are made from records that were redacted already. What a secret is, is found in three ways: by
//! the tool and its flags (`command`, `segments`, `tools`, `pipes`), by the name that a value is given (`fields`,
//! `names`), and by the form of the text itself (`text`). Arguments that hold command lines are taken apart (`shell`).

mod command;
mod fields;
mod names;
mod pipes;
mod record;
mod segments;
mod shell;
mod text;
mod tools;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, ops::Range};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::bytes::Regex;
use tellwire_ebpf::wire::Subject;

use self::{command::Note, names::Names, shell::Word, text::Patterns, tools::Tools};
use crate::{config::Redaction, words::AnyOf};

/// What stands where a secret was.
pub(crate) const MARKER: &[u8] = b"[redacted]";

/// How deep command lines within command lines are followed.
const DEPTH: u8 = 3;

/// Redacting makes new neighbours, so it is done until nothing is found, but no more often than this.
const PASSES: u8 = 4;

/// Why something was redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Rule {
    /// The value of a flag whose name says that it is a secret: `--password X`, `--api-key=X`.
    FlagValue,
    /// An argument that is a secret by the rules of its program: `mysql -pX`, `curl -u user:X`.
    ToolArgument,
    /// A variable of an environment: `docker run -e DB_PASSWORD=X`.
    EnvironmentValue,
    /// The value of a named field in JSON, a form, a connection string, SQL or the like: `{"password":"X"}`.
    FieldValue,
    /// The password in a URL: `postgres://user:X@host/`.
    UrlCredentials,
    /// The credentials in a header: `Authorization: Bearer X`, `Cookie: X`.
    AuthorizationHeader,
    /// Text that has the form of a token, of a cloud key or of a password's hash, wherever it stands.
    KnownToken,
    /// A private key block (PEM).
    PrivateKey,
    /// What is piped into a program that reads a password: `echo X | sudo -S`.
    PipedValue,
    /// A pattern of the configuration.
    Configured,
}

impl Rule {
    pub(crate) const ALL: &[Self] = &[
        Self::FlagValue,
        Self::ToolArgument,
        Self::EnvironmentValue,
        Self::FieldValue,
        Self::UrlCredentials,
        Self::AuthorizationHeader,
        Self::KnownToken,
        Self::PrivateKey,
        Self::PipedValue,
        Self::Configured,
    ];
    pub(crate) const COUNT: usize = 10;

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FlagValue => "flag_value",
            Self::ToolArgument => "tool_argument",
            Self::EnvironmentValue => "environment_value",
            Self::FieldValue => "field_value",
            Self::UrlCredentials => "url_credentials",
            Self::AuthorizationHeader => "authorization_header",
            Self::KnownToken => "known_token",
            Self::PrivateKey => "private_key",
            Self::PipedValue => "piped_value",
            Self::Configured => "configured",
        }
    }
}

/// The rules that redacted something. As a number it travels in the header of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleSet(u32);

impl RuleSet {
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    fn insert(&mut self, rule: Rule) {
        self.0 |= 1 << rule as u32;
    }

    fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Rule> {
        Rule::ALL.iter().copied().filter(move |rule| self.0 & (1 << *rule as u32) != 0)
    }
}

/// Text without its secrets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Redacted {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rules: RuleSet,
}

/// Redacts, by the configuration.
#[derive(Debug)]
pub(crate) struct Redactor(Option<Engine>);

#[derive(Debug)]
struct Engine {
    /// What nearly every command line lacks: without any of it, and of a program that the table does not
    /// have, there is nothing to look for.
    suspicious: AnyOf,
    /// What a command line within an argument has, if it is worth taking apart.
    scripts: AhoCorasick,
    /// What the ways of looking at one text need, and which way each is for.
    triggers: AhoCorasick,
    classes: Vec<u8>,
    tools: Tools,
    names: Names,
    patterns: Patterns,
    configured: Vec<Regex>,
}

/// A pattern of the configuration, ready for bytes.
pub(crate) fn pattern(pattern: &str) -> Result<Regex, regex::Error> {
    text::bytes(pattern)
}

/// How far `regex` is off, in one line, less its own rendering of the pattern.
pub(crate) fn pattern_error(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

impl Redactor {
    /// A pattern that is none is an error: the configuration's checks have refused it before.
    pub(crate) fn new(config: &Redaction) -> anyhow::Result<Self> {
        let Redaction { enabled, flags, patterns, allow } = config;
        if !*enabled {
            return Ok(Self(None));
        }
        let names = Names::new(flags, allow);
        let tools = Tools::new();
        let build = |patterns: &[&[u8]], kind| {
            AhoCorasick::builder().kind(Some(kind)).ascii_case_insensitive(true).build(patterns)
        };
        let mut triggers: Vec<&[u8]> = Vec::new();
        let mut classes = Vec::new();
        for (class, list) in text::TRIGGERS {
            triggers.extend(list.split_ascii_whitespace().map(str::as_bytes));
            classes.resize(triggers.len(), *class);
        }
        triggers.extend(names.triggers());
        classes.resize(triggers.len(), text::NAMED);
        let blank: [&[u8]; 3] = [b" ", b"\t", b"\n"];
        let mut scripts = triggers.clone();
        scripts.extend(pipes::READERS);
        for name in tools.names() {
            scripts.push(name);
        }
        Ok(Self(Some(Engine {
            suspicious: AnyOf::new(&[&triggers, &blank[..]].concat(), true)?,
            // Few texts come so far, and as a DFA it would take a megabyte.
            scripts: build(&scripts, AhoCorasickKind::ContiguousNFA)?,
            triggers: build(&triggers, AhoCorasickKind::DFA)?,
            classes,
            tools,
            patterns: Patterns::new()?,
            configured: patterns.iter().map(|text| pattern(text)).collect::<Result<_, _>>()?,
            names,
        })))
    }

    /// Redacts arguments that have a NUL behind each; `cut` if the last is not whole. Their number never changes.
    /// `program` is the name of the file that runs, which `argv[0]` need not be.
    ///
    /// `None` where there is nothing to redact.
    pub(crate) fn args(&self, args: &[u8], program: &[u8], cut: bool) -> Option<Redacted> {
        let engine = self.0.as_ref()?;
        if !engine.is_suspicious_command(args, program) {
            return None;
        }
        repeat(args, |args| engine.command_line(args, program, cut))
    }

    /// Redacts one text, such as a path; `cut` if it is not whole.
    pub(crate) fn text(&self, text: &[u8], cut: bool) -> Option<Redacted> {
        let engine = self.0.as_ref()?;
        if !engine.is_worth_a_look(text) {
            return None;
        }
        repeat(text, |text| {
            let mut found = Found::default();
            let word = Word::plain(text, 0);
            engine.text(&word, Note::None, 0, &mut found);
            if cut {
                engine.patterns.cut(&word, &mut found);
            }
            found
        })
    }

    /// One whole text, redacted where that is needed.
    pub(crate) fn redacted<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.text(text, false).map_or(Cow::Borrowed(text), |redacted| Cow::Owned(redacted.bytes))
    }

    /// Redacts the kernel's name of a task, which is as much of a file's name as finds room.
    pub(crate) fn comm(&self, subject: &mut Subject) -> RuleSet {
        let comm = &mut subject.comm;
        let len = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        let is_cut = len + 1 >= comm.len();
        let name = comm.get(..len).unwrap_or_default();
        let Some(Redacted { bytes, rules }) = self.text(name, is_cut) else { return RuleSet::default() };
        let bytes = bytes.into_iter().take(comm.len() - 1).chain(std::iter::repeat(0));
        for (to, from) in comm.iter_mut().zip(bytes) {
            *to = from;
        }
        rules
    }
}

/// Applies what `find` finds until it finds nothing.
fn repeat(text: &[u8], find: impl Fn(&[u8]) -> Found) -> Option<Redacted> {
    let mut redacted = find(text).apply(text)?;
    for _ in 1..PASSES {
        let Some(again) = find(&redacted.bytes).apply(&redacted.bytes) else { break };
        redacted.rules.extend(again.rules);
        redacted.bytes = again.bytes;
    }
    Some(redacted)
}

impl Engine {
    fn is_suspicious_command(&self, args: &[u8], program: &[u8]) -> bool {
        let first = args.split(|byte| *byte == 0).next().unwrap_or_default();
        !self.configured.is_empty()
            || self.names.has_short()
            || self.tools.get(first).is_some()
            || self.tools.get(program).is_some()
            || self.suspicious.is_in(args)
    }

    /// What a text is worth looking for.
    fn triggers(&self, text: &[u8]) -> u8 {
        self.triggers
            .find_overlapping_iter(text)
            .filter_map(|found| self.classes.get(found.pattern().as_usize()))
            .fold(0, |classes, class| classes | class)
    }

    fn is_worth_a_look(&self, text: &[u8]) -> bool {
        !self.configured.is_empty() || self.triggers.is_match(text)
    }

    fn command_line(&self, args: &[u8], program: &[u8], cut: bool) -> Found {
        let mut found = Found::default();
        let mut words = Vec::new();
        let mut at = 0;
        // Behind the last NUL there is no argument.
        let list = args.strip_suffix(b"\0").unwrap_or(args);
        for arg in list.split(|byte| *byte == 0) {
            words.push(Word::plain(arg, at));
            at += arg.len() + 1;
        }
        self.words(&words, program, 0, &mut found);
        if cut && let Some(last) = words.last() {
            self.patterns.cut(last, &mut found);
        }
        found
    }

    /// One command: by its flags, and each word by itself.
    fn words(&self, words: &[Word<'_>], program: &[u8], depth: u8, found: &mut Found) {
        let notes = command::scan(self, words, program, depth > 0, found);
        for (word, note) in words.iter().zip(notes) {
            let is_script = note == Note::Script;
            let has_blank = word.bytes.iter().any(u8::is_ascii_whitespace);
            self.text(word, note, depth, found);
            let is_worth_it = |word: &[u8]| self.names.has_short() || self.scripts.is_match(word);
            if depth < DEPTH && (is_script || has_blank) && note != Note::Prose && is_worth_it(&word.bytes) {
                self.script(word, depth + 1, found);
            }
        }
    }

    /// A word that is a command line itself, or could be.
    fn script(&self, word: &Word<'_>, depth: u8, found: &mut Found) {
        let commands = shell::commands(word);
        for command in &commands {
            self.words(&command.words, b"", depth, found);
        }
        pipes::scan(&commands, found);
    }

    fn text(&self, word: &Word<'_>, note: Note, depth: u8, found: &mut Found) {
        let triggers = self.triggers(&word.bytes);
        self.patterns.scan(word, triggers, found);
        if triggers & text::NAMED != 0 {
            fields::scan(word, &self.names, note, depth > 0, found);
        }
        for pattern in &self.configured {
            for captures in pattern.captures_iter(&word.bytes) {
                if let Some(secret) = captures.name("secret").or_else(|| captures.get(0)) {
                    found.push(word, secret.range(), Rule::Configured);
                }
            }
        }
    }
}

/// Places of secrets.
#[derive(Debug, Default)]
struct Found(Vec<(Range<usize>, Rule)>);

impl Found {
    /// A secret in a word. One that is redacted already is none.
    fn push(&mut self, word: &Word<'_>, range: Range<usize>, rule: Rule) {
        let Some(secret) = word.bytes.get(range.clone()) else { return };
        if !secret.is_empty() && !secret.starts_with(MARKER) {
            self.0.push((word.place(range), rule));
        }
    }

    /// The text without the secrets; `None` if there are none.
    fn apply(mut self, text: &[u8]) -> Option<Redacted> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by_key(|(range, _)| (range.start, usize::MAX - range.end));
        let mut bytes = Vec::with_capacity(text.len() + MARKER.len());
        let mut rules = RuleSet::default();
        let mut done = 0;
        let mut last = 0..0;
        for (range, rule) in self.0 {
            if range == last {
                rules.insert(rule);
            }
            if range.end <= done {
                // Within what was redacted already: the rule that took more is the one that is told.
                continue;
            }
            last = range.clone();
            if range.start > done || bytes.is_empty() {
                bytes.extend_from_slice(text.get(done..range.start).unwrap_or_default());
                bytes.extend_from_slice(MARKER);
            }
            rules.insert(rule);
            done = range.end;
        }
        bytes.extend_from_slice(text.get(done..).unwrap_or_default());
        Some(Redacted { bytes, rules })
    }
}

/// What is behind the last slash.
fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}
