//! No secret, ever: what is typed where a password is asked for is nowhere, and neither is what is typed by mistake where a
//! name is.

use std::{fs, path::Path};

use serde_json::json;
use tellwire_tests::{Agent, Setup};

use crate::helper::{Form, command, lines, run, settle};

/// What must be nowhere.
const PASSWORD: &str = "battery-staple-4711";

/// All that the agent wrote: its lines, a recording, its log and its metrics.
fn everything(agent: Agent, recording: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let lines = fs::read(agent.folder().join("events.ndjson")).expect("the lines");
    let (_, metrics) = agent.get("/metrics");
    let stopped = agent.stop();
    let recorded = fs::read(recording).expect("the recording");
    vec![
        ("lines", lines),
        ("recording", recorded),
        ("log", stopped.log.join("\n").into_bytes()),
        ("metrics", metrics.into_bytes()),
    ]
}

fn recorded(folder: &Path, toml: &'static str) -> Agent {
    let recording = folder.join("run.rec");
    Agent::with(|| {
        let setup = Setup::default().config(toml).arguments(["--log-level", "debug", "--record"]);
        setup.arguments([&recording])
    })
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_password_is_in_no_output_whichever_way_it_is_handed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = recorded(folder.path(), "");
    // By the environment: on the command line it would be redacted, which is another test.
    let mut typed = command(Form::Linked, "unix", "root", &["auth"]);
    let pid = agent.run(typed.env("PAM_NAME", "x").env("PAM_ANSWER", PASSWORD));
    let failed = json!({"event.outcome": "failure", "event.code": "PAM_AUTH_ERR", "user.name": "root"});
    agent.expect(pid, "pam_authenticate", &failed);
    // PAM_AUTHTOK, PAM_OLDAUTHTOK, PAM_USER_PROMPT, PAM_AUTHTOK_TYPE.
    let mut items = command(Form::Linked, "sshd", "root", &["env6", "env7", "env9", "env13", "auth"]);
    settle(&agent, items.env("PAM_ANSWER", PASSWORD));
    assert_eq!(lines(&agent).len(), 2);
    for (name, output) in everything(agent, &folder.path().join("run.rec")) {
        assert!(!output.is_empty(), "{name}");
        assert!(!contains(&output, PASSWORD), "the password is in the {name}");
    }
}

#[test]
fn what_is_typed_in_the_place_of_a_name_is_withheld() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = recorded(folder.path(), "");
    let mut mistyped = command(Form::Linked, "refuses", "-", &["auth-unknown"]);
    let pid = agent.run(mistyped.env("PAM_ANSWER", PASSWORD));
    let withheld = json!({
        "event.outcome": "failure",
        "user": null,
        "related.user": ["root"],
        "tellwire.auth.user_withheld": true,
        "tellwire.auth.service": "refuses",
    });
    agent.expect(pid, "pam_authenticate", &withheld);
    // A user that there is may be told.
    let pid = run(&agent, "refuses", "nobody", &["auth"]);
    agent.expect(
        pid,
        "pam_authenticate",
        &json!({"user.name": "nobody", "tellwire.auth.user_withheld": null}),
    );
    for (name, output) in everything(agent, &folder.path().join("run.rec")) {
        assert!(!contains(&output, PASSWORD), "the name is in the {name}");
    }
}

#[test]
fn names_are_told_where_that_is_asked_for_even_while_the_agent_runs() {
    let agent = Agent::with_config("[auth]\nunknown-user-names = \"withhold\"\n");
    let pid = run(&agent, "refuses", "stranger", &["auth"]);
    agent.expect(pid, "pam_authenticate", &json!({"user": null, "tellwire.auth.user_withheld": true}));
    agent.configure("[auth]\nunknown-user-names = \"show\"\n");
    tellwire_tests::until("the configuration is taken over", || {
        agent.log().iter().any(|line| line.contains("configuration taken over")).then_some(())
    });
    let pid = run(&agent, "refuses", "stranger", &["auth"]);
    agent.expect(
        pid,
        "pam_authenticate",
        &json!({"user": {"name": "stranger"}, "tellwire.auth.user_withheld": null}),
    );
}

#[test]
fn a_name_that_once_succeeded_is_known() {
    let agent = Agent::alone();
    let pid = run(&agent, "sshd", "directory-user", &["auth"]);
    agent.expect(pid, "pam_authenticate", &json!({"user": {"id": null, "name": "directory-user"}}));
    let pid = run(&agent, "refuses", "directory-user", &["auth"]);
    agent.expect(
        pid,
        "pam_authenticate",
        &json!({"user.name": "directory-user", "event.outcome": "failure"}),
    );
}
