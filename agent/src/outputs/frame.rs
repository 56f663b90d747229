//! What goes over a socket for a line: the line itself, or with what a protocol puts around it.

use std::process;

use jiff::tz::TimeZone;

use super::{BatchLine, Fact};
use crate::config::{Facility, SyslogFormat};
use crate::events::action::{Action, Severity};
use crate::lines::clock::Clock;

/// What syslog and the journal call the sender.
const IDENTIFIER: &str = "tellwire";

/// How lines are framed.
pub(super) enum Frame {
    /// As they are.
    Ndjson,
    /// RFC 5424, or what syslog(3) writes.
    Syslog(Header),
    /// The journal's native protocol.
    Journal,
}

/// How a receiver tells messages apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// Each message has its datagram.
    Datagram,
    /// A newline ends each line, as it does in a file.
    Newline,
    /// A length before each: RFC 6587, 3.4.1.
    Octets,
    /// A NUL after each, as syslog(3) does it on a stream.
    Nul,
}

/// What the header of a syslog message is made of.
pub(super) struct Header {
    format: SyslogFormat,
    facility: Facility,
    host: String,
    clock: Clock,
    zone: TimeZone,
    /// The time of the line at hand.
    time: String,
    message: Vec<u8>,
}

fn severity(fact: &Fact) -> Severity {
    let action = Action::ALL.get(usize::from(fact.action));
    action.map_or(Severity::Info, |action| action.severity(fact.is_failure))
}

fn action(fact: &Fact) -> &'static str {
    Action::ALL.get(usize::from(fact.action)).map_or("-", |action| action.name())
}

impl Frame {
    /// Appends the frame of a line.
    pub(super) fn put(&mut self, line: &BatchLine<'_>, delimiter: Delimiter, to: &mut Vec<u8>) {
        match self {
            Self::Ndjson => to.extend_from_slice(line.bytes),
            Self::Syslog(header) => header.put(line, delimiter, to),
            Self::Journal => journal(line, to),
        }
    }
}

impl Header {
    pub(super) fn new(format: SyslogFormat, facility: Facility, host: Option<&str>) -> Self {
        // RFC 5424, 6.2.4: 255 characters of printable ASCII.
        let printable = |host: &&str| host.len() <= 255 && host.bytes().all(|byte| byte.is_ascii_graphic());
        let host = host.filter(|host| !host.is_empty()).filter(printable).unwrap_or("-").to_owned();
        let (clock, zone) = (Clock::of_wall(), TimeZone::system());
        Self { format, facility, host, clock, zone, time: String::new(), message: Vec::new() }
    }

    fn put(&mut self, line: &BatchLine<'_>, delimiter: Delimiter, to: &mut Vec<u8>) {
        let text = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
        let priority = (self.facility as u8) << 3 | severity(&line.fact) as u8;
        let pid = process::id();
        let head = match self.format {
            SyslogFormat::Rfc5424 => {
                self.clock.write(line.fact.wall, &mut self.time);
                // Microseconds are the most that RFC 5424 allows: three digits and the Z less.
                let time = self.time.get(..26).unwrap_or_default();
                format!("<{priority}>1 {time}Z {} {IDENTIFIER} {pid} {} - ", self.host, action(&line.fact))
            }
            SyslogFormat::Local => {
                let nanos = jiff::Timestamp::from_nanosecond(line.fact.wall.into());
                let time = nanos.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(self.zone.clone());
                format!("<{priority}>{} {IDENTIFIER}[{pid}]: ", time.strftime("%b %e %H:%M:%S"))
            }
        };
        self.message.clear();
        self.message.extend_from_slice(head.as_bytes());
        self.message.extend_from_slice(text);
        if delimiter == Delimiter::Octets {
            to.extend_from_slice(format!("{} ", self.message.len()).as_bytes());
        }
        to.extend_from_slice(&self.message);
        if delimiter == Delimiter::Nul {
            to.push(0);
        }
    }
}

/// A JSON line has no newline in it, so the simple form of a field does for all. The message is the line itself:
/// that is what shippers take out of the journal and parse. What one selects by has a field of its own.
fn journal(line: &BatchLine<'_>, to: &mut Vec<u8>) {
    let (priority, action) = (severity(&line.fact) as u8, action(&line.fact));
    to.extend_from_slice(b"MESSAGE=");
    to.extend_from_slice(line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes));
    let fields = format!("\nPRIORITY={priority}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nTELLWIRE_ACTION={action}\n");
    to.extend_from_slice(fields.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{BatchLine, Delimiter, Fact, Frame, Header};
    use crate::config::{Facility, SyslogFormat};
    use crate::events::action::Action;

    fn framed(mut frame: Frame, delimiter: Delimiter, action: Action, is_failure: bool) -> String {
        let wall = 1_700_000_000_123_456_789;
        let fact = Fact { time: 0, wall, ring: 0, action: action as u8, is_failure };
        let bytes = b"{\"a\":1}\n";
        let mut to = Vec::new();
        frame.put(&BatchLine { bytes, end: bytes.len(), fact }, delimiter, &mut to);
        String::from_utf8(to).unwrap().replace(&std::process::id().to_string(), "PID")
    }

    #[test]
    fn rfc_5424_has_the_time_of_the_event_and_the_severity_of_its_outcome() {
        let header = || Frame::Syslog(Header::new(SyslogFormat::Rfc5424, Facility::Daemon, Some("node-1")));
        for (action, is_failure, priority) in
            [(Action::Exec, false, 30), (Action::Connect, true, 29), (Action::CredentialsChanged, false, 28)]
        {
            let name = action.name();
            let expected =
                format!("<{priority}>1 2023-11-14T22:13:20.123456Z node-1 tellwire PID {name} - {{\"a\":1}}");
            assert_eq!(framed(header(), Delimiter::Datagram, action, is_failure), expected);
        }
        let nul = framed(header(), Delimiter::Nul, Action::Exec, false);
        assert!(nul.ends_with("{\"a\":1}\0"), "{nul}");
    }

    #[test]
    fn octets_are_those_of_the_message() {
        let header = Frame::Syslog(Header::new(SyslogFormat::Rfc5424, Facility::Local7, Some("n")));
        let framed = framed(header, Delimiter::Octets, Action::Exec, false);
        let (octets, message) = framed.split_once(' ').unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(octets, (message.len() - "PID".len() + pid.len()).to_string());
        assert!(message.starts_with("<190>1 "), "{message}");
    }

    #[test]
    fn a_host_without_a_printable_name_has_none() {
        for host in [None, Some(""), Some("a b"), Some("höst")] {
            let header = Frame::Syslog(Header::new(SyslogFormat::Rfc5424, Facility::User, host));
            let framed = framed(header, Delimiter::Datagram, Action::Exec, false);
            assert!(framed.contains("Z - tellwire PID exec - {"), "{framed}");
        }
    }

    #[test]
    fn the_local_form_is_that_of_syslog_3() {
        let header = Frame::Syslog(Header::new(SyslogFormat::Local, Facility::Authpriv, Some("n")));
        let framed = framed(header, Delimiter::Datagram, Action::Exec, false);
        let (head, rest) = framed.split_once("tellwire").unwrap();
        assert_eq!(rest, "[PID]: {\"a\":1}");
        assert!(head.starts_with("<86>Nov 1") && head.len() == "<86>Nov 14 22:13:20 ".len(), "{head}");
    }

    #[test]
    fn the_journal_gets_the_line_and_what_one_selects_by() {
        assert_eq!(
            framed(Frame::Journal, Delimiter::Datagram, Action::Setuid, true),
            "MESSAGE={\"a\":1}\nPRIORITY=5\nSYSLOG_IDENTIFIER=tellwire\nTELLWIRE_ACTION=setuid\n"
        );
    }
}
