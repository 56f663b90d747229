//! Who is behind a root shell: the user who logged in, and the way from there.

use serde_json::json;
use tellwire_tests::{Agent, Setup, at, auditing::Auditing, terminal};

use crate::{
    ALICE, BOB,
    ssh::{Sshd, ssh},
};

/// alice logs in by ssh, and becomes root by sudo.
#[test]
fn a_root_shell_leads_to_the_login_and_every_line_of_the_session_has_it() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) = crate::agent("");
    let _sshd = Sshd::start(&agent, &private);
    let program = ssh!("tw-alice@127.0.0.1", "-i", "/root/right", "-tt");
    let program: Vec<&str> =
        program[..program.len() - 1].iter().copied().chain(["sudo", "/bin/echo", "done"]).collect();
    let end = private.fork(&agent, || terminal::run(&program, &[("assword", ALICE.password)], || {})).join();
    assert_eq!(end["status"], 0, "{end}");
    let alice = json!({"id": ALICE.id.to_string(), "name": ALICE.name});
    let id = ALICE.id.to_string();
    let fields = json!({"process.args": ["/bin/echo", "done"], "user.id": "0", "process.login_uid": id, "tellwire.login.user": alice});
    let echo = agent.expect(None, "exec", &fields);
    let path = at(&echo, "tellwire.login.path").and_then(|path| path.as_array().cloned()).expect("a path");
    assert_eq!(path.len(), 1, "{echo}");
    assert_eq!((&path[0]["name"], &path[0]["by"]), (&json!("sudo"), &json!(id)), "{echo}");
    // The session is one from the login to the end, whoever acts in it.
    let session = at(&echo, "process.session_id").cloned().expect("a session");
    for action in ["exec", "exit", "user_auth", "user_session_start", "user_session_end"] {
        agent.expect(None, action, &json!({"process.session_id": session, "process.login_uid": id}));
    }
    // alice's own shell is nobody else's.
    agent.expect(
        None,
        "exec",
        &json!({"process.session_id": session, "user.id": id, "tellwire.login": null}),
    );
    let way = json!({"event.outcome": "success", "tellwire.audit.type": "USER_START", "process.executable": "/usr/bin/sudo", "tellwire.login.user": alice});
    agent.expect(None, "user_session_start", &way);
    drop(private);
}

/// In the profile `default` the first program that runs as somebody else says so, and those after it do not.
#[test]
fn in_default_the_first_program_of_the_other_user_says_who_is_behind_it() {
    let _auditing = Auditing::on();
    let folder = tempfile::tempdir().expect("a folder");
    let private = tellwire_tests::private::Private::new(folder.path(), &[ALICE, BOB], crate::flows::prepare);
    let agent = Agent::with(|| {
        Setup::default().config("[auth]\npam = false\n").default_profile().before(private.see_accounts())
    });
    let _sshd = Sshd::start(&agent, &private);
    let program = ssh!("tw-alice@127.0.0.1", "-i", "/root/right", "-tt");
    let program: Vec<&str> = program[..program.len() - 1]
        .iter()
        .copied()
        .chain(["su", "-c", "'/bin/echo done; /bin/true'", BOB.name])
        .collect();
    let end = private.fork(&agent, || terminal::run(&program, &[("assword", BOB.password)], || {})).join();
    assert_eq!(end["status"], 0, "{end}");
    let first = agent.expect(None, "exec", &json!({"user.name": BOB.name, "process.parent.name": "su"}));
    assert_eq!(at(&first, "tellwire.login.user.name"), Some(&json!(ALICE.name)), "{first}");
    let name = at(&first, "tellwire.login.path").map(|path| &path[0]["name"]);
    assert_eq!(name, Some(&json!("su")), "{first}");
    assert!(first.to_string().len() < 1200, "{first}");
    agent.expect(
        None,
        "exec",
        &json!({"process.args": ["/bin/echo", "done"], "user.name": BOB.name, "tellwire.login": null}),
    );
}
