//! Where lines go, and how.

use std::fmt::{self, Display};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};

use super::choices::{Format, Style, SyslogFormat, Word, argument, word};
use super::values::{Bytes, Raw, Size, Time, read, schema};

/// What `sun_path` holds, less the NUL at its end.
const SOCKET_PATH: usize = 107;

/// The lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Output {
    /// Where lines go. "none" stands alone: metrics without lines. "journald" is the journal of this
    /// host, "journald:PATH" another socket that speaks its protocol. A peer that is not there yet is
    /// waited for.
    pub(crate) to: Vec<OutputSpec>,
    /// The schema of the lines.
    pub(crate) format: Format,
    /// How lines look on stdout. "auto" is "pretty" on a terminal and "json" elsewhere. Everything
    /// else gets JSON.
    pub(crate) style: Style,
    /// What may wait for each output, in bytes. An output that is slower than the events loses
    /// what finds no room; that is counted, and other outputs do not notice.
    pub(crate) queue_bytes: Size<65536, { 1 << 30 }>,
    pub(crate) file: OutputFile,
    pub(crate) syslog: OutputSyslog,
}

/// Files. Rotated ones lie beside them, as NAME.20261124T111530.123456Z or with .gz.
/// No line is split over two files. What is no regular file is not rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct OutputFile {
    /// A file that the next line would make larger than this is rotated; 0 for no limit. With this
    /// and max-age at 0, files are not rotated: leave it to logrotate.
    pub(crate) max_bytes: Bytes<0, { 1 << 40 }>,
    /// A file that is older than this is rotated, even if no line comes; "0s" for no limit.
    pub(crate) max_age: Time<0, { 366 * 24 * 3_600_000 }>,
    /// For the file and its rotated ones together; 0 for no limit. The oldest are deleted first.
    pub(crate) total_bytes: Bytes<0, { 1 << 44 }>,
    /// Whether rotated files are compressed by gzip, in the background.
    pub(crate) compress: bool,
    /// Who may read the files that the agent makes. Those that are there keep what they have.
    pub(crate) mode: Mode,
    /// The group of the files that the agent makes.
    pub(crate) group: Group,
}

/// Messages of "syslog:...".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct OutputSyslog {
    /// How a message begins: "rfc5424", or "local", which is what syslog(3) writes and what rsyslog
    /// and the journal expect on /dev/log.
    pub(crate) format: SyslogFormat,
    /// The facility of all messages. The severity is "info", "notice" for what failed, and "warning"
    /// for ids that changed by nothing that was seen.
    pub(crate) facility: Facility,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            to: vec![OutputSpec::Stdout],
            format: Format::Ecs,
            style: Style::Auto,
            queue_bytes: const { Size::new(4 << 20) },
            file: OutputFile::default(),
            syslog: OutputSyslog::default(),
        }
    }
}

impl Default for OutputFile {
    fn default() -> Self {
        Self {
            max_bytes: const { Bytes::new(64 << 20) },
            max_age: const { Time::from_millis(24 * 3_600_000) },
            total_bytes: const { Bytes::new(512 << 20) },
            compress: true,
            mode: Mode(0o640),
            group: Group::Own,
        }
    }
}

impl Default for OutputSyslog {
    fn default() -> Self {
        Self { format: SyslogFormat::Rfc5424, facility: Facility::Daemon }
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputSpec {
    Stdout,
    File(PathBuf),
    /// The host's own, if no socket is named.
    Journald(Option<PathBuf>),
    Syslog(Peer),
    Ndjson(Peer),
    /// No lines: metrics only.
    None,
}

/// Who is at the other end of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    Unix(PathBuf),
    Tcp(String, u16),
    Udp(String, u16),
}

impl OutputSpec {
    /// The name of its kind, in metrics too; none for no output.
    pub(crate) const fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Stdout => Some("stdout"),
            Self::File(_) => Some("file"),
            Self::Journald(_) => Some("journald"),
            Self::Syslog(_) => Some("syslog"),
            Self::Ndjson(_) => Some("ndjson"),
            Self::None => None,
        }
    }
}

impl Word for OutputSpec {
    fn accepts() -> String {
        "\"stdout\", \"file:PATH\", \"journald\", \"syslog:unix:PATH\", \"syslog:tcp:HOST:PORT\", \
         \"syslog:udp:HOST:PORT\", \"ndjson:unix:PATH\", \"ndjson:tcp:HOST:PORT\" or \"none\""
            .into()
    }

    fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("stdout", None) => Some(Self::Stdout),
            ("none", None) => Some(Self::None),
            ("journald", None) => Some(Self::Journald(None)),
            ("file", Some(path)) => (!path.is_empty()).then(|| Self::File(path.into())),
            ("journald", Some(path)) => socket_path(path).map(|path| Self::Journald(Some(path))),
            ("syslog", Some(peer)) => Peer::read(peer).map(Self::Syslog),
            ("ndjson", Some(peer)) => {
                // A line has no place in a datagram: who reads lines reads a stream.
                Peer::read(peer).filter(|peer| !matches!(peer, Peer::Udp(..))).map(Self::Ndjson)
            }
            _ => None,
        }
    }
}

impl Display for OutputSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => formatter.write_str("stdout"),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Journald(None) => formatter.write_str("journald"),
            Self::Journald(Some(path)) => write!(formatter, "journald:{}", path.display()),
            Self::Syslog(peer) => write!(formatter, "syslog:{peer}"),
            Self::Ndjson(peer) => write!(formatter, "ndjson:{peer}"),
            Self::None => formatter.write_str("none"),
        }
    }
}

impl Peer {
    fn read(text: &str) -> Option<Self> {
        let (transport, at) = text.split_once(':')?;
        match transport {
            "unix" => socket_path(at).map(Self::Unix),
            "tcp" => host_and_port(at).map(|(host, port)| Self::Tcp(host, port)),
            "udp" => host_and_port(at).map(|(host, port)| Self::Udp(host, port)),
            _ => None,
        }
    }
}

impl Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, host, port) = match self {
            Self::Unix(path) => return write!(formatter, "unix:{}", path.display()),
            Self::Tcp(host, port) => ("tcp", host, port),
            Self::Udp(host, port) => ("udp", host, port),
        };
        if host.contains(':') {
            write!(formatter, "{transport}:[{host}]:{port}")
        } else {
            write!(formatter, "{transport}:{host}:{port}")
        }
    }
}

fn socket_path(text: &str) -> Option<PathBuf> {
    (Path::new(text).is_absolute() && text.len() <= SOCKET_PATH).then(|| text.into())
}

/// `host:514`, `192.0.2.1:514`, `[2001:db8::1]:514`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|address| address.parse::<Ipv6Addr>().is_ok())?,
        None => host,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = text.starts_with('[') || (!host.is_empty() && host.bytes().all(is_name));
    is_host.then(|| (host.to_owned(), port))
}

word!(OutputSpec);
argument!(OutputSpec);

/// The permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode(u32);

impl Mode {
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl Word for Mode {
    fn accepts() -> String {
        "an octal mode that lets the owner read and write, others not write, and nobody execute, such as \"0640\""
            .into()
    }

    fn read(text: &str) -> Option<Self> {
        let is_octal =
            (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal)?;
        (mode & !0o664 == 0 && mode & 0o600 == 0o600).then_some(Self(mode))
    }
}

impl Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04o}", self.0)
    }
}

word!(Mode);

/// The group of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Group {
    /// That of the agent, or of a folder that gives its own to its files.
    Own,
    Id(u32),
    Name(String),
}

impl Word for Group {
    fn accepts() -> String {
        "a group of the host by name or number, such as \"adm\" or \"4\", or \"\" for that of the agent"
            .into()
    }

    fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Own);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The last number stands for no change.
            return text.parse().ok().filter(|id| *id != u32::MAX).map(Self::Id);
        }
        let is_name = |c: char| !c.is_whitespace() && !c.is_control() && c != ':';
        text.chars().all(is_name).then(|| Self::Name(text.into()))
    }
}

impl Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => Ok(()),
            Self::Id(id) => id.fmt(formatter),
            Self::Name(name) => name.fmt(formatter),
        }
    }
}

word!(Group);

/// Facilities of syslog that a daemon may choose; the numbers are those of RFC 5424.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

const FACILITIES: [(&str, Facility); 12] = [
    ("user", Facility::User),
    ("daemon", Facility::Daemon),
    ("auth", Facility::Auth),
    ("authpriv", Facility::Authpriv),
    ("local0", Facility::Local0),
    ("local1", Facility::Local1),
    ("local2", Facility::Local2),
    ("local3", Facility::Local3),
    ("local4", Facility::Local4),
    ("local5", Facility::Local5),
    ("local6", Facility::Local6),
    ("local7", Facility::Local7),
];

impl Word for Facility {
    fn accepts() -> String {
        "\"user\", \"daemon\", \"auth\", \"authpriv\" or one of \"local0\" to \"local7\"".into()
    }

    fn read(text: &str) -> Option<Self> {
        FACILITIES.iter().find(|(name, _)| *name == text).map(|(_, facility)| *facility)
    }
}

impl Display for Facility {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            FACILITIES.iter().find(|(_, facility)| facility == self).map_or("daemon", |(name, _)| name);
        formatter.write_str(name)
    }
}

word!(Facility);

#[cfg(test)]
mod tests {
    use super::{Facility, Group, Mode, OutputSpec, Word};

    fn reads<T: Word + ToString>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(T::read(text).map(|value| value.to_string()).as_deref(), Some(*text));
        }
        for text in bad {
            assert!(T::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn outputs_are_read_as_they_are_written() {
        let long = format!("ndjson:unix:/{}", "a".repeat(107));
        reads::<OutputSpec>(
            &[
                "stdout",
                "none",
                "file:/var/log/events.ndjson",
                "file:events",
                "journald",
                "journald:/run/other",
                "syslog:unix:/dev/log",
                "syslog:tcp:collector.example:6514",
                "syslog:udp:192.0.2.1:514",
                "ndjson:unix:/run/collector.sock",
                "ndjson:tcp:[2001:db8::1]:5000",
            ],
            &[
                "",
                "file",
                "file:",
                "Stdout",
                "stdout:",
                "/var/log/events",
                "stderr",
                "journald:",
                "journald:run/other",
                "syslog",
                "syslog:",
                "syslog:/dev/log",
                "syslog:unix:",
                "syslog:unix:dev/log",
                "syslog:tcp:514",
                "syslog:tcp::514",
                "syslog:tcp:host:0",
                "syslog:tcp:host:65536",
                "syslog:tcp:host",
                "syslog:tcp:::1:514",
                "syslog:tcp:[host]:514",
                "syslog:tcp:a b:514",
                "syslog:tls:host:514",
                "ndjson:udp:host:514",
                &long,
            ],
        );
        let error = "stderr".parse::<OutputSpec>().unwrap_err();
        assert!(error.starts_with("write \"stdout\", \"file:PATH\""), "{error}");
    }

    #[test]
    fn modes_let_no_stranger_write() {
        reads::<Mode>(
            &["0640", "0600", "0644", "0664", "0660"],
            &[
                "",
                "64",
                "0666",
                "0642",
                "0750",
                "0440",
                "0240",
                "8640",
                "00640",
                "4640",
                "0o640",
                "rw-r-----",
            ],
        );
        assert_eq!(Mode::read("640"), Some(Mode(0o640)));
    }

    #[test]
    fn groups_have_a_name_or_a_number() {
        reads::<Group>(&["", "adm", "4", "domain.users"], &["4294967295", "99999999999", "a b", "a:b"]);
    }

    #[test]
    fn facilities_have_the_names_of_syslog() {
        reads::<Facility>(&["daemon", "authpriv", "local0", "local7"], &["", "local8", "kern", "mail"]);
    }
}
