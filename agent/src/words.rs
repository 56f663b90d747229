//! Whether a text has any of many words in it. It is asked of the arguments of every exec, for its secrets and for the rules, and nearly
//! always the answer is no.

use aho_corasick::{Anchored, Input, automaton::Automaton as _, automaton::StateID, dfa::DFA};

/// So many parts of a text are walked side by side: a walk waits at each byte for the state that the last one led to, but not for other
/// walks.
const LANES: usize = 4;

/// Words to look for.
#[derive(Debug)]
pub(crate) struct AnyOf {
    words: DFA,
    start: StateID,
    /// Bytes that a part shares with the next one, so that each has every word whole that begins in it.
    shared: usize,
}

impl AnyOf {
    /// Their letters in any case, or as they are. It takes some hundred bytes of memory for each byte of them.
    pub(crate) fn new(words: &[impl AsRef<[u8]>], in_any_case: bool) -> anyhow::Result<Self> {
        // With a prefilter, to begin anew would be a special state too.
        let words = DFA::builder().ascii_case_insensitive(in_any_case).prefilter(false).build(words)?;
        let start = words.start_state(Anchored::No)?;
        let shared = words.max_pattern_len().saturating_sub(1);
        Ok(Self { words, start, shared })
    }

    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        let step = text.len().saturating_sub(self.shared) / LANES;
        let part = |lane: usize| text.get(lane * step..lane * step + step + self.shared);
        if step > self.shared
            && let (Some(a), Some(b), Some(c), Some(d)) = (part(0), part(1), part(2), part(3))
            && self.is_in_any(a, b, c, d)
        {
            return true;
        }
        let rest = if step > self.shared { text.get(LANES * step..).unwrap_or(text) } else { text };
        matches!(self.words.try_find(&Input::new(rest).earliest(true)), Ok(Some(_)))
    }

    /// The parts are of one length.
    fn is_in_any(&self, a: &[u8], b: &[u8], c: &[u8], d: &[u8]) -> bool {
        let mut states = [self.start; LANES];
        for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
            for (state, byte) in states.iter_mut().zip([a, b, c, d]) {
                *state = self.words.next_state(Anchored::No, *state, *byte);
            }
            // Only states in which a word is found are special here. All are asked: one branch costs less than four.
            if states.iter().fold(false, |found, state| found | self.words.is_special(*state)) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words() -> AnyOf {
        AnyOf::new(&["pw", "secret", "://"], true).unwrap()
    }

    #[test]
    fn a_word_is_found_wherever_it_stands() {
        let words = words();
        for len in 0..200 {
            let mut text = vec![b'x'; len];
            assert!(!words.is_in(&text), "{len}");
            for at in 0..=len {
                text.splice(at..at, *b"SeCret");
                assert!(words.is_in(&text), "{len}, {at}");
                text.drain(at..at + 6);
            }
        }
    }

    #[test]
    fn no_words_are_in_nothing_and_case_matters_if_asked() {
        let none: [&str; 0] = [];
        assert!(!AnyOf::new(&none, true).unwrap().is_in(&[b'x'; 300]));
        let words = AnyOf::new(&["Secret"], false).unwrap();
        assert!(words.is_in(b"a Secret") && !words.is_in(b"a secret"));
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_one_walk(text in "[pwsecrt:/x]{0,300}") {
            let one = ["pw", "secret", "://"].iter().any(|word| text.contains(word));
            prop_assert_eq!(words().is_in(text.as_bytes()), one);
        }
    }
}
