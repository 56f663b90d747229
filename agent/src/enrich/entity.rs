//! Entity ids: one for each process that ever was on any host.

use sha2::{Digest as _, Sha256};

/// `process.entity_id`: 24 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EntityId([u8; 24]);

impl EntityId {
    /// Hashes the boot, the process id and its start (CLOCK_BOOTTIME in nanoseconds): the same over exec, and
    /// never the same again. 96 bits: a fleet makes 10^10 processes and a collision is one in 10^9 still.
    pub(crate) fn new(boot_id: &str, tgid: u32, start: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(boot_id.as_bytes());
        hash.update(tgid.to_le_bytes());
        hash.update(start.to_le_bytes());
        let digest = hash.finalize();
        let mut id = [b'0'; 24];
        for (pair, byte) in id.chunks_exact_mut(2).zip(digest.iter()) {
            pair.copy_from_slice(&[hex(byte >> 4), hex(byte & 0xf)]);
        }
        Self(id)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The digit of a number below 16.
fn hex(number: u8) -> u8 {
    if number < 10 { b'0' + number } else { b'a' + number - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_makes_another_entity() {
        let id = EntityId::new("boot", 7, 9);
        assert_eq!(id, EntityId::new("boot", 7, 9));
        assert_ne!(id, EntityId::new("other", 7, 9));
        assert_ne!(id, EntityId::new("boot", 8, 9));
        assert_ne!(id, EntityId::new("boot", 7, 10));
        assert_eq!(id.as_str().len(), 24);
    }
}
