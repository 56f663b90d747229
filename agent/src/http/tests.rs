//! The server, asked over real sockets.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Http;

use super::{CLASSIC, MetricsSource, OPEN_METRICS, Readiness, bind, serve};

const DEADLINE: Duration = Duration::from_secs(20);

struct Text(Result<&'static str, fmt::Error>);

impl MetricsSource for Text {
    fn encode(&self) -> Result<String, fmt::Error> {
        self.0.map(Into::into)
    }
}

const METRICS: Text = Text(Ok("# HELP a A.\n# TYPE a counter\na_total 1\n# EOF\n"));

struct Server {
    address: SocketAddr,
    readiness: Arc<Readiness>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(metrics: impl MetricsSource + 'static) -> Self {
        let listener = bind(([127, 0, 0, 1], 0).into(), &Http::default()).await.unwrap();
        let address = listener.listener.local_addr().unwrap();
        let (readiness, cancel) = (Arc::new(Readiness::default()), CancellationToken::new());
        let task = tokio::spawn(serve(listener, Arc::new(metrics), readiness.clone(), cancel.clone()));
        Self { address, readiness, cancel, task }
    }

    /// Sends `request`, such as `GET /metrics`, and some headers.
    async fn send(&self, request: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn ask(&self, request: &str, headers: &str) -> Answer {
        Answer::read(self.send(request, headers).await).await
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    async fn read(mut stream: TcpStream) -> Self {
        let mut text = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("there is an answer").unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header)
    }
}

#[tokio::test]
async fn metrics_have_the_format_that_was_asked_for() {
    let server = Server::start(METRICS).await;
    let classic = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n";
    for headers in ["", "accept: */*\r\n", "accept: text/plain;version=0.0.4\r\n"] {
        let answer = server.ask("GET /metrics", headers).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, classic), "{headers}");
        assert!(answer.has(&format!("content-type: {CLASSIC}")), "{}", answer.head);
    }
    // As Prometheus asks.
    for headers in [
        "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4\r\n",
        "accept: text/html\r\naccept: application/openmetrics-text\r\n",
    ] {
        let answer = server.ask("GET /metrics", headers).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, METRICS.0.unwrap()), "{headers}");
        assert!(answer.has(&format!("content-type: {OPEN_METRICS}")), "{}", answer.head);
    }
}

#[tokio::test]
async fn only_three_paths_and_two_methods_are_there() {
    let server = Server::start(METRICS).await;
    let answer = server.ask("HEAD /metrics", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(answer.has("content-length: 51"), "{}", answer.head);
    let answer = server.ask("GET /healthz", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    for path in ["/", "/metric", "/metrics/", "/../etc/passwd"] {
        let answer = server.ask(&format!("GET {path}"), "").await;
        assert_eq!((answer.status, answer.body.as_str()), (404, "try /metrics, /healthz or /readyz\n"));
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(server.ask(&format!("{method} /metrics"), "").await.status, 405, "{method}");
    }
}

#[tokio::test]
async fn readiness_is_ok_unless_failed() {
    let server = Server::start(METRICS).await;
    let answer = server.ask("GET /readyz", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{\"status\":\"ready\",\"degraded\":[]}\n"));
    assert!(answer.has("content-type: application/json"), "{}", answer.head);
    server.readiness.degrade("exit is not attached".into());
    let answer = server.ask("GET /readyz", "").await;
    let body = "{\"status\":\"degraded\",\"degraded\":[\"exit is not attached\"]}\n";
    assert_eq!((answer.status, answer.body.as_str()), (200, body));
    server.readiness.fail("no probe is attached".into());
    assert_eq!(server.ask("GET /readyz", "").await.status, 503);
    assert_eq!(server.ask("GET /healthz", "").await.status, 200);
}

#[tokio::test]
async fn metrics_that_cannot_be_encoded_are_a_server_error() {
    struct Panics;
    impl MetricsSource for Panics {
        fn encode(&self) -> Result<String, fmt::Error> {
            panic!("as it should")
        }
    }
    assert_eq!(Server::start(Text(Err(fmt::Error))).await.ask("GET /metrics", "").await.status, 500);
    let server = Server::start(Panics).await;
    // The first does not leave the second waiting.
    for _ in 0..2 {
        assert_eq!(server.ask("GET /metrics", "").await.status, 500);
    }
}

/// Says that it was asked, and answers when it is told to.
struct Slow {
    asked: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl MetricsSource for Slow {
    fn encode(&self) -> Result<String, fmt::Error> {
        self.asked.send(()).unwrap();
        self.go_on.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        METRICS.encode()
    }
}

fn slow() -> (Slow, Receiver<()>, Sender<()>) {
    let ((asked, was_asked), (go, go_on)) = (channel(), channel());
    (Slow { asked, go_on: Mutex::new(go_on) }, was_asked, go)
}

async fn wait(receiver: Receiver<()>) -> Receiver<()> {
    tokio::task::spawn_blocking(move || {
        receiver.recv_timeout(DEADLINE).unwrap();
        receiver
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn metrics_are_encoded_one_at_a_time_and_health_does_not_wait() {
    let (slow, asked, go) = slow();
    let server = Server::start(slow).await;
    let first = server.send("GET /metrics", "").await;
    let asked = wait(asked).await;
    // This one goes away, and its turn must not be lost.
    drop(server.send("GET /metrics", "").await);
    let second = server.send("GET /metrics", "").await;
    assert_eq!(server.ask("GET /healthz", "").await.status, 200);
    assert!(asked.try_recv().is_err(), "two at a time");
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    assert_eq!(Answer::read(first).await.status, 200);
    assert_eq!(Answer::read(second).await.status, 200);
}

#[tokio::test]
async fn a_stop_lets_an_answer_finish_and_waits_for_no_one_else() {
    let (slow, asked, go) = slow();
    let server = Server::start(slow).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let stream = server.send("GET /metrics", "").await;
    drop(wait(asked).await);
    server.cancel.cancel();
    go.send(()).unwrap();
    assert_eq!(Answer::read(stream).await.status, 200);
    timeout(DEADLINE, server.task).await.expect("the server ends").unwrap();
    drop(idle);
}

#[tokio::test]
async fn an_address_in_use_is_said_in_one_line() {
    let listener = bind(([127, 0, 0, 1], 0).into(), &Http::default()).await.unwrap();
    let address = listener.listener.local_addr().unwrap();
    let error = bind(address, &Http::default()).await.unwrap_err().to_string();
    let line = "Address already in use (os error 98): choose another address with --listen";
    assert_eq!(error, format!("listening on {address}: {line}"));
}
