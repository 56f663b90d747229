//! Lines to another program: the journal, a syslog daemon, a collector; by unix sockets, TCP or UDP.
//!
//! A connection that breaks is made again by itself, later and later. Half a line is sent again whole
//! on the new one. What the kernel has taken and the peer has not read is lost with a connection:
//! none of these protocols says what has arrived.

mod backoff;
mod link;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::frame::{Delimiter, Frame};
use super::writer::{Refused, Target, Trouble, Written};
use super::{Batch, BatchLine, OutputStats, line_start};
use crate::config::Peer;
use backoff::Backoff;
use link::{Link, Sent};

/// A peer that takes nothing for so long is given up, and connected to again.
const STALL: Duration = Duration::from_secs(30);

/// As much is framed at a time.
const CHUNK: usize = 64 * 1024;

pub(super) struct Remote {
    peer: Peer,
    frame: Frame,
    stats: Arc<OutputStats>,
    link: Option<Link>,
    was_connected: bool,
    backoff: Backoff,
    stall: Duration,
    /// When the peer began to take nothing.
    stalled: Option<Instant>,
    /// Bytes of the frame of the line at hand that this connection has taken.
    part: usize,
    /// Frames on their way.
    frames: Vec<u8>,
}

impl Remote {
    /// Connects with the first line or tick: a peer that is not there yet is waited for.
    pub(super) fn new(peer: Peer, frame: Frame, stats: Arc<OutputStats>) -> io::Result<Self> {
        if let Peer::Unix(path) = &peer {
            check_socket(path)?;
        }
        Ok(Self {
            peer,
            frame,
            stats,
            link: None,
            was_connected: false,
            backoff: Backoff::default(),
            stall: STALL,
            stalled: None,
            part: 0,
            frames: Vec::new(),
        })
    }

    /// The connection, made if there is none.
    fn connect(&mut self) -> Result<(), Trouble> {
        if self.link.as_ref().is_some_and(Link::is_closed) {
            self.disconnect();
        }
        if self.link.is_some() {
            return Ok(());
        }
        match Link::connect(&self.peer, &self.frame) {
            Ok(link) => {
                self.link = Some(link);
                if std::mem::replace(&mut self.was_connected, true) {
                    self.stats.reconnects.fetch_add(1, Relaxed);
                }
                Ok(())
            }
            Err(error) => Err(self.later(error)),
        }
    }

    fn disconnect(&mut self) {
        if let Some(link) = self.link.take() {
            self.backoff.ended(link.age());
        }
        self.part = 0;
        self.stalled = None;
    }

    fn later(&mut self, error: io::Error) -> Trouble {
        Trouble::Retry(error, self.backoff.take())
    }

    /// What it means that not all was taken.
    fn trouble(&mut self, error: io::Error) -> Trouble {
        if error.kind() == io::ErrorKind::WouldBlock {
            let since = *self.stalled.get_or_insert_with(Instant::now);
            if since.elapsed() < self.stall {
                return Trouble::Again;
            }
        }
        let stalled = error.kind() == io::ErrorKind::WouldBlock;
        self.disconnect();
        self.later(if stalled {
            io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")
        } else {
            error
        })
    }

    /// Sends frames of whole lines from byte `from` on: as many as make a chunk, or the one that is there.
    fn send_stream(&mut self, batch: &Batch, from: usize, delimiter: Delimiter) -> (usize, io::Result<()>) {
        self.frames.clear();
        // Where each frame ends, and where its line does.
        let mut ends = Vec::new();
        for line in batch.lines_from(from) {
            self.frame.put(&line, delimiter, &mut self.frames);
            ends.push((self.frames.len(), line.end));
            if self.frames.len() >= CHUNK {
                break;
            }
        }
        let Some(link) = &self.link else { return (from, Err(io::ErrorKind::NotConnected.into())) };
        let (sent, result) = link.send_stream(&self.frames, self.part);
        if sent > self.part {
            self.stalled = None;
        }
        let whole = ends.iter().rev().find(|(frame, _)| *frame <= sent);
        let (start, upto) = whole.copied().unwrap_or((0, from));
        self.part = sent - start;
        (upto, result)
    }

    fn send_datagram(&mut self, line: &BatchLine<'_>) -> io::Result<Sent> {
        self.frames.clear();
        self.frame.put(line, Delimiter::Datagram, &mut self.frames);
        let Some(connection) = &self.link else { return Err(io::ErrorKind::NotConnected.into()) };
        let sent = connection.send_datagram(&self.frames, matches!(self.frame, Frame::Journal))?;
        self.stalled = None;
        Ok(sent)
    }

    fn write_datagrams(&mut self, batch: &Batch, from: usize) -> Written {
        let (mut upto, mut refused) = (from, Refused::default());
        for line in batch.lines_from(from) {
            match self.send_datagram(&line) {
                Ok(Sent::Whole) => {}
                Ok(Sent::TooLarge) => refused.line(line.fact.action, line.bytes.len()),
                Err(error) => return Written { upto, refused, result: Err(self.trouble(error)) },
            }
            upto = line.end;
        }
        Written { upto, refused, result: Ok(()) }
    }

    fn write_stream(&mut self, batch: &Batch, from: usize, delimiter: Delimiter) -> Written {
        let mut upto = from;
        while upto < batch.bytes.len() {
            let result;
            (upto, result) = self.send_stream(batch, upto, delimiter);
            if let Err(error) = result {
                return Written::new(upto, Err(self.trouble(error)));
            }
        }
        Written::new(upto, Ok(()))
    }
}

impl Target for Remote {
    fn write(&mut self, batch: &Batch, from: usize) -> Written {
        // What was sent of a line is in `part`, not in `from`.
        let from = line_start(&batch.bytes, from);
        if let Err(trouble) = self.connect() {
            return Written::new(from, Err(trouble));
        }
        match self.link.as_ref().map_or(Delimiter::Datagram, Link::delimiter) {
            Delimiter::Datagram => self.write_datagrams(batch, from),
            delimiter => self.write_stream(batch, from, delimiter),
        }
    }

    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self) -> Result<(), Trouble> {
        if self.link.is_none() && self.backoff.is_waiting() { Err(Trouble::Again) } else { self.connect() }
    }

    fn reopen(&mut self) -> Result<(), Trouble> {
        self.disconnect();
        self.connect()
    }
}

/// A path that leads to something else will not become a socket by waiting.
fn check_socket(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::other("this is no socket")),
        _ => Ok(()),
    }
}
