//! No password that was typed is in any output.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixDatagram,
    path::Path,
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};
use tellwire_tests::{Agent, Setup, at, auditing::Auditing, private::Private, terminal};

use crate::{
    ALICE, BOB, WRONG, flows,
    ssh::{self, ssh},
};

/// Ends what listens as a journal: a datagram socket has no end of its own.
const END: &[u8] = b"end";

/// All that comes.
type Heard = JoinHandle<std::io::Result<Vec<u8>>>;

/// Listens as a syslog daemon does, to one sender: the address, and what it says until it goes.
fn syslog() -> (String, Heard) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its number");
    let heard = thread::spawn(move || {
        let mut heard = Vec::new();
        listener.accept()?.0.read_to_end(&mut heard).map(|_| heard)
    });
    (address.to_string(), heard)
}

/// Listens as the journal does, until [`END`].
fn journal(path: &Path) -> Heard {
    let socket = UnixDatagram::bind(path).expect("a socket");
    thread::spawn(move || {
        let (mut heard, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            let len = socket.recv(&mut buffer)?;
            match &buffer[..len] {
                END => break Ok(heard),
                datagram => heard.extend_from_slice(datagram),
            }
        }
    })
}

/// Somebody types the password where ssh asks for a name. What the client's arguments are is not the agent's to see.
fn password_as_name(private: &Private) {
    let program = ssh!("Correct-Horse-4711@127.0.0.1", "-o", "PubkeyAuthentication=no");
    assert!(program.iter().any(|argument| argument.starts_with(ALICE.password)));
    let answers = [("password:", WRONG), ("password:", WRONG), ("password:", ALICE.password)];
    let client = tellwire_tests::fork(|| {
        private.enter();
        terminal::run(program, &answers, || {})
    });
    assert_eq!(client.join()["status"], 255);
}

#[test]
fn a_password_that_was_typed_is_in_no_output() {
    let _auditing = Auditing::on();
    let folder = tempfile::tempdir().expect("a folder");
    let private = Private::new(folder.path(), &[ALICE, BOB], flows::prepare);
    let (recording, told) = (folder.path().join("run.rec"), folder.path().join("events.ndjson"));
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let shown = thread::spawn(move || {
        let mut shown = Vec::new();
        reader.read_to_end(&mut shown).map(|_| shown)
    });
    let (address, syslog) = syslog();
    let socket = folder.path().join("journal");
    let journal = journal(&socket);
    let agent = Agent::with(|| {
        let writer = writer.try_clone().expect("another descriptor");
        let outputs = [
            format!("file:{}", told.display()),
            format!("syslog:tcp:{address}"),
            format!("journald:{}", socket.display()),
        ];
        let outputs = outputs.iter().flat_map(|output| ["--output", output]);
        let setup = Setup::default().output("stdout").stdout(writer).before(private.see_accounts());
        setup.arguments(outputs).arguments(["--pretty", "--record"]).arguments([&recording])
    });
    drop(writer);
    let _sshd = ssh::Sshd::start(&agent, &private);
    for flow in flows::FLOWS.iter().chain(ssh::FLOWS) {
        flow.go(&agent, &private);
    }
    password_as_name(&private);
    agent.expect_metric("tellwire_lines_left_out_total", &[], 0);
    let (_, metrics) = agent.get("/metrics");
    let (_, ready) = agent.get("/readyz");
    let stopped = agent.stop();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    let lines = fs::read(&told).expect("the lines");
    let shown = shown.join().expect("a thread").expect("what was shown");
    UnixDatagram::unbound().and_then(|end| end.send_to(END, &socket)).expect("the journal's end");
    let [syslog, journal] =
        [syslog, journal].map(|heard| heard.join().expect("a thread").expect("what was sent"));
    let log = stopped.log.join("\n");
    // One by a name that nobody has, and three by the password in its place.
    assert_eq!(String::from_utf8_lossy(&lines).lines().filter(|line| is_withheld(line)).count(), 4);
    let recorded = fs::read(&recording).expect("the recording");
    for (name, output, sign) in [
        ("file", lines.as_slice(), "PAM:authentication"),
        ("terminal", &shown, "PAM:authentication"),
        ("recording", &recorded, "/usr/bin/su"),
        ("syslog", &syslog, "PAM:authentication"),
        ("journal", &journal, "PAM:authentication"),
        ("log", log.as_bytes(), "watching"),
        ("metrics", metrics.as_bytes(), "tellwire_audit_records_total"),
        ("readiness", ready.as_bytes(), "ready"),
    ] {
        let has = |text: &str| output.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(has(sign), "{sign} is not in the {name}");
        for password in [ALICE.password, BOB.password, WRONG] {
            assert!(!has(password), "a password is in the {name}");
        }
    }
}

/// Whether somebody gave sshd a name that is not told.
fn is_withheld(line: &str) -> bool {
    let event: Value = serde_json::from_str(line).expect("JSON");
    let has = |path, value| at(&event, path) == Some(&value);
    has("event.action", json!("pam_authenticate"))
        && has("tellwire.auth.service", json!("sshd"))
        && has("tellwire.auth.user_withheld", json!(true))
        && at(&event, "user").is_none()
}
