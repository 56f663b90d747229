//! A socket address that one thread rewrites while another connects to it.

#![expect(unsafe_code, reason = "a race is what this is about")]

use std::{cell::UnsafeCell, io, mem::offset_of, net::TcpStream, os::fd::AsRawFd as _};

use rustix::net::{AddressFamily, SocketFlags};

use crate::net;

/// One of two addresses of loopback.
#[derive(Debug)]
pub struct RacedAddress(UnsafeCell<libc::sockaddr_in>);

// SAFETY: threads race for it on purpose; only the kernel reads it, and whatever it reads is an address.
unsafe impl Sync for RacedAddress {}

impl RacedAddress {
    /// With this port.
    pub fn new(port: u16) -> Self {
        Self(UnsafeCell::new(libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("2"),
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        }))
    }

    /// Makes it the one address, and then the other.
    pub fn rewrite(&self) {
        for last in [2, 1] {
            let address = libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, last]) };
            // SAFETY: inside the address.
            let place = unsafe { self.0.get().byte_add(offset_of!(libc::sockaddr_in, sin_addr)) };
            // SAFETY: see `Sync`.
            unsafe { place.cast::<libc::in_addr>().write_volatile(address) };
        }
    }

    /// Connects to whichever it is when the kernel reads it.
    pub fn connect(&self) -> TcpStream {
        let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
        let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).expect("a few bytes");
        // SAFETY: an address to read.
        let result = unsafe { libc::connect(socket.as_raw_fd(), self.0.get().cast(), size) };
        assert_eq!(result, 0, "a connection: {}", io::Error::last_os_error());
        socket.into()
    }
}
