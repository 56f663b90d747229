//! Regular expressions over command lines, many at once.
//!
//! Most expressions have a word in them without which they cannot match. One pass looks for the words of all; only an
//! expression whose word is there is run, and one without a word always. Both take time by the length of the line
//! and nothing else: neither can be made to go back and forth.

use aho_corasick::AhoCorasick;
use regex::{Regex, RegexSet, RegexSetBuilder};
use regex_syntax::hir::{Hir, HirKind};

use super::{bits::Bits, facts::Facts};
use crate::words::AnyOf;

/// What all expressions without a word may take together, in bytes: compiled, and while they are at work.
const SET_BYTES: usize = 64 << 20;
const WORK_BYTES: usize = 8 << 20;

/// Shorter words are everywhere.
const SHORTEST: usize = 2;

/// So many bytes of words are looked for by [`AnyOf`].
const FAST_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Args {
    /// By rule.
    rules: Vec<Vec<Regex>>,
    words: AhoCorasick,
    /// Finds out faster whether any of them is there at all, where they are not too many.
    any: Option<AnyOf>,
    /// The rule and the expression of each word.
    of_word: Vec<(usize, usize)>,
    /// Expressions without a word, and the rule of each.
    wordless: RegexSet,
    of_wordless: Vec<usize>,
    /// Rules that have such an expression.
    always: Bits,
    line: String,
    found: Bits,
}

impl Args {
    /// `rows` are the expressions of each rule that has any, `count` the number of rules.
    pub(super) fn new<'a>(
        rows: impl Iterator<Item = (usize, &'a [Regex])>,
        count: usize,
    ) -> anyhow::Result<Self> {
        let mut rules = vec![Vec::new(); count];
        let mut words = Vec::new();
        let mut of_word = Vec::new();
        let mut wordless = Vec::new();
        let mut of_wordless = Vec::new();
        let mut always = Bits::none(count);
        for (rule, expressions) in rows {
            for (number, expression) in expressions.iter().enumerate() {
                let parsed = regex_syntax::parse(expression.as_str()).ok();
                if let Some(of_expression) = parsed.as_ref().and_then(required) {
                    of_word.extend(of_expression.iter().map(|_| (rule, number)));
                    words.extend(of_expression);
                } else {
                    wordless.push(expression.as_str());
                    of_wordless.push(rule);
                    always.set(rule);
                }
            }
            if let Some(place) = rules.get_mut(rule) {
                *place = expressions.to_vec();
            }
        }
        let is_small = words.iter().map(Vec::len).sum::<usize>() <= FAST_BYTES;
        Ok(Self {
            rules,
            any: is_small.then(|| AnyOf::new(&words, false)).transpose()?,
            words: AhoCorasick::new(words)?,
            of_word,
            wordless: RegexSetBuilder::new(wordless)
                .size_limit(SET_BYTES)
                .dfa_size_limit(WORK_BYTES)
                .build()?,
            of_wordless,
            always,
            line: String::new(),
            found: Bits::none(count),
        })
    }

    /// Takes the rules out of `hit` whose arguments do not match, and those from `end` on that ask for any. `any` are
    /// the rules that do not ask.
    pub(super) fn narrow(&mut self, hit: &mut Bits, any: &Bits, end: usize, facts: &Facts<'_>) {
        let Self { rules, words, any: any_word, of_word, wordless, of_wordless, always, line, found } = self;
        let Some(args) = facts.args else { return hit.intersect(any) };
        line.clear();
        args(line);
        found.clear();
        let is_asked = |rule: usize| rule < end && hit.has(rule) && !any.has(rule);
        // Nearly always there is none, which is found out much faster than where all of them are.
        let has_words = any_word.as_ref().is_none_or(|any| any.is_in(line.as_bytes()));
        for word in has_words.then(|| words.find_overlapping_iter(line.as_str())).into_iter().flatten() {
            let Some((rule, number)) = of_word.get(word.pattern().as_usize()) else { continue };
            if is_asked(*rule)
                && !found.has(*rule)
                && rules
                    .get(*rule)
                    .and_then(|rule| rule.get(*number))
                    .is_some_and(|expression| expression.is_match(line))
            {
                found.set(*rule);
            }
        }
        if hit.meets(always) {
            for expression in &wordless.matches(line) {
                if let Some(rule) = of_wordless.get(expression).filter(|rule| is_asked(**rule)) {
                    found.set(*rule);
                }
            }
        }
        hit.narrow(any, Some(found));
    }
}

/// Words of which one must be in the text for the expression to match; none if there is no such thing.
fn required(expression: &Hir) -> Option<Vec<Vec<u8>>> {
    let words = match expression.kind() {
        HirKind::Literal(literal) => vec![literal.0.to_vec()],
        HirKind::Capture(capture) => return required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => return required(&repetition.sub),
        // Any of the parts will do: the one whose shortest word is the longest.
        HirKind::Concat(parts) => {
            return parts.iter().filter_map(required).max_by_key(|words| shortest(words));
        }
        // Each of the branches needs words of its own.
        HirKind::Alternation(branches) => {
            branches.iter().map(required).collect::<Option<Vec<_>>>()?.into_iter().flatten().collect()
        }
        _ => return None,
    };
    (shortest(&words) >= SHORTEST).then_some(words)
}

fn shortest(words: &[Vec<u8>]) -> usize {
    words.iter().map(Vec::len).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::required;

    fn words(expression: &str) -> Option<Vec<String>> {
        let words = required(&regex_syntax::parse(expression).unwrap())?;
        Some(words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect())
    }

    #[test]
    fn an_expression_tells_the_words_that_it_cannot_do_without() {
        for (expression, expected) in [
            ("^curl .*/healthz?$", Some(&["/health"][..])),
            ("(foo|barbar).*x", Some(&["foo", "barbar"])),
            ("a+(bcd)+", Some(&["bcd"])),
            ("(foo|b?)", None),
            ("(foo)*", None),
            ("(?i)foo", None),
            ("[0-9]+", None),
            ("x", None),
        ] {
            let expected = expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!(words(expression), expected, "{expression}");
        }
    }
}
