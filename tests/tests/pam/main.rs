//! Calls of libpam, by a helper that makes them: what each line says, that none is lost or told twice, and that no secret
//! is in any output. Real programs that log in are another suite's.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests panic, they do not return errors")]
#![expect(clippy::print_stdout, reason = "figures that were measured are told beside the outcome")]

mod books;
mod calls;
mod check;
mod containers;
mod helper;
mod overlay;
mod secrets;
