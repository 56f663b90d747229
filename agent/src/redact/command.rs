//! Secrets by their place in a command: behind which flag of which program.

use super::{
    Engine, Found, Rule, base,
    names::{Names, Secret, is_path},
    segments::{Segment, segments},
    shell::Word,
    text::{is_switch, is_variable},
    tools::{SETTERS, Takes, Tool, Wrapper},
};

/// What a command knows of a word, for whoever looks at the word alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Note {
    #[default]
    None,
    /// It is a command line.
    Script,
    /// Its name sounds like a secret's, but is none in this program.
    Harmless,
    /// It is written for people.
    Prose,
}

/// Looks at a command; gives a note for each word.
pub(super) fn scan(
    engine: &Engine,
    words: &[Word<'_>],
    program: &[u8],
    in_script: bool,
    found: &mut Found,
) -> Vec<Note> {
    let mut scan =
        Scan { words, names: &engine.names, in_script, found, notes: vec![Note::None; words.len()] };
    for segment in segments(engine, words, program) {
        scan.segment(&segment);
    }
    scan.notes
}

struct Scan<'a, 'w> {
    words: &'a [Word<'w>],
    names: &'a Names,
    in_script: bool,
    found: &'a mut Found,
    notes: Vec<Note>,
}

impl<'a> Scan<'a, '_> {
    fn bytes(&self, index: usize) -> &'a [u8] {
        self.words.get(index).map(|word| word.bytes.as_ref()).unwrap_or_default()
    }

    fn note(&mut self, index: usize, note: Note) {
        if let Some(old) = self.notes.get_mut(index) {
            *old = note;
        }
    }

    /// The word from `from` on is a secret, unless it names a variable.
    fn take(&mut self, index: usize, from: usize, rule: Rule) {
        let Some(word) = self.words.get(index) else { return };
        let Some(secret) = word.bytes.get(from..) else { return };
        if self.in_script && is_variable(secret) && !word.is_literal {
            return;
        }
        self.found.push(word, from..word.bytes.len(), rule);
    }

    /// The word behind a flag, unless it is a flag itself.
    fn take_next(&mut self, index: usize, rule: Rule) {
        if !is_flag(self.bytes(index + 1)) {
            self.take(index + 1, 0, rule);
        }
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        let &Segment { start, end, known } = segment;
        let tools: &[&Tool] = known.map(|known| known.tools.as_slice()).unwrap_or_default();
        let is_never = |word: &[u8]| {
            let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
            let is_it = |takes: &Takes| matches!(takes, Takes::Never(flag) if flag.as_bytes() == name);
            tools.iter().any(|tool| tool.takes.iter().any(is_it))
        };
        for index in start..end {
            if is_never(self.bytes(index)) {
                self.note(index, Note::Harmless);
            } else {
                self.named_flag(index);
            }
        }
        for tool in tools {
            if let Some(from) = self.after(tool.after, start, end) {
                for takes in tool.takes {
                    self.tool(*takes, start, from, end);
                }
            }
        }
        self.setters(base(self.bytes(start)).to_vec().as_slice(), start, end);
        match known.and_then(|known| known.wrapper) {
            Some(Wrapper::Shell) => {
                for index in start + 1..self.words.len() {
                    let is_command = matches!(self.bytes(index), [b'-', flags @ ..] if flags.contains(&b'c') && flags.len() < 6 && !flags.contains(&b'-'));
                    if is_command || self.bytes(index) == b"--command" {
                        self.note(index + 1, Note::Script);
                        break;
                    }
                }
            }
            Some(Wrapper::Remote) => {
                for index in start + 1..end {
                    if self.bytes(index).contains(&b' ') {
                        self.note(index, Note::Script);
                    }
                }
            }
            _ => {}
        }
    }

    /// The index behind the words that a row asks for; `None` if they are not there.
    fn after(&self, after: &str, start: usize, end: usize) -> Option<usize> {
        let mut from = start + 1;
        for wanted in after.split_ascii_whitespace() {
            let at = (from..end).find(|index| self.bytes(*index) == wanted.as_bytes())?;
            from = at + 1;
        }
        Some(from)
    }

    /// `--password X`, `/password:X`, and the short flags of the configuration.
    fn named_flag(&mut self, index: usize) {
        let word = self.bytes(index);
        match word {
            [b'-', letter, rest @ ..]
                if self.names.short().iter().any(|short| short.as_slice() == [*letter]) =>
            {
                if rest.is_empty() {
                    self.take(index + 1, 0, Rule::FlagValue);
                } else {
                    let from = if rest.starts_with(b"=") { 3 } else { 2 };
                    self.take(index, from, Rule::FlagValue);
                }
            }
            [b'-', _, _, ..] if is_long_flag(word) => {
                self.pair(index, word);
                let Some(secret) = self.names.judge(word) else { return };
                let value = self.bytes(index + 1);
                let is_file = secret == Secret::UnlessPath && is_path(value);
                if !is_file && !is_switch(value) {
                    self.take_next(index, Rule::FlagValue);
                }
            }
            [b'/' | b'-', ..] => {
                self.pair(index, word);
                let Some(colon) = word.iter().position(|byte| *byte == b':') else { return };
                let name = word.get(1..colon).unwrap_or_default();
                // `-storepass:file PATH` of keytool.
                let is_kind = matches!(word.get(colon + 1..), Some(b"file" | b"env"));
                let is_name = !is_kind && name.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'-');
                if is_name && self.names.judge(name) == Some(Secret::Sure) {
                    self.take(index, colon + 1, Rule::FlagValue);
                }
            }
            _ => {}
        }
    }

    /// `--basic-auth user:X` of any program.
    fn pair(&mut self, index: usize, word: &[u8]) {
        const PAIRS: &[&[u8]] = &[
            b"--auth",
            b"-auth",
            b"--basic-auth",
            b"--http-auth",
            b"--proxy-auth",
            b"--userpass",
            b"--userpwd",
            b"--user-pass",
            b"--proxy-user",
            b"--http-basic-auth",
            b"--basic",
            b"--creds",
            b"--login",
        ];
        let equals = word.iter().position(|byte| *byte == b'=').unwrap_or(word.len());
        let (name, value) = word.split_at(equals);
        if !PAIRS.contains(&name) {
            return;
        }
        let (index, from) = if value.is_empty() { (index + 1, 0) } else { (index, equals + 1) };
        let pair = self.bytes(index).get(from..).unwrap_or_default();
        let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return };
        if !pair.starts_with(b"-") && !pair.get(colon..).unwrap_or_default().starts_with(b"://") {
            self.take(index, from + colon + 1, Rule::FlagValue);
        }
    }

    fn tool(&mut self, takes: Takes, start: usize, from: usize, end: usize) {
        let rule = Rule::ToolArgument;
        match takes {
            Takes::At(nth) => {
                // `/user:me` is a flag of `net`.
                let is_flag =
                    |word: &[u8]| word.starts_with(b"-") || (word.starts_with(b"/") && word.contains(&b':'));
                let mut words = (from..end).filter(|index| !is_flag(self.bytes(*index)));
                if let Some(index) = words.nth(nth) {
                    self.take(index, 0, rule);
                }
                return;
            }
            Takes::Last(letter) => {
                let has_letter = letter
                    .is_none_or(|letter| (from..end).any(|index| is_cluster_with(self.bytes(index), letter)));
                let last = end.saturating_sub(1);
                let word = self.bytes(last);
                // `-method=ldap username=me`: neither is a token.
                if has_letter && last >= from && !word.starts_with(b"-") && !is_named(word) {
                    self.take(last, 0, rule);
                }
                return;
            }
            _ => {}
        }
        for index in start + 1..end {
            let word = self.bytes(index);
            match takes {
                Takes::Short(letter) => match word {
                    [b'-', flag] if *flag == letter => self.take_next(index, rule),
                    [b'-', flag, b'=', ..] if *flag == letter => self.take(index, 3, rule),
                    [b'-', flag, _, ..] if *flag == letter => self.take(index, 2, rule),
                    _ => {}
                },
                Takes::Joined(letter) => {
                    if matches!(word, [b'-', flag, _, ..] if *flag == letter) {
                        self.take(index, 2, rule);
                    }
                }
                Takes::Next(flag) => {
                    let flag = flag.as_bytes();
                    if word == flag {
                        self.take_next(index, rule);
                    } else if flag.starts_with(b"-")
                        && word.strip_prefix(flag).is_some_and(|rest| rest.starts_with(b"="))
                    {
                        self.take(index, flag.len() + 1, rule);
                    }
                }
                Takes::Part(flag, separator) => self.part(index, flag.as_bytes(), separator),
                Takes::Prefix(prefix) => {
                    if word.starts_with(prefix.as_bytes()) {
                        self.take(index, prefix.len(), rule);
                    }
                }
                Takes::Header(flag) => {
                    let flag = flag.as_bytes();
                    if word == flag {
                        self.header(index + 1, 0);
                    } else if word.starts_with(flag) {
                        let equals = usize::from(word.get(flag.len()) == Some(&b'='));
                        self.header(index, flag.len() + equals);
                    }
                }
                Takes::AnyHeader => self.header(index, 0),
                Takes::Assigned => self.assigned(index),
                Takes::Slash => {
                    let slash = word.iter().position(|byte| *byte == b'/');
                    if let Some(slash) = slash.filter(|slash| *slash > 0 && !word.starts_with(b"-")) {
                        let end = word.iter().rposition(|byte| *byte == b'@').unwrap_or(word.len());
                        self.range(index, slash + 1..end.max(slash + 1));
                    }
                }
                Takes::Dsn => {
                    let mut at = 0;
                    for pair in word.split(|byte| *byte == b',') {
                        if pair.starts_with(b"p=") {
                            self.range(index, at + 2..at + pair.len());
                        }
                        at += pair.len() + 1;
                    }
                }
                Takes::UserAtHost => {
                    let at = word.iter().rposition(|byte| *byte == b'@');
                    let colon = word.iter().position(|byte| *byte == b':');
                    if let (Some(at), Some(colon)) = (at, colon)
                        && colon < at
                    {
                        self.range(index, colon + 1..at);
                    }
                }
                Takes::Prose(flag) => {
                    if word == flag.as_bytes() {
                        self.note(index + 1, Note::Prose);
                    }
                }
                Takes::Never(_) | Takes::At(_) | Takes::Last(_) => {}
            }
        }
    }

    fn range(&mut self, index: usize, range: std::ops::Range<usize>) {
        let Some(word) = self.words.get(index) else { return };
        let secret = word.bytes.get(range.clone()).unwrap_or_default();
        if !(self.in_script && is_variable(secret) && !word.is_literal) {
            self.found.push(word, range, Rule::ToolArgument);
        }
    }

    /// The value of a flag from the separator on. Short flags stand in a cluster too: `curl -sSu user:X`.
    fn part(&mut self, index: usize, flag: &[u8], separator: u8) {
        let word = self.bytes(index);
        let (index, from) = if flag.is_empty() {
            (index, 0)
        } else if word == flag {
            (index + 1, 0)
        } else if let [b'-', letter] = flag {
            if is_cluster_with(word, *letter) && word.ends_with(&[*letter]) {
                (index + 1, 0)
            } else if word.starts_with(flag) {
                (index, 2)
            } else {
                return;
            }
        } else if word.strip_prefix(flag).is_some_and(|rest| rest.starts_with(b"=")) {
            (index, flag.len() + 1)
        } else {
            return;
        };
        let value = self.bytes(index).get(from..).unwrap_or_default();
        if let Some(at) = value.iter().position(|byte| *byte == separator)
            && !is_path(value.get(at + 1..).unwrap_or_default().get(..2).unwrap_or_default())
        {
            self.take(index, from + at + 1, Rule::ToolArgument);
        }
    }

    /// `Name:X` without a blank; with one the text alone tells.
    fn header(&mut self, index: usize, from: usize) {
        let header = self.bytes(index).get(from..).unwrap_or_default();
        let Some(colon) = header.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = header.split_at(colon);
        let is_plain = !name.is_empty()
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_');
        let is_scheme = value.starts_with(b"://") || value.starts_with(b":=");
        if is_plain
            && !is_scheme
            && value.get(1).is_some_and(|byte| *byte != b' ')
            && self.names.judge(name).is_some()
        {
            self.take(index, from + colon + 1, Rule::AuthorizationHeader);
        } else if is_plain && value.get(1) == Some(&b' ') && self.names.judge(name).is_some() {
            self.take(index, from + colon + 2, Rule::AuthorizationHeader);
        }
    }

    /// The value of `K=X` or `--flag=K=X`.
    fn assigned(&mut self, index: usize) {
        if self.notes.get(index) == Some(&Note::Harmless) {
            return;
        }
        let word = self.bytes(index);
        let mut equals = word.iter().enumerate().filter(|(_, byte)| **byte == b'=').map(|(at, _)| at);
        let at = if word.starts_with(b"-") { equals.nth(1) } else { equals.next() };
        let Some(at) = at else { return };
        let value = word.get(at + 1..).unwrap_or_default();
        if !value.starts_with(b"@") {
            self.take(index, at + 1, Rule::ToolArgument);
        }
    }

    /// `npm config set NAME X`.
    fn setters(&mut self, program: &[u8], start: usize, end: usize) {
        for (name, command) in SETTERS {
            if program != name.as_bytes() {
                continue;
            }
            let Some(from) = self.after(command, start, end) else { continue };
            for index in from..end {
                let word = self.bytes(index);
                if !word.starts_with(b"-")
                    && !word.contains(&b'=')
                    && word.len() < 128
                    && self.names.judge(word).is_some()
                {
                    self.take_next(index, Rule::FieldValue);
                    break;
                }
            }
        }
    }
}

/// Whether a word is a flag rather than the value of one: `-v`, `--verbose`. A password can begin with a dash too,
/// but is rarely nothing but small letters then.
fn is_flag(word: &[u8]) -> bool {
    let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
    match name {
        [b'-', b'-', rest @ ..] => rest.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-'),
        [b'-', letter] => letter.is_ascii_alphabetic(),
        [b'-', rest @ ..] => {
            !rest.is_empty() && rest.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-')
        }
        _ => false,
    }
}

/// `--name` without a value in the same word.
fn is_long_flag(word: &[u8]) -> bool {
    word.len() < 64
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Several flags of one letter in one word, this letter among them.
pub(super) fn is_cluster_with(word: &[u8], letter: u8) -> bool {
    matches!(word, [b'-', flags @ ..] if flags.len() < 7 && flags.contains(&letter) && flags.iter().all(u8::is_ascii_alphabetic))
}

/// `name=value`, but not what a token ends with.
fn is_named(word: &[u8]) -> bool {
    let mut parts = word.split(|byte| *byte == b'=');
    matches!((parts.next(), parts.next(), parts.next()), (Some(_), Some([_, ..]), None))
}
