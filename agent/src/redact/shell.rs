//! Command lines within one argument, as a shell would take them apart: `sh -c '...'`, `ssh host '...'`.
//!
//! Each word knows where its bytes stand in the record's text, whatever was quoted: what is found in a word is
//! redacted there.

use std::{borrow::Cow, ops::Range};

/// A word, without its quotes.
#[derive(Clone, Debug)]
pub(super) struct Word<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    at: At,
    /// A `$` in it is no variable: it was quoted so.
    pub(super) is_literal: bool,
}

/// Where the bytes of a word stand.
#[derive(Clone, Debug)]
enum At {
    From(usize),
    /// One place for each byte.
    Each(Vec<usize>),
}

impl<'a> Word<'a> {
    pub(super) fn plain(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes: Cow::Borrowed(bytes), at: At::From(at), is_literal: false }
    }

    /// Where a part of the word stands.
    pub(super) fn place(&self, range: Range<usize>) -> Range<usize> {
        let last = range.end.saturating_sub(1);
        match &self.at {
            At::From(at) => at + range.start..at + range.end,
            At::Each(places) => match (places.get(range.start), places.get(last)) {
                (Some(start), Some(last)) => *start..last + 1,
                _ => 0..0,
            },
        }
    }

    fn place_of(&self, index: usize) -> usize {
        self.place(index..index + 1).start
    }
}

/// A simple command of a command line.
#[derive(Debug, Default)]
pub(super) struct Command<'a> {
    pub(super) words: Vec<Word<'a>>,
    /// What is given on its standard input by `<<<`, or by `<<` with its lines.
    pub(super) input: Vec<Word<'a>>,
    /// Its output goes to the next command.
    pub(super) is_piped: bool,
}

/// Takes a command line apart. Any bytes give some commands.
pub(super) fn commands<'a>(line: &Word<'_>) -> Vec<Command<'a>> {
    let mut splitter =
        Splitter { line, next: 0, command: Command::default(), commands: Vec::new(), input: false };
    splitter.run();
    splitter.commands
}

struct Splitter<'a, 'b, 'c> {
    line: &'b Word<'c>,
    next: usize,
    command: Command<'a>,
    commands: Vec<Command<'a>>,
    /// The next word is the command's input.
    input: bool,
}

#[derive(Default)]
struct Cooked {
    bytes: Vec<u8>,
    places: Vec<usize>,
    is_literal: bool,
}

impl Splitter<'_, '_, '_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.line.bytes.get(self.next + ahead).copied()
    }

    fn run(&mut self) {
        while let Some(byte) = self.peek(0) {
            match byte {
                b' ' | b'\t' | b'\r' => self.next += 1,
                b'|' => {
                    self.next += 1;
                    let is_or = self.peek(0) == Some(b'|');
                    self.next += usize::from(is_or || self.peek(0) == Some(b'&'));
                    self.end(!is_or);
                }
                b'\n' | b';' | b'&' | b'(' | b')' | b'`' => {
                    self.next += 1;
                    self.end(false);
                }
                b'$' if self.peek(1) == Some(b'(') => {
                    self.next += 2;
                    self.end(false);
                }
                b'<' | b'>' => self.redirection(),
                _ => self.word(),
            }
        }
        self.end(false);
    }

    fn end(&mut self, is_piped: bool) {
        let mut command = std::mem::take(&mut self.command);
        self.input = false;
        if !command.words.is_empty() {
            command.is_piped = is_piped;
            self.commands.push(command);
        }
    }

    fn redirection(&mut self) {
        let start = self.next;
        while matches!(self.peek(0), Some(b'<' | b'>' | b'&')) {
            self.next += 1;
        }
        match self.line.bytes.get(start..self.next) {
            Some(b"<<<") => self.input = true,
            Some(b"<<") => self.here_document(),
            _ => {}
        }
    }

    /// The lines up to the one that is the word behind `<<`. They are input, and no commands.
    fn here_document(&mut self) {
        let rest = self.line.bytes.get(self.next..).unwrap_or_default();
        // The name stands near: many of these in one long line must not be looked through again and again.
        let Some(line_end) = rest.iter().take(256).position(|byte| *byte == b'\n') else { return };
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let (first, body) = rest.split_at(line_end);
        let name: Vec<u8> =
            first.iter().copied().skip_while(|byte| !is_name(byte)).take_while(is_name).collect();
        if name.is_empty() {
            return;
        }
        let start = self.next + line_end + 1;
        let mut end = start;
        for line in body.get(1..).unwrap_or_default().split(|byte| *byte == b'\n') {
            if line.trim_ascii() == name {
                break;
            }
            end += line.len() + 1;
        }
        let end = end.saturating_sub(1).clamp(start, self.line.bytes.len());
        let bytes = self.line.bytes.get(start..end).unwrap_or_default().to_vec();
        let places = (start..end).map(|index| self.line.place_of(index)).collect();
        self.command.input.push(Word { bytes: bytes.into(), at: At::Each(places), is_literal: false });
        // What stands behind `<<NAME` in its line is left out: it is rarely there, and seldom of interest.
        self.next = end;
    }

    fn take(&mut self, cooked: &mut Cooked) {
        if let Some(byte) = self.peek(0) {
            cooked.bytes.push(byte);
            cooked.places.push(self.line.place_of(self.next));
        }
        self.next += 1;
    }

    fn word(&mut self) {
        let mut cooked = Cooked::default();
        while let Some(byte) = self.peek(0) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b'|' | b';' | b'&' | b'(' | b')' | b'`' | b'<' | b'>' => break,
                b'$' if self.peek(1) == Some(b'(') => break,
                b'\\' => {
                    self.next += 1;
                    cooked.is_literal |= self.peek(0) == Some(b'$');
                    self.take(&mut cooked);
                }
                b'\'' => {
                    self.next += 1;
                    while self.peek(0).is_some_and(|byte| byte != b'\'') {
                        cooked.is_literal |= self.peek(0) == Some(b'$');
                        self.take(&mut cooked);
                    }
                    self.next += 1;
                }
                b'"' => {
                    self.next += 1;
                    while let Some(byte) = self.peek(0)
                        && byte != b'"'
                    {
                        if byte == b'\\' && matches!(self.peek(1), Some(b'"' | b'\\' | b'$' | b'`')) {
                            self.next += 1;
                            cooked.is_literal |= self.peek(0) == Some(b'$');
                        }
                        self.take(&mut cooked);
                    }
                    self.next += 1;
                }
                _ => self.take(&mut cooked),
            }
        }
        let Cooked { bytes, places, is_literal } = cooked;
        let word = Word { bytes: bytes.into(), at: At::Each(places), is_literal };
        if std::mem::take(&mut self.input) {
            self.command.input.push(word);
        } else {
            self.command.words.push(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<Vec<String>> {
        let text = |word: &Word<'_>| String::from_utf8(word.bytes.to_vec()).unwrap();
        commands(&Word::plain(line.as_bytes(), 0))
            .iter()
            .map(|command| command.words.iter().map(text).collect())
            .collect()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        assert_eq!(split(r#"a 'b c' "d \"e" f\ g h"i"j"#), [["a", "b c", "d \"e", "f g", "hij"]]);
        assert_eq!(split("a|b && c;d\ne"), [["a"], ["b"], ["c"], ["d"], ["e"]]);
        assert_eq!(
            split("x=$(a b) >out 2>&1 c"),
            vec![vec!["x="], vec!["a", "b"], vec!["out", "2", "1", "c"]]
        );
        assert_eq!(split("'a"), [["a"]]);
    }

    #[test]
    fn a_word_knows_its_place_whatever_was_quoted() {
        let line = r#"x -p'a"b' y"#;
        let found = commands(&Word::plain(line.as_bytes(), 100));
        let place = found[0].words[1].place(2..5);
        assert_eq!(&line[place.start - 100..place.end - 100], r#"a"b"#);
    }

    #[test]
    fn what_is_given_as_input_is_no_word() {
        let found = commands(&Word::plain(b"cat <<EOF\nroot:pw\nEOF\nb <<< 'c d'", 0));
        assert_eq!(found[0].input[0].bytes, &b"root:pw"[..]);
        assert_eq!(found.last().unwrap().input[0].bytes, &b"c d"[..]);
    }
}
