//! Metrics by TLS and for those who have the token, as a real Prometheus takes them.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use tellwire_tests::{
    Cgroup, output,
    runtime::{self, Daemon},
    tellwire, until,
};
use tempfile::TempDir;

use crate::server::{Prometheus, get};

const TOKEN: &str = "open-sesame";

/// Files of an agent that is protected.
struct Files {
    folder: TempDir,
    cgroup: Cgroup,
}

impl Files {
    fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().expect("a folder"), cgroup: Cgroup::new() };
        let state = this.path("state");
        let config = format!("[agent]\nstate-dir = '{}'\n[auth]\npam = false\n", state.display());
        fs::write(this.path("tellwire.toml"), config).expect("a configuration");
        fs::write(this.path("token"), format!("{TOKEN}\n")).expect("a token");
        this.certificate("certificate", "key");
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a certificate that signs itself, and its key.
    fn certificate(&self, certificate: &str, key: &str) {
        let mut openssl = Command::new(runtime::program("openssl", "openssl"));
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=agent", "-addext", "subjectAltName=DNS:agent.test"]);
        openssl.arg("-keyout").arg(self.path(key)).arg("-out").arg(self.path(certificate));
        runtime::run(&mut openssl);
    }

    /// An agent with these files, on this port.
    fn agent(&self, port: u16, certificate: &Path, key: &Path, token: &Path) -> Command {
        let mut command = tellwire(["run", "--output", "none", "--config"]);
        command.arg(self.path("tellwire.toml")).arg("--cgroup").arg(self.cgroup.path());
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command.arg("--tls-certificate").arg(certificate).arg("--tls-key").arg(key);
        command.arg("--token-file").arg(token);
        command
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its number").port()
}

/// What the agent answers to somebody who speaks TLS and has no token.
fn ask_without_token(files: &Files, port: u16, path: &str) -> String {
    let request = files.path("request");
    fs::write(&request, format!("GET {path} HTTP/1.0\r\n\r\n")).expect("a request");
    let mut client = Command::new(runtime::program("openssl", "openssl"));
    client.args([
        "s_client",
        "-quiet",
        "-servername",
        "agent.test",
        "-connect",
        &format!("127.0.0.1:{port}"),
    ]);
    runtime::attempt_reading(&mut client, fs::File::open(request).expect("the request")).1
}

#[test]
fn prometheus_comes_by_tls_with_the_token_and_a_renewed_certificate_is_taken_up() {
    let (files, port) = (Files::new(), free_port());
    let [certificate, key, token] = ["certificate", "key", "token"].map(|name| files.path(name));
    let mut agent = Daemon::start(files.agent(port, &certificate, &key, &token));
    agent.until("an agent that is ready", || {
        ask_without_token(&files, port, "/readyz").contains(" 200 OK").then_some(())
    });
    let job = |name: &str, token: &str| {
        format!(
            "- job_name: {name}\n  scheme: https\n  authorization: {token}\n  tls_config: {{ ca_file: '{}', server_name: \
             agent.test }}\n  static_configs: [{{ targets: ['127.0.0.1:{port}'] }}]\n",
            files.path("authority").display()
        )
    };
    fs::copy(&certificate, files.path("authority")).expect("an authority");
    let right = job("tellwire", &format!("{{ credentials_file: '{}' }}", token.display()));
    let wrong = job("stranger", "{ credentials: wrong }");
    let mut prometheus = Prometheus::with(&format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n{right}{wrong}"
    ));
    prometheus.expect("up{job=\"tellwire\"}", 1.0);
    prometheus.expect("tellwire_ledger_balanced{job=\"tellwire\"}", 1.0);
    prometheus.expect("up{job=\"stranger\"}", 0.0);
    let targets = prometheus.ask("/api/v1/targets").to_string();
    assert!(targets.contains("server returned HTTP status 401 Unauthorized"), "{targets}");

    // Health is for everybody, metrics are not; and nothing is served without TLS.
    assert!(ask_without_token(&files, port, "/healthz").ends_with("ok\n"));
    let refused = ask_without_token(&files, port, "/metrics");
    assert!(refused.contains(" 401 Unauthorized"), "{refused}");
    assert!(refused.to_lowercase().contains("www-authenticate: bearer"), "{refused}");
    assert!(get(port, "/healthz", "*/*").is_err(), "something is served without TLS");

    // Another pair; between its two files there is none, and the one before is good.
    files.certificate("certificate.new", "key.new");
    fs::rename(files.path("key.new"), &key).expect("another key");
    ask_without_token(&files, port, "/healthz");
    said(&agent, "certificate not taken up, the one before stays");
    prometheus.expect("up{job=\"tellwire\"}", 1.0);
    fs::rename(files.path("certificate.new"), &certificate).expect("another certificate");
    // Prometheus trusts this one alone from here on, and connects anew.
    fs::copy(&certificate, files.path("authority")).expect("another authority");
    said(&agent, "certificate taken up");
    let scrapes = "count_over_time(up{job=\"tellwire\"}[1h])";
    let before = prometheus.query(scrapes).first().copied().unwrap_or(0.0);
    prometheus.wait_for(scrapes, |counts| matches!(counts, [count] if *count >= before + 2.0));
    prometheus.expect("up{job=\"tellwire\"}", 1.0);
    // The token is what its file says now.
    fs::write(&token, "another").expect("another token");
    prometheus.expect("up{job=\"tellwire\"}", 1.0);
}

#[test]
fn the_job_that_goes_by_annotations_comes_by_tls_where_they_say_so() {
    let (files, port) = (Files::new(), free_port());
    let [certificate, key, token] = ["certificate", "key", "token"].map(|name| files.path(name));
    let mut agent = Daemon::start(files.agent(port, &certificate, &key, &token));
    agent.until("an agent that is ready", || {
        ask_without_token(&files, port, "/readyz").contains(" 200 OK").then_some(())
    });
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/scrape-kubernetes.yml");
    let shipped = fs::read_to_string(shipped).expect("the configuration");
    let mut job = shipped[shipped.find("  - job_name: kubernetes-pods").expect("the job")..].to_owned();
    // What the service discovery tells of a pod, a list tells here.
    let pod = format!(
        "static_configs: [{{ targets: ['127.0.0.1:1'], labels: {{ __meta_kubernetes_pod_ip: 127.0.0.1, \
         __meta_kubernetes_pod_node_name: node-a, __meta_kubernetes_pod_label_app_kubernetes_io_name: tellwire, \
         __meta_kubernetes_pod_annotation_prometheus_io_scrape: 'true', \
         __meta_kubernetes_pod_annotation_prometheus_io_scheme: https, \
         __meta_kubernetes_pod_annotation_prometheus_io_port: '{port}' }} }}]\n"
    );
    for (from, to) in [
        ("kubernetes_sd_configs:\n      - role: pod\n", pod),
        ("# tls_config:", "tls_config:".into()),
        ("# authorization:", "authorization:".into()),
        ("/etc/prometheus/tellwire-ca.crt", certificate.display().to_string()),
        ("/etc/prometheus/tellwire-token", token.display().to_string()),
        ("tellwire.tellwire.svc", "agent.test".into()),
    ] {
        assert_eq!(job.matches(from).count(), 1, "{from}");
        job = job.replace(from, &to);
    }
    let mut prometheus = Prometheus::with(&format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n{job}"
    ));
    prometheus.expect("up{job=\"tellwire\", node=\"node-a\", instance=\"node-a\"}", 1.0);
    prometheus.expect("tellwire_ledger_balanced{job=\"tellwire\", node=\"node-a\"}", 1.0);
}

/// Waits until the agent's log has this.
fn said(agent: &Daemon, words: &str) {
    until(format_args!("{words}, from the agent"), || agent.said().contains(words).then_some(()));
}

#[test]
fn files_that_are_of_no_use_are_said_before_anything_is_attached() {
    let files = Files::new();
    let [certificate, key, token] = ["certificate", "key", "token"].map(|name| files.path(name));
    files.certificate("other", "other-key");
    fs::write(files.path("empty"), "").expect("a file");
    let (nothing, empty, other) = (files.path("nothing"), files.path("empty"), files.path("other-key"));
    for ([certificate, key, token], parts) in [
        (
            [&nothing, &key, &token],
            ["http.tls-certificate", "nothing", "name a file with a certificate in PEM"],
        ),
        ([&empty, &key, &token], ["http.tls-certificate", "no certificate in it", "certificate in PEM"]),
        ([&certificate, &empty, &token], ["http.tls-key", "empty", "name a file with a private key in PEM"]),
        ([&certificate, &other, &token], ["http.tls-key", "other-key", "name the key of the certificate"]),
        ([&certificate, &key, &empty], ["http.token-file", "it is empty", "name a file with a token"]),
    ] {
        let ended = output(&mut files.agent(free_port(), certificate, key, token));
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(64), "{said}");
        for part in parts {
            assert!(said.contains(part), "no {part} in: {said}");
        }
    }
}
