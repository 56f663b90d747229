//! What is done to accounts and groups: Debian's tools report it, and libpam knows of passwords alone.

use serde_json::{Value, json};
use tellwire_tests::{at, auditing::Auditing, terminal, until};

use crate::ALICE;

/// A command, what is typed, and lines that must come of it, in this order: the type of the record, the action, and what it
/// is about, a path in the line and its value.
type Row = (
    &'static [&'static str],
    &'static [terminal::Answer<'static>],
    &'static [(&'static str, &'static str, &'static str, &'static str)],
);

/// By the tools of shadow 4.13, Debian 12. usermod says nothing of accounts that it locks and unlocks.
const ROWS: &[Row] = &[
    (
        &["/usr/sbin/useradd", "--uid", "61003", "tw-carol"],
        &[],
        &[
            ("ADD_GROUP", "group_added", "group.name", "tw-carol"),
            ("ADD_USER", "account_added", "user.id", "61003"),
        ],
    ),
    (
        &["/usr/bin/passwd", "tw-carol"],
        &[("password:", ALICE.password), ("password:", ALICE.password)],
        &[("USER_CHAUTHTOK", "pam_chauthtok", "tellwire.auth.service", "passwd")],
    ),
    (
        &["/usr/sbin/groupadd", "--gid", "61004", "tw-crew"],
        &[],
        &[("ADD_GROUP", "group_added", "group.id", "61004")],
    ),
    (
        &["/usr/bin/gpasswd", "--add", "tw-carol", "tw-crew"],
        &[],
        &[("USER_ACCT", "group_changed", "group.name", "tw-crew")],
    ),
    (&["/usr/sbin/groupdel", "tw-crew"], &[], &[("DEL_GROUP", "group_deleted", "group.id", "61004")]),
    (
        &["/usr/sbin/userdel", "tw-carol"],
        &[],
        &[
            ("DEL_USER", "account_deleted", "user.id", "61003"),
            ("DEL_GROUP", "group_deleted", "group.name", "tw-carol"),
        ],
    ),
];

/// In the profile that users have by default: nobody should miss that an account was made or became somebody's.
#[test]
fn what_is_done_to_accounts_and_groups_is_reported() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) =
        crate::agent_of(|| tellwire_tests::Setup::default().default_profile(), crate::flows::prepare);
    agent.expect_metric("tellwire_audit_enabled", &[], 1);
    for (program, answers, lines) in ROWS {
        let before = agent.events().len();
        let end = private.fork(&agent, || terminal::run(program, answers, || {})).join();
        assert_eq!(end["status"], 0, "{program:?}: {end}");
        until(program[0], || {
            let events = agent.events();
            let mut new = events.iter().skip(before);
            lines.iter().all(|line| new.any(|event| is(event, program[0], line))).then_some(())
        });
    }
    let tells_of_both = |event: &&Value| at(event, "group").is_some() && at(event, "user").is_some();
    assert_eq!(agent.events().iter().find(tells_of_both), None);
}

fn is(event: &Value, program: &str, line: &(&str, &str, &str, &str)) -> bool {
    let (kind, action, about, value) = *line;
    [
        ("tellwire.audit.type", kind),
        ("event.action", action),
        ("event.outcome", "success"),
        ("process.executable", program),
        (about, value),
    ]
    .iter()
    .all(|(path, value)| at(event, path) == Some(&json!(value)))
}
