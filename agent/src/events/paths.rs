//! Paths as the kernel side writes them: names from the file to the root, each with a NUL behind it.

use std::fmt;

/// A path in pieces, the last name first.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a>(pub(crate) &'a [u8]);

impl<'a> Names<'a> {
    /// The last name of the path.
    pub(crate) fn file(self) -> &'a [u8] {
        self.0.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The path's bytes, in order, with slashes. `/` for no names at all: that is the root's own path.
    ///
    /// A memfd has a name and no place: `memfd:name`, without a slash.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let names = self.0.strip_suffix(b"\0").unwrap_or(self.0);
        if names.is_empty() {
            return b"/".to_vec();
        }
        if names.starts_with(b"memfd:") && !names.contains(&0) {
            return names.to_vec();
        }
        let mut path = Vec::with_capacity(names.len() + 1);
        for name in names.rsplit(|byte| *byte == 0) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    /// The path as text, with bytes that are no UTF-8 escaped.
    pub(crate) fn to_text(self) -> String {
        super::text::owned(self.to_bytes())
    }
}

impl fmt::Display for Names<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_text())
    }
}

impl fmt::Debug for Names<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.to_text())
    }
}

/// A path that was given relative to a directory, made absolute without asking the file system.
///
/// `.` is dropped; `..` stays, since what it means depends on links that may have changed.
pub(crate) fn absolute(path: &str, directory: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let path = path.trim_start_matches("./");
    format!("{}/{path}", directory.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_together_from_the_root() {
        assert_eq!(Names(b"ls\0bin\0usr\0").to_string(), "/usr/bin/ls");
        assert_eq!(Names(b"").to_string(), "/");
    }

    #[test]
    fn a_memfd_has_no_slash() {
        assert_eq!(Names(b"memfd:payload\0").to_string(), "memfd:payload");
        assert_eq!(Names(b"memfd:payload\0tmp\0").to_string(), "/tmp/memfd:payload");
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        assert_eq!(absolute("./run.sh", "/srv/app"), "/srv/app/run.sh");
        assert_eq!(absolute("run.sh", "/"), "/run.sh");
        assert_eq!(absolute("/bin/x", "/srv"), "/bin/x");
    }
}
