//! What is wrong with a configuration, in one line: `FILE:LINE: what is wrong: what to write
//! instead`.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

/// Longer values are cut where an error shows them.
const SHOWN: usize = 80;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    place: Place,
    wrong: String,
    instead: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Line(PathBuf, usize),
    /// The file cannot be read.
    File(PathBuf, io::ErrorKind),
    /// A flag or a variable, as the user spells it.
    Given(String),
    /// What is wrong says it.
    Said,
}

impl ConfigError {
    pub(super) fn line(path: &Path, line: usize, wrong: String, instead: Option<String>) -> Self {
        Self { place: Place::Line(path.into(), line), wrong, instead }
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let instead = match error.kind() {
            io::ErrorKind::NotFound => "name a file that exists",
            io::ErrorKind::InvalidData => "write it in UTF-8",
            _ => "name a file that can be read",
        };
        Self {
            place: Place::File(path.into(), error.kind()),
            wrong: error.to_string(),
            instead: Some(instead.into()),
        }
    }

    pub(super) fn given(by: &str, wrong: String, instead: Option<String>) -> Self {
        let place = if instead.is_some() { Place::Given(by.into()) } else { Place::Said };
        Self { place, wrong, instead }
    }

    /// Why the file could not be read, if that is what is wrong.
    pub(super) fn cause(&self) -> Option<io::ErrorKind> {
        match self.place {
            Place::File(_, kind) => Some(kind),
            _ => None,
        }
    }
}

impl std::error::Error for ConfigError {}

impl Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.place {
            Place::Line(path, line) => format!("{}:{line}: ", path.display()),
            Place::File(path, _) => format!("{}: ", path.display()),
            Place::Given(by) => format!("{by}: "),
            Place::Said => String::new(),
        };
        let instead = self.instead.as_ref().map(|instead| format!(": {instead}")).unwrap_or_default();
        // A file can hold anything: what is shown of it stays one line.
        for character in format!("{place}{}{instead}", self.wrong).chars() {
            if character.is_control() {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                write!(formatter, "{character}")?;
            }
        }
        Ok(())
    }
}

/// The start of `text`, enough to recognize it by.
pub(super) fn shown(text: &str) -> String {
    let text = text.trim();
    let line = text.lines().next().unwrap_or_default();
    let start: String = line.chars().take(SHOWN).collect();
    if start.len() < text.len() { format!("{start}…") } else { start }
}

/// What to write instead of `word`: the one of `valid` that it resembles, and all of them.
pub(crate) fn nearest(word: &str, valid: &[&str]) -> String {
    let all = valid.join(", ");
    let near = valid.iter().map(|valid| (distance(word, valid), valid)).min();
    match near {
        // Further away it is another word, not a slip.
        Some((distance, near)) if distance <= near.len().div_ceil(3) => {
            format!("write {near} (valid are {all})")
        }
        _ => format!("write one of {all}"),
    }
}

/// The letters to insert, drop or replace to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (done, letter) in from.chars().enumerate() {
        let mut next = vec![done + 1];
        for ((other, pair), left) in to.chars().zip(row.windows(2)).zip(done + 1..) {
            let &[diagonal, above] = pair else { continue };
            let left = next.last().copied().unwrap_or(left);
            next.push((diagonal + usize::from(letter != other)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest, shown};

    #[test]
    fn the_distance_counts_edits() {
        for (from, to, edits) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ring", "ring", 0)]
        {
            assert_eq!(distance(from, to), edits, "{from} {to}");
        }
    }

    #[test]
    fn a_slip_gets_its_word_and_another_word_gets_the_list() {
        assert_eq!(nearest("exce", &["exec", "exit"]), "write exec (valid are exec, exit)");
        assert_eq!(nearest("telnet", &["exec", "exit"]), "write one of exec, exit");
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(shown("5"), "5");
        assert_eq!(shown("[\n  1,\n]"), "[…");
        assert_eq!(shown(&"ä".repeat(500)).chars().count(), 81);
    }
}
