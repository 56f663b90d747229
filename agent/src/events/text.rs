//! Text of the kernel, which is bytes, as the text of an event, which is Unicode.
//!
//! Paths, arguments and names may be any bytes. Two that differ must differ in the event too, so
//! the escape is reversible:
//!
//! - Valid UTF-8 is itself, control characters included: those are the JSON encoder's part.
//! - An invalid byte is `\xNN`, in lower-case hexadecimal.
//! - Backslashes are themselves, unless what they stand before comes out as an `x`. *m* of them
//!   before a literal `x` are doubled, to 2*m*; *m* before an invalid byte are doubled too, and
//!   with the one of the escape make 2*m* + 1.
//!
//! To decode, count the backslashes before each `x`. An odd number *n* means (*n* − 1) / 2
//! backslashes and an escape, an even one *n* / 2 backslashes and the letter.

use std::borrow::Cow;
use std::fmt::Write as _;

use memchr::memchr;

/// `bytes` as text that can be turned back into them.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) if !has_escape(text) => Cow::Borrowed(text),
        _ => Cow::Owned(escape(bytes)),
    }
}

/// The same, where the bytes are of no further use.
pub(crate) fn owned(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) if !has_escape(&text) => text,
        Ok(text) => escape(text.as_bytes()),
        Err(error) => escape(error.as_bytes()),
    }
}

/// Whether there is anything that looks like an escape.
pub(super) fn has_escape(text: &str) -> bool {
    // Nearly no text has a backslash, and one byte is found faster than two.
    memchr(b'\\', text.as_bytes()).is_some() && text.contains("\\x")
}

/// `text` with nothing in it that would act on a terminal: control characters and the marks that
/// reorder text are shown as `\u{..}`.
///
/// For people, not for machines: what was escaped cannot be told from what looked so before.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_active(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn escape(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        let mut run = 0;
        for character in chunk.valid().chars() {
            match character {
                '\\' => run += 1,
                'x' => {
                    push_backslashes(&mut escaped, run);
                    run = 0;
                }
                _ => run = 0,
            }
            escaped.push(character);
        }
        if !chunk.invalid().is_empty() {
            push_backslashes(&mut escaped, run);
        }
        for byte in chunk.invalid() {
            // Writing to a `String` cannot fail.
            write!(escaped, "\\x{byte:02x}").ok();
        }
    }
    escaped
}

fn push_backslashes(text: &mut String, count: usize) {
    text.extend(std::iter::repeat_n('\\', count));
}

/// Control characters (C0, DEL and C1), and the embeddings, overrides and isolates of
/// bidirectional text, which could show a path in another order than it has.
fn is_active(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// The bytes that `text` made `text` from.
    fn original(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some(&first) = rest.first() {
            let run = rest.iter().take_while(|&&byte| byte == b'\\').count();
            if rest.get(run) != Some(&b'x') {
                let len = run.max(1);
                bytes.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
            } else if run % 2 == 1 {
                bytes.extend(std::iter::repeat_n(b'\\', run / 2));
                let digits = str::from_utf8(&rest[run + 1..run + 3]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &rest[run + 3..];
            } else {
                bytes.extend(std::iter::repeat_n(first, run / 2));
                bytes.push(b'x');
                rest = &rest[run + 1..];
            }
        }
        bytes
    }

    /// Bytes in which what the escape is about is frequent.
    fn awkward() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop::sample::select(b"\\\\\\xx0fa\n\xff\x80\xc3\xa9\xe2\x82\xac\xf0".to_vec());
        prop::collection::vec(byte, 0..24)
    }

    #[test]
    fn valid_text_is_borrowed() {
        for bytes in ["", "/usr/bin/true", "a\nb\x1b[31m", "C:\\temp", "x\\", "\\\\", "π ≠ 3", "\0"] {
            assert!(matches!(text(bytes.as_bytes()), Cow::Borrowed(same) if same == bytes), "{bytes:?}");
        }
    }

    #[test]
    fn invalid_bytes_and_what_looks_like_them_are_escaped() {
        for (bytes, expected) in [
            (&b"caf\xe9"[..], r"caf\xe9"),
            (b"\xff\xfe", r"\xff\xfe"),
            (b"\x80x", r"\x80x"),
            (b"\\xff", r"\\xff"),
            (b"\\\\x", r"\\\\x"),
            (b"\\\xff", r"\\\xff"),
            (b"\\\\\xff", r"\\\\\xff"),
            (b"\\n\xff", r"\n\xff"),
            (b"\xff\\", r"\xff\"),
            (b"\xff\\x", r"\xff\\x"),
            // Cut off in the middle of a character, as a kernel buffer may be.
            ("é€".as_bytes().split_last().unwrap().1, r"é\xe2\x82"),
        ] {
            assert_eq!(text(bytes), expected);
            assert_eq!(original(expected), bytes);
        }
    }

    #[test]
    fn no_two_short_byte_strings_have_the_same_text() {
        let mut seen = HashMap::new();
        let mut last = vec![Vec::new()];
        for _ in 0..7 {
            let mut longer = Vec::new();
            for bytes in last {
                for byte in b"\\xf\xff" {
                    longer.push([bytes.as_slice(), &[*byte]].concat());
                }
                let escaped = text(&bytes).into_owned();
                if let Some(other) = seen.insert(escaped, bytes.clone()) {
                    panic!("{other:?} and {bytes:?} have the same text");
                }
            }
            last = longer;
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_had_back(bytes: Vec<u8>) {
            prop_assert_eq!(original(&text(&bytes)), bytes);
        }

        #[test]
        fn owned_text_is_the_same(bytes in awkward()) {
            prop_assert_eq!(owned(bytes.clone()), text(&bytes));
        }

        #[test]
        fn awkward_bytes_can_be_had_back(bytes in awkward()) {
            prop_assert_eq!(original(&text(&bytes)), bytes);
        }

        #[test]
        fn distinct_bytes_have_distinct_text(one in awkward(), other in awkward()) {
            prop_assert_eq!(text(&one) == text(&other), one == other);
        }

        #[test]
        fn printable_text_has_nothing_active(any: String) {
            prop_assert!(!printable(&any).contains(is_active));
        }
    }

    #[test]
    fn printable_leaves_harmless_text_alone() {
        for plain in ["", "/usr/bin/true", r"caf\xe9", "π ≠ 3", "עברית", "👩‍🚀"] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain), "{plain:?}");
        }
    }

    #[test]
    fn printable_shows_what_would_act_on_a_terminal() {
        assert_eq!(printable("a\x1b[31mb"), r"a\u{1b}[31mb");
        assert_eq!(printable("a\r\n\tb\0"), r"a\u{d}\u{a}\u{9}b\u{0}");
        assert_eq!(printable("\x7f\u{9b}31m"), r"\u{7f}\u{9b}31m");
        assert_eq!(printable("cod\u{202e}exe.txt\u{2069}"), r"cod\u{202e}exe.txt\u{2069}");
    }
}
