//! Appending the encoder's pieces, which are short and many.

use std::io;

use bytes::{BufMut as _, BytesMut};

/// A line's encoder writes a hundred pieces of some ten bytes. Copies of a size that the compiler knows are a few
/// instructions each, where a call of the C library's `memcpy` for any size (musl's is `rep movsq`) costs tens of
/// nanoseconds.
pub(super) struct Appender<'a>(pub(super) &'a mut BytesMut);

/// From here on a call costs less than it copies.
const LONG: usize = 128;

impl io::Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match *bytes {
            // Quotes, commas and colons.
            [byte] => self.0.put_u8(byte),
            _ => append(self.0, bytes),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append(to: &mut BytesMut, mut bytes: &[u8]) {
    if bytes.len() >= LONG {
        return to.extend_from_slice(bytes);
    }
    while let Some((chunk, rest)) = bytes.split_first_chunk::<16>() {
        to.extend_from_slice(chunk);
        bytes = rest;
    }
    if let Some((chunk, rest)) = bytes.split_first_chunk::<8>() {
        to.extend_from_slice(chunk);
        bytes = rest;
    }
    if let Some((chunk, rest)) = bytes.split_first_chunk::<4>() {
        to.extend_from_slice(chunk);
        bytes = rest;
    }
    for byte in bytes {
        to.put_u8(*byte);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{Appender, LONG};

    proptest! {
        #[test]
        fn nothing_is_lost_or_added(pieces in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..2 * LONG), 0..8,
        )) {
            let mut to = BytesMut::new();
            for piece in &pieces {
                Appender(&mut to).write_all(piece).unwrap();
            }
            prop_assert_eq!(to.as_ref(), pieces.concat());
        }
    }
}
