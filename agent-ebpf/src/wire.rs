//! The wire format: what a record in a ring looks like.
//!
//! A record is a [`Header`], a fixed body that its [`Kind`] names, and a tail of bytes that
//! [`Span`]s in the body point into. Every record stands alone: it can be decoded without any
//! record before it. The layout is private to one build of the agent; `VERSION` guards against
//! a reader of another one.

/// Raised whenever the layout of any record changes.
pub const VERSION: u8 = 1;

/// Declares structs of the wire format: C layout, no padding (`IntoBytes` refuses it), readable
/// from any bytes.
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            not(target_arch = "bpf"),
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
        )]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    )*};
}
pub(crate) use wire;

/// Declares a closed set of numbers with a name in JSON and in metrics.
macro_rules! names {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal => $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$variant_meta])* $variant = $value,)* }

        #[cfg(not(target_arch = "bpf"))]
        impl $name {
            /// Every member, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The member with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name that users see.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}
pub(crate) use names;

names! {
    /// What a record tells. The name is the line's `event.action`, or the record's purpose where
    /// it makes no line.
    pub enum Kind {
        /// Two processes where there was one. Makes no line.
        Fork = 0 => "fork",
        Exec = 1 => "exec",
        ExecFailed = 2 => "exec_failed",
        Exit = 3 => "exit",
        Connect = 4 => "connect",
        /// One of the credential calls; [`crate::privilege::Call`] says which.
        Credentials = 5 => "credentials",
        /// A cgroup was made. Makes no line.
        CgroupMkdir = 6 => "cgroup_mkdir",
        /// A cgroup was removed. Makes no line.
        CgroupRmdir = 7 => "cgroup_rmdir",
        Close = 8 => "close",
        /// A call of libpam; [`crate::pam::Call`] says which.
        Pam = 9 => "pam",
    }
}

impl Kind {
    pub const COUNT: usize = 10;

    /// The ring that carries this kind.
    pub const fn ring(self) -> Ring {
        match self {
            Self::Fork | Self::Exec | Self::ExecFailed | Self::Exit => Ring::Process,
            Self::Connect | Self::Close => Ring::Network,
            Self::Credentials | Self::CgroupMkdir | Self::CgroupRmdir | Self::Pam => Ring::Urgent,
        }
    }
}

names! {
    /// Three rings by urgency: a storm in one cannot push out another.
    pub enum Ring {
        /// Credentials, authentication, cgroup life, system operations.
        Urgent = 0 => "urgent",
        Process = 1 => "process",
        Network = 2 => "network",
    }
}

impl Ring {
    pub const COUNT: usize = 3;
}

wire! {
    /// The start of every record.
    pub struct Header {
        /// Bytes in use, this header included; the ring's slot may be larger.
        pub len: u32,
        pub version: u8,
        /// A [`Kind`].
        pub kind: u8,
        /// `Header::FLAG_*`.
        pub flags: u16,
        /// CLOCK_BOOTTIME in nanoseconds.
        pub time: u64,
        /// Counts the records submitted on this CPU into this kind's ring, from 0.
        pub sequence: u64,
        pub cpu: u32,
        /// Which rules took secrets out of the record: bits of the agent's, 0 from the kernel side.
        pub redacted: u32,
        /// Whom the record is about.
        pub subject: Subject,
    }

    /// A process (and the thread in it that acted), as the kernel knows it.
    pub struct Subject {
        pub tgid: u32,
        pub tid: u32,
        /// The leader's start, CLOCK_BOOTTIME in nanoseconds.
        pub start: u64,
        pub parent_tgid: u32,
        /// Counts the execs since the process began (`task_struct.self_exec_id`).
        pub exec_id: u32,
        pub parent_start: u64,
        pub ids: Ids,
        /// Inode number of its cgroup's directory in the unified (v2) hierarchy.
        pub cgroup_v2: u64,
        /// The same in the one v1 hierarchy that the agent chose; 0 where there is none.
        pub cgroup_v1: u64,
        pub comm: [u8; 16],
        /// `u32::MAX` where it was never set.
        pub login_uid: u32,
        /// `u32::MAX` where it was never set.
        pub session_id: u32,
    }

    /// User and group ids in the initial user namespace, in the order of the kernel's `struct cred`.
    pub struct Ids {
        pub uid: u32,
        pub gid: u32,
        pub suid: u32,
        pub sgid: u32,
        pub euid: u32,
        pub egid: u32,
        pub fsuid: u32,
        pub fsgid: u32,
    }

    /// Bytes in the record's tail, counted from the record's first byte.
    pub struct Span {
        pub start: u32,
        pub len: u32,
    }

    /// Capability sets, bit n for capability n.
    pub struct Capabilities {
        pub inheritable: u64,
        pub permitted: u64,
        pub effective: u64,
        pub bounding: u64,
        pub ambient: u64,
    }
}

impl Capabilities {
    pub const NONE: Self = Self { inheritable: 0, permitted: 0, effective: 0, bounding: 0, ambient: 0 };
}

impl Span {
    pub const EMPTY: Self = Self { start: 0, len: 0 };
}

impl Header {
    /// A path or a string was cut: its tail did not fit.
    pub const FLAG_TRUNCATED: u16 = 1;
}

#[cfg(all(test, not(target_arch = "bpf")))]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_the_tables() {
        assert_eq!(Kind::ALL.len(), Kind::COUNT);
        assert_eq!(Ring::ALL.len(), Ring::COUNT);
    }
}
