//! Many failures are a burst; keys that are tried before the right one are none.

use serde_json::{Value, json};
use tellwire_tests::{Agent, at, auditing::Auditing, private::Private, terminal};

use crate::{
    ALICE, WRONG,
    ssh::{Sshd, ssh},
};

fn login(agent: &Agent, private: &Private, program: &[&str], answers: &[terminal::Answer<'_>]) -> Value {
    private.fork(agent, || terminal::run(program, answers, || {})).join()["status"].clone()
}

#[test]
fn a_burst_is_told_with_who_got_in_after_all() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) = crate::agent("burst-failures = 4\n");
    let _sshd = Sshd::start(&agent, &private);
    let program =
        ssh!("tw-alice@127.0.0.1", "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=3");
    let wrong = [("password:", WRONG); 3];
    for _ in 0..2 {
        assert_eq!(login(&agent, &private, program, &wrong), 255);
    }
    let begun = |by: &str| {
        json!({
            "event.outcome": "failure",
            "process.executable": "/usr/sbin/sshd",
            "tellwire.bruteforce": {"by": by, "state": "begun", "failures": 4, "users": 1, "sources": 1, "succeeded": false},
        })
    };
    let by_source = agent.expect(None, "auth_bruteforce", &begun("source"));
    assert_eq!(at(&by_source, "source.ip"), Some(&json!("127.0.0.1")), "{by_source}");
    assert_eq!(at(&by_source, "user"), None, "{by_source}");
    let by_user = agent.expect(None, "auth_bruteforce", &begun("user"));
    assert_eq!(at(&by_user, "user.name"), Some(&json!(ALICE.name)), "{by_user}");
    assert_eq!(login(&agent, &private, program, &[("password:", ALICE.password)]), 0);
    let succeeded =
        json!({"event.outcome": "success", "tellwire.bruteforce": {"state": "succeeded", "failures": 6}});
    agent.expect(None, "auth_bruteforce", &succeeded);
    for by in ["source", "user"] {
        assert_eq!(agent.metric("tellwire_auth_bursts_total", &[("by", by)]), 1);
    }
    let stopped = agent.stop();
    let ended =
        stopped.events.iter().filter(|event| at(event, "tellwire.bruteforce.state") == Some(&json!("ended")));
    let ended: Vec<_> = ended.filter_map(|event| at(event, "tellwire.bruteforce")).collect();
    assert_eq!(ended.len(), 2, "{ended:?}");
    for burst in ended {
        assert_eq!((&burst["failures"], &burst["succeeded"]), (&json!(6), &json!(true)), "{burst}");
    }
}

#[test]
fn keys_before_the_right_one_are_no_burst_and_keys_without_one_are() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) = crate::agent("burst-failures = 2\n");
    let _sshd = Sshd::start(&agent, &private);
    let right = ssh!(
        "tw-alice@127.0.0.1",
        "-o",
        "PasswordAuthentication=no",
        "-i",
        "/root/wrong",
        "-i",
        "/root/wrong2",
        "-i",
        "/root/wrong3",
        "-i",
        "/root/right"
    );
    for _ in 0..3 {
        assert_eq!(login(&agent, &private, right, &[]), 0);
    }
    // sshd has reported each of them as a login that failed.
    let is_failure = |event: &&Value| {
        at(event, "event.action") == Some(&json!("user_login"))
            && at(event, "event.outcome") == Some(&json!("failure"))
    };
    agent.expect(None, "user_login", &json!({"event.outcome": "failure"}));
    assert_eq!(agent.events().iter().filter(is_failure).count(), 9);
    let wrong = ssh!(
        "tw-alice@127.0.0.1",
        "-o",
        "PasswordAuthentication=no",
        "-i",
        "/root/wrong",
        "-i",
        "/root/wrong2"
    );
    assert_eq!(login(&agent, &private, wrong, &[]), 255);
    assert_eq!(agent.metric("tellwire_auth_bursts_total", &[]), 0);
    assert_eq!(login(&agent, &private, wrong, &[]), 255);
    // Decided when the agent looks after itself, every five seconds.
    let burst = json!({"tellwire.bruteforce": {"by": "source", "state": "begun", "failures": 2}});
    agent.expect(None, "auth_bruteforce", &burst);
}
