//! The commands that watch nothing.

use std::{fs, process::Command};

use serde_json::{Value, json};
use tellwire_tests::{output, tellwire};

const PROBES: [&str; 13] = [
    "cgroup_mkdir",
    "cgroup_rmdir",
    "exit",
    "fork",
    "exec",
    "connect",
    "connect_denied",
    "connect_errno",
    "exec_failed",
    "credentials",
    "container_roots",
    "pam_results",
    "pam",
];

const ACTIONS: [&str; 59] = [
    "exec",
    "exec_failed",
    "exit",
    "connect",
    "close",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
    "capset",
    "credentials_changed",
    "pam_authenticate",
    "pam_account",
    "pam_setcred",
    "pam_session_open",
    "pam_session_close",
    "pam_chauthtok",
    "user_login",
    "user_logout",
    "user_auth",
    "user_account",
    "user_session_start",
    "user_session_end",
    "user_error",
    "user_command",
    "user_changed",
    "user_password_changed",
    "credentials_acquired",
    "credentials_disposed",
    "credentials_refreshed",
    "login_uid_set",
    "account_added",
    "account_deleted",
    "account_locked",
    "account_unlocked",
    "group_added",
    "group_deleted",
    "group_changed",
    "group_auth",
    "role_changed",
    "login_anomaly",
    "auth_bruteforce",
    "container_running",
    "container_created",
    "container_started",
    "container_stopped",
    "container_named",
    "agent_started",
    "agent_stopped",
    "events_lost",
    "probe_lost",
    "config_changed",
    "clock_changed",
    "ledger",
];

/// What a command prints that ends well and has nothing to say about itself.
fn printed(command: &mut Command) -> String {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    assert_eq!(said, "", "{command:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn check_tells_of_every_probe_that_it_attaches() {
    let text = printed(&mut tellwire(["check"]));
    for probe in PROBES {
        assert!(text.contains(&format!("\nyes {probe} ")), "{probe} is not in\n{text}");
    }
    let report: Value = serde_json::from_str(&printed(&mut tellwire(["check", "--json"]))).expect("JSON");
    let probes = report["probes"].as_array().expect("a list");
    let names: Vec<_> = probes.iter().filter_map(|probe| probe["probe"].as_str()).collect();
    assert_eq!(names, PROBES);
    for probe in probes {
        assert_eq!(probe["attached"], true, "{probe}");
        assert_eq!(probe["reason"], Value::Null, "{probe}");
        // What the verifier counted is told by kernels from 5.16 on, and the limit is a million for each program.
        assert!(probe["verified_instructions"].as_u64().is_some_and(|count| count < 1_000_000), "{probe}");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    assert_eq!(report["kernel"], release.trim());
}

#[test]
fn the_default_configuration_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tellwire.toml");
    let text = printed(&mut tellwire(["config", "default"]));
    fs::write(&file, &text).expect("writing it");
    let checked = printed(tellwire(["config", "check"]).arg(&file));
    assert_eq!(checked, format!("{}: valid\n", file.display()));
    // Each section, and a comment for each key.
    for section in ["[agent]", "[kernel]", "[processes]", "[output]", "[http]"] {
        assert!(text.lines().any(|line| line == section), "{section} is not in\n{text}");
    }
    let with = printed(tellwire(["config", "show", "--config"]).arg(&file));
    let without = printed(&mut tellwire(["config", "show", "--config", "/dev/null"]));
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  #").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(values(&with), values(&without));
}

#[test]
fn events_lists_every_action_and_its_schema_is_json() {
    let text = printed(&mut tellwire(["events"]));
    let actions: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(actions, ACTIONS);
    let schema: Value =
        serde_json::from_str(&printed(&mut tellwire(["events", "--json-schema"]))).expect("JSON");
    for field in ["@timestamp", "ecs", "event", "host", "process", "tellwire"] {
        assert!(schema["properties"][field].is_object(), "{field} is not in {schema}");
    }
}

#[test]
fn the_schema_of_the_configuration_knows_every_key_and_what_it_takes() {
    let schema: Value = serde_json::from_str(&printed(&mut tellwire(["config", "schema"]))).expect("JSON");
    assert!(schema["$schema"].is_string());
    let key = |section: &str, key: &str| schema["$defs"][section]["properties"][key].clone();
    assert_eq!(key("Agent", "profile")["enum"], json!(["default", "full"]));
    let throttle = key("Kernel", "throttle-process");
    assert_eq!((&throttle["type"], &throttle["minimum"]), (&json!("integer"), &json!(0)));
    assert!(throttle["description"].as_str().is_some_and(|text| text.contains("one cgroup")), "{throttle}");
    assert_eq!(schema["$defs"]["Kernel"]["additionalProperties"], false);
}

#[test]
fn the_version_is_told() {
    assert!(printed(&mut tellwire(["version"])).starts_with("tellwire "));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let mut command = tellwire(["config", "default"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = command.stdout(writer).status().expect("the command");
    assert!(status.success(), "{status}");
}

/// Types of a file: those of the running kernel are taken, and no others.
#[test]
fn types_of_a_file_must_be_the_running_kernel_s() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = fs::read("/sys/kernel/btf/vmlinux").expect("the kernel's types");
    let mut foreign = own.clone();
    // A letter of the last name: whatever it was, the file is another kernel's now.
    let letter = foreign.len() - 2;
    foreign[letter] ^= 1;
    for (name, bytes, status, said) in [
        ("own", own.as_slice(), 0, ""),
        ("foreign", &foreign, 64, "of another kernel"),
        ("broken", b"no types", 64, "neither BTF"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        let check = output(tellwire(["check", "--json", "--btf"]).arg(&path));
        let stderr = String::from_utf8_lossy(&check.stderr).into_owned();
        assert_eq!(check.status.code(), Some(status), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
        if status == 0 {
            let report: Value = serde_json::from_slice(&check.stdout).expect("JSON");
            assert_eq!(report["btf"], json!(path));
            assert!(report["btf_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
        }
    }
}
