//! The socket that audit records are read from: one of the kernel's multicast group, beside auditd or without it.
//!
//! The group is for reading alone. The agent never asks for the records to be sent to it (`AUDIT_SET` with a process
//! id): there is one such place, and it is auditd's.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{AUDIT, SocketAddrNetlink},
        recvfrom, socket_with,
        sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force},
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use thiserror::Error;

use crate::host::HostRoot;

/// The group `AUDIT_NLGRP_READLOG` as a bit, include/uapi/linux/audit.h (v6.18).
const READLOG: u32 = 1;

/// `MAX_AUDIT_MESSAGE_LENGTH` is 8,970 there.
pub(super) const MESSAGE: usize = 16 * 1024;

/// Why there are no records.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    #[error("this kernel has no auditing (CONFIG_AUDIT)")]
    NotSupported,
    #[error("missing CAP_AUDIT_READ")]
    Denied,
    #[error("the host's network namespace, in which alone the kernel tells: {0}")]
    Network(io::Error),
    #[error("{0}")]
    Other(io::Error),
}

/// Joined to the group.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Joins the group in the host's network namespace. `buffer` is what the kernel keeps for us, in bytes.
    pub(super) fn join(host: &HostRoot, buffer: u32) -> Result<Self, OpenError> {
        in_host_network(host, || {
            let socket = netlink(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
            let bytes = buffer as usize;
            // Beyond net.core.rmem_max only with CAP_NET_ADMIN, which loading the programs takes anyway.
            set_socket_recv_buffer_size_force(&socket, bytes)
                .or_else(|_| set_socket_recv_buffer_size(&socket, bytes))?;
            bind(&socket, &SocketAddrNetlink::new(0, READLOG))?;
            Ok(Self(socket))
        })
    }

    /// One record; `None` where there is none at the moment. `ENOBUFS` says that some did not find room.
    pub(super) fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recvfrom(&self.0, &mut *buffer, RecvFlags::empty()) {
            Ok((_, len, from)) => {
                // What another process sends is nothing that the kernel says.
                let port =
                    from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).map(|from| from.pid());
                let len = if port == Some(0) { len } else { 0 };
                Ok(buffer.get(..len))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Records that found no room in the buffer since the socket was made.
    #[expect(unsafe_code, reason = "rustix does not have this option")]
    pub(super) fn drops(&self) -> io::Result<u64> {
        // `SK_MEMINFO_DROPS`, include/uapi/linux/sock_diag.h (v6.18).
        const DROPS: usize = 8;
        let mut figures = [0_u32; DROPS + 1];
        let mut len = libc::socklen_t::try_from(size_of_val(&figures)).map_err(io::Error::other)?;
        // SAFETY: a place of that length.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                figures.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == 0 {
            Ok(figures.last().copied().unwrap_or(0).into())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    pub(super) fn handle(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// A socket that asks the audit subsystem.
pub(super) fn netlink(flags: SocketFlags) -> Result<OwnedFd, OpenError> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(AUDIT)).map_err(Into::into)
}

impl From<Errno> for OpenError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => Self::NotSupported,
            Errno::PERM | Errno::ACCESS => Self::Denied,
            error => Self::Other(error.into()),
        }
    }
}

/// Runs it in the host's network namespace: here, or in a thread that goes there and ends.
pub(super) fn in_host_network<T: Send>(
    host: &HostRoot,
    work: impl FnOnce() -> Result<T, OpenError> + Send,
) -> Result<T, OpenError> {
    // Seen from the initial namespace only: `net_core_table`, net/core/sysctl_net_core.c (v5.10 to v6.18). Of its
    // first process not everybody may know the namespaces.
    if Path::new("/proc/sys/net/core/netdev_max_backlog").exists() {
        return work();
    }
    let theirs = File::open(host.join("/proc/1/ns/net")).map_err(OpenError::Network)?;
    std::thread::scope(|threads| {
        let there = threads.spawn(move || {
            move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| OpenError::Network(error.into()))?;
            work()
        });
        there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
