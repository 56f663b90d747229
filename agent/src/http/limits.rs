//! Connections that cannot hold the agent up: few at a time, each with deadlines.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at a time; others wait in the kernel.
const CONNECTIONS: usize = 16;

/// From the first byte of a request to the last one of its answer: a scrape that takes longer has
/// been given up by Prometheus.
const EXCHANGE: Duration = Duration::from_secs(10);

/// From one request to the next. An idle connection keeps others out.
const IDLE: Duration = Duration::from_secs(20);

/// Requests have no body, and no long header.
const REQUEST: usize = 16 * 1024;

pub(super) struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    times: Times,
}

/// The deadlines, which tests shorten.
#[derive(Debug, Clone, Copy)]
struct Times {
    exchange: Duration,
    idle: Duration,
}

impl Limited {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self::with_times(listener, Times { exchange: EXCHANGE, idle: IDLE })
    }

    fn with_times(listener: TcpListener, times: Times) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(CONNECTIONS)), times }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let Ok(permit) = self.permits.clone().acquire_owned().await else {
            // Nobody closes the semaphore.
            return pending().await;
        };
        // That of axum, which knows the errors that pass.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let deadline = Box::pin(sleep(self.times.exchange));
        let times = self.times;
        (Connection { stream, times, deadline, phase: Phase::Idle, _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends with an error when it takes too long.
pub(super) struct Connection {
    stream: TcpStream,
    times: Times,
    deadline: Pin<Box<Sleep>>,
    phase: Phase,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// So many bytes of a request have come.
    Request(usize),
    /// Of the answer, some has been written.
    Answer,
}

impl Connection {
    fn enter(&mut self, phase: Phase) {
        let time = match (self.phase, phase) {
            (_, Phase::Idle) => self.times.idle,
            (Phase::Idle, _) => self.times.exchange,
            _ => return self.phase = phase,
        };
        self.phase = phase;
        self.deadline.as_mut().reset(Instant::now() + time);
    }

    /// An error if the time is up; else the task is woken when it will be.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn wrote(&mut self, len: usize) {
        if len > 0 {
            self.enter(Phase::Answer);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        let sum = match self.phase {
            Phase::Request(sum) => sum + read,
            Phase::Idle | Phase::Answer => read,
        };
        if sum > REQUEST {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if read > 0 && self.phase != Phase::Answer {
            self.enter(Phase::Request(sum));
            // The deadline may be an earlier one now.
            self.check(context)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let len = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.wrote(len);
        Poll::Ready(Ok(len))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let len = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.wrote(len);
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.phase == Phase::Answer {
            self.enter(Phase::Idle);
            self.check(context)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, timeout};

    use super::{CONNECTIONS, Limited, REQUEST, Times};

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(20);

    async fn serve(exchange: Duration, idle: Duration) -> impl AsyncFn() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let large = "x".repeat(64 << 20);
        let router = Router::new().route("/", get(async || "here")).route("/large", get(async || large));
        let listener = Limited::with_times(listener, Times { exchange, idle });
        tokio::spawn(async { axum::serve(listener, router).await });
        async move || TcpStream::connect(address).await.unwrap()
    }

    /// What comes until the connection ends, which it does within `LONG`.
    async fn rest(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A connection that ends with an error may be reset.
        match timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the connection ends") {
            Ok(_) | Err(_) => bytes,
        }
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut bytes = vec![0; 4096];
        let len = timeout(LONG, stream.read(&mut bytes)).await.expect("there is an answer").unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_request_that_does_not_come_or_not_to_its_end_ends_the_connection() {
        let connect = serve(SHORT, SHORT).await;
        for request in ["", "GET / HT"] {
            let mut stream = connect().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(rest(&mut stream).await, b"");
        }
    }

    #[tokio::test]
    async fn a_request_that_comes_byte_by_byte_gets_no_more_time() {
        let connect = serve(SHORT, LONG).await;
        let mut stream = connect().await;
        let started = Instant::now();
        let request = "GET / HTTP/1.1\r\nx: ".chars().chain(std::iter::repeat('y'));
        for letter in request {
            if stream.write_all(letter.to_string().as_bytes()).await.is_err() {
                break;
            }
            assert!(started.elapsed() < LONG, "the connection is still open");
            tokio::time::sleep(SHORT / 20).await;
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_kept_for_a_while() {
        let connect = serve(SHORT * 5, LONG).await;
        let mut stream = connect().await;
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert!(answer(&mut stream).await.ends_with("here"));
            // Longer than an exchange may take.
            tokio::time::sleep(SHORT * 6).await;
        }
        let connect = serve(LONG, SHORT).await;
        let mut stream = connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.ends_with(b"here"));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_read_ends_the_connection() {
        let connect = serve(SHORT * 5, LONG).await;
        let mut stream = connect().await;
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(SHORT * 10).await;
        let len = rest(&mut stream).await.len();
        assert!(len < 64 << 20, "{len}");
    }

    #[tokio::test]
    async fn a_long_request_ends_the_connection() {
        let connect = serve(LONG, LONG).await;
        let mut stream = connect().await;
        let request = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(REQUEST));
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_for_another_to_end() {
        let connect = serve(LONG, LONG).await;
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = connect().await;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert!(answer(&mut stream).await.ends_with("here"));
            streams.push(stream);
        }
        let mut late = connect().await;
        late.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut byte = [0];
        assert!(timeout(SHORT, late.peek(&mut byte)).await.is_err(), "it was answered");
        drop(streams.pop());
        assert!(answer(&mut late).await.ends_with("here"));
    }
}
