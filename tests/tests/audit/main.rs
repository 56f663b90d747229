//! Audit records, written as programs write them that have somebody log in: what is told of each type, what is not read, what is
//! lost. Nothing of a distribution is needed. Real programs that log in are the suite `auth`.

#![expect(clippy::expect_used, reason = "tests panic, they do not return errors")]

mod losses;
mod records;
mod start;
mod switch;

use tellwire_tests::sys;

/// `AUDIT_USER_LOGIN`.
const USER_LOGIN: u16 = 1112;

/// A process that came into the agent's cgroup by itself is known from the first that is seen of it: this. Records that it wrote
/// before are another's, for all that the agent knows.
fn become_known() {
    sys::credential_call(libc::SYS_setuid, [0; 3]).expect("root may");
}
