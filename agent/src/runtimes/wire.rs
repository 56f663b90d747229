//! Protocol Buffers, as much of them as answers of a container runtime need: fields are looked at where they lie, and
//! what nobody asks for is passed over without a copy.
//!
//! Any bytes give fields or an error. <https://protobuf.dev/programming-guides/encoding/>

use std::sync::Arc;

use thiserror::Error;

use crate::events::text;

/// A text is cut here, in bytes. Names of Kubernetes have 253 at the most.
const LONGEST: usize = 512;

#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed message")]
pub(super) struct Malformed;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed size: none of ours.
    Fixed,
}

/// The fields of a message, in their order.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.number()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn number(&mut self) -> Option<u64> {
        let (number, len) = number(self.0)?;
        self.0 = self.0.get(len..)?;
        Some(number)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

/// A number at the beginning, and how many bytes it takes; `None` where it has no end yet, or is too long.
pub(super) fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f).checked_shl(u32::try_from(place * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((number, place + 1));
        }
    }
    None
}

/// The first field of this number that has bytes.
pub(super) fn bytes(message: &[u8], wanted: u64) -> Result<Option<&[u8]>, Malformed> {
    for field in Fields(message) {
        if let (number, Value::Bytes(found)) = field?
            && number == wanted
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A text that is not empty. What is not UTF-8 is escaped, and a long one is cut.
pub(super) fn text(bytes: &[u8]) -> Option<Arc<str>> {
    if bytes.is_empty() {
        return None;
    }
    let text = text::text(bytes.get(..LONGEST).unwrap_or(bytes));
    Some(text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default().into())
}

/// A message with one text, whose field has this number.
pub(super) fn with_text(number: u8, text: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    let mut len = text.len();
    while len >= 0x80 {
        message.push(u8::try_from(len & 0x7f).unwrap_or_default() | 0x80);
        len >>= 7;
    }
    message.push(u8::try_from(len).unwrap_or_default());
    message.extend(text);
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for len in [0, 1, 127, 128, 300, 20_000] {
            let text = vec![b'x'; len];
            let message = with_text(3, &text);
            assert_eq!(Fields(&message).collect::<Vec<_>>(), [Ok((3, Value::Bytes(&text)))]);
        }
    }

    #[test]
    fn fields_that_nobody_asks_for_are_passed_over() {
        let message = [0x08, 0x96, 0x01, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1d, 1, 2, 3, 4, 0x22, 1, b'a'];
        assert_eq!(bytes(&message, 4), Ok(Some(&b"a"[..])));
        assert_eq!(Fields(&message).next(), Some(Ok((1, Value::Number(150)))));
    }

    #[test]
    fn a_text_is_cut_and_has_no_invalid_bytes() {
        assert_eq!(text(&[b'a'; 600]).unwrap().len(), 512);
        assert!(text(b"a\xff").unwrap().starts_with('a'));
        assert_eq!(text(b""), None);
        // Escaping makes it longer.
        assert!(text(&[0xff; 600]).unwrap().len() <= 512);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let fields: Vec<_> = Fields(&bytes).collect();
            prop_assert!(fields.len() <= bytes.len());
            let malformed = fields.iter().position(Result::is_err);
            prop_assert!(malformed.is_none_or(|at| at + 1 == fields.len()));
        }
    }
}
