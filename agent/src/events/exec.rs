//! Execution: the strings of an exec record.

use memchr::memchr;
use tellwire_ebpf::{exec as wire, exec_failed};

use super::{
    DecodeError, Tail,
    paths::Names,
    text::{has_escape, text},
};

/// A new program image, as its record has it.
#[derive(Debug)]
pub(crate) struct Exec<'a> {
    pub(crate) wire: wire::Exec,
    args: &'a [u8],
    /// The file that runs.
    pub(crate) executable: Names<'a>,
    pub(crate) working_directory: Names<'a>,
    /// What was given to exec.
    pub(crate) filename: &'a [u8],
    /// What a script's first line names; empty where there is no script.
    pub(crate) interpreter: &'a [u8],
}

impl<'a> Exec<'a> {
    pub(super) fn new(wire: wire::Exec, tail: Tail<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            args: tail.get(wire.args)?,
            executable: Names(tail.get(wire.executable)?),
            working_directory: Names(tail.get(wire.working_directory)?),
            filename: tail.get(wire.filename)?,
            interpreter: tail.get(wire.interpreter)?,
            wire,
        })
    }

    /// Every argument, empty ones too; the last may be cut.
    pub(crate) fn args(&self) -> impl Iterator<Item = &'a [u8]> {
        // Each argument has a NUL behind it, so the piece behind the last NUL is none, unless the end is missing.
        let mut rest = (!self.args.is_empty()).then(|| self.args.strip_suffix(b"\0").unwrap_or(self.args));
        std::iter::from_fn(move || {
            let args = rest?;
            let Some(end) = memchr(0, args) else { return rest.take() };
            rest = args.get(end + 1..);
            args.get(..end)
        })
    }

    /// Puts the arguments into `line`, as text, with a blank between each two.
    pub(crate) fn command_line(&self, line: &mut String) {
        // All at once, where that gives the same: a command line can have hundreds of arguments.
        let mut bytes = std::mem::take(line).into_bytes();
        bytes.clear();
        bytes.extend_from_slice(self.args.strip_suffix(b"\0").unwrap_or(self.args));
        for byte in &mut bytes {
            *byte = if *byte == 0 { b' ' } else { *byte };
        }
        match String::from_utf8(bytes) {
            Ok(text) if !has_escape(&text) => *line = text,
            _ => *line = self.args().map(text).collect::<Vec<_>>().join(" "),
        }
    }

    pub(crate) fn args_truncated(&self) -> bool {
        u64::from(self.wire.args.len) < self.wire.args_total
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.wire.flags & flag != 0
    }

    /// Whether the file itself brings other ids: set-user-id, or set-group-id with group execution.
    pub(crate) fn is_set_id(&self) -> bool {
        self.wire.mode & 0o4000 != 0 || self.wire.mode & 0o2010 == 0o2010
    }
}

/// An exec that gave no image.
#[derive(Debug)]
pub(crate) struct ExecFailed<'a> {
    /// errno.
    pub(crate) error: u32,
    /// From the caller's memory: another thread can have rewritten it.
    pub(crate) path: &'a [u8],
}

impl<'a> ExecFailed<'a> {
    pub(super) fn new(wire: exec_failed::ExecFailed, tail: Tail<'a>) -> Result<Self, DecodeError> {
        Ok(Self { error: wire.error, path: tail.get(wire.path)? })
    }
}

#[cfg(test)]
mod tests {
    use tellwire_ebpf::wire::Span;
    use zerocopy::FromZeros as _;

    use super::*;

    fn args(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut wire = wire::Exec::new_zeroed();
        wire.args = Span { start: 0, len: u32::try_from(bytes.len()).unwrap() };
        let exec = Exec::new(wire, Tail(bytes)).unwrap();
        exec.args().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_command_line_is_the_text_of_each_argument() {
        for bytes in [
            &b"ls\0-l\0\0end\0"[..],
            b"",
            b"\0",
            b"cut at\0the en",
            b"a\\\0xb\0",
            b"a\\x\0b\0",
            b"\xff\0\xc3\xa9\0",
        ] {
            let mut wire = wire::Exec::new_zeroed();
            wire.args = Span { start: 0, len: u32::try_from(bytes.len()).unwrap() };
            let exec = Exec::new(wire, Tail(bytes)).unwrap();
            let mut line = "what was there".to_owned();
            exec.command_line(&mut line);
            assert_eq!(line, exec.args().map(text).collect::<Vec<_>>().join(" "), "{bytes:?}");
        }
    }

    #[test]
    fn empty_arguments_are_kept_wherever_they_stand() {
        assert_eq!(args(b"a\0\0b\0\0"), [&b"a"[..], b"", b"b", b""]);
        assert_eq!(args(b"\0"), [b""]);
    }

    #[test]
    fn no_arguments_are_none() {
        assert_eq!(args(b""), [[0_u8; 0]; 0]);
    }

    #[test]
    fn an_argument_that_is_cut_is_kept() {
        assert_eq!(args(b"a\0bc"), [&b"a"[..], b"bc"]);
    }
}
