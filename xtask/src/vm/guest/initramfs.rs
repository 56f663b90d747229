//! The guest's file system: a cpio archive in the kernel's `newc` format, made from nothing but our own files.
//!
//! Not compressed: the guest is emulated, and would take longer to unpack than QEMU to copy.
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// An archive that grows entry by entry. A folder stands before what is in it.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    pub(super) fn program(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, PROGRAM, content)
    }

    pub(super) fn text(&mut self, path: &str, content: &str) -> Result<()> {
        self.file(path, content.as_bytes())
    }

    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, TEXT, content)
    }

    pub(super) fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.entry(path, LINK, to.as_bytes())
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is too large for cpio"))?;
        let name = u32::try_from(path.len() + 1).with_context(|| format!("{path} is too long for cpio"))?;
        self.bytes.extend_from_slice(b"070701");
        // ino, mode, uid, gid, nlink, mtime, size, device (2), special device (2), length of the name, checksum.
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Names and contents each end on a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    /// Reads an archive back by the format's description: name, mode, content.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        while !archive.is_empty() {
            let field = |at: usize| {
                let text = str::from_utf8(&archive[6 + at * 8..14 + at * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (size, name) = (field(6) as usize, field(11) as usize);
            let content = (110 + name).next_multiple_of(4);
            assert_eq!(&archive[..6], b"070701");
            assert_eq!(archive[110 + name - 1], 0);
            let path = str::from_utf8(&archive[110..110 + name - 1]).unwrap();
            found.push((path.into(), field(1), archive[content..content + size].into()));
            archive = &archive[(content + size).next_multiple_of(4)..];
        }
        found
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut archive = Archive::default();
        archive.directory("bin").unwrap();
        archive.program("bin/a", b"\x7fELF!").unwrap();
        archive.link("bin/sh", "a").unwrap();
        archive.text("empty", "").unwrap();
        let names = entries(&archive.finish().unwrap());
        let expected: [(&str, u32, &[u8]); 5] = [
            ("bin", 0o040_755, b""),
            ("bin/a", 0o100_755, b"\x7fELF!"),
            ("bin/sh", 0o120_777, b"a"),
            ("empty", 0o100_644, b""),
            ("TRAILER!!!", 0, b""),
        ];
        let expected = expected.map(|(name, mode, content)| (name.to_owned(), mode, content.to_vec()));
        assert_eq!(names, expected);
    }

    #[test]
    fn every_entry_has_its_own_inode() {
        let mut archive = Archive::default();
        archive.directory("a").unwrap();
        archive.directory("b").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("07070100000001") && text.contains("07070100000002"));
    }
}
