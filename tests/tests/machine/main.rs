//! What a test does to the whole machine: ignored but in the emulated one of `cargo xtask vm`, which runs them all.

#![expect(clippy::expect_used, clippy::panic, reason = "tests panic, they do not return errors")]
#![expect(clippy::print_stdout, reason = "figures that were measured are told beside the outcome")]

mod clock;
// QEMU's arm64 machine cannot be put to sleep.
#[cfg(target_arch = "x86_64")]
mod suspend;
mod tax;
