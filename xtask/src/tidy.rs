//! The house rules that no other tool checks, and that a reviewer forgets.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::complain;

/// Longer files are split: none where everything meets.
const MAX_LINES: usize = 450;

const TEXT: [&str; 6] = ["rs", "toml", "md", "yaml", "yml", "sh"];
/// Folders that are not looked at, from the root.
const SKIPPED: [&str; 3] = ["target", ".git", "tests/cache"];
/// Folders whose files may be long: nobody wrote them by hand.
const LONG: [&str; 2] = ["testdata", "generated"];

/// Unfinished work belongs in the tracker. Spelled in halves, or this file would break its own rule.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[ig", "nore"),
];
/// A test that says this is not left out: the guest runs those that others ignore.
const RUN_ELSEWHERE: &str = "`cargo xtask vm` runs it";
/// Where a package comes from is the business of the one who builds.
const REGISTRIES: [&str; 7] = [
    concat!("crates", ".io"),
    concat!("static.rust-lang", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("py", "pi.org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("deb.debian", ".org"),
];

/// Says every breach; an error if there is one.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    files.sort();
    let mut breaches = 0;
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        for (line, rule) in breached(name, &text) {
            complain(format_args!("{}:{line}: {rule}", name.display()));
            breaches += 1;
        }
    }
    if breaches > 0 {
        bail!("{breaches} breaches of the house rules");
    }
    Ok(())
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.iter().any(|skipped| path == root.join(skipped)) {
                collect(root, &path, files)?;
            }
        } else if path.extension().is_some_and(|extension| TEXT.iter().any(|text| extension == *text)) {
            files.push(path);
        }
    }
    Ok(())
}

/// Every breach in one file: line number and what to do instead.
fn breached(name: &Path, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if name.extension().is_some_and(|extension| extension == "rs") && !text.starts_with("//!") {
        found.push((1, "begin with a `//!` header: what the module is, and its place".into()));
    }
    let long = name.iter().any(|part| LONG.iter().any(|long| part == *long));
    let lines = text.lines().count();
    if lines > MAX_LINES && !long {
        found.push((lines, format!("{lines} lines: split the file, {MAX_LINES} are the limit")));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let mut breach = |rule: String| found.push((number, rule));
        if line.contains('\t') {
            breach("a tab: indent with spaces".into());
        }
        if line.ends_with([' ', '\t', '\r']) {
            breach("white space at the end of the line".into());
        }
        let unfinished = |mark: &&&str| has_word(line, mark) && !line.contains(RUN_ELSEWHERE);
        for mark in UNFINISHED.iter().filter(unfinished) {
            breach(format!("`{mark}`: finish it, or leave it out"));
        }
        for host in REGISTRIES.iter().filter(|host| line.contains(**host)) {
            breach(format!("`{host}`: name no package registry"));
        }
    }
    found
}

/// Whether `word` stands in `line` on its own: `mktemp -t XXXXXX` holds no mark.
fn has_word(line: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let after = rest.strip_prefix(word).unwrap_or_default();
        // A word that ends in a sign (`!`) ends there, whatever follows.
        let goes_on = word.ends_with(letter) && after.starts_with(letter);
        !goes_on && !before.ends_with(letter)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{MAX_LINES, REGISTRIES, UNFINISHED, breached, has_word};

    fn lines(name: &str, text: &str) -> Vec<usize> {
        breached(Path::new(name), text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_clean_file_breaks_no_rule() {
        assert!(lines("src/a.rs", "//! A module.\n\nfn a() {}\n").is_empty());
    }

    #[test]
    fn rust_files_have_a_header_and_others_need_none() {
        assert_eq!(lines("src/a.rs", "fn a() {}\n"), [1]);
        assert!(lines("README.md", "# A\n").is_empty());
    }

    #[test]
    fn white_space_is_named_by_line() {
        assert_eq!(lines("a.toml", "a = 1\nb = 2 \n\tc = 3\n"), [2, 3]);
    }

    #[test]
    fn long_files_are_named_unless_they_are_data() {
        let text = "a\n".repeat(MAX_LINES + 1);
        assert_eq!(lines("docs/a.md", &text), [MAX_LINES + 1]);
        assert!(lines("agent/testdata/a.md", &text).is_empty());
        assert!(lines("docs/a.md", &"a\n".repeat(MAX_LINES)).is_empty());
    }

    #[test]
    fn unfinished_work_and_registries_are_named() {
        for word in UNFINISHED.iter().chain(&REGISTRIES) {
            assert_eq!(lines("a.md", &format!("first\nsee {word} here\n")), [2], "{word}");
        }
    }

    #[test]
    fn a_mark_inside_a_word_is_none() {
        assert!(!has_word("mktemp -t XXXXXX", UNFINISHED[2]));
        assert!(!has_word("METHODOLOGY_TODOS", UNFINISHED[0]));
        assert!(has_word(&format!("// {}: later", UNFINISHED[0]), UNFINISHED[0]));
        let ignored =
            |why: &str| breached(Path::new("a.md"), &format!("{} = \"{why}\"]", UNFINISHED[5])).len();
        assert_eq!((ignored("sets the clock: `cargo xtask vm` runs it"), ignored("fails")), (0, 1));
    }
}
