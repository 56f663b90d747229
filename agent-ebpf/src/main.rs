//! The kernel object: every program of the library, linked for BPF.
//!
//! Nothing is defined here but what a `no_std` binary must have; the programs stand beside
//! their wire structs in the library's family files.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use tellwire_ebpf as _;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program that could come here without end.
    loop {}
}

/// Lets the helpers that the kernel reserves for GPL-compatible programs be called.
#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "the loader looks for this section by name")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
