//! A Prometheus of the test's own, on a port of loopback.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
};

use serde_json::Value;
use tellwire_tests::{
    at, limit,
    runtime::{self, Daemon},
};
use tempfile::TempDir;

pub(crate) struct Prometheus {
    // Fields are dropped in this order.
    daemon: Daemon,
    _folder: TempDir,
    port: u16,
}

impl Prometheus {
    /// Scrapes this port each second.
    pub(crate) fn start(target: u16) -> Self {
        Self::with(&format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs:\n\
             - {{ job_name: tellwire, static_configs: [{{ targets: [\"127.0.0.1:{target}\"] }}] }}\n"
        ))
    }

    /// With this configuration.
    pub(crate) fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("prometheus.yml");
        fs::write(&config, text).expect("its configuration");
        let port = free_port();
        let mut command = Command::new(runtime::program("prometheus", "prometheus"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut daemon = Daemon::start(command);
        let is_ready = || get(port, "/-/ready", "*/*").ok().filter(|answer| answer.status == 200).map(drop);
        daemon.until("Prometheus that is ready", is_ready);
        Self { daemon, _folder: folder, port }
    }

    /// What an API call gives.
    pub(crate) fn ask(&self, path: &str) -> Value {
        ask(self.port, path)
    }

    /// The values of the series of a query, now.
    pub(crate) fn query(&self, expression: &str) -> Vec<f64> {
        query(self.port, expression)
    }

    /// Waits until a query gives one series, of this value.
    pub(crate) fn expect(&mut self, expression: &str, value: f64) {
        self.wait_for(expression, |values| *values == [value]);
    }

    /// Waits until the values of a query are as they should.
    pub(crate) fn wait_for(&mut self, expression: &str, is_it: impl Fn(&[f64]) -> bool) {
        let (port, mut found) = (self.port, Vec::new());
        let reached = self.daemon.within_patience(|| {
            found = query(port, expression);
            is_it(&found).then_some(())
        });
        assert!(reached.is_some(), "{expression} is {found:?}; Prometheus said:\n{}", self.daemon.said());
    }
}

fn ask(port: u16, path: &str) -> Value {
    let answer = get(port, path, "application/json").expect("Prometheus's answer");
    let json: Value =
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body));
    assert!(at(&json, "status").is_some_and(|status| status == "success"), "{path}: {json}");
    at(&json, "data").cloned().expect("data")
}

fn query(port: u16, expression: &str) -> Vec<f64> {
    let data = ask(port, &format!("/api/v1/query?query={}", escaped(expression)));
    let series = at(&data, "result").and_then(Value::as_array).expect("a list of series");
    let values = series.iter().map(|series| at(series, "value")?.get(1)?.as_str()?.parse().ok());
    values.collect::<Option<_>>().unwrap_or_else(|| panic!("no numbers: {data}"))
}

/// An answer to an HTTP request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One request on loopback. HTTP 1.0: no answer comes in chunks.
pub(crate) fn get(port: u16, path: &str, accept: &str) -> io::Result<Answer> {
    get_from((Ipv4Addr::LOCALHOST, port).into(), path, accept)
}

/// The same, of another address.
pub(crate) fn get_from(address: SocketAddr, path: &str, accept: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(limit()))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

/// Every byte that could mean something in a URL.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() {
            url.push(char::from(byte));
        } else {
            write!(url, "%{byte:02X}").expect("writing to a string");
        }
        url
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its number").port()
}
