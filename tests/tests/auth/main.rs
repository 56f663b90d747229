//! Logins of real programs, as they are reported by the kernel's audit records.
//!
//! Accounts, passwords and networks are those of a private root: see `tellwire_tests::private`.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests panic, they do not return errors")]

mod accounts;
mod auditd;
mod bursts;
mod contained;
mod delays;
mod flows;
mod libpam;
mod login;
mod merged;
mod place;
mod releases;
mod runc;
mod secrets;
mod ssh;

use serde_json::Value;
use tellwire_tests::{
    Agent, Setup, at,
    private::{Account, Private},
};

/// Whose logins are tried.
const ALICE: Account = Account { name: "tw-alice", id: 61_001, password: "Correct-Horse-4711" };
const BOB: Account = Account { name: "tw-bob", id: 61_002, password: "Battery-Staple-0815" };

/// Typed where another one is right.
const WRONG: &str = "Wrong-Pony-1234";

/// An agent that knows the accounts of a private root, and hears audit records alone. `auth` is what its
/// configuration says of authentication.
fn agent(auth: &str) -> (Agent, Private, tempfile::TempDir) {
    agent_with(&format!("[auth]\npam = false\n{auth}"))
}

fn agent_with(config: &str) -> (Agent, Private, tempfile::TempDir) {
    agent_of(|| Setup::default().config(config), flows::prepare)
}

/// An agent of this setup, which knows the accounts of a private root that `prepare` has made ready.
fn agent_of(setup: impl Fn() -> Setup, prepare: impl FnOnce()) -> (Agent, Private, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let private = Private::new(folder.path(), &[ALICE, BOB], prepare);
    let agent = Agent::with(|| setup().before(private.see_accounts()));
    (agent, private, folder)
}

/// Whether an audit record stands behind it.
fn is_reported(event: &Value) -> bool {
    at(event, "tellwire.audit").is_some()
}
