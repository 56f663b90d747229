//! Values with a telling name: `name=value`, `"name": "value"`, `Name: value`, in whatever they stand.

use std::ops::Range;

use super::{
    Found, MARKER, Rule,
    command::Note,
    names::{Names, Secret, is_path},
    shell::Word,
    text::{end_of, is_switch, is_variable},
};

/// The longest name that is looked at.
const NAME: usize = 96;

/// `name=value`, `"name": "value"`, `Name: value`.
pub(super) fn scan(word: &Word<'_>, names: &Names, note: Note, in_script: bool, found: &mut Found) {
    if note == Note::Harmless {
        return;
    }
    let text = word.bytes.as_ref();
    let mut next = 0;
    while let Some(at) = position(text, next, |byte| matches!(byte, b'=' | b':')) {
        next = at + 1;
        let Some(field) = Field::new(text, at, note == Note::Script) else { continue };
        let name = text.get(field.name.clone()).unwrap_or_default();
        let judged = if field.is_in_query { names.judge_in_query(name) } else { names.judge(name) };
        let Some(secret) = judged else { continue };
        let value = text.get(field.value.clone()).unwrap_or_default();
        let is_reference =
            is_variable(value) && !word.is_literal && !field.is_literal && (in_script || field.is_amid);
        if is_reference || is_switch(value) || (secret == Secret::UnlessPath && is_path(value)) {
            continue;
        }
        let rule = match name {
            [b'-', ..] => Rule::FlagValue,
            _ if field.is_variable(text) => Rule::EnvironmentValue,
            _ => Rule::FieldValue,
        };
        // What is in the value belongs to it.
        next = field.value.end.max(next);
        found.push(word, field.value, rule);
    }
}

fn position(text: &[u8], from: usize, is_it: impl Fn(u8) -> bool) -> Option<usize> {
    text.get(from..)?.iter().position(|byte| is_it(*byte)).map(|at| from + at)
}

/// A name, and its value as far as it goes.
struct Field {
    name: Range<usize>,
    value: Range<usize>,
    is_in_query: bool,
    /// The value was in single quotes.
    is_literal: bool,
    /// The text is more than this field.
    is_amid: bool,
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']' | b'$')
}

impl Field {
    /// The field whose name ends before the `=` or `:` at `at`.
    fn new(text: &[u8], at: usize, is_script: bool) -> Option<Self> {
        let separator = *text.get(at)?;
        let before = text.get(..at)?;
        // `==`, `!=`, `:=` and `::` compare, or name parts of something.
        if matches!(text.get(at + 1), Some(b'=' | b'~'))
            || matches!(before.last(), Some(b'=' | b'!' | b'<' | b'>' | b':'))
        {
            return None;
        }
        let name_end = before.trim_ascii_end().len();
        let has_blank = name_end < at;
        let unquoted = strip_quote(before.get(..name_end)?);
        let is_quoted = unquoted.len() < name_end;
        let len = unquoted.iter().rev().take(NAME).take_while(|byte| is_name_byte(**byte)).count();
        let name = unquoted.len() - len..unquoted.len();
        if len < 3 {
            return None;
        }
        let previous = name.start.checked_sub(1).and_then(|at| text.get(at)).copied();
        let mut start = at + 1;
        if separator == b'=' && text.get(start) == Some(&b'>') {
            start += 1;
        }
        let rest = text.get(start..)?;
        let blanks = rest.len() - rest.trim_ascii_start().len();
        let value = rest.get(blanks..)?;
        let quote = opening_quote(value);
        // `"password:"` asks: the quote is the end of the text that the name stands in.
        if !is_quoted && quote.is_some_and(|quote| quote.last().copied() == previous) {
            return None;
        }
        if separator == b':' && !is_quoted && blanks == 0 && quote.is_none() {
            return None;
        }
        // `name = value` is one thing only with blanks on both sides, or quotes.
        if separator == b'=' && blanks > 0 && !has_blank && quote.is_none() {
            return None;
        }
        let start = start + blanks;
        let is_amid = previous.is_some() || text.iter().any(u8::is_ascii_whitespace);
        let is_in_query = matches!(previous, Some(b'?' | b'&'));
        if let Some(quote) = quote {
            let inner = value.get(quote.len()..)?;
            let end = closing_quote(inner, quote);
            let value = start + quote.len()..start + quote.len() + end;
            let is_literal = quote == b"'";
            return Some(Self { name, value, is_in_query, is_literal, is_amid });
        }
        // Whatever ends a value: a bracket does, and is the marker's own.
        let end = if value.starts_with(MARKER) {
            MARKER.len()
        } else if separator == b':' && !is_quoted {
            let line = end_of(value, |byte| {
                matches!(byte, b'\r' | b'\n') || Some(byte) == previous.filter(|byte| is_quote(*byte))
            });
            let line = value.get(..line)?.trim_ascii_end();
            // Prose, such as the subject of a commit.
            if line.iter().any(u8::is_ascii_whitespace) || !begins_a_line(previous, text.get(..name.start)?) {
                return None;
            }
            line.len()
        } else if separator == b':' {
            end_of(value, |byte| {
                matches!(byte, b',' | b'}' | b']' | b'"' | b'\'') || byte.is_ascii_whitespace()
            })
        } else {
            let is_first = previous.is_none() && !is_script && !has_blank;
            bare_end(value, previous, is_first, text.get(name.clone())?)
        };
        Some(Self { name, value: start..start + end, is_in_query, is_literal: false, is_amid })
    }

    /// Whether the name is that of a variable, and stands where one is set.
    fn is_variable(&self, text: &[u8]) -> bool {
        let name = text.get(self.name.clone()).unwrap_or_default();
        let previous = self.name.start.checked_sub(1).and_then(|at| text.get(at));
        previous.is_none_or(|byte| byte.is_ascii_whitespace() || matches!(byte, b';' | b'='))
            && is_upper_name(name)
    }
}

fn is_upper_name(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

/// Of YAML and headers: a name stands at the start of its line, indented or in a list.
fn begins_a_line(previous: Option<u8>, before: &[u8]) -> bool {
    match previous {
        None | Some(b'"' | b'\'' | b'\n' | b'{' | b',') => true,
        _ => before
            .rsplit(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default()
            .iter()
            .all(|b| matches!(b, b' ' | b'-' | b'{')),
    }
}

fn strip_quote(text: &[u8]) -> &[u8] {
    let stripped = text.strip_suffix(b"\"").or_else(|| text.strip_suffix(b"'"));
    stripped.map_or(text, |text| text.strip_suffix(b"\\").unwrap_or(text))
}

/// A quote, with the backslash before it.
fn opening_quote(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"' | b'\'', ..] => text.get(..1),
        [b'\\', b'"' | b'\'', ..] => text.get(..2),
        _ => None,
    }
}

/// Where the text in quotes ends. Backslashes escape, unless the quotes are escaped themselves.
fn closing_quote(inner: &[u8], quote: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = inner.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(quote) {
            return at;
        }
        at += if quote.len() == 1 && rest.first() == Some(&b'\\') { 2 } else { 1 };
    }
    inner.len()
}

/// Where a value without quotes ends: that depends on what its field stands in.
fn bare_end(value: &[u8], previous: Option<u8>, is_first: bool, name: &[u8]) -> usize {
    if is_first && (name.starts_with(b"-") || is_upper_name(name)) {
        return value.len();
    }
    let ends_quote = |at: usize| {
        let next = value.get(at + 1);
        next.is_none_or(|next| next.is_ascii_whitespace() || matches!(next, b';' | b')' | b'}' | b',' | b']'))
    };
    for (at, &byte) in value.iter().enumerate() {
        let goes_on = || is_assignment(value.get(at + 1..).unwrap_or_default());
        let ends = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => !is_first || goes_on(),
            b'"' | b'\'' => !is_first && ends_quote(at),
            b'&' => matches!(previous, Some(b'&' | b'?')) || (is_first && goes_on()),
            b'#' => matches!(previous, Some(b'&' | b'?')),
            b';' => {
                previous == Some(b';')
                    || goes_on()
                    || (previous.is_some_and(|b| b.is_ascii_whitespace()) && ends_quote(at))
            }
            b',' => matches!(previous, Some(b'{' | b'(' | b'[')) || goes_on(),
            b'}' => matches!(previous, Some(b'{' | b',')),
            b')' | b']' => matches!(previous, Some(b'(' | b'[')),
            _ => false,
        };
        if ends {
            return at;
        }
    }
    value.len()
}

/// Whether another `name=` follows.
fn is_assignment(text: &[u8]) -> bool {
    let len = text.iter().take(NAME).take_while(|byte| is_name_byte(**byte)).count();
    len > 0 && text.get(len) == Some(&b'=')
}
