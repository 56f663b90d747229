//! What is wrong is said in one line, with an exit status that scripts can rely on, before anything is attached.

use std::{fs, net::TcpListener, path::Path, process::Command};

use tellwire_tests::{output, tellwire};

/// sysexits.h.
const USAGE: i32 = 64;

/// Runs it to its end, which must come by itself: the status, and what it says in one line.
fn refused(command: &mut Command) -> (i32, String) {
    let output = output(command);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(said.lines().count(), 1, "not one line: {said}");
    assert_eq!(output.stdout, b"", "nothing on stdout");
    (output.status.code().expect("an exit status"), said.trim_end().to_owned())
}

/// `run`, which would end soon if it were to start, without the default port.
fn run(arguments: &[&str]) -> Command {
    let mut command = tellwire(["run", "--duration", "100ms", "--listen", "none", "--output", "none"]);
    command.args(arguments);
    command
}

#[test]
fn a_configuration_that_is_wrong_is_refused_by_file_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tellwire.toml");
    let path = file.to_str().expect("UTF-8");
    for (text, line, said) in [
        ("[kernel]\nring-byte = 5\n", 2, "unknown key ring-byte in [kernel]: write ring-bytes"),
        ("\n[kernl]\n", 2, "unknown section kernl: write kernel"),
        ("[agent]\nprofile = 5\n", 2, "agent.profile = 5: write \"default\" or \"full\""),
        ("[agent]\ntypes = \"exec\"\n", 2, "agent.types = \"exec\": write a list"),
        ("[kernel]\nring-bytes = 5000\n", 2, "kernel.ring-bytes = 5000: write a power of two"),
        ("[kernel]\n\n\nring-bytes = 2048\n", 4, "kernel.ring-bytes = 2048: write a power of two from 4 KiB"),
        ("[agent]\ntypes = ['exit', 'exce']\n", 2, "unknown event type exce: write exec"),
        ("[http]\nlisten = '9477'\n", 2, "http.listen = '9477': write an address with its port"),
        ("[output.file]\nmode = '0666'\n", 2, "output.file.mode = '0666': write an octal mode"),
        (
            "[output.file]\n\ngroup = 'no-such-group'\n",
            3,
            "unknown group no-such-group: write one of /etc/group",
        ),
        ("[output.file]\ntotal-bytes = '1 MiB'\n", 2, "output.file.total-bytes is less than"),
        ("[output]\nto = ['syslog:tcp:host']\n", 2, "output.to[0] = 'syslog:tcp:host': write \"stdout\""),
        ("[output.syslog]\nfacility = 'mail'\n", 2, "output.syslog.facility = 'mail': write \"user\""),
        ("[[rules]]\nname = 'a'\neffect = 'dorp'\n", 3, "rules[0].effect = 'dorp': write \"drop\""),
        ("[[rules]]\nname = 'a'\neffect = 'keep'\nargs = ['(']\n", 4, "\"(\" is no regular expression"),
        (
            "[[rules]]\nname = 'a'\neffect = 'drop'\nusers = [1000]\n",
            3,
            "rule a would leave out authentication failures",
        ),
        ("[agent\n", 1, "not TOML"),
    ] {
        fs::write(&file, text).expect("writing it");
        let expected = format!("tellwire: {path}:{line}: {said}");
        for command in [&mut run(&["--config", path]), &mut tellwire(["config", "check", path])] {
            let (status, said) = refused(command);
            assert_eq!(status, USAGE, "{text}: {said}");
            assert!(said.starts_with(&expected), "{said} does not begin with {expected}");
        }
    }
}

#[test]
fn a_configuration_that_is_not_there_is_refused() {
    let (status, said) = refused(&mut run(&["--config", "/nowhere/tellwire.toml"]));
    assert_eq!(status, USAGE);
    assert!(said.starts_with("tellwire: /nowhere/tellwire.toml: No such file"), "{said}");
}

#[test]
fn a_type_that_is_none_is_refused_with_the_nearest() {
    let (status, said) = refused(&mut run(&["--types", "exec,conect"]));
    assert_eq!(status, USAGE);
    assert!(said.starts_with("tellwire: --types: unknown event type conect: write connect"), "{said}");
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    for path in ["/nowhere/events.ndjson", "/proc/events.ndjson", "/"] {
        let output = format!("file:{path}");
        let mut command = tellwire(["run", "--duration", "100ms", "--listen", "none", "--output", &output]);
        let (status, said) = refused(&mut command);
        assert_eq!(status, USAGE, "{said}");
        assert!(said.starts_with(&format!("tellwire: output {output}: ")), "{said}");
    }
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
    let address = listener.local_addr().expect("its address").to_string();
    let mut command = tellwire(["run", "--duration", "100ms", "--output", "none", "--listen", &address]);
    let (status, said) = refused(&mut command);
    assert_eq!(status, USAGE);
    assert!(said.starts_with(&format!("tellwire: listening on {address}: ")), "{said}");
    // EADDRINUSE; its text is the C library's.
    assert!(said.contains("(os error 98)") && said.contains("--listen"), "{said}");
}

#[test]
fn a_cgroup_that_is_not_there_is_refused() {
    for cgroup in ["/nowhere/at/all", "nowhere", "/sys/fs/cgroup/nowhere"] {
        let (status, said) = refused(&mut run(&["--cgroup", cgroup]));
        assert_eq!(status, USAGE, "{said}");
        assert!(said.starts_with(&format!("tellwire: cgroup {cgroup}: no such cgroup below ")), "{said}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let (status, said) = refused(&mut run(&["--cgroup", path]));
    assert_eq!(status, USAGE, "{said}");
    assert!(said.starts_with(&format!("tellwire: cgroup {path}: not in a hierarchy")), "{said}");
}

#[test]
fn a_flag_that_is_none_is_refused_with_the_nearest() {
    for (arguments, named) in [
        (&["run", "--proflie", "full"][..], ["'--proflie'", "'--profile'"]),
        (&["run", "--profile", "ful"][..], ["'ful'", "full"]),
        (&["run", "--duration"][..], ["--duration", "value"]),
        (&["rnu"][..], ["'rnu'", "--help"]),
        (&["config", "check"][..], ["required", "<FILE>"]),
    ] {
        let (status, said) = refused(&mut tellwire(arguments));
        assert_eq!(status, USAGE, "{said}");
        assert!(said.starts_with("tellwire: ") && named.iter().all(|name| said.contains(name)), "{said}");
    }
}

#[test]
fn no_refusal_leaves_anything_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.ndjson");
    let output = format!("file:{}", file.display());
    let mut command = tellwire(["run", "--listen", "none", "--output", &output, "--types", "none-such"]);
    assert_eq!(refused(&mut command).0, USAGE);
    assert!(!Path::new(&file).exists());
}
