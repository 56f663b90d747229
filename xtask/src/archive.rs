//! Archives of which the same content gives the same bytes: sorted, owned by root, and of one time.

use std::{env, io::Write as _};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// One file, or a link, of an archive.
pub(crate) struct Entry {
    /// From the archive's root, without a `/` at its beginning.
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(path: impl Into<String>, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode, bytes: bytes.into() }
    }
}

/// When everything in an archive was changed last, in seconds since the epoch: `SOURCE_DATE_EPOCH` where it is set, as
/// reproducible-builds.org specifies it, else nothing.
pub(crate) fn epoch() -> Result<Option<u64>> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => {
            Ok(Some(text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number: {text}"))?))
        }
        _ => Ok(None),
    }
}

/// A tar of the files, by name, each behind the folders that lead to it where `folders` asks for them.
pub(crate) fn tar(mut entries: Vec<Entry>, folders: Folders, mtime: u64) -> Result<Vec<u8>> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut builder = Builder::new(Vec::new());
    let mut made: Vec<String> = Vec::new();
    let prefix = match folders {
        Folders::Dotted => "./",
        Folders::None | Folders::Plain => "",
    };
    for Entry { path, mode, bytes } in &entries {
        if folders != Folders::None {
            for (end, _) in path.match_indices('/') {
                let folder = path.get(..=end).unwrap_or_default().to_owned();
                if !made.contains(&folder) {
                    let mut header = header(EntryType::Directory, 0o755, 0, mtime);
                    builder.append_data(&mut header, format!("{prefix}{folder}"), std::io::empty())?;
                    made.push(folder);
                }
            }
        }
        let mut header = header(EntryType::Regular, *mode, bytes.len(), mtime);
        builder.append_data(&mut header, format!("{prefix}{path}"), bytes.as_slice())?;
    }
    Ok(builder.into_inner()?)
}

/// Whether folders have entries of their own, and what names begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folders {
    None,
    Plain,
    /// `./usr/`, as dpkg has it.
    Dotted,
}

fn header(kind: EntryType, mode: u32, size: usize, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Gzip without a name, a time and the machine's kind in its header.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// In hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing into a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{Entry, Folders, gzip, sha256, tar};

    fn names(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let entries =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        entries.collect()
    }

    #[test]
    fn the_order_in_which_files_are_given_does_not_matter() {
        let entries = |order: [usize; 3]| {
            let names = ["usr/bin/b", "etc/a", "usr/bin/c"];
            order.map(|index| Entry::new(names[index], 0o644, names[index])).into_iter().collect::<Vec<_>>()
        };
        let one = tar(entries([0, 1, 2]), Folders::Plain, 0).unwrap();
        assert_eq!(one, tar(entries([2, 0, 1]), Folders::Plain, 0).unwrap());
        assert_eq!(names(&one), ["etc/", "etc/a", "usr/", "usr/bin/", "usr/bin/b", "usr/bin/c"]);
        assert_eq!(
            names(&tar(entries([2, 0, 1]), Folders::None, 0).unwrap()),
            ["etc/a", "usr/bin/b", "usr/bin/c"]
        );
    }

    #[test]
    fn gzip_has_no_time_in_it() {
        let bytes = gzip(b"content").unwrap();
        assert_eq!((&bytes[..3], &bytes[4..8], bytes[9]), (&[0x1f, 0x8b, 8][..], &[0; 4][..], 255));
    }

    #[test]
    fn sums_are_those_of_everybody() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
