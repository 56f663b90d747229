//! No password that was typed is in any output.

use std::{fs, io::Read as _, thread};

use tellwire_tests::{Agent, Setup, auditing::Auditing, private::Private};

use crate::{ALICE, BOB, WRONG, flows, ssh};

#[test]
fn a_password_that_was_typed_is_in_no_line_on_no_terminal_and_in_no_recording() {
    let _auditing = Auditing::on();
    let folder = tempfile::tempdir().expect("a folder");
    let private = Private::new(folder.path(), &[ALICE, BOB], flows::prepare);
    let (recording, told) = (folder.path().join("run.rec"), folder.path().join("events.ndjson"));
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let shown = thread::spawn(move || {
        let mut shown = Vec::new();
        reader.read_to_end(&mut shown).map(|_| shown)
    });
    let agent = Agent::with(|| {
        let writer = writer.try_clone().expect("another descriptor");
        let file = format!("file:{}", told.display());
        let setup = Setup::default().output("stdout").stdout(writer).before(private.see_accounts());
        setup.arguments(["--output", &file, "--pretty", "--record"]).arguments([&recording])
    });
    drop(writer);
    let _sshd = ssh::Sshd::start(&agent, &private);
    for flow in flows::FLOWS.iter().chain(ssh::FLOWS) {
        flow.go(&agent, &private);
    }
    agent.expect_metric("tellwire_lines_left_out_total", &[], 0);
    let (_, metrics) = agent.get("/metrics");
    let stopped = agent.stop();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    let lines = fs::read(&told).expect("the lines");
    let shown = shown.join().expect("a thread").expect("what was shown");
    let log = stopped.log.join("\n");
    let recorded = fs::read(&recording).expect("the recording");
    for (name, output, sign) in [
        ("file", lines.as_slice(), "PAM:authentication"),
        ("terminal", &shown, "PAM:authentication"),
        ("recording", &recorded, "/usr/bin/su"),
        ("log", log.as_bytes(), "watching"),
        ("metrics", metrics.as_bytes(), "tellwire_audit_records_total"),
    ] {
        let has = |text: &str| output.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(has(sign), "{sign} is not in the {name}");
        for password in [ALICE.password, BOB.password, WRONG] {
            assert!(!has(password), "a password is in the {name}");
        }
    }
}
