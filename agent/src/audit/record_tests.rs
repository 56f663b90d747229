//! Records as they are on the wire, and bytes that are none.

use proptest::prelude::*;

use super::{Message, NotARecord, Record};
use crate::events::action::Action;

fn message(number: u16, text: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + text.len()).unwrap();
    [&len.to_ne_bytes()[..], &number.to_ne_bytes(), &[0; 10], text].concat()
}

fn parse(number: u16, text: &str) -> Record {
    Record::parse(&message(number, text.as_bytes())).unwrap()
}

#[test]
fn a_failed_login_says_who_from_where() {
    let record = parse(
        1112,
        "audit(1700000000.123:456): pid=77 uid=0 auid=4294967295 ses=4294967295 subj=unconfined \
         msg='op=login acct=68657921 exe=\"/usr/sbin/sshd\" hostname=? addr=192.0.2.7 terminal=sshd res=failed'",
    );
    assert_eq!((record.kind.action, record.kind.name), (Action::UserLogin, "USER_LOGIN"));
    assert_eq!((record.time, record.serial), (1_700_000_000_123_000_000, 456));
    assert_eq!((record.pid, record.uid, record.login_uid, record.session_id), (77, Some(0), None, None));
    let expected = Message {
        op: Some("login".into()),
        account: Some("hey!".into()),
        exe: Some("/usr/sbin/sshd".into()),
        address: Some("192.0.2.7".into()),
        terminal: Some("sshd".into()),
        is_success: Some(false),
        ..Message::default()
    };
    assert_eq!(record.message, expected);
}

#[test]
fn the_kernels_own_record_of_a_login_has_no_message() {
    let record = parse(
        1006,
        "audit(1700000000.001:9): pid=5 uid=0 subj=kernel old-auid=4294967295 auid=1000 tty=(none) old-ses=4294967295 \
         ses=3 res=1\0",
    );
    assert_eq!((record.pid, record.login_uid, record.session_id), (5, Some(1000), Some(3)));
    assert_eq!(record.message, Message { id: Some(1000), is_success: Some(true), ..Message::default() });
}

/// Whoever may write records can write anything into the text, but not before it.
#[test]
fn a_process_cannot_say_that_it_is_another_one() {
    let record = parse(
        1100,
        "audit(1700000000.001:9): pid=5 uid=33 auid=1 ses=2 msg='op=x' pid=1 uid=0 auid=0 ses=1 acct=\"root\" msg='pid=1 \
         res=success res=failed'",
    );
    assert_eq!(
        (record.pid, record.uid, record.login_uid, record.session_id),
        (5, Some(33), Some(1), Some(2))
    );
    assert_eq!(record.message.account.as_deref(), Some("root"));
    assert_eq!(record.message.is_success, Some(true));
}

/// What useradd, groupadd, gpasswd, passwd and userdel of shadow 4.13 wrote on Debian 12.
#[test]
fn what_was_done_to_accounts_and_groups_is_about_the_one_or_the_other() {
    let named = |name: &str| (Some(name.to_owned()), None);
    let (numbered, none) = ((None, Some(61003)), (None, None));
    for (number, action, text, account, group) in [
        (
            1116,
            Action::GroupAdded,
            "op=adding group acct=\"tw-carol\" exe=\"/usr/sbin/useradd\"",
            none.clone(),
            named("tw-carol"),
        ),
        (
            1114,
            Action::AccountAdded,
            "op=adding user id=61003 exe=\"/usr/sbin/useradd\"",
            numbered.clone(),
            none.clone(),
        ),
        (
            1108,
            Action::UserPasswordChanged,
            "op=PAM:chauthtok grantors=pam_permit acct=\"tw-carol\" exe=\"/usr/bin/passwd\"",
            named("tw-carol"),
            none.clone(),
        ),
        (
            1116,
            Action::GroupAdded,
            "op=adding group to /etc/group id=61003 exe=\"/usr/sbin/groupadd\"",
            none.clone(),
            numbered.clone(),
        ),
        (
            1101,
            Action::GroupChanged,
            "op=user tw-carol added by root to group tw-crew acct=\"tw-crew\" exe=\"/usr/bin/gpasswd\"",
            none.clone(),
            named("tw-crew"),
        ),
        // Another program's is about an account, and so is what libpam says of gpasswd.
        (
            1101,
            Action::UserAccount,
            "op=PAM:accounting acct=\"tw-carol\" exe=\"/usr/bin/gpasswd\"",
            named("tw-carol"),
            none.clone(),
        ),
        (
            1115,
            Action::AccountDeleted,
            "op=deleting user entries id=61003 exe=\"/usr/sbin/userdel\"",
            numbered.clone(),
            none.clone(),
        ),
        (
            1117,
            Action::GroupDeleted,
            "op=deleting shadow group acct=\"tw-carol\" exe=\"/usr/sbin/userdel\"",
            none.clone(),
            named("tw-carol"),
        ),
    ] {
        let record = parse(
            number,
            &format!(
                "audit(1700000000.469:59849): pid=5614 uid=0 auid=4294967295 ses=4294967295 msg='{text} hostname=vm addr=? \
                 terminal=pts/0 res=success'"
            ),
        );
        let Message { account: name, id, group: group_name, group_id, is_success, .. } = record.message;
        assert_eq!(
            (record.kind.action, (name, id), (group_name, group_id)),
            (action, account, group),
            "{text}"
        );
        assert_eq!(is_success, Some(true), "{text}");
    }
}

#[test]
fn what_is_none_says_why() {
    let fault = |number, text: &[u8]| Record::parse(&message(number, text)).unwrap_err();
    assert_eq!(fault(1300, b"audit(1.000:1): pid=1"), NotARecord::OtherType(1300));
    assert_eq!(fault(1100, b"pid=1"), NotARecord::Stamp);
    assert_eq!(fault(1100, b"audit(1.0x0:1): pid=1"), NotARecord::Stamp);
    assert_eq!(fault(1100, b"audit(1.000:1): uid=1 msg='pid=1'"), NotARecord::Pid);
    assert_eq!(Record::parse(&[0; 5]), Err(NotARecord::Short(5)));
}

#[test]
fn a_cut_record_keeps_what_is_there() {
    let record = parse(1100, "audit(1.000:1): pid=1 uid=0 msg='op=PAM:authentication acct=\"ro");
    assert_eq!(record.message.account.as_deref(), Some("ro"));
    assert_eq!(record.message.is_success, None);
}

proptest! {
    #[test]
    fn any_bytes_are_a_record_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _either = Record::parse(&bytes);
    }

    #[test]
    fn any_text_behind_the_stamp_is_a_record_of_that_process(text in ".{0,300}", raw in proptest::collection::vec(any::<u8>(), 0..300)) {
        for tail in [text.as_bytes(), &raw] {
            let text = [b"audit(1700000000.123:456): pid=7 uid=0 msg='", tail, b"'"].concat();
            let record = Record::parse(&message(1112, &text)).unwrap();
            prop_assert_eq!((record.pid, record.uid, record.serial), (7, Some(0), 456));
            // Escapes make four letters of a byte at the most.
            let account = record.message.account.unwrap_or_default();
            prop_assert!(account.len() <= tail.len() * 4);
        }
    }

    #[test]
    fn a_name_comes_back_whatever_it_is(name in "[^\"'\\x00-\\x20\\\\]{1,40}") {
        let quoted = format!("audit(1.000:1): pid=7 uid=0 msg='op=login acct=\"{name}\" res=1'");
        let digits: Vec<_> = name.bytes().map(|byte| format!("{byte:02X}")).collect();
        let digits = digits.concat();
        let hex = format!("audit(1.000:1): pid=7 uid=0 msg='op=login acct={digits} res=1'");
        for text in [quoted, hex] {
            let record = Record::parse(&message(1112, text.as_bytes())).unwrap();
            let expected = Some(name.as_str()).filter(|name| !["?", "(unknown)", "(none)"].contains(name));
            prop_assert_eq!(record.message.account.as_deref(), expected);
        }
    }
}
