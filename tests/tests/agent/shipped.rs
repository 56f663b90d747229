//! The rsyslog configuration of `deploy/logs`, as it is shipped, but for the file and the collector's address; and the
//! fields that the queries of `docs/logs.md` ask for.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use serde_json::Value;
use tellwire_tests::{
    Agent, at,
    runtime::{self, Daemon},
};

use crate::work;

/// One message, by its length in front of it (RFC 6587, 3.4.1).
fn frame(stream: &mut BufReader<TcpStream>) -> String {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).expect("a length");
    let length: usize = String::from_utf8_lossy(&length).trim().parse().expect("a number");
    let mut message = vec![0; length];
    stream.read_exact(&mut message).expect("a message");
    String::from_utf8(message).expect("UTF-8")
}

#[test]
fn rsyslog_sends_each_line_of_the_file_whole_with_its_action() {
    let agent = Agent::start();
    let done = work(&agent, 5, 5);
    let large = "x".repeat(7_000);
    let mut child = agent.exec("/bin/true", &["true", &large, &large]);
    agent.settle(&mut child);
    let events = agent.folder().join("events.ndjson");
    let collector = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = collector.local_addr().expect("its address").port();

    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/logs/rsyslog.conf");
    let mut config = fs::read_to_string(shipped).expect("the configuration");
    for (from, to) in [
        ("/var/log/tellwire/events.ndjson", events.display().to_string()),
        ("collector.example.com", "127.0.0.1".to_owned()),
        ("\"6514\"", format!("\"{port}\"")),
    ] {
        assert_eq!(config.matches(from).count(), 1, "{from}");
        config = config.replace(from, &to);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rsyslog.conf");
    fs::write(&file, format!("global(workDirectory=\"{}\")\n{config}", folder.path().display()))
        .expect("a file");
    let mut command = Command::new(runtime::program("rsyslogd", "rsyslog"));
    command.arg("-n").arg("-f").arg(&file).arg("-i").arg(folder.path().join("pid"));
    let mut daemon = Daemon::start(command);
    collector.set_nonblocking(true).expect("a listener that does not wait");
    let stream = daemon.until("a connection of rsyslog", || collector.accept().ok());
    stream.0.set_nonblocking(false).expect("a stream that waits");
    stream.0.set_read_timeout(Some(tellwire_tests::limit())).expect("a deadline");
    let mut stream = BufReader::new(stream.0);

    // What the file has by now; the agent writes on.
    let text = fs::read_to_string(&events).expect("the lines");
    let mut expected: BTreeMap<&str, u32> = BTreeMap::new();
    for line in text.lines() {
        *expected.entry(line).or_default() += 1;
    }
    assert!(text.lines().any(|line| line.contains(&large)) && text.lines().count() as u64 >= done.lines());
    while !expected.is_empty() {
        let message = frame(&mut stream);
        let (header, line) = message.split_at(message.find('{').expect("a line of JSON"));
        let json: Value = serde_json::from_str(line).expect("JSON");
        let words: Vec<&str> = header.split_whitespace().collect();
        assert_eq!(words[3], "tellwire");
        assert_eq!(Some(words[5]), at(&json, "event.action").and_then(Value::as_str), "{message}");
        assert_eq!(Some(words[1]), at(&json, "@timestamp").and_then(Value::as_str), "{message}");
        if let Some(count) = expected.get_mut(line) {
            *count -= 1;
            if *count == 0 {
                expected.remove(line);
            }
        }
    }
}

#[test]
fn the_queries_of_the_manual_ask_for_fields_that_lines_have() {
    let read = |page: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
        fs::read_to_string(path).expect("a page")
    };
    let (events, logs) = (read("events.md"), read("logs.md"));
    let is_path = |text: &&str| {
        text.contains('.') && text.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '_' || c == '8')
    };
    let queries = logs.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("logql\n"));
    let asked: Vec<&str> = queries.flat_map(|query| query.split('"')).filter(is_path).collect();
    assert!(asked.len() > 8 && asked.contains(&"k8s.pod.uid"), "{asked:?}");
    for field in asked {
        assert!(events.contains(&format!("\n| `{field}` |")), "no field {field}");
    }
}
