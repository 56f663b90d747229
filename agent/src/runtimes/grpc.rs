//! gRPC over HTTP/2 and a Unix socket: calls with one answer, and calls with a stream of them.
//!
//! The `h2` crate does HTTP/2. What gRPC adds is five bytes before a message and a status behind it
//! (<https://github.com/grpc/grpc/blob/v1.74.0/doc/PROTOCOL-HTTP2.md>). An answer is taken apart as it comes: a node
//! with hundreds of containers sends megabytes of annotations that nobody asks for, and they are never there at once.

use std::{io, path::Path};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{
    RecvStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use thiserror::Error;
use tokio::{net::UnixStream, task::AbortHandle};

use super::wire::{self, Malformed};

/// One entry of an answer, and one message of a stream, in bytes. A larger one is passed over.
const LARGEST: usize = 256 << 10;

/// A whole answer, in bytes. Who sends more is not listened to.
const ANSWER: usize = 64 << 20;

/// The status of a call that the server does not know.
pub(super) const UNIMPLEMENTED: u32 = 12;

#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http2(#[from] h2::Error),
    #[error("status {0} of the call")]
    Status(u32),
    #[error("the answer is no answer")]
    Malformed,
    #[error("the answer has no end")]
    Endless,
}

impl From<Malformed> for CallError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A connection; it is closed with this value.
#[derive(Debug)]
pub(super) struct Channel {
    send: SendRequest<Bytes>,
    driver: AbortHandle,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Channel {
    pub(super) async fn connect(socket: &Path) -> Result<Self, CallError> {
        let stream = UnixStream::connect(socket).await?;
        let (send, connection) = h2::client::handshake(stream).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a container runtime");
            }
        });
        Ok(Self { send, driver: driver.abort_handle() })
    }

    /// Calls a method.
    pub(super) async fn call(&self, path: &str, message: &[u8]) -> Result<Answer, CallError> {
        answered(self.begin(path, message).await?.await?)
    }

    /// Calls a method whose answer is a stream. A server that has nothing to tell yet may not even begin to answer.
    pub(super) async fn subscribe(&self, path: &str) -> Result<Stream, CallError> {
        Ok(Stream { begun: Some(self.begin(path, &[]).await?), answer: None, next: Next::Unknown })
    }

    async fn begin(&self, path: &str, message: &[u8]) -> Result<ResponseFuture, CallError> {
        let mut send = self.send.clone().ready().await?;
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|_invalid_path| CallError::Malformed)?;
        let (response, mut body) = send.send_request(request, false)?;
        let mut framed = BytesMut::with_capacity(message.len() + 5);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        framed.put_slice(message);
        body.send_data(framed.freeze(), true)?;
        Ok(response)
    }
}

fn answered(response: Response<RecvStream>) -> Result<Answer, CallError> {
    let (head, body) = response.into_parts();
    // A call that fails at once has its status here.
    check(&head.headers)?;
    if head.status != http::StatusCode::OK {
        return Err(CallError::Malformed);
    }
    Ok(Answer { body, buffer: BytesMut::new(), taken: 0 })
}

/// A stream of messages.
#[derive(Debug)]
pub(super) struct Stream {
    begun: Option<ResponseFuture>,
    answer: Option<Answer>,
    next: Next,
}

/// What is known of the next message.
#[derive(Clone, Copy, Debug)]
enum Next {
    Unknown,
    Len(usize),
    /// It is too large; so much of it has to be passed over.
    Skip(usize),
}

impl Stream {
    /// The next message; `None` at the end. To be cancelled at any time loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        if let Some(begun) = &mut self.begun {
            let response = begun.await;
            self.begun = None;
            self.answer = Some(answered(response?)?);
        }
        let Some(answer) = &mut self.answer else { return Ok(None) };
        loop {
            // A stream may go on for months.
            answer.taken = 0;
            match self.next {
                Next::Unknown => match answer.message().await? {
                    Some(len) => self.next = if len > LARGEST { Next::Skip(len) } else { Next::Len(len) },
                    None => return Ok(None),
                },
                Next::Len(len) if answer.buffer.len() >= len => {
                    self.next = Next::Unknown;
                    return Ok(Some(answer.buffer.split_to(len).freeze()));
                }
                Next::Skip(0) => self.next = Next::Unknown,
                Next::Skip(len) if !answer.buffer.is_empty() => {
                    let there = len.min(answer.buffer.len());
                    answer.buffer.advance(there);
                    self.next = Next::Skip(len - there);
                }
                Next::Len(_) | Next::Skip(_) => answer.more().await?,
            }
        }
    }
}

/// What comes back.
#[derive(Debug)]
pub(super) struct Answer {
    body: RecvStream,
    buffer: BytesMut,
    /// Bytes that came so far.
    taken: usize,
}

impl Answer {
    /// Reads the one message of an answer, and hands on each entry of its list, field 1.
    pub(super) async fn entries(mut self, mut entry: impl FnMut(&[u8])) -> Result<(), CallError> {
        let Some(mut left) = self.message().await? else { return Ok(()) };
        if left > ANSWER {
            return Err(CallError::Endless);
        }
        while left > 0 {
            let (tag, width) = self.number().await?;
            left = left.checked_sub(width).ok_or(CallError::Malformed)?;
            let (len, width) = self.number().await?;
            left = left.checked_sub(width).ok_or(CallError::Malformed)?;
            let len = match tag & 7 {
                2 => usize::try_from(len).map_err(|_too_large| CallError::Malformed)?,
                0 => 0,
                _ => return Err(CallError::Malformed),
            };
            left = left.checked_sub(len).ok_or(CallError::Malformed)?;
            if tag == 1 << 3 | 2 && len <= LARGEST {
                while self.buffer.len() < len {
                    self.more().await?;
                }
                entry(self.buffer.get(..len).unwrap_or_default());
                self.buffer.advance(len);
            } else {
                self.skip(len).await?;
            }
        }
        self.end().await
    }

    /// The length of the next message.
    async fn message(&mut self) -> Result<Option<usize>, CallError> {
        while self.buffer.len() < 5 {
            if !self.fill().await? {
                return if self.buffer.is_empty() {
                    check_trailers(&mut self.body).await?;
                    Ok(None)
                } else {
                    Err(CallError::Malformed)
                };
            }
        }
        let is_compressed = self.buffer.get_u8() != 0;
        let len = self.buffer.get_u32();
        if is_compressed { Err(CallError::Malformed) } else { Ok(Some(len as usize)) }
    }

    async fn number(&mut self) -> Result<(u64, usize), CallError> {
        loop {
            if let Some((number, width)) = wire::number(&self.buffer) {
                self.buffer.advance(width);
                return Ok((number, width));
            }
            if self.buffer.len() >= 10 {
                return Err(CallError::Malformed);
            }
            self.more().await?;
        }
    }

    async fn skip(&mut self, mut len: usize) -> Result<(), CallError> {
        loop {
            let there = len.min(self.buffer.len());
            self.buffer.advance(there);
            len -= there;
            if len == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), CallError> {
        if self.fill().await? { Ok(()) } else { Err(CallError::Malformed) }
    }

    /// Takes what comes next; `false` at the end.
    async fn fill(&mut self) -> Result<bool, CallError> {
        let Some(chunk) = self.body.data().await else { return Ok(false) };
        let chunk = chunk?;
        self.body.flow_control().release_capacity(chunk.len())?;
        self.taken = self.taken.saturating_add(chunk.len());
        if self.taken > ANSWER {
            return Err(CallError::Endless);
        }
        self.buffer.extend_from_slice(&chunk);
        Ok(true)
    }

    async fn end(&mut self) -> Result<(), CallError> {
        while self.fill().await? {
            self.buffer.clear();
        }
        check_trailers(&mut self.body).await
    }
}

async fn check_trailers(body: &mut RecvStream) -> Result<(), CallError> {
    match body.trailers().await? {
        Some(trailers) => check(&trailers),
        None => Ok(()),
    }
}

fn check(headers: &HeaderMap) -> Result<(), CallError> {
    let Some(status) = headers.get("grpc-status") else { return Ok(()) };
    let status = status.to_str().ok().and_then(|status| status.parse().ok()).ok_or(CallError::Malformed)?;
    if status == 0 { Ok(()) } else { Err(CallError::Status(status)) }
}
