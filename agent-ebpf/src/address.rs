//! Addresses: both ends of a connection, as the kernel's socket has them.

use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;

use crate::{
    kernel::{Pointer, Ptr, Typed, offset},
    network::{Scope, Tuple},
};

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;

/// The kernel's `struct sock` of a TCP connection.
pub(crate) trait Socket: Pointer {
    /// `skc_daddr`, `skc_rcv_saddr`, `skc_portpair` and `skc_family`.
    fn ends(self) -> Option<([u32; 2], u32, u16)>;

    /// Payload in bytes: sent, of that sent again, received.
    fn traffic(self) -> Option<[u64; 3]>;
}

impl Socket for Ptr {
    #[inline(always)]
    fn ends(self) -> Option<([u32; 2], u32, u16)> {
        // One read for what stands together; the agent has checked that it does.
        let [daddr, rcv_saddr, _hash, ports, family] = self.read_4(offset!(sock_daddr))?;
        Some(([daddr, rcv_saddr], ports, family as u16))
    }

    #[inline(always)]
    fn traffic(self) -> Option<[u64; 3]> {
        traffic(self)
    }
}

impl Socket for Typed {
    #[inline(always)]
    fn ends(self) -> Option<([u32; 2], u32, u16)> {
        // A load may not span members.
        Some((
            self.read_4(offset!(sock_daddr))?,
            self.read(offset!(sock_dport))?,
            self.read(offset!(sock_family))?,
        ))
    }

    #[inline(always)]
    fn traffic(self) -> Option<[u64; 3]> {
        // SAFETY: the verifier has seen that it is a socket; the kernel checks that it is one of TCP.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.address() as *mut _) };
        if tcp.is_null() { None } else { traffic(Self::at(tcp as u64)) }
    }
}

#[inline(always)]
fn traffic(tcp: impl Pointer) -> Option<[u64; 3]> {
    Some([
        tcp.read(offset!(tcp_bytes_sent))?,
        tcp.read(offset!(tcp_bytes_retrans))?,
        tcp.read(offset!(tcp_bytes_received))?,
    ])
}

/// Both ends, from the kernel's socket.
#[inline(always)]
pub(crate) fn tuple(socket: impl Socket) -> Option<Tuple> {
    let ([daddr, rcv_saddr], ports, family) = socket.ends()?;
    let (remote, local) = match family {
        AF_INET => (mapped(daddr), mapped(rcv_saddr)),
        AF_INET6 => {
            // By the helper: to the verifier an address is 16 single bytes.
            let [remote, local]: [[u8; 16]; 2] =
                Ptr(socket.address()).field(offset!(sock_v6_daddr))?.get()?;
            (remote, local)
        }
        _ => return None,
    };
    Some(Tuple {
        remote,
        local,
        remote_port: u16::from_be(ports as u16),
        local_port: (ports >> 16) as u16,
        reserved: 0,
    })
}

/// An IPv4 address in network order, as a v4-mapped IPv6 address.
#[inline(always)]
pub(crate) fn mapped(address: u32) -> [u8; 16] {
    // SAFETY: 16 bytes are 16 bytes.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>([0, 0, 0xffff_u32.to_be(), address]) }
}

#[inline(always)]
pub(crate) fn is_mapped(address: &[u8; 16]) -> bool {
    // SAFETY: 16 bytes are 16 bytes; unaligned is allowed.
    let words = unsafe { core::ptr::read_unaligned(address.as_ptr().cast::<[u32; 4]>()) };
    words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
}

/// The prefixes of [`Scope`].
#[inline(always)]
pub(crate) fn scope_of(address: &[u8; 16]) -> Scope {
    let a = address;
    if is_mapped(a) {
        return match (a[12], a[13]) {
            (127, _) => Scope::Loopback,
            (10, _) | (172, 16..=31) | (192, 168) | (169, 254) | (100, 64..=127) => Scope::Private,
            _ => Scope::Public,
        };
    }
    // SAFETY: 16 bytes are 16 bytes; unaligned is allowed.
    let words = unsafe { core::ptr::read_unaligned(a.as_ptr().cast::<[u32; 4]>()) };
    if words[0] == 0 && words[1] == 0 && words[2] == 0 && words[3] == 1_u32.to_be() {
        Scope::Loopback
    } else if a[0] & 0xfe == 0xfc || (a[0] == 0xfe && a[1] & 0xc0 == 0x80) {
        Scope::Private
    } else {
        Scope::Public
    }
}
