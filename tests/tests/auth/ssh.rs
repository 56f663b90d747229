//! sshd on the private root's loopback, and clients of it.

use std::{
    fs,
    net::{Shutdown, TcpStream},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use serde_json::json;
use tellwire_tests::{Agent, Child, at, auditing::Auditing, private::Private, runtime, sys, until};

use crate::{
    ALICE, WRONG,
    flows::{Caller, Flow, Sources, told},
};

/// A client that asks nobody and keeps nothing.
macro_rules! ssh {
    ($whom:literal, $($option:literal),*) => {
        &[
            "/usr/bin/ssh", "-F", "none", "-p", "22022", "-o", "StrictHostKeyChecking=no", "-o",
            "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
            $($option,)* $whom, "true",
        ]
    };
}
pub(crate) use ssh;

/// On a loopback of its own.
pub(crate) const PORT: u16 = 22_022;

const SSHD: &str = "/usr/sbin/sshd";

const CALLER: Caller = Caller { service: "sshd", terminal: "ssh", source: "127.0.0.1" };

/// By a client of sshd.
pub(crate) const FLOWS: &[Flow] = &[
    Flow {
        name: "the right password",
        program: ssh!(
            "tw-alice@127.0.0.1",
            "-o",
            "PubkeyAuthentication=no",
            "-o",
            "NumberOfPasswordPrompts=1"
        ),
        answers: &[("password:", ALICE.password)],
        by: None,
        caller: CALLER,
        status: 0,
        told: &[
            told("user_auth", "success", ALICE.name, "PAM:authentication", SSHD),
            told("user_account", "success", ALICE.name, "PAM:accounting", SSHD),
            told("login_uid_set", "success", ALICE.name, "", SSHD),
            told("user_session_start", "success", ALICE.name, "PAM:session_open", SSHD),
            told("user_session_end", "success", ALICE.name, "PAM:session_close", SSHD),
        ],
    },
    Flow {
        name: "a wrong password",
        program: ssh!(
            "tw-alice@127.0.0.1",
            "-o",
            "PubkeyAuthentication=no",
            "-o",
            "NumberOfPasswordPrompts=1"
        ),
        answers: &[("password:", WRONG)],
        by: None,
        caller: CALLER,
        status: 255,
        told: &[
            told("user_auth", "failure", ALICE.name, "PAM:authentication", SSHD),
            told("user_login", "failure", ALICE.name, "login", SSHD),
        ],
    },
    Flow {
        // No PAM module is asked whether the key is right; sshd reports each that is wrong.
        name: "the right key, after a wrong one",
        program: ssh!(
            "tw-alice@127.0.0.1",
            "-o",
            "PasswordAuthentication=no",
            "-i",
            "/root/wrong",
            "-i",
            "/root/right"
        ),
        answers: &[],
        by: None,
        caller: CALLER,
        status: 0,
        told: &[
            told("user_login", "failure", ALICE.name, "login", SSHD),
            told("user_account", "success", ALICE.name, "PAM:accounting", SSHD),
            told("login_uid_set", "success", ALICE.name, "", SSHD),
            told("user_session_start", "success", ALICE.name, "PAM:session_open", SSHD),
            told("user_session_end", "success", ALICE.name, "PAM:session_close", SSHD),
        ],
    },
    Flow {
        // What PAM never sees.
        name: "a wrong key",
        program: ssh!("tw-alice@127.0.0.1", "-o", "PasswordAuthentication=no", "-i", "/root/wrong"),
        answers: &[],
        by: None,
        caller: CALLER,
        status: 255,
        told: &[told("user_login", "failure", ALICE.name, "login", SSHD)],
    },
    Flow {
        // sshd does not name it, and reports it before it asks for a password, twice. libpam's name is withheld.
        name: "an unknown user",
        program: ssh!(
            "tw-nobody@127.0.0.1",
            "-o",
            "PubkeyAuthentication=no",
            "-o",
            "NumberOfPasswordPrompts=1"
        ),
        answers: &[("password:", WRONG)],
        by: None,
        caller: CALLER,
        status: 255,
        told: &[
            told("user_login", "failure", "", "login", SSHD),
            told("user_login", "failure", "", "login", SSHD),
            told("user_auth", "failure", "", "PAM:authentication", SSHD),
        ],
    },
    Flow {
        name: "root, who may not",
        program: ssh!("root@127.0.0.1", "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1"),
        answers: &[("password:", WRONG)],
        by: None,
        caller: CALLER,
        status: 255,
        told: &[
            told("user_auth", "failure", "root", "PAM:authentication", SSHD),
            told("user_login", "failure", "root", "login", SSHD),
        ],
    },
];

#[test]
fn every_login_by_ssh_is_reported() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) = crate::agent("");
    let _sshd = Sshd::start(&agent, &private);
    for flow in FLOWS {
        flow.run(&agent, &private, Sources::Audit);
    }
    for event in agent.events() {
        if at(&event, "tellwire.audit").is_some()
            && at(&event, "event.action") != Some(&json!("login_uid_set"))
        {
            assert_eq!(at(&event, "source.ip"), Some(&json!("127.0.0.1")), "{event}");
        }
        assert!(!event.to_string().contains("tw-nobody") || at(&event, "process.args").is_some(), "{event}");
    }
    let withheld = json!({"tellwire.auth.user_withheld": true, "user": null});
    agent.expect(None, "user_auth", &withheld);
}

/// The daemon; it ends with this value.
#[derive(Debug)]
pub(crate) struct Sshd {
    _daemon: Child,
}

impl Sshd {
    /// Knows a key of alice's; others lie beside it.
    pub(crate) fn start(agent: &Agent, private: &Private) -> Self {
        Self::start_in(agent, private, None)
    }

    /// The same in a cgroup of its own.
    pub(crate) fn start_in(agent: &Agent, private: &Private, cgroup: Option<&Path>) -> Self {
        private.fork(agent, keys).join();
        let daemon = daemon();
        let arguments: Vec<_> = daemon.iter().map(String::as_str).collect();
        let daemon = private.fork(agent, || {
            if let Some(cgroup) = cgroup {
                fs::write(cgroup.join("cgroup.procs"), "0").expect("moving there");
            }
            sys::exec(Path::new(SSHD), &arguments)
        });
        let connect = || {
            let stream = until("sshd", || TcpStream::connect(("127.0.0.1", PORT)).ok());
            stream.shutdown(Shutdown::Both).expect("a connection");
        };
        private.fork(agent, connect).join();
        Self { _daemon: daemon }
    }
}

/// sshd, in the foreground.
pub(crate) fn daemon() -> Vec<String> {
    let options = ["UsePAM=yes", "KbdInteractiveAuthentication=no", "PermitRootLogin=no", "MaxStartups=100"];
    let options = options.iter().flat_map(|option| ["-o", option]).map(ToOwned::to_owned);
    [SSHD, "-D", "-p"].map(ToOwned::to_owned).into_iter().chain([PORT.to_string()]).chain(options).collect()
}

/// In the root that the process has.
pub(crate) fn keys() {
    fs::create_dir_all("/run/sshd").expect("a folder");
    for name in ["right", "wrong", "wrong2", "wrong3"] {
        let path = format!("/root/{name}");
        let mut command = Command::new(runtime::program("ssh-keygen", "openssh-client"));
        runtime::run(command.args(["-q", "-t", "ed25519", "-N", "", "-f", &path]));
    }
    let folder = Path::new("/home").join(ALICE.name).join(".ssh");
    fs::create_dir(&folder).expect("a folder");
    let keys = folder.join("authorized_keys");
    fs::copy("/root/right.pub", &keys).expect("a key");
    for path in [&folder, &keys] {
        chown(path, Some(ALICE.id), Some(ALICE.id)).expect("the keys");
    }
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).expect("the keys");
}
