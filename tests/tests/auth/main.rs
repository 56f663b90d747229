//! Logins of real programs, as they are reported by the kernel's audit records.
//!
//! Accounts, passwords and networks are those of a private root: see `tellwire_tests::private`.

#![expect(clippy::expect_used, reason = "tests panic, they do not return errors")]

mod flows;
mod ssh;

use tellwire_tests::{
    Agent, Setup,
    private::{Account, Private},
};

/// Whose logins are tried.
const ALICE: Account = Account { name: "tw-alice", id: 61_001, password: "Correct-Horse-4711" };
const BOB: Account = Account { name: "tw-bob", id: 61_002, password: "Battery-Staple-0815" };

/// Typed where another one is right.
const WRONG: &str = "Wrong-Pony-1234";

/// An agent that knows the accounts of a private root.
fn agent(config: &str, more: impl FnOnce()) -> (Agent, Private, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let private = Private::new(folder.path(), &[ALICE, BOB], more);
    let agent = Agent::with(|| Setup::default().config(config).before(private.see_accounts()));
    (agent, private, folder)
}
