//! Lines to other programs: a real syslog daemon and a real journal take what the agent sends.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
};

use serde_json::Value;
use tellwire_tests::{
    Agent, at,
    runtime::{self, Daemon},
    until,
};
use tempfile::TempDir;

use crate::{quiet, work};

/// A syslog daemon of the test's own: on a port and a socket, both for RFC 5424, and a socket as /dev/log is.
struct Rsyslog {
    daemon: Daemon,
    folder: TempDir,
    port: u16,
}

impl Rsyslog {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "global(workDirectory=\"{work}\" maxMessageSize=\"256k\")\n\
             module(load=\"imtcp\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"all\")\n\
             input(type=\"imuxsock\" Socket=\"{structured}\" UseSpecialParser=\"off\" UseSysTimeStamp=\"off\" IgnoreTimestamp=\"off\" RateLimit.Interval=\"0\" ruleset=\"all\")\n\
             input(type=\"imuxsock\" Socket=\"{local}\" RateLimit.Interval=\"0\" ruleset=\"all\")\n\
             template(name=\"parts\" type=\"string\" string=\"%inputname% %syslogfacility-text%.%syslogseverity-text% \
             %timereported:::date-rfc3339% %app-name% %procid% %msgid% %msg:::sp-if-no-1st-sp%%msg%\\n\")\n\
             ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{messages}\" template=\"parts\") }}\n",
            work = folder.path().display(),
            structured = path("structured"),
            local = path("local"),
            messages = path("messages"),
        );
        let file = folder.path().join("rsyslog.conf");
        fs::write(&file, config).expect("its configuration");
        let mut command = Command::new(runtime::program("rsyslogd", "rsyslog"));
        command.arg("-n").arg("-f").arg(file).args(["-i", &path("pid")]);
        let mut daemon = Daemon::start(command);
        let local = folder.path().join("local");
        daemon.until("rsyslog that listens", || {
            (local.exists() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()).then_some(())
        });
        Self { daemon, folder, port }
    }

    /// What it has written: of each message the words before the line, and the line.
    fn messages(&self) -> Vec<(Vec<String>, Value)> {
        let text = fs::read_to_string(self.folder.path().join("messages")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parts = |line: &str| {
            let (words, json) = line.split_at(line.find('{').expect("a line of JSON"));
            (words.split_whitespace().map(str::to_owned).collect(), serde_json::from_str(json).expect("JSON"))
        };
        whole.lines().map(parts).collect()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its number").port()
}

/// Works a little; how many lines come of it.
fn some_lines(agent: &Agent) -> u64 {
    let done = work(agent, 5, 5);
    let all = done.lines();
    agent.expect_metric("tellwire_output_events_total", &[], all);
    agent.expect_metric("tellwire_output_dropped_total", &[], 0);
    all
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    at(line, field).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn rsyslog_understands_what_comes_by_tcp_and_by_a_unix_socket() {
    let mut rsyslog = Rsyslog::start();
    let structured = rsyslog.folder.path().join("structured");
    let local = rsyslog.folder.path().join("local");
    for (output, format, input) in [
        (format!("syslog:tcp:127.0.0.1:{}", rsyslog.port), "rfc5424", "imtcp"),
        (format!("syslog:unix:{}", structured.display()), "rfc5424", "imuxsock"),
        (format!("syslog:unix:{}", local.display()), "local", "imuxsock"),
    ] {
        let config = format!("[output.syslog]\nformat = '{format}'\nfacility = 'local3'\n");
        let before = rsyslog.messages().len();
        let agent = Agent::with(|| quiet().config(&config).output(&output));
        let all = some_lines(&agent);
        assert_eq!(agent.stop().status.code(), Some(0));
        let found = rsyslog.daemon.within_patience(|| {
            let found = rsyslog.folder.path().join("messages");
            let lines = fs::read_to_string(found).unwrap_or_default().lines().count();
            (lines as u64 >= before as u64 + all).then_some(())
        });
        assert!(found.is_some(), "{output}: {:?}", rsyslog.daemon.said());
        let messages = rsyslog.messages().split_off(before);
        assert_eq!(messages.len() as u64, all, "{output}");
        for (words, line) in messages {
            let priority =
                if text(&line, "event.outcome") == "failure" { "local3.notice" } else { "local3.info" };
            assert_eq!((words[0].as_str(), words[1].as_str()), (input, priority), "{words:?}");
            assert_eq!(words[3], "tellwire");
            if format == "rfc5424" {
                // The event's own time, in microseconds, and not when it was sent.
                let time = text(&line, "@timestamp");
                assert_eq!(words[2].get(..26), time.get(..26), "{words:?} {time}");
                assert_eq!(words[5], text(&line, "event.action"));
            }
        }
    }
}

#[test]
fn a_collector_that_is_started_anew_gets_the_lines_since() {
    let (port, first) = collector(0);
    let agent = Agent::with(|| quiet().output(&format!("ndjson:tcp:127.0.0.1:{port}")));
    let mut child = agent.exec("/bin/true", &["true", "first"]);
    let (stream, _) = first.accept().expect("the agent");
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.expect("a line").contains("\"first\"")));
    agent.settle(&mut child);
    drop((first, lines));
    let mut child = agent.exec("/bin/true", &["true", "second"]);
    agent.expect_metric("tellwire_output_failed", &[("output", "ndjson")], 1);
    let (_, second) = collector(port);
    let (mut stream, _) = second.accept().expect("the agent again");
    // What a collector says is nothing to us.
    stream.write_all(b"hello\n").expect("saying something");
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.expect("a line").contains("\"second\"")));
    agent.settle(&mut child);
    agent.expect_metric("tellwire_output_reconnects_total", &[("output", "ndjson")], 1);
    agent.expect_metric("tellwire_output_failed", &[("output", "ndjson")], 0);
    agent.expect_metric("tellwire_output_dropped_total", &[], 0);
    assert_eq!(agent.stop().status.code(), Some(0));
}

/// Listens; on this port, if it is not 0.
fn collector(port: u16) -> (u16, TcpListener) {
    let listener = until("a port", || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    (listener.local_addr().expect("its address").port(), listener)
}

#[test]
fn a_real_journal_has_every_line() {
    // In a mount namespace of its own, with /run and the log folder of nobody else.
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && \
                  printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nRateLimitBurst=0\\n' > /run/journald.conf && \
                  mount --bind /run/journald.conf /etc/systemd/journald.conf && exec \"$0\"";
    let journald = ["/lib/systemd/systemd-journald", "/usr/lib/systemd/systemd-journald"];
    let journald = journald.into_iter().find(|path| Path::new(path).exists());
    let journald = journald.expect("systemd-journald: apt-get install systemd");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, journald]);
    let mut daemon = Daemon::start_apart(command);
    let run = format!("/proc/{}/root/run", daemon.pid());
    let socket = format!("{run}/systemd/journal/socket");
    daemon.until("a journal that listens", || Path::new(&socket).exists().then_some(()));
    let config = "[kernel]\nargs-bytes = '64 KiB'\n";
    let agent = Agent::with(|| quiet().config(config).output(&format!("journald:{socket}")));
    let mut all = some_lines(&agent);
    // Each byte is several in the line: more than a datagram takes.
    let large = "\u{1}".repeat(60_000);
    let mut child = agent.exec("/bin/true", &["true", &large]);
    agent.settle(&mut child);
    all += 2;
    agent.expect_metric("tellwire_output_events_total", &[("output", "journald")], all);
    assert_eq!(agent.stop().status.code(), Some(0));
    let mut journalctl = Command::new(runtime::program("journalctl", "systemd"));
    journalctl.args([
        "-o",
        "json",
        "-D",
        &format!("{run}/log/journal"),
        "SYSLOG_IDENTIFIER=tellwire",
        "--all",
    ]);
    let mut entries: Vec<Value> = Vec::new();
    let complete = daemon.within_patience(|| {
        let text = runtime::run(&mut journalctl);
        entries = text.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect();
        (entries.len() as u64 == all).then_some(())
    });
    assert!(complete.is_some(), "{} of {all} entries: {}", entries.len(), daemon.said());
    // The kernel's default limit of a datagram.
    assert!(entries.iter().any(|entry| text(entry, "MESSAGE").len() > 212_992));
    for entry in &entries {
        let line: Value = serde_json::from_str(text(entry, "MESSAGE")).expect("JSON");
        assert_eq!(text(&line, "event.action"), text(entry, "TELLWIRE_ACTION"));
        assert!(["5", "6"].contains(&text(entry, "PRIORITY")));
    }
}
