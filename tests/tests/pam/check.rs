//! `tellwire check` says which libpam there is, and what none tells.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use tellwire_tests::{runtime, tellwire};

/// Mounts an overlay over the folder of the libraries, takes libpam out of it, and runs a program there.
const WITHOUT: &str = "mount -t tmpfs tmpfs \"$1\" && mkdir \"$1/upper\" \"$1/work\" && \
    mount -t overlay -o \"lowerdir=$2,upperdir=$1/upper,workdir=$1/work\" overlay \"$2\" && rm \"$2\"/libpam.so.* && \
    shift 2 && exec \"$@\"";

fn check(arguments: &[&str]) -> (String, Value) {
    let run = |json: &[&str]| {
        let mut command = Command::new(arguments[0]);
        runtime::run(command.args(&arguments[1..]).arg("check").args(json))
    };
    (run(&[]), serde_json::from_str(&run(&["--json"])).expect("JSON"))
}

fn binary() -> String {
    tellwire([""; 0]).get_program().to_str().expect("a path of text").to_owned()
}

fn not_covered(report: &Value) -> Vec<&str> {
    let rows = report["libpam"]["not_covered"].as_array().expect("a list");
    rows.iter().filter_map(Value::as_str).collect()
}

#[test]
fn check_says_what_no_libpam_tells() {
    let (text, report) = check(&[&binary()]);
    for of in ["BusyBox", "dropbear", "statically", "32-bit", "containers"] {
        assert!(not_covered(&report).iter().any(|row| row.contains(of)), "{of}: {report}");
    }
    for row in not_covered(&report) {
        assert!(text.contains(row), "{row} is not in\n{text}");
        assert!(!row.starts_with("the host"), "{row}");
    }
}

#[test]
fn check_says_that_a_host_without_libpam_is_not_covered() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = runtime::libpam().parent().map(Path::to_owned).expect("a folder");
    let (scratch, folder) = (scratch.path().display().to_string(), folder.display().to_string());
    let unshare = runtime::program("unshare", "util-linux");
    let unshare = unshare.to_str().expect("a path of text");
    let without = [unshare, "--mount", "sh", "-c", WITHOUT, "sh", &scratch, &folder];
    let (text, report) = check(&[&without[..], &[binary().as_str()]].concat());
    assert_eq!(report["libpam"]["attached"], json!([]), "{report}");
    assert!(not_covered(&report)[0].starts_with("the host itself"), "{report}");
    assert!(text.contains("\nlibpam      none found\n    does not cover the host itself"), "{text}");
}
