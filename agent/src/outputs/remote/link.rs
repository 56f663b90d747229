//! One connection.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_socket_keepalive, set_socket_send_buffer_size, set_socket_timeout, set_tcp_keepcnt,
    set_tcp_keepidle, set_tcp_keepintvl,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, send, sendmsg, shutdown, socket_with,
};

use super::super::frame::{Delimiter, Frame};
use super::super::writer::write;
use crate::config::Peer;

/// A call that waits for the peer comes back after this time: the task decides what then.
const WAIT: Duration = Duration::from_secs(1);

/// A handshake that takes longer is given up.
const CONNECT: Duration = Duration::from_secs(5);

/// What `sd_journal_send` asks for. The kernel gives what its limit allows.
const DATAGRAM_BUFFER: usize = 8 << 20;

pub(super) struct Link {
    socket: OwnedFd,
    delimiter: Delimiter,
    since: Instant,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Whole,
    /// It does not go into a datagram of this kind.
    TooLarge,
}

impl Link {
    pub(super) fn connect(peer: &Peer, frame: &Frame) -> io::Result<Self> {
        let stream = match frame {
            Frame::Syslog(_) if matches!(peer, Peer::Unix(_)) => Delimiter::Nul,
            Frame::Syslog(_) => Delimiter::Octets,
            Frame::Ndjson | Frame::Journal => Delimiter::Newline,
        };
        let (socket, delimiter) = match (peer, frame) {
            (Peer::Unix(path), Frame::Ndjson) => (unix(path, SocketType::STREAM)?, stream),
            (Peer::Unix(path), _) => match unix(path, SocketType::DGRAM) {
                Ok(socket) => (socket, Delimiter::Datagram),
                // As syslog(3) does it: the socket may be one of streams.
                Err(error)
                    if matches!(frame, Frame::Syslog(_))
                        && Errno::from_io_error(&error) == Some(Errno::PROTOTYPE) =>
                {
                    (unix(path, SocketType::STREAM)?, stream)
                }
                Err(error) => return Err(error),
            },
            (Peer::Tcp(host, port), _) => (tcp(host, *port)?, stream),
            (Peer::Udp(host, port), _) => (udp(host, *port)?, Delimiter::Datagram),
        };
        Ok(Self { socket, delimiter, since: Instant::now() })
    }

    pub(super) fn delimiter(&self) -> Delimiter {
        self.delimiter
    }

    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether the peer of a stream has closed it. The first write after that would still succeed, and its lines
    /// would be lost. What a peer says is read away: unread, it would turn the end of this connection into a reset.
    pub(super) fn is_closed(&self) -> bool {
        if self.delimiter == Delimiter::Datagram {
            return false;
        }
        let mut said = [0; 512];
        // A peer that talks without end is no syslog server, but must not hold up the thread either.
        for _ in 0..64 {
            match recv(&self.socket, &mut said[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return true,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
        false
    }

    /// Sends as much as goes from index `from` on; says up to where it came.
    pub(super) fn send_stream(&self, frames: &[u8], from: usize) -> (usize, io::Result<()>) {
        write(&self.socket, frames, from)
    }

    /// Sends one datagram. `by_file`: where it is too large, the peer takes a sealed file instead.
    pub(super) fn send_datagram(&self, message: &[u8], by_file: bool) -> io::Result<Sent> {
        loop {
            match send(&self.socket, message, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(Sent::Whole),
                Err(Errno::INTR) => {}
                // ENOBUFS: the kernel found no memory in one piece for a datagram of this size.
                Err(Errno::MSGSIZE | Errno::NOBUFS) if by_file => return self.send_file(message),
                Err(Errno::MSGSIZE) => return Ok(Sent::TooLarge),
                Err(Errno::NOBUFS) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As `sd_journal_send` does it: the journal takes a message of any size as a file that nobody can change any more.
    fn send_file(&self, message: &[u8]) -> io::Result<Sent> {
        let file = memfd_create(c"tellwire", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        write(&file, message, 0).1?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        let descriptors: [BorrowedFd<'_>; 1] = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        loop {
            match sendmsg(&self.socket, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(Sent::Whole),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.delimiter != Delimiter::Datagram {
            self.is_closed();
            // A peer that has gone is no reason to complain.
            let _gone = shutdown(&self.socket, Shutdown::Write);
        }
    }
}

fn unix(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(WAIT))?;
    if kind == SocketType::DGRAM {
        set_socket_send_buffer_size(&socket, DATAGRAM_BUFFER)?;
    }
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// The first of the host's addresses that answers.
fn tcp(host: &str, port: u16) -> io::Result<OwnedFd> {
    let mut last = None;
    for address in (host, port).to_socket_addrs()? {
        match std::net::TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                let socket = OwnedFd::from(stream);
                set_socket_timeout(&socket, Timeout::Send, Some(WAIT))?;
                // A peer whose machine is gone is noticed within a minute and a half, even while nothing is sent.
                set_socket_keepalive(&socket, true)?;
                set_tcp_keepidle(&socket, Duration::from_mins(1))?;
                set_tcp_keepintvl(&socket, Duration::from_secs(10))?;
                set_tcp_keepcnt(&socket, 3)?;
                return Ok(socket);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(no_address))
}

fn udp(host: &str, port: u16) -> io::Result<OwnedFd> {
    let address = (host, port).to_socket_addrs()?.next().ok_or_else(no_address)?;
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(address)?;
    let socket = OwnedFd::from(socket);
    set_socket_timeout(&socket, Timeout::Send, Some(WAIT))?;
    Ok(socket)
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the host has no address")
}
