//! Sockets in states that std does not bring them to, and networks of a process's own.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, SocketAddrAny, SocketFlags, SocketType, bind, connect, getpeername,
        getsockname, listen, socket_with, sockopt::socket_error,
    },
    thread::UnshareFlags,
};

use crate::{sys, wait::until};

/// Kinds of routes that lead nowhere. include/uapi/linux/rtnetlink.h (v6.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// Answers with `EHOSTUNREACH`.
    Unreachable = 7,
    /// Answers with `EACCES`.
    Prohibited = 8,
}

/// Connections that may wait for the server: more than any test opens at once.
const QUEUE: i32 = 4096;

/// Takes every connection, and closes it at once, until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on an address of this host.
    pub fn start(ip: impl Into<IpAddr>) -> Self {
        let listener = TcpListener::bind((ip.into(), 0)).expect("listening");
        // The queue of std is short: where this thread gets no time, a connect is dropped and tries again a second later, or two.
        listen(&listener, QUEUE).expect("a longer queue");
        let (address, is_over) = (address(&listener), Arc::<AtomicBool>::default());
        let ends = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                drop(stream.expect("a connection"));
                if ends.load(Relaxed) {
                    break;
                }
            }
        });
        Self { address, is_over, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        // One more connection wakes it.
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _panicked = thread.join();
        }
    }
}

/// A listener whose queue is full: who connects to it gets no answer. Both must be kept.
pub fn silent_listener() -> (TcpListener, TcpStream) {
    let socket = stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binding");
    listen(&socket, 0).expect("listening");
    let listener = TcpListener::from(socket);
    let first = TcpStream::connect(address(&listener)).expect("the one connection that there is room for");
    (listener, first)
}

/// An address on loopback where nobody listens, while the socket is kept.
pub fn closed_port() -> (OwnedFd, SocketAddr) {
    let socket = stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binding");
    let address = getsockname(&socket).expect("its address").try_into().expect("an IP address");
    (socket, address)
}

pub fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("its address")
}

/// A socket for a connection.
pub fn stream_socket(family: AddressFamily, flags: SocketFlags) -> OwnedFd {
    socket_with(family, SocketType::STREAM, flags, None).expect("a socket")
}

/// The same, of a protocol by its number; an error where the kernel does not have it.
pub fn stream_socket_of(family: AddressFamily, protocol: u32) -> Result<OwnedFd, Errno> {
    let protocol = NonZeroU32::new(protocol).map(Protocol::from_raw);
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)
}

/// A connect that does not wait for its outcome.
pub fn begin_connect(to: SocketAddr) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = stream_socket(family, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
    let begun = connect(&socket, &to);
    assert!(matches!(begun, Ok(()) | Err(Errno::INPROGRESS)), "{begun:?}");
    socket
}

/// What came of a connect that did not wait.
pub fn outcome(socket: &OwnedFd) -> Result<(), Errno> {
    // A pending connect is not connected, and has no error yet.
    until("the outcome of a connect", || match socket_error(socket).expect("the socket's error") {
        Ok(()) => getpeername(socket).ok().map(|_| Ok(())),
        Err(error) => Some(Err(error)),
    })
}

/// How often the first packet is repeated before the connect has timed out.
pub fn set_syn_count(socket: &OwnedFd, count: libc::c_int) {
    set_option(socket, libc::TCP_SYNCNT, count);
}

#[expect(unsafe_code, reason = "rustix has no such option")]
fn set_option(socket: &OwnedFd, name: libc::c_int, value: libc::c_int) {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four");
    let place = (&raw const value).cast();
    // SAFETY: a number to read.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, name, place, size) };
    assert_eq!(result, 0, "a socket option: {}", io::Error::last_os_error());
}

/// Connects and sends a byte in one call, by TCP Fast Open.
#[expect(unsafe_code, reason = "rustix has no such flag")]
pub fn send_fast_open(socket: BorrowedFd<'_>, to: SocketAddr) {
    let to = SocketAddrAny::from(to);
    let (byte, flags) = (b"x", libc::MSG_FASTOPEN);
    // SAFETY: a byte and an address to read.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), byte.as_ptr().cast(), 1, flags, to.as_ptr().cast(), to.addr_len())
    };
    assert_eq!(sent, 1, "sendto: {}", io::Error::last_os_error());
}

/// Moves the calling process to a network of its own, with nothing but loopback in it.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper for this")]
pub fn own_network() {
    sys::unshare(UnshareFlags::NEWNET).expect("a network namespace");
    let socket = stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
    // SAFETY: all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // "lo": characters are signed on some architectures only.
    (request.ifr_name[0], request.ifr_name[1]) = (108, 111);
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("a flag");
    // SAFETY: a request to read.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    assert_eq!(result, 0, "loopback: {}", io::Error::last_os_error());
}

/// Adds a route to `network/24` that leads nowhere.
#[expect(unsafe_code, reason = "std has no netlink sockets")]
pub fn add_route(network: Ipv4Addr, kind: NoRoute) {
    // RTM_NEWROUTE, with NLM_F_REQUEST, NLM_F_ACK and NLM_F_CREATE.
    let mut message =
        [&36_u32.to_ne_bytes()[..], &24_u16.to_ne_bytes(), &0x405_u16.to_ne_bytes(), &[0; 8]].concat();
    // rtmsg: AF_INET, prefix, RT_TABLE_MAIN, RTPROT_STATIC; then RTA_DST.
    message.extend([2, 24, 0, 0, 254, 4, 0, kind as u8, 0, 0, 0, 0]);
    message.extend([&8_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), &network.octets()].concat());
    // SAFETY: numbers only.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    assert!(fd >= 0, "netlink: {}", io::Error::last_os_error());
    // SAFETY: a new descriptor.
    let mut socket = unsafe { File::from_raw_fd(fd) };
    socket.write_all(&message).expect("asking for a route");
    let mut answer = [0; 256];
    let len = socket.read(&mut answer).expect("the kernel's answer");
    assert!(len >= 20, "{len} bytes are no answer");
    let error = i32::from_ne_bytes(answer[16..20].try_into().expect("four bytes"));
    assert_eq!(error, 0, "adding a route: {}", io::Error::from_raw_os_error(-error));
}
