//! The texts of a record: to look at before anything else does, and to put others in their place.

use std::borrow::Cow;

use tellwire_ebpf::{
    cgroup::Cgroup,
    exec::Exec,
    exec_failed::ExecFailed,
    pam::Pam,
    wire::{Header, Kind, Span},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{DecodeError, Tail, body, paths::Names};

/// The most texts that a record has.
const MOST: usize = 5;

/// How a text is put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// One string.
    #[default]
    Plain,
    /// Arguments, each with a NUL behind it; the last can be cut.
    Args { cut: bool },
    /// Names of a path, the last first, each with a NUL behind it.
    Names,
}

/// The texts of a record in the order of its spans. Kinds that have fewer have empty ones at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Texts<'a> {
    pub(crate) all: [(Form, &'a [u8]); MOST],
    /// The name of the file that runs, for an exec.
    pub(crate) program: &'a [u8],
}

/// The texts of a record.
pub(crate) fn texts(record: &[u8]) -> Result<Texts<'_>, DecodeError> {
    let (header, rest) = Header::read_from_prefix(record).or(Err(DecodeError::Short(record.len())))?;
    let tail = Tail(record);
    let mut texts = Texts::default();
    match Kind::from_number(header.kind.into()).ok_or(DecodeError::Kind(header.kind))? {
        Kind::Exec => {
            let exec: Exec = body(rest)?;
            let cut = u64::from(exec.args.len) < exec.args_total;
            let executable = tail.get(exec.executable)?;
            texts.program = Names(executable).file();
            texts.all = [
                (Form::Args { cut }, tail.get(exec.args)?),
                (Form::Names, executable),
                (Form::Names, tail.get(exec.working_directory)?),
                (Form::Plain, tail.get(exec.filename)?),
                (Form::Plain, tail.get(exec.interpreter)?),
            ];
        }
        Kind::ExecFailed => texts.all[0].1 = tail.get(body::<ExecFailed>(rest)?.path)?,
        Kind::CgroupMkdir => texts.all[0].1 = tail.get(body::<Cgroup>(rest)?.path)?,
        Kind::Pam => {
            let pam: Pam = body(rest)?;
            let spans = [pam.service, pam.user, pam.remote_host, pam.remote_user, pam.terminal];
            for (text, span) in texts.all.iter_mut().zip(spans) {
                text.1 = tail.get(span)?;
            }
        }
        Kind::Fork | Kind::Exit | Kind::Connect | Kind::Close | Kind::Credentials | Kind::CgroupRmdir => {}
    }
    Ok(texts)
}

/// The same record with these texts, in the order of [`texts`], and with nothing between them: what stood there in
/// the ring's memory is of older records.
pub(crate) fn with_texts(record: &[u8], texts: &[Cow<'_, [u8]>; MOST]) -> Result<Vec<u8>, DecodeError> {
    let (mut header, rest) = Header::read_from_prefix(record).or(Err(DecodeError::Short(record.len())))?;
    let kind = Kind::from_number(header.kind.into()).ok_or(DecodeError::Kind(header.kind))?;
    let mut written = Written { fixed: Vec::new(), tail: Vec::new(), at: size_of::<Header>() };
    let [first, second, third, fourth, fifth] = texts;
    match kind {
        Kind::Exec => {
            let mut exec: Exec = body(rest)?;
            written.at += size_of::<Exec>();
            let beyond = exec.args_total.saturating_sub(exec.args.len.into());
            exec.args = written.put(first);
            // What was cut stays as much as it was.
            exec.args_total = beyond + u64::from(exec.args.len);
            exec.executable = written.put(second);
            exec.working_directory = written.put(third);
            exec.filename = written.put(fourth);
            exec.interpreter = written.put(fifth);
            written.fix(&exec);
        }
        Kind::ExecFailed => {
            let mut failed: ExecFailed = body(rest)?;
            written.at += size_of::<ExecFailed>();
            failed.path = written.put(first);
            written.fix(&failed);
        }
        Kind::CgroupMkdir => {
            let mut cgroup: Cgroup = body(rest)?;
            written.at += size_of::<Cgroup>();
            cgroup.path = written.put(first);
            written.fix(&cgroup);
        }
        Kind::Pam => {
            let mut pam: Pam = body(rest)?;
            written.at += size_of::<Pam>();
            pam.service = written.put(first);
            pam.user = written.put(second);
            pam.remote_host = written.put(third);
            pam.remote_user = written.put(fourth);
            pam.terminal = written.put(fifth);
            written.fix(&pam);
        }
        Kind::Fork => written.fix(&body::<tellwire_ebpf::process::Fork>(rest)?),
        Kind::Exit => written.fix(&body::<tellwire_ebpf::process::Exit>(rest)?),
        Kind::Connect => written.fix(&body::<tellwire_ebpf::network::Connect>(rest)?),
        Kind::Close => written.fix(&body::<tellwire_ebpf::close::Close>(rest)?),
        Kind::Credentials => written.fix(&body::<tellwire_ebpf::privilege::Credentials>(rest)?),
        Kind::CgroupRmdir => written.fix(&body::<Cgroup>(rest)?),
    }
    let Written { fixed, tail, at: _ } = written;
    let len = size_of::<Header>() + fixed.len() + tail.len();
    header.len = u32::try_from(len).unwrap_or(u32::MAX);
    Ok([header.as_bytes(), &fixed, &tail].concat())
}

/// A record's parts behind the header.
struct Written {
    fixed: Vec<u8>,
    tail: Vec<u8>,
    /// Where the tail begins.
    at: usize,
}

impl Written {
    fn put(&mut self, text: &[u8]) -> Span {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let start = number(self.at + self.tail.len());
        self.tail.extend_from_slice(text);
        Span { start, len: number(text.len()) }
    }

    fn fix<T: IntoBytes + Immutable + FromBytes>(&mut self, body: &T) {
        self.fixed.extend_from_slice(body.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::events::{self, Event};

    /// An exec with texts, and leftovers between them.
    fn exec() -> Vec<u8> {
        let fixed = size_of::<Header>() + size_of::<Exec>();
        let mut header = Header::new_zeroed();
        header.version = tellwire_ebpf::wire::VERSION;
        header.kind = Kind::Exec as u8;
        let mut exec = Exec::new_zeroed();
        let span = |start: usize, len: u32| Span { start: u32::try_from(fixed + start).unwrap(), len };
        exec.args = span(0, 6);
        exec.args_total = 10;
        exec.executable = span(12, 3);
        [header.as_bytes(), exec.as_bytes(), b"a\0bc\0dLEFTOVls\0"].concat()
    }

    #[test]
    fn a_record_with_other_texts_has_nothing_of_the_old_ones() {
        let record = exec();
        let texts = texts(&record).unwrap();
        assert_eq!(texts.program, b"ls");
        assert_eq!(texts.all[0], (Form::Args { cut: true }, &b"a\0bc\0d"[..]));
        let mut others = texts.all.map(|(_, text)| Cow::Borrowed(text));
        others[0] = Cow::Borrowed(b"a\0[redacted]\0d");
        let changed = with_texts(&record, &others).unwrap();
        let (header, Event::Exec(exec)) = events::decode(&changed).unwrap() else { panic!() };
        assert_eq!(header.len as usize, changed.len());
        assert_eq!(exec.args().collect::<Vec<_>>(), [&b"a"[..], b"[redacted]", b"d"]);
        assert!(exec.args_truncated());
        assert_eq!(exec.wire.args_total, 18);
        assert_eq!(exec.executable.to_string(), "/ls");
        assert!(!changed.windows(6).any(|bytes| bytes == b"LEFTOV"));
    }
}
