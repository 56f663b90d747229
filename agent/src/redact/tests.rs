//! The corpus: command lines with secrets, of which nothing else may be redacted, and harmless ones.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::config::Redaction;

const SECRETS: &str = include_str!("corpus/secrets.txt");
const HARMLESS: &str = include_str!("corpus/harmless.txt");

/// One for all tests: its tables take a while to build without optimization.
fn redactor() -> &'static Redactor {
    static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(&Redaction::default()).unwrap());
    &REDACTOR
}

fn lines(corpus: &str) -> impl Iterator<Item = &str> {
    corpus.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The arguments that a shell makes of a line, each with a NUL behind it. Not by the code under test.
fn argv(line: &str) -> Vec<u8> {
    let mut argv = Vec::new();
    let mut quote = None;
    let mut characters = line.replace('␤', "\n").chars().collect::<Vec<_>>().into_iter().peekable();
    while let Some(character) = characters.next() {
        let mut buffer = [0; 4];
        match (quote, character) {
            (None, ' ') => argv.push(0),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (Some('"'), '\\') if characters.peek().is_some_and(|next| "\"\\$`".contains(*next)) => {
                argv.extend_from_slice(characters.next().unwrap().encode_utf8(&mut buffer).as_bytes());
            }
            (None, '\\') => {
                argv.extend_from_slice(characters.next().unwrap().encode_utf8(&mut buffer).as_bytes());
            }
            _ => argv.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes()),
        }
    }
    assert_eq!(quote, None, "{line}");
    argv.push(0);
    argv
}

fn shown(argv: &[u8]) -> String {
    String::from_utf8_lossy(argv).replace('\0', " ␀ ")
}

fn redact(redactor: &Redactor, argv: &[u8]) -> (Vec<u8>, Vec<&'static str>) {
    match redactor.args(argv, b"", false) {
        Some(Redacted { bytes, rules }) => (bytes, rules.iter().map(Rule::name).collect()),
        None => (argv.to_vec(), Vec::new()),
    }
}

#[test]
fn every_secret_of_the_corpus_is_redacted_and_nothing_else_is() {
    let redactor = redactor();
    let mut failures = Vec::new();
    let mut total = 0;
    for line in lines(SECRETS) {
        total += 1;
        let (rule, line) = line.split_once(' ').unwrap();
        let mut expected = String::new();
        let mut secrets = 0;
        for part in line.split_inclusive(['«', '»']) {
            match part.strip_suffix('»') {
                Some(_) => {
                    expected.push_str("[redacted]");
                    secrets += 1;
                }
                None => expected.push_str(part.trim_end_matches('«')),
            }
        }
        assert!(secrets > 0, "{line}");
        // Quotes that a secret holds are the secret's: the line is marked where that matters.
        let (expected, given) = (argv(&expected), argv(&line.replace(['«', '»'], "")));
        let (bytes, rules) = redact(redactor, &given);
        if bytes != expected || !rules.contains(&rule) {
            failures.push(format!(
                "{rule} expected {}\n  {rules:?} found {}",
                shown(&expected),
                shown(&bytes)
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {total}:\n{}", failures.len(), failures.join("\n"));
    assert!(total >= 200, "{total}");
}

#[test]
#[expect(clippy::print_stdout, reason = "the rate is what one asks this test for, with --nocapture")]
fn false_alarms_over_the_harmless_corpus_are_none() {
    let redactor = redactor();
    let mut alarms = Vec::new();
    let mut total = 0;
    for line in lines(HARMLESS) {
        total += 1;
        let (bytes, rules) = redact(redactor, &argv(line));
        if !rules.is_empty() {
            alarms.push(format!("{rules:?} {}", shown(&bytes)));
        }
    }
    println!("{} false alarms in {total} harmless command lines", alarms.len());
    assert!(alarms.is_empty(), "{} of {total}:\n{}", alarms.len(), alarms.join("\n"));
    assert!(total >= 1000, "{total}");
}

/// Bytes in which what the rules are about is frequent.
fn awkward() -> impl Strategy<Value = Vec<u8>> {
    let pieces: [&[u8]; 48] = [
        b"\0",
        b"\0",
        b"\0",
        b" ",
        b" ",
        b"'",
        b"\"",
        b"\\",
        b"=",
        b":",
        b"@",
        b"/",
        b"//",
        b"&",
        b"?",
        b";",
        b"|",
        b"\n",
        b"$(",
        b"<<<",
        b"<<E\n",
        b"E\n",
        b",",
        b"{",
        b"}",
        b"-",
        b"--",
        b"-p",
        b"-u",
        b"-c",
        b"mysql",
        b"curl",
        b"sudo",
        b"sh",
        b"password",
        b"token",
        b"PASS",
        b"api-key",
        b"http://",
        b"Authorization: ",
        b"Bearer ",
        b"a1",
        b"x",
        b"[redacted]",
        b"-----BEGIN PRIVATE KEY-----",
        b"echo",
        b"chpasswd",
        b"\xff\xfe",
    ];
    let piece = prop::sample::select(pieces.to_vec());
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn count(args: &[u8]) -> usize {
    args.split(|byte| *byte == 0).count()
}

/// Redacting keeps the number of arguments, and redacting again changes nothing.
fn check(args: &[u8], cut: bool) -> Result<(), TestCaseError> {
    let redactor = redactor();
    if let Some(once) = redactor.args(args, b"sh", cut) {
        prop_assert_eq!(count(&once.bytes), count(args));
        prop_assert!(once.bytes.windows(MARKER.len()).any(|bytes| bytes == MARKER));
        prop_assert_eq!(redactor.args(&once.bytes, b"sh", cut), None, "{}", shown(&once.bytes));
    }
    if let Some(once) = redactor.text(args, cut) {
        prop_assert_eq!(redactor.text(&once.bytes, cut), None);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_are_redacted_once_and_keep_their_number(args: Vec<u8>, cut: bool) {
        check(&args, cut)?;
    }

    #[test]
    fn awkward_arguments_are_redacted_once_and_keep_their_number(args in awkward(), cut: bool) {
        check(&args, cut)?;
    }
}

#[test]
fn redacting_the_corpus_again_changes_nothing() {
    let redactor = redactor();
    for line in lines(SECRETS) {
        let given = argv(&line.split_once(' ').unwrap().1.replace(['«', '»'], ""));
        let once = redactor.args(&given, b"", false).unwrap();
        assert_eq!(redactor.args(&once.bytes, b"", false), None, "{line}");
        assert_eq!(count(&once.bytes), count(&given), "{line}");
    }
}

#[test]
fn a_secret_that_was_cut_is_redacted_as_far_as_it_goes() {
    for (given, expected) in [
        ("psql\0postgres://app:hunt", "psql\0postgres://app:[redacted]"),
        ("tool\0ghp_abc", "tool\0[redacted]"),
        ("tool\0--password\0hun", "tool\0--password\0[redacted]"),
        ("tool\0-----BEGIN PRIVATE KEY-----MIIE", "tool\0-----BEGIN PRIVATE KEY-----[redacted]"),
        ("tool\0{\"password\":\"hun", "tool\0{\"password\":\"[redacted]"),
    ] {
        let redacted = redactor().args(given.as_bytes(), b"", true).unwrap();
        assert_eq!(shown(&redacted.bytes), shown(expected.as_bytes()));
    }
}

#[test]
fn a_program_is_known_by_its_file_where_its_first_argument_lies() {
    let redacted = redactor().args(b"innocent\0-phunter2\0", b"mysql", false).unwrap();
    assert_eq!(redacted.bytes, b"innocent\0-p[redacted]\0");
    assert_eq!(redactor().args(b"innocent\0-phunter2\0", b"ls", false), None);
}

#[test]
fn bytes_that_are_no_utf8_are_kept_and_redacted_alike() {
    let redacted = redactor().args(b"app\0\xff\xfe\0--password=\xffhunter2\xfe\0", b"", false).unwrap();
    assert_eq!(redacted.bytes, b"app\0\xff\xfe\0--password=[redacted]\0");
}

#[test]
fn the_configuration_adds_flags_and_patterns_and_allows_names() {
    let redactor = Redactor::new(&Redaction {
        enabled: true,
        flags: vec!["--pin-code".into(), "-Q".into()],
        patterns: vec!["ticket=(?P<secret>[0-9]+)".into(), "zebra[a-z]*".into()],
        allow: vec!["session_token".into()],
    })
    .unwrap();
    for (given, expected) in [
        ("app --pin-code 42", "app --pin-code [redacted]"),
        ("app PIN_CODE=42", "app PIN_CODE=[redacted]"),
        ("app -Q 42 -Q43", "app -Q [redacted] -Q[redacted]"),
        ("app ticket=77 x", "app ticket=[redacted] x"),
        ("app zebrafish", "app [redacted]"),
        ("app --session-token 42", "app --session-token 42"),
    ] {
        let (bytes, _) = redact(&redactor, &argv(given));
        assert_eq!(shown(&bytes), shown(&argv(expected)));
    }
}

#[test]
fn nothing_is_redacted_where_it_is_switched_off() {
    let redactor = Redactor::new(&Redaction { enabled: false, ..Redaction::default() }).unwrap();
    assert_eq!(redactor.args(b"mysql\0-phunter2\0", b"mysql", false), None);
    assert_eq!(redactor.text(b"postgres://a:hunter2@b/", false), None);
}

#[test]
fn rules_travel_as_bits_and_have_names_of_their_own() {
    assert_eq!(Rule::ALL.len(), Rule::COUNT);
    for (number, rule) in Rule::ALL.iter().enumerate() {
        assert_eq!(*rule as usize, number);
        let mut rules = RuleSet::default();
        rules.insert(*rule);
        assert_eq!(RuleSet::from_bits(rules.bits() | 1 << 31).iter().collect::<Vec<_>>(), [*rule]);
    }
}
#[test]
fn a_marker_is_a_value_of_its_own_wherever_it_stands() {
    let redacted = redactor().args(b"password'::", b"sh", false).unwrap();
    assert_eq!(redacted.bytes, b"password':[redacted]");
    assert_eq!(redactor().args(&redacted.bytes, b"sh", false), None);
}
