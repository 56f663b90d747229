//! How the programs are loaded: sizes of maps, and the first settings.

use rustix::param::page_size;
use tellwire_ebpf::{connection::Connection, settings::Settings, wire::Ring};

/// What the configuration says of the kernel side, checked.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Size of the process ring and of the network ring; a power of two.
    pub(crate) ring_bytes: u32,
    /// Bytes of argv in an exec record.
    pub(crate) args_bytes: u32,
    /// Connects that may wait for their outcome.
    pub(crate) pending_connects: u32,
    /// Connections that are open at the same time, whose end is told.
    pub(crate) open_connections: u32,
    /// Counters of all cgroups together.
    pub(crate) cgroup_counters: u32,
    /// Records a second and cgroup, by ring; 0 for no limit.
    pub(crate) throttle: [u32; Ring::COUNT],
    /// Bit n set: records of kind n are wanted.
    pub(crate) kinds: u32,
    /// Functions of the kernel are hooked where it lets them be.
    pub(crate) function_hooks: bool,
    /// Calls of libpam are told.
    pub(crate) pam: bool,
    /// 0 for off, else a level of the crate `log`.
    pub(crate) log_level: u8,
}

impl Options {
    /// Just enough to load and attach.
    pub(crate) fn smallest() -> Self {
        Self {
            ring_bytes: 4096,
            args_bytes: 0,
            pending_connects: 256,
            open_connections: 1,
            cgroup_counters: 1024,
            throttle: [0; Ring::COUNT],
            kinds: 0,
            function_hooks: true,
            pam: true,
            log_level: 0,
        }
    }

    /// Size of a ring in bytes. The urgent ring is a quarter of the others: what it carries is rare.
    pub(crate) fn bytes_of(&self, ring: Ring) -> u32 {
        // The kernel takes whole pages, which are 64 KiB on some machines.
        let page = u32::try_from(page_size()).unwrap_or(4096);
        match ring {
            Ring::Urgent => (self.ring_bytes / 4).max(page),
            Ring::Process | Ring::Network => self.ring_bytes.max(page),
        }
    }

    /// Entries of the map of connections.
    pub(crate) const fn connections(&self) -> u32 {
        self.pending_connects + self.open_connections + Connection::LEFT
    }

    /// What the programs read from their map.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            args_max: self.args_bytes,
            kinds: self.kinds,
            throttle: self.throttle,
            // Half full: time enough for the reader to come, whatever its timer says.
            wake_bytes: [Ring::Urgent, Ring::Process, Ring::Network].map(|ring| self.bytes_of(ring) / 2),
            open_connections: self.open_connections,
        }
    }
}
