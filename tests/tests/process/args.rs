//! Arguments: all of them, exactly, or cut and said so.

use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::json;
use tellwire_tests::{Agent, program::Program, sys};

use crate::{folder_with_program, number};

/// What an exec record carries of argv, by default.
const DEFAULT_BYTES: usize = 8192;

/// Bytes of argv in memory: each argument has a NUL behind it.
fn bytes<A: AsRef<[u8]>>(args: &[A]) -> usize {
    args.iter().map(|arg| arg.as_ref().len() + 1).sum()
}

#[test]
fn a_process_that_rewrites_its_argv_at_once_does_not_change_what_is_told() {
    let agent = Agent::shared();
    let program = agent.folder().join("rewrites");
    Program::Rewrite.write(&program);
    for number in 0..20 {
        let args = ["innocent".to_owned(), number.to_string()];
        let child = agent.exec(&program, &args);
        agent.expect(child.pid, "exec", &json!({"process": {"args": args, "executable": program}}));
    }
}

#[test]
fn no_arguments_at_all_are_one_or_none() {
    let (_folder, program) = folder_with_program("no-arguments");
    let agent = Agent::shared();
    let child = agent.exec::<&str>(&program, &[]);
    let event = agent.expect(child.pid, "exec", &json!({"process.executable": program}));
    // Since 5.18 the kernel puts an empty argv[0] in.
    let (args, count) = (&event["process"]["args"], number(&event, "process.args_count"));
    assert!((args == &json!([]) && count == 0) || (args == &json!([""]) && count == 1), "{args} and {count}");
}

#[test]
fn empty_arguments_are_arguments() {
    let (_folder, program) = folder_with_program("empty-arguments");
    let agent = Agent::shared();
    for args in [&["", "", ""][..], &[""], &["a", "", "", "b", ""]] {
        let child = agent.exec(&program, args);
        agent.expect(child.pid, "exec", &json!({"process": {"args": args, "args_count": args.len()}}));
    }
}

#[test]
fn a_long_argv_is_cut_at_the_default_and_says_so() {
    let (_folder, program) = folder_with_program("long-argv");
    let agent = Agent::shared();
    let args: Vec<String> = (0..100).map(|number| format!("{number:0>1023}")).collect();
    let child = agent.exec(&program, &args);
    let event = agent.expect(
        child.pid,
        "exec",
        &json!({"process": {"args_count": 100, "args_truncated": true, "args_total_bytes": bytes(&args)}}),
    );
    assert_eq!(event["process"]["args"], json!(args[..DEFAULT_BYTES / 1024]));
}

#[test]
fn one_long_argument_is_kept_up_to_the_cut() {
    let (_folder, program) = folder_with_program("long-argument");
    let agent = Agent::shared();
    let args = ["a".to_owned(), "é".repeat(20_000)];
    let child = agent.exec(&program, &args);
    let event =
        agent.expect(child.pid, "exec", &json!({"process": {"args_count": 2, "args_truncated": true}}));
    // Two bytes are those of "a"; the cut is in the middle of a letter, of which one byte is left.
    let kept = format!("{}\\xc3", "é".repeat((DEFAULT_BYTES - 2) / 2 - 1));
    let told = event["process"]["args"][1].as_str().expect("a text");
    assert!(told == kept || told == "é".repeat((DEFAULT_BYTES - 2) / 2), "{} of {}", told.len(), kept.len());
}

#[test]
fn an_argv_that_just_fits_is_whole() {
    let (_folder, program) = folder_with_program("fitting-argv");
    let agent = Agent::shared();
    for (len, is_cut) in [(DEFAULT_BYTES - 3, false), (DEFAULT_BYTES - 2, true)] {
        // "a", its NUL, the letters and their NUL.
        let args = ["a".to_owned(), "x".repeat(len)];
        assert_eq!(bytes(&args) > DEFAULT_BYTES, is_cut);
        let child = agent.exec(&program, &args);
        let truncated = if is_cut { json!(true) } else { json!(null) };
        agent.expect(child.pid, "exec", &json!({"process": {"args": args, "args_truncated": truncated}}));
    }
}

#[test]
fn two_mebibytes_of_argv_are_an_event() {
    let (_folder, program) = folder_with_program("huge-argv");
    let agent = Agent::shared();
    let args: Vec<String> = (0..21).map(|number| format!("{number:0>50000}").repeat(2)).collect();
    assert!(bytes(&args) > 2 << 20);
    let child = agent.fork(|| {
        // A quarter of the stack is for arguments.
        let stack = Rlimit { current: Some(64 << 20), maximum: None };
        setrlimit(Resource::Stack, stack).expect("a large stack");
        sys::exec(&program, &args)
    });
    let event = agent.expect(
        child.pid,
        "exec",
        &json!({"process": {"args_count": 21, "args_truncated": true, "args_total_bytes": bytes(&args)}}),
    );
    assert_eq!(event["process"]["args"], json!([args[0][..DEFAULT_BYTES]]));
}

#[test]
fn args_bytes_keeps_more() {
    let agent = Agent::with_config("[kernel]\nargs-bytes = 65536\nring-bytes = \"4 MiB\"");
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    let args: Vec<String> = (0..60).map(|number| format!("{number:0>1023}")).collect();
    let child = agent.exec(&program, &args);
    agent.expect(
        child.pid,
        "exec",
        &json!({"process": {"args": args, "args_count": 60, "args_truncated": null}}),
    );
    // And no argument is one too many.
    let child = agent.exec(&program, &vec!["x"; 40_000]);
    let fields =
        json!({"process": {"args_count": 40_000, "args_truncated": true, "args_total_bytes": 80_000}});
    let event = agent.expect(child.pid, "exec", &fields);
    assert_eq!(event["process"]["args"], json!(vec!["x"; 32_768]));
    assert_eq!(agent.metric("tellwire_truncations_total", &[("field", "args")]), 1);
}

#[test]
fn no_argument_breaks_a_line_and_every_byte_can_be_had_back() {
    let (_folder, program) = folder_with_program("awkward-arguments");
    let agent = Agent::shared();
    let child = agent.exec(
        &program,
        &[
            &b"new\nline"[..],
            b"\"quote\"",
            b"tab\tand\rreturn",
            b"\x1b[31mred\x1b[0m",
            b"\xff\xfe",
            b"caf\xe9",
            b"\\xff",
            b"\\",
            "π ≠ 3".as_bytes(),
        ],
    );
    // Bytes that are no UTF-8 are \xNN, and a backslash that would look so is doubled.
    let told = json!([
        "new\nline",
        "\"quote\"",
        "tab\tand\rreturn",
        "\u{1b}[31mred\u{1b}[0m",
        "\\xff\\xfe",
        "caf\\xe9",
        "\\\\xff",
        "\\",
        "π ≠ 3",
    ]);
    agent.expect(child.pid, "exec", &json!({"process": {"args": told, "args_count": 9}}));
}
