//! The calls that set user and group ids: what was before, what was asked, what came of it.

use serde_json::json;
use tellwire_tests::{Agent, sys};

use crate::{Ids, assert_explained};

/// "Leave it as it is", for the calls that take several ids.
const KEEP: u32 = u32::MAX;

/// A call of root's that succeeds, from all ids 0.
struct Case {
    action: &'static str,
    number: libc::c_long,
    arguments: [u32; 3],
    asked: &'static [&'static str],
    new: Ids,
}

fn cases() -> [Case; 8] {
    let root = Ids::ROOT;
    let case = |action, number, arguments, asked, new| Case { action, number, arguments, asked, new };
    [
        case(
            "setuid",
            libc::SYS_setuid,
            [1000, 0, 0],
            &["1000"],
            Ids { uid: 1000, euid: 1000, suid: 1000, fsuid: 1000, ..root },
        ),
        case(
            "setgid",
            libc::SYS_setgid,
            [1001, 0, 0],
            &["1001"],
            Ids { gid: 1001, egid: 1001, sgid: 1001, fsgid: 1001, ..root },
        ),
        case(
            "setreuid",
            libc::SYS_setreuid,
            [1000, 2000, 0],
            &["1000", "2000"],
            Ids { uid: 1000, euid: 2000, suid: 2000, fsuid: 2000, ..root },
        ),
        case(
            "setregid",
            libc::SYS_setregid,
            [KEEP, 2001, 0],
            &["-1", "2001"],
            Ids { egid: 2001, sgid: 2001, fsgid: 2001, ..root },
        ),
        case(
            "setresuid",
            libc::SYS_setresuid,
            [1000, 2000, 3000],
            &["1000", "2000", "3000"],
            Ids { uid: 1000, euid: 2000, suid: 3000, fsuid: 2000, ..root },
        ),
        case(
            "setresgid",
            libc::SYS_setresgid,
            [1001, KEEP, 4_000_000_001],
            &["1001", "-1", "4000000001"],
            Ids { gid: 1001, sgid: 4_000_000_001, ..root },
        ),
        case("setfsuid", libc::SYS_setfsuid, [1000, 0, 0], &["1000"], Ids { fsuid: 1000, ..root }),
        case("setfsgid", libc::SYS_setfsgid, [1001, 0, 0], &["1001"], Ids { fsgid: 1001, ..root }),
    ]
}

#[test]
fn a_call_that_succeeds_tells_old_and_new_ids() {
    let agent = Agent::shared();
    for Case { action, number, arguments, asked, new } in cases() {
        let mut child = agent.fork(|| {
            sys::credential_call(number, arguments).expect("root may");
        });
        agent.expect(
            child.pid,
            action,
            &json!({
                "event": {"category": ["iam"], "type": ["change"], "outcome": "success", "dataset": "tellwire.privilege"},
                "error": null,
                "user.id": new.euid.to_string(),
                "process.thread": null,
                "tellwire.credentials": {
                    "old": Ids::ROOT.told(), "new": new.told(), "asked": asked, "evidence": "call",
                },
            }),
        );
        assert_explained(agent, &mut child);
        child.join();
    }
}

#[test]
fn a_call_that_is_denied_tells_what_was_asked() {
    let agent = Agent::shared();
    let user = Ids {
        uid: 1000,
        euid: 1000,
        suid: 1000,
        fsuid: 1000,
        gid: 1000,
        egid: 1000,
        sgid: 1000,
        fsgid: 1000,
    };
    for Case { action, number, asked, .. } in cases() {
        // Back to root, as far as the call has places for it.
        let asked: Vec<_> = asked.iter().map(|_| "0").collect();
        let mut child = agent.fork(|| {
            sys::become_user(1000);
            let result = sys::credential_call(number, [0; 3]);
            if ["setfsuid", "setfsgid"].contains(&action) {
                // These return the old id whatever they do.
                assert_eq!(result.expect("the old id"), 1000);
            } else {
                assert_eq!(result.expect_err("denied").raw_os_error(), Some(libc::EPERM));
            }
        });
        agent.expect(
            child.pid,
            action,
            &json!({
                "event.outcome": "failure",
                "error.code": "EPERM",
                "user.id": "1000",
                "tellwire.credentials": {"old": user.told(), "new": user.told(), "asked": asked},
            }),
        );
        assert_explained(agent, &mut child);
        child.join();
    }
}

#[test]
fn a_file_system_id_that_stays_by_request_is_no_denial() {
    let agent = Agent::shared();
    // The id that it has already; and -1, by which one asks what it is.
    for (argument, asked) in [(1000, "1000"), (KEEP, "-1")] {
        let mut child = agent.fork(|| {
            sys::become_user(1000);
            sys::credential_call(libc::SYS_setfsuid, [argument, 0, 0]).expect("the old id");
        });
        let credentials = json!({"asked": [asked], "new.fsuid": "1000"});
        agent.expect(
            child.pid,
            "setfsuid",
            &json!({"event.outcome": "success", "tellwire.credentials": credentials}),
        );
        assert_explained(agent, &mut child);
        child.join();
    }
}

#[test]
fn an_id_that_is_none_is_refused_with_its_errno() {
    let agent = Agent::shared();
    let child = agent.fork(|| {
        let error = sys::credential_call(libc::SYS_setuid, [KEEP, 0, 0]).expect_err("no id");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    });
    let fields =
        json!({"event.outcome": "failure", "error.code": "EINVAL", "tellwire.credentials.asked": ["-1"]});
    agent.expect(child.pid, "setuid", &fields);
    child.join();
}
