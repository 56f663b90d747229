//! Logins of every kind, and what is reported of each.
//!
//! A flow is a row of [`FLOWS`]: what somebody does at a terminal, and what must be told of it, in this order. What else
//! programs report meanwhile is not looked at, but for lines that would say that something went well.

use std::fs;

use serde_json::{Value, json};
use tellwire_tests::{
    Agent, at,
    auditing::Auditing,
    ecs,
    private::{Account, append},
    terminal::{Answer, HANG_UP},
    until,
};

use crate::{ALICE, BOB, WRONG, place::Place};

/// One line that must be there.
pub(crate) struct Told {
    pub(crate) action: &'static str,
    pub(crate) outcome: &'static str,
    /// The user that it is about.
    pub(crate) user: &'static str,
    pub(crate) op: &'static str,
    /// What runs, as the table of processes knows it.
    program: &'static str,
}

pub(crate) const fn told(
    action: &'static str,
    outcome: &'static str,
    user: &'static str,
    op: &'static str,
    program: &'static str,
) -> Told {
    Told { action, outcome, user, op, program }
}

/// What the agent hears of authentication.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    Audit,
    /// Calls of libpam too: what is told by both is one line.
    Both,
    /// Calls of libpam alone: what only audit records say is not there.
    Pam,
}

/// What a program says of itself to PAM.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) service: &'static str,
    /// How the terminal's name begins; empty where there is none.
    pub(crate) terminal: &'static str,
    /// `source.ip`; empty where there is none.
    pub(crate) source: &'static str,
}

const fn at_terminal(service: &'static str) -> Caller {
    Caller { service, terminal: "/dev/pts/", source: "" }
}

/// Any status but 0: how login ends when nobody answers any more differs.
const GIVEN_UP: i64 = -1;

/// Something that somebody does.
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    pub(crate) program: &'static [&'static str],
    pub(crate) answers: &'static [Answer<'static>],
    /// Who does it: root, or this user.
    pub(crate) by: Option<u32>,
    pub(crate) caller: Caller,
    /// The program's end.
    pub(crate) status: i64,
    pub(crate) told: &'static [Told],
}

const SU: &str = "/usr/bin/su";
const SUDO: &str = "/usr/bin/sudo";
const LOGIN: &str = "/usr/bin/login";

/// At a terminal of this machine.
pub(crate) const FLOWS: &[Flow] = &[
    Flow {
        name: "su by root asks for nothing",
        program: &[SU, "-c", "true", ALICE.name],
        answers: &[],
        by: None,
        caller: at_terminal("su"),
        status: 0,
        told: &[
            told("user_auth", "success", ALICE.name, "PAM:authentication", SU),
            told("user_account", "success", ALICE.name, "PAM:accounting", SU),
            told("credentials_acquired", "success", ALICE.name, "PAM:setcred", SU),
            told("user_session_start", "success", ALICE.name, "PAM:session_open", SU),
            told("user_session_end", "success", ALICE.name, "PAM:session_close", SU),
            told("credentials_disposed", "success", ALICE.name, "PAM:setcred", SU),
        ],
    },
    Flow {
        name: "su with the right password",
        program: &[SU, "-c", "true", BOB.name],
        answers: &[("assword:", BOB.password)],
        by: Some(ALICE.id),
        caller: at_terminal("su"),
        status: 0,
        told: &[
            told("user_auth", "success", BOB.name, "PAM:authentication", SU),
            told("user_session_start", "success", BOB.name, "PAM:session_open", SU),
        ],
    },
    Flow {
        name: "su with a wrong password",
        program: &[SU, "-c", "true", BOB.name],
        answers: &[("assword:", WRONG)],
        by: Some(ALICE.id),
        caller: at_terminal("su"),
        status: 1,
        told: &[told("user_auth", "failure", BOB.name, "PAM:authentication", SU)],
    },
    Flow {
        name: "sudo with the right password",
        program: &[SUDO, "true"],
        answers: &[("assword", ALICE.password)],
        by: Some(ALICE.id),
        caller: at_terminal("sudo"),
        status: 0,
        told: &[
            told("user_auth", "success", ALICE.name, "PAM:authentication", SUDO),
            told("user_account", "success", ALICE.name, "PAM:accounting", SUDO),
            told("user_command", "success", "", "", SUDO),
            told("user_session_start", "success", "root", "PAM:session_open", SUDO),
            told("user_session_end", "success", "root", "PAM:session_close", SUDO),
        ],
    },
    Flow {
        name: "sudo with wrong passwords",
        program: &[SUDO, "-k", "true"],
        answers: &[("assword", WRONG), ("assword", WRONG), ("assword", WRONG)],
        by: Some(ALICE.id),
        caller: at_terminal("sudo"),
        status: 1,
        told: &[
            told("user_auth", "failure", ALICE.name, "PAM:authentication", SUDO),
            told("user_auth", "failure", ALICE.name, "PAM:authentication", SUDO),
            told("user_auth", "failure", ALICE.name, "PAM:authentication", SUDO),
            told("user_command", "failure", "", "", SUDO),
        ],
    },
    Flow {
        // PAM agrees; sudo does not.
        name: "sudo by who may not, with the right password",
        program: &[SUDO, "-k", "true"],
        answers: &[("assword", BOB.password)],
        by: Some(BOB.id),
        caller: at_terminal("sudo"),
        status: 1,
        told: &[
            told("user_auth", "success", BOB.name, "PAM:authentication", SUDO),
            told("user_command", "failure", "", "", SUDO),
        ],
    },
    Flow {
        name: "login with the right password",
        program: &[LOGIN],
        answers: &[("login:", ALICE.name), ("assword:", ALICE.password), ("$ ", "exit")],
        by: None,
        caller: at_terminal("login"),
        status: 0,
        told: &[
            told("user_auth", "success", ALICE.name, "PAM:authentication", LOGIN),
            told("login_uid_set", "success", ALICE.name, "", LOGIN),
            told("user_session_start", "success", ALICE.name, "PAM:session_open", LOGIN),
            told("user_login", "success", ALICE.name, "login", LOGIN),
            told("user_session_end", "success", ALICE.name, "PAM:session_close", LOGIN),
        ],
    },
    Flow {
        name: "login with a wrong password",
        program: &[LOGIN],
        answers: &[("login:", ALICE.name), ("assword:", WRONG), ("login:", HANG_UP)],
        by: None,
        caller: at_terminal("login"),
        status: GIVEN_UP,
        told: &[
            told("user_auth", "failure", ALICE.name, "PAM:authentication", LOGIN),
            told("user_login", "failure", ALICE.name, "login", LOGIN),
        ],
    },
    Flow {
        // People do. The name is withheld.
        name: "a password in the place of the name",
        program: &[LOGIN],
        answers: &[("login:", ALICE.password), ("assword:", WRONG), ("login:", HANG_UP)],
        by: None,
        caller: at_terminal("login"),
        status: GIVEN_UP,
        told: &[told("user_auth", "failure", "", "PAM:authentication", LOGIN)],
    },
    Flow {
        name: "runuser asks for nothing, and opens a session",
        program: &["/usr/sbin/runuser", ALICE.name, "-c", "true"],
        answers: &[],
        by: None,
        caller: at_terminal("runuser"),
        status: 0,
        told: &[
            told("credentials_acquired", "success", ALICE.name, "PAM:setcred", "/usr/sbin/runuser"),
            told("user_session_start", "success", ALICE.name, "PAM:session_open", "/usr/sbin/runuser"),
        ],
    },
    Flow {
        name: "chpasswd",
        program: &["/usr/sbin/chpasswd"],
        // At its stdin, which ends then.
        answers: &[("", "tw-bob:Battery-Staple-0815\n\x04")],
        by: None,
        caller: Caller { service: "chpasswd", terminal: "", source: "" },
        status: 0,
        told: &[told("user_password_changed", "success", BOB.name, "PAM:chauthtok", "/usr/sbin/chpasswd")],
    },
];

/// What is run fails, not the program that runs it.
pub(crate) const FAILS_IN_A_SESSION: Flow = Flow {
    name: "su to a command that fails",
    program: &[SU, "-c", "false", BOB.name],
    answers: &[("assword:", BOB.password)],
    by: Some(ALICE.id),
    caller: at_terminal("su"),
    status: 1,
    told: &[],
};

/// One of [`FLOWS`].
pub(crate) fn flow(name: &str) -> &'static Flow {
    FLOWS.iter().find(|flow| flow.name == name).expect("a flow of this name")
}

#[test]
fn every_login_is_reported() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) = crate::agent("");
    for flow in FLOWS {
        flow.run(&agent, &private, Sources::Audit);
    }
}

impl Flow {
    /// Does it, and waits for what must be told of it by `sources`.
    pub(crate) fn run(&self, agent: &Agent, place: &impl Place, sources: Sources) {
        let before = agent.events().len();
        self.go(agent, place);
        self.expect(agent, before, sources);
    }

    /// What must be told by `sources`.
    fn rows(&self, sources: Sources) -> impl Iterator<Item = &'static Told> {
        let mut before: Option<&Told> = None;
        self.told.iter().filter(move |told| {
            // Whoever called libpam reports the same attempt once more.
            let is_same = told.is_failed_login() && before.is_some_and(Told::is_failed_proof);
            before = Some(told);
            sources.tell(told) && !(sources == Sources::Both && is_same)
        })
    }

    /// How many lines by `sources` say that a login failed.
    pub(crate) fn failed_logins(&self, sources: Sources) -> usize {
        self.rows(sources).filter(|told| told.is_failed_login()).count()
    }

    /// Somebody gives a name that is withheld.
    pub(crate) fn is_withheld(&self) -> bool {
        self.told.iter().any(Told::is_withheld)
    }

    /// Does it, to its end.
    pub(crate) fn go(&self, agent: &Agent, place: &impl Place) {
        let end = place.start(agent, self).join();
        let status = end["status"].as_i64().unwrap_or(GIVEN_UP);
        let is_right = status == self.status || (self.status == GIVEN_UP && status != 0);
        assert!(is_right, "{}: {end}", self.name);
    }

    /// Waits until all of it is told by `sources`, in its order, behind the events that there were before. Gives what
    /// tells it.
    pub(crate) fn expect(&self, agent: &Agent, before: usize, sources: Sources) -> Vec<(&Told, Value)> {
        let mut missing = String::new();
        let reported = || agent.events().into_iter().skip(before).filter(|event| sources.have(event));
        let all = within_limit(|| {
            let mut events = reported();
            let mut rows = Vec::new();
            for told in self.rows(sources) {
                missing = format!("{} by {}", told.action, told.program);
                rows.push((told, events.find(|event| told.is(event, sources))?));
            }
            Some(rows)
        });
        assert!(all.is_some(), "{}: no {missing} in\n{}", self.name, lines(reported()));
        for event in reported() {
            assert_eq!(ecs::faults(&event), [""; 0], "{}: {event}", self.name);
        }
        let is_in = |event: &Value| {
            ["user_login", "user_session_start", "pam_session_open"]
                .iter()
                .any(|name| at(event, "event.action") == Some(&json!(name)))
                && at(event, "event.outcome") == Some(&json!("success"))
        };
        assert!(
            self.status == 0 || !reported().any(|event| is_in(&event)),
            "{}: {}",
            self.name,
            lines(reported())
        );
        all.unwrap_or_default()
    }
}

impl Sources {
    /// Whether an event is one of theirs.
    fn have(self, event: &Value) -> bool {
        match self {
            Self::Audit | Self::Both => crate::is_reported(event),
            Self::Pam => at(event, "tellwire.auth.sources") == Some(&json!(["pam"])),
        }
    }

    fn tell(self, told: &Told) -> bool {
        self != Self::Pam || by_pam(told.op).is_some()
    }
}

/// By name, or by number where the machine has no such user and only that is said.
fn is_user(name: &str, event: &Value) -> bool {
    let [told, id] = ["user.name", "user.id"].map(|path| at(event, path).and_then(Value::as_str));
    let is_account = |account: &Account| account.name == name && id == Some(&account.id.to_string());
    match told {
        Some(told) => told == name,
        None if name.is_empty() => id.is_none(),
        None => [ALICE, BOB].iter().any(is_account),
    }
}

/// OpenSSH 10 is several programs: `sshd-session`, `sshd-auth`.
fn is_program(program: &str, path: &str) -> bool {
    path == program || (program == "/usr/sbin/sshd" && path.starts_with("/usr/lib/openssh/sshd-"))
}

impl Told {
    /// A name was given that is not told.
    fn is_withheld(&self) -> bool {
        self.user.is_empty() && self.op == "PAM:authentication"
    }

    fn is_failed_login(&self) -> bool {
        self.action == "user_login" && self.outcome == "failure"
    }

    fn is_failed_proof(&self) -> bool {
        self.op == "PAM:authentication" && self.outcome == "failure"
    }

    fn is(&self, event: &Value, sources: Sources) -> bool {
        let Self { action, outcome, user, op, program } = *self;
        let (action, op, reporters) = match (by_pam(op), sources) {
            (Some(action), Sources::Both) => (action, op, json!(["pam", "audit"])),
            (Some(action), Sources::Pam) => (action, "", json!(["pam"])),
            _ => (action, op, json!(["audit"])),
        };
        let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let say = |path| at(event, path).unwrap_or(&Value::Null);
        [
            ("event.action", text(action)),
            ("event.outcome", text(outcome)),
            ("tellwire.auth.sources", reporters),
            ("tellwire.audit.op", text(op)),
        ]
        .iter()
        .all(|(path, value)| say(path) == value)
            && is_user(user, event)
            && say("process.executable").as_str().is_some_and(|path| is_program(program, path))
    }
}

/// The call of libpam that the record is about.
fn by_pam(op: &str) -> Option<&'static str> {
    match op.strip_prefix("PAM:")? {
        "authentication" => Some("pam_authenticate"),
        "accounting" => Some("pam_account"),
        "setcred" => Some("pam_setcred"),
        "session_open" => Some("pam_session_open"),
        "session_close" => Some("pam_session_close"),
        "chauthtok" => Some("pam_chauthtok"),
        _ => None,
    }
}

fn within_limit<T>(mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until("what is told", &mut ready))).ok()
}

fn lines(events: impl Iterator<Item = Value>) -> String {
    events.map(|event| event.to_string()).collect::<Vec<_>>().join("\n")
}

/// What the flows need: alice may use sudo, and a wrong password makes nobody wait.
pub(crate) fn prepare() {
    allow_sudo();
    let stack = fs::read_to_string("/etc/pam.d/common-auth").expect("Debian's PAM stack");
    let stack = stack.replace("pam_unix.so", "pam_unix.so nodelay");
    assert!(stack.contains("nodelay"), "{stack}");
    fs::write("/etc/pam.d/common-auth", stack).expect("the PAM stack");
}

/// As Debian has it else: who gives a wrong password waits.
pub(crate) fn allow_sudo() {
    append("/etc/sudoers", &format!("Defaults !lecture\n{} ALL=(ALL) ALL\n", ALICE.name));
}
