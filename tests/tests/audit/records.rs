//! Every type of record, as this kernel passes it on.

use std::fs;

use serde_json::{Value, json};
use tellwire_tests::{
    Agent, at,
    auditing::{self, Auditing},
    sys, until,
};

use crate::{USER_LOGIN, become_known};

/// Types that programs write, by number and name (libaudit.h), and what is told.
const TYPES: [(u16, &str, &str); 38] = [
    (1100, "USER_AUTH", "user_auth"),
    (1101, "USER_ACCT", "user_account"),
    (1102, "USER_MGMT", "user_changed"),
    (1103, "CRED_ACQ", "credentials_acquired"),
    (1104, "CRED_DISP", "credentials_disposed"),
    (1105, "USER_START", "user_session_start"),
    (1106, "USER_END", "user_session_end"),
    (1108, "USER_CHAUTHTOK", "user_password_changed"),
    (1109, "USER_ERR", "user_error"),
    (1110, "CRED_REFR", "credentials_refreshed"),
    (USER_LOGIN, "USER_LOGIN", "user_login"),
    (1113, "USER_LOGOUT", "user_logout"),
    (1114, "ADD_USER", "account_added"),
    (1115, "DEL_USER", "account_deleted"),
    (1116, "ADD_GROUP", "group_added"),
    (1117, "DEL_GROUP", "group_deleted"),
    (1119, "CHGRP_ID", "group_changed"),
    (1123, "USER_CMD", "user_command"),
    (1125, "CHUSER_ID", "user_changed"),
    (1126, "GRP_AUTH", "group_auth"),
    (1132, "GRP_MGMT", "group_changed"),
    (1133, "GRP_CHAUTHTOK", "group_changed"),
    (1135, "ACCT_LOCK", "account_locked"),
    (1136, "ACCT_UNLOCK", "account_unlocked"),
    (2100, "ANOM_LOGIN_FAILURES", "login_anomaly"),
    (2101, "ANOM_LOGIN_TIME", "login_anomaly"),
    (2102, "ANOM_LOGIN_SESSIONS", "login_anomaly"),
    (2103, "ANOM_LOGIN_ACCT", "login_anomaly"),
    (2104, "ANOM_LOGIN_LOCATION", "login_anomaly"),
    (2118, "ANOM_LOGIN_SERVICE", "login_anomaly"),
    (2119, "ANOM_LOGIN_ROOT", "login_anomaly"),
    (2205, "RESP_ACCT_LOCK_TIMED", "account_locked"),
    (2206, "RESP_ACCT_UNLOCK_TIMED", "account_unlocked"),
    (2207, "RESP_ACCT_LOCK", "account_locked"),
    (2300, "USER_ROLE_CHANGE", "role_changed"),
    (2301, "ROLE_ASSIGN", "role_changed"),
    (2302, "ROLE_REMOVE", "role_changed"),
    (2311, "ROLE_MODIFY", "role_changed"),
];

/// They tell of other things: `USER_AVC`, `USYS_CONFIG`, `CRYPTO_KEY_USER`.
const OTHERS: [u16; 3] = [1107, 1111, 2404];

/// A login that nobody has: the kernel does not ask.
const LOGIN: &str = "4711";

#[test]
fn every_type_is_told_with_its_outcome_and_by_whom() {
    let _auditing = Auditing::on();
    let agent = Agent::alone();
    let child = agent.fork(|| {
        become_known();
        fs::write("/proc/self/loginuid", LOGIN).expect("root may");
        for (number, _, _) in TYPES {
            auditing::report(number, [text("success"), text("failed")]);
        }
        for number in OTHERS {
            auditing::report(number, [text("success")]);
        }
    });
    for (_, name, action) in TYPES {
        for outcome in ["success", "failure"] {
            let fields = json!({
                "event.outcome": outcome, "process.login_uid": LOGIN, "source.ip": "192.0.2.7",
                "tellwire.audit.type": name, "tellwire.auth.sources": ["audit"],
            });
            agent.expect(child.pid, action, &fields);
        }
    }
    child.join();
    let told: u64 = 2 * TYPES.len() as u64 + 1;
    agent.expect_metric("tellwire_audit_records_total", &[("outcome", "told")], told);
    let is_reported = |event: &&Value| at(event, "tellwire.audit").is_some();
    assert_eq!(agent.end().iter().filter(is_reported).count() as u64, told);
}

/// The record that the kernel writes by itself, and what the process is from then on.
#[test]
fn a_login_is_told_when_it_is_set_and_on_every_line_after_it() {
    let _auditing = Auditing::on();
    let agent = Agent::shared();
    let child = agent.fork(|| {
        become_known();
        fs::write("/proc/self/loginuid", LOGIN).expect("root may");
        sys::credential_call(libc::SYS_setgid, [0; 3]).expect("root may");
    });
    let set = json!({
        "event.outcome": "success", "user.id": LOGIN, "process.login_uid": LOGIN, "tellwire.audit.type": "LOGIN",
    });
    let set = agent.expect(child.pid, "login_uid_set", &set);
    let session = at(&set, "process.session_id").cloned().expect("a session");
    for action in ["setgid", "exit"] {
        agent.expect(child.pid, action, &json!({"process.login_uid": LOGIN, "process.session_id": session}));
    }
}

/// Records of processes that are not chosen reach nothing.
#[test]
fn what_others_report_is_counted_and_not_told() {
    let _auditing = Auditing::on();
    let agent = Agent::alone();
    let text = "op=login acct=\"tw-stranger\" addr=192.0.2.1 res=failed";
    tellwire_tests::fork(|| auditing::report(USER_LOGIN, [text])).join();
    until("a record out of scope", || {
        (agent.metric("tellwire_audit_records_total", &[("outcome", "out_of_scope")]) > 0).then_some(())
    });
    let child = agent.fork(|| {
        become_known();
        auditing::report(USER_LOGIN, [text]);
    });
    let known = json!({"tellwire.auth.user_withheld": true, "user": null});
    let known = agent.expect(child.pid, "user_login", &known);
    assert!(!known.to_string().contains("tw-stranger"), "{known}");
    let reported: Vec<_> =
        agent.events().into_iter().filter(|event| at(event, "tellwire.audit").is_some()).collect();
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_eq!(at(&reported[0], "process.pid"), Some(&json!(child.pid)));
}

fn text(result: &str) -> String {
    format!("op=tried acct=\"root\" exe=\"/none\" hostname=? addr=192.0.2.7 terminal=pts/7 res={result}")
}
