//! What the line of each call says.

use serde_json::json;
use tellwire_tests::{Agent, Setup, at, sys};

use crate::helper::{Form, command, lines, run, settle};

#[test]
fn a_login_is_told_call_by_call() {
    let agent = Agent::shared();
    let steps = ["item4=192.0.2.7", "item3=pts/3", "item8=ann", "auth", "account", "cred", "open", "close"];
    let pid = run(agent, "sshd", "root", &steps);
    let common = json!({
        "event.outcome": "success",
        "event.code": "PAM_SUCCESS",
        "user": {"id": "0", "name": "root"},
        "process.user.id": "0",
        "source": {"address": "192.0.2.7", "ip": "192.0.2.7"},
        "related.ip": ["192.0.2.7"],
        "tellwire.auth.service": "sshd",
        "tellwire.auth.tty": "pts/3",
        "tellwire.auth.remote_user": "ann",
        "tellwire.auth.sources": ["pam"],
        "tellwire.auth.user_withheld": null,
        "tellwire.auth.untracked": null,
    });
    let mut transactions = Vec::new();
    for (action, category, kind) in [
        ("pam_authenticate", "authentication", "info"),
        ("pam_account", "authentication", "info"),
        ("pam_setcred", "authentication", "info"),
        ("pam_session_open", "session", "start"),
        ("pam_session_close", "session", "end"),
    ] {
        let line = agent.expect(pid, action, &common);
        assert_eq!(at(&line, "event.category"), Some(&json!([category])), "{line}");
        assert_eq!(at(&line, "event.type"), Some(&json!([kind])), "{line}");
        assert!(at(&line, "event.duration").is_some_and(|duration| duration.as_u64() > Some(0)), "{line}");
        transactions.push(at(&line, "tellwire.auth.transaction").cloned().expect("a transaction"));
        assert_eq!(agent.events_of(pid, action).len(), 1);
        let faults = tellwire_tests::ecs::faults(&line);
        assert!(faults.is_empty(), "{faults:?} in {line}");
    }
    transactions.dedup();
    assert_eq!(transactions.len(), 1);
    let open = agent.expect(pid, "pam_session_open", &json!({"tellwire.auth.proof": true}));
    assert_eq!(at(&open, "process.executable"), Some(&json!(crate::helper::path(Form::Linked))));
}

#[test]
fn a_refused_proof_and_a_refused_account_are_told_by_their_names() {
    let agent = Agent::shared();
    let pid = run(agent, "refuses", "root", &["auth-silent"]);
    let failed = json!({
        "event.outcome": "failure",
        "event.code": "PAM_AUTH_ERR",
        "tellwire.auth.service": "refuses",
        "tellwire.auth.silent": true,
    });
    agent.expect(pid, "pam_authenticate", &failed);
    let pid = run(agent, "locked", "root", &["auth", "account"]);
    agent.expect(pid, "pam_authenticate", &json!({"event.outcome": "success"}));
    let denied =
        json!({"event.outcome": "failure", "event.code": "PAM_AUTH_ERR", "tellwire.auth.proof": true});
    agent.expect(pid, "pam_account", &denied);
    let pid = run(agent, "sudo", "root", &["passwd"]);
    agent.expect(pid, "pam_chauthtok", &json!({"event.outcome": "success", "event.category": ["iam"]}));
    let pid = run(agent, "nothing", "root", &["open", "passwd"]);
    agent.expect(pid, "pam_session_open", &json!({"event.outcome": "failure"}));
}

#[test]
fn a_session_without_a_proof_says_so() {
    let agent = Agent::shared();
    let pid = run(agent, "sshd", "root", &["account", "open"]);
    agent.expect(pid, "pam_session_open", &json!({"tellwire.auth.proof": false}));
}

#[test]
fn a_library_that_a_program_opens_is_seen_like_one_that_it_is_linked_with() {
    let agent = Agent::shared();
    let pid = agent.run(&mut command(Form::Opens, "sudo", "root", &["auth"]));
    agent.expect(pid, "pam_authenticate", &json!({"user.name": "root", "tellwire.auth.service": "sudo"}));
}

#[test]
fn a_name_that_is_asked_for_is_that_of_the_transaction() {
    let agent = Agent::shared();
    let mut command = command(Form::Linked, "sshd", "-", &["auth", "open"]);
    let pid = agent.run(command.env("PAM_NAME", "nobody"));
    agent.expect(pid, "pam_authenticate", &json!({"user": {"id": "65534", "name": "nobody"}}));
    agent.expect(pid, "pam_session_open", &json!({"user.name": "nobody"}));
}

#[test]
fn strings_in_pages_that_are_not_present_are_read() {
    let agent = Agent::shared();
    let pid = run(agent, "@sshd", "@root", &["item4=@host.example", "auth"]);
    let read = json!({
        "user.name": "root",
        "source": {"address": "host.example"},
        "tellwire.auth.service": "sshd",
        "tellwire.auth.unreadable": null,
    });
    agent.expect(pid, "pam_authenticate", &read);
}

#[test]
fn what_is_too_long_is_cut_and_the_line_says_so() {
    let agent = Agent::shared();
    let host = "h".repeat(100);
    let pid = run(agent, "sshd", "root", &[&format!("item4={host}"), "auth"]);
    let cut = json!({"source.address": &host[..63], "tellwire.auth.truncated": ["remote_host"]});
    agent.expect(pid, "pam_authenticate", &cut);
}

#[test]
fn a_forked_child_has_the_transaction_and_does_not_end_it() {
    let agent = Agent::shared();
    let steps = ["fork-auth", "fork-end", "account", "open", "close"];
    let pid = run(agent, "sshd", "root", &steps);
    // The child is not the process that began.
    let by_child = json!({"process.parent.pid": pid, "user.name": "root", "event.outcome": "success"});
    let child = agent.expect(None, "pam_authenticate", &by_child);
    let transaction = at(&child, "tellwire.auth.transaction").expect("a transaction");
    let parent = json!({"tellwire.auth.transaction": transaction, "tellwire.auth.proof": true});
    agent.expect(pid, "pam_session_open", &parent);
    agent.expect(pid, "pam_session_close", &json!({"user.name": "root"}));
}

#[test]
fn the_default_profile_does_without_setcred_and_close_stays() {
    let agent = Agent::with(|| Setup::default().default_profile());
    settle(&agent, &mut command(Form::Linked, "sshd", "root", &["auth", "account", "cred", "open", "close"]));
    let lines = lines_of_default(&agent);
    assert_eq!(lines, ["pam_authenticate", "pam_account", "pam_session_open", "pam_session_close"]);
    let left_out = [("action", "pam_setcred"), ("reason", "profile")];
    agent.expect_metric("tellwire_lines_left_out_total", &left_out, 1);
}

fn lines_of_default(agent: &Agent) -> Vec<String> {
    let action = |event: serde_json::Value| event["event"]["action"].as_str().map(ToOwned::to_owned);
    agent.events().into_iter().filter_map(action).filter(|action| action.starts_with("pam_")).collect()
}

#[test]
fn without_pam_in_the_configuration_nothing_is_attached() {
    let agent = Agent::with_config("[auth]\npam = false\n");
    settle(&agent, &mut command(Form::Linked, "sshd", "root", &["auth"]));
    assert!(lines(&agent).is_empty());
    agent.expect_metric("tellwire_libraries_attached", &[], 0);
    let (status, body) = agent.get("/readyz");
    assert_eq!((status, body.as_str().contains("degraded\":[]")), (200, true), "{body}");
}

#[test]
fn where_returns_are_not_probed_calls_are_told_without_results_and_the_agent_says_so() {
    let agent = Agent::with_config("[auth]\nwatch-mounts = false\nlibrary-returns = false\n");
    let (status, body) = agent.get("/readyz");
    assert!(status == 200 && body.contains("pam_results is not attached: switched off by"), "{body}");
    agent.expect_metric("tellwire_probe_attached", &[("probe", "pam_results")], 0);
    let pid = run(&agent, "sshd", "root", &["item4=192.0.2.7", "auth", "account", "open", "close"]);
    let told = json!({
        "event.outcome": "unknown", "event.code": null, "event.duration": null, "user.name": "root",
        "source.ip": "192.0.2.7", "tellwire.auth.service": "sshd", "tellwire.auth.proof": null,
    });
    for action in ["pam_authenticate", "pam_account", "pam_session_open", "pam_session_close"] {
        agent.expect(pid, action, &told);
        assert_eq!(agent.events_of(pid, action).len(), 1, "{action}");
    }
    agent.expect_metric("tellwire_auth_attempts_total", &[("service", "sshd"), ("outcome", "unknown")], 1);
    agent.expect_metric("tellwire_auth_attempts_total", &[("service", "sshd")], 1);
    agent.expect_metric("tellwire_auth_sessions", &[("service", "sshd")], 0);
    let stopped = agent.stop();
    assert!(stopped.status.success(), "{:?}", stopped.log);
}

/// Stands for a kernel that ends confined programs where a return is probed, as some from 6.11 to 6.13: the child by which the agent
/// tries that out is killed when it says that it came back.
#[test]
fn where_a_confined_program_does_not_come_back_returns_are_not_probed_and_the_agent_says_so() {
    // `RETURNED`, agent/src/kernel/uretprobe.rs.
    const CAME_BACK: u32 = 42;
    let killed = || sys::kill_at_exit_with(CAME_BACK);
    let agent = Agent::with(|| Setup::default().before(killed));
    let (status, body) = agent.get("/readyz");
    let reason = "pam_results is not attached: a confined process does not come back";
    assert!(status == 200 && body.contains(reason), "{body}");
    agent.expect_metric("tellwire_probe_attached", &[("probe", "pam_results")], 0);
    let pid = run(&agent, "sshd", "root", &["auth"]);
    agent.expect(pid, "pam_authenticate", &json!({"event.outcome": "unknown", "user.name": "root"}));
}
