//! Whether the kernel's auditing is on, and switching it on where the configuration says so.
//!
//! Off, the kernel drops what processes have to say: `audit_receive_msg`, kernel/audit.c (v6.18).

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        RecvFlags, SendFlags, SocketFlags, bind,
        netlink::SocketAddrNetlink,
        recv, send,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::socket::{OpenError, in_host_network, netlink};
use crate::host::HostRoot;

// include/uapi/linux/audit.h (v6.18).
const AUDIT_GET: u16 = 1000;
const AUDIT_SET: u16 = 1001;
/// `AUDIT_STATUS_ENABLED`: of `struct audit_status` only `enabled` counts.
const ENABLED: u32 = 1;

// include/uapi/linux/netlink.h (v6.18).
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

/// The kernel answers at once; a thread of its own writes the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// In the folder for the agent's notes: the boot in which it switched auditing on.
const MARK: &str = "audit-enabled";

/// Asks the audit subsystem.
#[derive(Debug)]
pub(crate) struct Control(OwnedFd);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// 0 off, 1 on, 2 on until the next boot whoever wants it otherwise.
    pub(crate) enabled: u32,
    /// The process that records are sent to, auditd; 0 for none.
    pub(crate) auditd: u32,
    /// Records that the subsystem could not keep, since boot, by its own count.
    pub(crate) lost: u32,
}

impl Control {
    pub(super) fn open(host: &HostRoot) -> Result<Self, OpenError> {
        in_host_network(host, || {
            let socket = netlink(SocketFlags::CLOEXEC)?;
            bind(&socket, &SocketAddrNetlink::new(0, 0))?;
            set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
            Ok(Self(socket))
        })
    }

    /// Takes `CAP_AUDIT_CONTROL`.
    pub(super) fn status(&self) -> io::Result<Status> {
        self.ask(AUDIT_GET, NLM_F_REQUEST, &[])?;
        let answer = self.answer(AUDIT_GET)?;
        let word = |index: usize| {
            let at = 16 + index * 4;
            answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
        };
        // mask, enabled, failure, pid, rate_limit, backlog_limit, lost
        match (word(1), word(3), word(6)) {
            (Some(enabled), Some(auditd), Some(lost)) => Ok(Status { enabled, auditd, lost }),
            _ => Err(io::Error::other("the kernel's answer is short")),
        }
    }

    pub(super) fn set_enabled(&self, enabled: bool) -> io::Result<()> {
        let words = [ENABLED, u32::from(enabled), 0, 0, 0, 0, 0, 0];
        let payload: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.ask(AUDIT_SET, NLM_F_REQUEST | NLM_F_ACK, &payload)?;
        self.answer(NLMSG_ERROR).map(drop)
    }

    fn ask(&self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(16 + payload.len()).map_err(io::Error::other)?;
        let message =
            [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], payload].concat();
        send(&self.0, &message, SendFlags::empty())?;
        Ok(())
    }

    /// The next message of this type. An error that the kernel answers with is one.
    fn answer(&self, kind: u16) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 1024];
        // Acknowledgements of earlier questions may come before.
        for _ in 0..8 {
            let len = match recv(&self.0, &mut buffer, RecvFlags::empty()) {
                Ok((_, len)) => len,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let message = buffer.get(..len).unwrap_or_default();
            let number = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
            if number == Some(NLMSG_ERROR) {
                let error = message.get(16..20).and_then(|bytes| bytes.try_into().ok());
                let error = error.map_or(0, i32::from_ne_bytes);
                if error != 0 {
                    return Err(io::Error::from_raw_os_error(-error));
                }
            }
            if number == Some(kind) {
                return Ok(message.to_vec());
            }
        }
        Err(io::Error::other("no answer from the kernel"))
    }
}

/// Auditing that the agent has switched on, and switches off when it ends.
#[derive(Debug)]
pub(super) struct Switched {
    control: Control,
    mark: PathBuf,
}

impl Switched {
    /// Switches auditing on if it is off; `None` where it was on, by somebody else.
    ///
    /// An agent that was killed could not switch it off again. Its mark says so, and this one takes that over.
    pub(super) fn on(control: Control, folder: &Path, boot_id: &str) -> io::Result<Option<Self>> {
        let mark = folder.join(MARK);
        let is_ours = is_marked(&mark, boot_id);
        if control.status()?.enabled != 0 {
            return Ok(is_ours.then_some(Self { control, mark }));
        }
        // First the mark: with it alone nothing is wrong.
        if let Err(error) = fs::create_dir_all(folder).and_then(|()| fs::write(&mark, boot_id)) {
            tracing::warn!(%error, "auditing will stay on if the agent is killed: it cannot note that it was off");
        }
        control.set_enabled(true)?;
        Ok(Some(Self { control, mark }))
    }

    /// What an agent that was killed left on, for one that is not to have it on.
    pub(super) fn left(control: Control, folder: &Path, boot_id: &str) -> Option<Self> {
        let mark = folder.join(MARK);
        is_marked(&mark, boot_id).then_some(Self { control, mark })
    }

    /// Switches it off, unless an auditd has come that lives on it.
    pub(super) fn off(self) -> io::Result<()> {
        let Self { control, mark } = self;
        if control.status()?.auditd == 0 {
            control.set_enabled(false)?;
        }
        match fs::remove_file(mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_marked(mark: &Path, boot_id: &str) -> bool {
    !boot_id.is_empty() && fs::read_to_string(mark).is_ok_and(|boot| boot == boot_id)
}
