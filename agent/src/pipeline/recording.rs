//! Records as they came from the rings, in a file: what the replay tests are fed with.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use tellwire_ebpf::wire::Ring;

use crate::events::texts::{texts, with_texts};

/// Writes records, each behind its ring's number and its length.
#[derive(Debug)]
pub(crate) struct Recorder(BufWriter<File>);

impl Recorder {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::new(File::create(path)?)))
    }

    /// Writes a record, without what stands between its texts: that is left over from older records, which nobody
    /// has redacted. For the same reason bytes that are no record are not written.
    pub(crate) fn put(&mut self, ring: Ring, record: &[u8]) -> io::Result<()> {
        let Ok(texts) = texts(record) else { return Ok(()) };
        let Ok(record) = with_texts(record, &texts.all.map(|(_, text)| Cow::Borrowed(text))) else {
            return Ok(());
        };
        let len = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.0.write_all(&[ring as u8])?;
        self.0.write_all(&len.to_le_bytes())?;
        self.0.write_all(&record)
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Reads a recording back.
#[cfg(test)]
pub(crate) fn records(mut bytes: &[u8]) -> Vec<(Ring, &[u8])> {
    let mut records = Vec::new();
    while let Some(([ring, len @ ..], rest)) = bytes.split_first_chunk::<5>() {
        let (record, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        records.push((Ring::from_number(u32::from(*ring)).unwrap(), record));
        bytes = rest;
    }
    records
}
