//! Audit records, written as programs write them that have somebody log in: what is told of each type, what is not read, what is
//! lost. Nothing of a distribution is needed. Real programs that log in are the suite `auth`.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests panic, they do not return errors")]

mod losses;
mod records;
mod start;
mod switch;

/// `AUDIT_USER_LOGIN`.
const USER_LOGIN: u16 = 1112;
