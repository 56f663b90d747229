//! `key=value` fields of an audit record's text.
//!
//! A value is quoted, or it is a word. Where libaudit finds a sign in a value that would break the quotes, it writes
//! the bytes in hexadecimal, without quotes (`audit_encode_nv_string`).

use std::borrow::Cow;

/// A value as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Between quotes.
    Quoted(&'a [u8]),
    Bare(&'a [u8]),
}

/// Words that stand for nothing: of libaudit, of sshd, of PAM and of the kernel.
const NOTHING: [&[u8]; 6] = [b"", b"?", b"(unknown)", b"(unknown user)", b"(invalid user)", b"(none)"];

impl<'a> Value<'a> {
    fn bytes(self) -> &'a [u8] {
        let (Self::Quoted(bytes) | Self::Bare(bytes)) = self;
        bytes
    }

    /// As it is; `None` where it stands for nothing.
    pub(super) fn plain(self) -> Option<&'a [u8]> {
        Some(self.bytes()).filter(|bytes| !NOTHING.contains(bytes))
    }

    /// Out of its hexadecimal form, if it has it.
    pub(super) fn decoded(self) -> Option<Cow<'a, [u8]>> {
        let value = match self {
            Self::Bare(bytes) => unhex(bytes).map_or(Cow::Borrowed(bytes), Cow::Owned),
            Self::Quoted(bytes) => Cow::Borrowed(bytes),
        };
        Some(value).filter(|value| !NOTHING.contains(&value.as_ref()))
    }

    pub(super) fn number(self) -> Option<u32> {
        str::from_utf8(self.bytes()).ok()?.parse().ok()
    }

    /// A user or a session, where it was ever set.
    pub(super) fn id(self) -> Option<u32> {
        self.number().filter(|id| *id != u32::MAX)
    }
}

/// The fields of a text, in its order. What is none is passed over.
pub(super) fn of(text: &[u8]) -> impl Iterator<Item = (&[u8], Value<'_>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.iter().position(|byte| *byte != b' ')?;
            rest = rest.get(start..)?;
            let end = rest.iter().position(|byte| matches!(byte, b' ' | b'='))?;
            let (key, behind) = rest.split_at_checked(end)?;
            let Some(value) = behind.strip_prefix(b"=") else {
                rest = behind;
                continue;
            };
            let (value, behind) = value_of(key, value);
            rest = behind;
            if !key.is_empty() {
                return Some((key, value));
            }
        }
    })
}

fn value_of<'a>(key: &[u8], text: &'a [u8]) -> (Value<'a>, &'a [u8]) {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        let end = quoted.iter().position(|byte| *byte == b'"').unwrap_or(quoted.len());
        let (value, behind) = quoted.split_at_checked(end).unwrap_or((quoted, &[]));
        return (Value::Quoted(value), behind.get(1..).unwrap_or_default());
    }
    let mut end = word_end(text, 0);
    // The one value that some programs write with spaces in it: `op=adding user`.
    while key == b"op" && end < text.len() {
        let next = word_end(text, end + 1);
        if text.get(end..next).is_none_or(|word| word.contains(&b'=')) {
            break;
        }
        end = next;
    }
    let (value, behind) = text.split_at_checked(end).unwrap_or((text, &[]));
    (Value::Bare(value), behind)
}

/// Where the word ends that begins at `from`.
fn word_end(text: &[u8], from: usize) -> usize {
    let word = text.get(from..).unwrap_or_default();
    from + word.iter().position(|byte| *byte == b' ').unwrap_or(word.len())
}

fn unhex(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    bytes
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Value, of};

    fn fields(text: &str) -> Vec<(String, Option<String>)> {
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        of(text.as_bytes())
            .map(|(key, value)| (text_of(key), value.decoded().map(|value| text_of(&value))))
            .collect()
    }

    #[test]
    fn values_are_quoted_or_words_or_hexadecimal() {
        let told = fields(r#"a="b c" d=68657921 e="68657921" f=? g=(unknown) h= i=/bin/su"#);
        let expected = [
            ("a", Some("b c")),
            ("d", Some("hey!")),
            ("e", Some("68657921")),
            ("f", None),
            ("g", None),
            ("h", None),
            ("i", Some("/bin/su")),
        ];
        assert_eq!(told, expected.map(|(key, value)| (key.to_owned(), value.map(ToOwned::to_owned))));
    }

    #[test]
    fn an_operation_may_have_spaces_and_words_without_a_key_are_passed_over() {
        let plain: Vec<_> =
            of(b"lost op=adding user to group acct=\"x\" word res=1").map(|(_, value)| value).collect();
        assert_eq!(plain, [Value::Bare(b"adding user to group"), Value::Quoted(b"x"), Value::Bare(b"1")]);
    }

    #[test]
    fn numbers_that_were_never_set_are_none() {
        let numbers: Vec<_> = of(b"a=0 b=4294967295 c=-1 d=12x").map(|(_, value)| value.id()).collect();
        assert_eq!(numbers, [Some(0), None, None, None]);
    }
}
