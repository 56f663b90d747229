//! Credentials: every call that changes them, and changes that no call explains.

#![expect(clippy::expect_used, reason = "tests panic, they do not return errors")]

mod abi;
mod calls;
mod changed;
mod groups;
mod ids;
mod order;
mod threads;

use serde_json::{Value, json};
use tellwire_tests::{Agent, Child};

/// All eight ids of a process.
#[derive(Clone, Copy)]
struct Ids {
    uid: u32,
    euid: u32,
    suid: u32,
    fsuid: u32,
    gid: u32,
    egid: u32,
    sgid: u32,
    fsgid: u32,
}

impl Ids {
    const ROOT: Self = Self { uid: 0, euid: 0, suid: 0, fsuid: 0, gid: 0, egid: 0, sgid: 0, fsgid: 0 };

    /// As a line has them.
    fn told(self) -> Value {
        let Self { uid, euid, suid, fsuid, gid, egid, sgid, fsgid } = self;
        let id = |id: u32| id.to_string();
        json!({
            "uid": id(uid), "euid": id(euid), "suid": id(suid), "fsuid": id(fsuid),
            "gid": id(gid), "egid": id(egid), "sgid": id(sgid), "fsgid": id(fsgid),
        })
    }
}

/// Nothing of the process was taken for a change that no call explains. It has ended, and all of it is told.
fn assert_explained(agent: &Agent, child: &mut Child) {
    agent.settle(child);
    assert_eq!(agent.events_of(child.pid, "credentials_changed"), [Value::Null; 0]);
}
