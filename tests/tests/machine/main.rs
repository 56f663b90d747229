//! What a test does to the whole machine: ignored but in the emulated one of `cargo xtask vm`, which runs them all.

#![expect(clippy::expect_used, reason = "tests panic, they do not return errors")]

mod clock;
