//! Calls are counted where they happen.

use tellwire_tests::{Agent, sys};

const ID_CALLS: [(&str, libc::c_long); 8] = [
    ("setuid", libc::SYS_setuid),
    ("setgid", libc::SYS_setgid),
    ("setreuid", libc::SYS_setreuid),
    ("setregid", libc::SYS_setregid),
    ("setresuid", libc::SYS_setresuid),
    ("setresgid", libc::SYS_setresgid),
    ("setfsuid", libc::SYS_setfsuid),
    ("setfsgid", libc::SYS_setfsgid),
];

#[test]
fn every_call_is_counted_by_its_outcome() {
    const SUCCESSES: u64 = 7;
    const FAILURES: u64 = 3;
    let agent = Agent::alone();
    let mut root = agent.fork(|| {
        for _ in 0..SUCCESSES {
            for (_, number) in ID_CALLS {
                sys::credential_call(number, [0; 3]).expect("what it has already");
            }
            sys::setgroups(&[]).expect("root may");
            sys::capset(|_| ()).expect("what it has already");
        }
    });
    agent.settle(&mut root);
    let mut user = agent.fork(|| {
        // One success of each of the three calls.
        sys::become_user(1000);
        for _ in 0..FAILURES {
            for (_, number) in ID_CALLS {
                let _denied = sys::credential_call(number, [0; 3]);
            }
            sys::setgroups(&[0]).expect_err("denied");
            sys::capset(|sets| sets.permitted = rustix::thread::CapabilitySet::CHOWN).expect_err("denied");
        }
    });
    agent.settle(&mut user);
    root.join();
    user.join();
    for call in ID_CALLS.map(|(name, _)| name).into_iter().chain(["setgroups", "capset"]) {
        let extra = u64::from(["setgroups", "setresgid", "setresuid"].contains(&call));
        let counted = |outcome| {
            agent.metric("tellwire_privilege_changes_total", &[("call", call), ("outcome", outcome)])
        };
        assert_eq!((counted("success"), counted("failure")), (SUCCESSES + extra, FAILURES), "{call}");
        let lines = agent.metric("tellwire_lines_total", &[("action", call)]);
        assert_eq!(lines, SUCCESSES + extra + FAILURES, "{call}");
    }
    agent.expect_metric("tellwire_events_total", &[("action", "credentials_changed")], 0);
    agent.expect_metric("tellwire_events_lost_total", &[], 0);
}
