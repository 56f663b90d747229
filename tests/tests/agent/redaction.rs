//! Redaction: a password that stands on a command line is in no output.

use std::{fs, io::Read as _, os::unix::ffi::OsStrExt as _, thread};

use serde_json::json;
use tellwire_tests::{Agent, Setup, at, program::Program, sys};

/// What must be nowhere. Not a word that could stand in a path or a name by chance.
const PASSWORD: &str = "correct-horse-0815";

/// Command lines with it: by a flag of its own, behind a flag, joined, in a URL, in a header, within a shell's line.
const COMMANDS: [(&[&str], &str); 8] = [
    (&["app", "--password", PASSWORD], "flag_value"),
    (&["app", "--db-password=correct-horse-0815", "--verbose"], "flag_value"),
    (&["mysql", "-uroot", "-pcorrect-horse-0815", "shop"], "tool_argument"),
    (&["sudo", "curl", "-u", "me:correct-horse-0815", "http://127.0.0.1/"], "tool_argument"),
    (&["psql", "postgres://app:correct-horse-0815@127.0.0.1/shop"], "url_credentials"),
    (&["curl", "-H", "Authorization: Bearer correct-horse-0815"], "authorization_header"),
    (&["sh", "-c", "PGPASSWORD=correct-horse-0815 psql -h db"], "environment_value"),
    (&["sh", "-c", "echo correct-horse-0815 | sudo -S id"], "piped_value"),
];

fn has_password(bytes: &[u8]) -> bool {
    bytes.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes())
}

#[test]
fn a_password_on_a_command_line_is_in_no_line_on_no_terminal_and_in_no_recording() {
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("run.rec");
    let events = folder.path().join("events.ndjson");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let shown = thread::spawn(move || {
        let mut shown = Vec::new();
        reader.read_to_end(&mut shown).map(|_| shown)
    });
    let agent = {
        let setup = || {
            let writer = writer.try_clone().expect("another descriptor");
            let setup = Setup::default().output("stdout").stdout(writer);
            let file = format!("file:{}", events.display());
            setup.arguments(["--output", &file, "--pretty", "--record"]).arguments([&recording])
        };
        Agent::with(setup)
    };
    drop(writer);
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    // A path that is tried and a file that runs can hold one too.
    let odd = agent.folder().join(format!("--password={PASSWORD}"));
    Program::Exit(0).write(&odd);
    for (args, _) in COMMANDS {
        agent.exec(&program, args).wait();
    }
    agent.exec(&odd, &["odd"]).wait();
    let missing = agent.folder().join(format!("missing --password={PASSWORD}"));
    let mut last = agent.fork(|| sys::execve(&missing, &["x"]).raw_os_error());
    agent.settle(&mut last);
    for rule in [
        "flag_value",
        "tool_argument",
        "environment_value",
        "url_credentials",
        "authorization_header",
        "piped_value",
    ] {
        assert!(agent.metric("tellwire_redactions_total", &[("rule", rule)]) > 0, "{rule}");
    }
    let (_, metrics) = agent.get("/metrics");
    let stopped = agent.stop();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);

    let lines = fs::read_to_string(&events).expect("the lines");
    let shown = shown.join().expect("a thread").expect("what was shown");
    let recorded = fs::read(&recording).expect("the recording");
    // They hold what they should, less the password.
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (args, rule) in COMMANDS {
        let expected: Vec<String> = args.iter().map(|arg| arg.replace(PASSWORD, "[redacted]")).collect();
        let is_it = |line: &&serde_json::Value| at(line, "process.args") == Some(&json!(expected));
        let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("no line with {expected:?}"));
        assert_eq!(at(line, "tellwire.redacted"), Some(&json!([rule])), "{line}");
    }
    let text = String::from_utf8_lossy(&shown);
    assert!(text.contains("-p[redacted]"), "{text}");
    assert!(recorded.windows(12).any(|bytes| bytes == b"-p[redacted]"));
    for (name, output) in [
        ("file", lines.iter().map(ToString::to_string).collect::<String>().as_bytes()),
        ("terminal", &shown),
        ("recording", &recorded),
        ("log", stopped.log.join("\n").as_bytes()),
        ("metrics", metrics.as_bytes()),
    ] {
        assert!(!output.is_empty(), "{name}");
        assert!(!has_password(output), "the password is in the {name}");
    }
    assert!(has_password(odd.as_os_str().as_bytes()));
}

#[test]
fn without_redaction_the_agent_says_so_and_tells_everything() {
    let agent = Agent::with_config("[redaction]\nenabled = false\n");
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    let args = ["app", "--password", PASSWORD];
    let child = agent.exec(&program, &args);
    agent.expect(child.pid, "exec", &json!({"process.args": args, "tellwire.redacted": null}));
    assert!(agent.log().iter().any(|line| line.contains("redaction is off")), "{:?}", agent.log());
}
