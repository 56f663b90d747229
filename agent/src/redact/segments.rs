//! Which programs a command runs: the first, and those that programs like `sudo` and `docker exec` hand on to.

use super::{
    Engine,
    shell::Word,
    tools::{Known, Wrapper},
};

/// A program and its words, itself the first.
pub(super) struct Segment<'k> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) known: Option<&'k Known>,
}

/// The program, and those that it runs.
pub(super) fn segments<'k>(engine: &'k Engine, words: &[Word<'_>], program: &[u8]) -> Vec<Segment<'k>> {
    let is_set = |word: &&Word<'_>| {
        let name = word.bytes.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.len() < word.bytes.len() && !name.contains(&b'/') && !name.starts_with(b"-")
    };
    let mut start = words.iter().take_while(is_set).count();
    let mut segments = Vec::new();
    let first = words.get(start).and_then(|word| engine.tools.get(&word.bytes));
    let mut known = first.or_else(|| engine.tools.get(program));
    while let Some(wrapper) = known.and_then(|known| known.wrapper) {
        let Some(inner) = inner(engine, words, start, wrapper) else { break };
        segments.push(Segment { start, end: inner, known });
        start = inner;
        known = words.get(inner).and_then(|word| engine.tools.get(&word.bytes));
    }
    segments.push(Segment { start, end: words.len(), known });
    segments
}

/// The word at which a program begins that is run by the one at `start`.
fn inner(engine: &Engine, words: &[Word<'_>], start: usize, wrapper: Wrapper) -> Option<usize> {
    // Flags behind which a program can stand; behind any other it may be the flag's value.
    const SWITCHES: &[&[u8]] = &[
        b"--",
        b"-it",
        b"-i",
        b"-t",
        b"-ti",
        b"-d",
        b"-itd",
        b"--rm",
        b"-E",
        b"-n",
        b"-S",
        b"-H",
        b"-0",
        b"-r",
        b"-v",
        b"-f",
        b"-k",
        b"-q",
        b"-a",
        b"-T",
        b"-tt",
        b"--tty",
        b"--stdin",
        b"--interactive",
        b"-e",
        b"-x",
        b"-exec",
        b"-execdir",
        b"-ok",
        b"--detach",
        b"--preserve-env",
        b"--args",
    ];
    let mut doubtful = None;
    let mut previous: &[u8] = b"";
    for (index, word) in words.iter().enumerate().skip(start + 1) {
        let is_program = !word.bytes.starts_with(b"-") && engine.tools.get(&word.bytes).is_some();
        let is_value =
            previous.starts_with(b"-") && !previous.contains(&b'=') && !SWITCHES.contains(&previous);
        if is_program && !is_value {
            return Some(index);
        }
        if is_program {
            doubtful = doubtful.or(Some(index));
        }
        previous = &word.bytes;
    }
    doubtful.filter(|_| wrapper != Wrapper::Container)
}
