//! The systemd unit: what systemd makes of it, and the agent with exactly what it grants.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
};

use tellwire_tests::{Agent, Cgroup, Setup, limit, runtime, tellwire};

fn unit() -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/tellwire.service");
    fs::read_to_string(unit).expect("the unit")
}

/// The value of a key that is there once.
fn value(key: &str) -> String {
    let unit = unit();
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {key} in the unit")).to_owned();
    assert_eq!(values.next(), None, "{key} is there twice");
    value
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let (binary, unit_file) = (folder.path().join("tellwire"), folder.path().join("tellwire.service"));
    fs::copy(tellwire::<&str>([]).get_program(), &binary).expect("the agent");
    let text = unit().replace("/usr/bin/tellwire", binary.to_str().expect("UTF-8"));
    fs::write(&unit_file, text).expect("the unit");
    let analyze = || Command::new(runtime::program("systemd-analyze", "systemd"));
    let (fine, printed, said) = runtime::attempt(analyze().arg("verify").arg("--man=no").arg(&unit_file));
    assert!(fine && !said.contains("tellwire.service:"), "{printed}{said}");
    // 0 is confined altogether, 10 not at all. Loading BPF programs takes what systemd counts against it.
    let limit = "--threshold=55";
    let mut security = analyze();
    security.args(["security", "--offline=true", limit]).arg(&unit_file);
    runtime::run(&mut security);
}

#[test]
fn every_probe_attaches_with_the_capabilities_of_the_unit() {
    let cgroup = Cgroup::new();
    let granted = value("CapabilityBoundingSet").to_lowercase();
    let granted: Vec<String> =
        granted.split(' ').map(|name| format!("+{}", name.trim_start_matches("cap_"))).collect();
    let agent = tellwire(["run", "--duration", "1s", "--listen", "none", "--output", "none", "--cgroup"]);
    let mut command = Command::new(runtime::program("setpriv", "util-linux"));
    command.args([
        "--inh-caps=-all",
        &format!("--bounding-set=-all,{}", granted.join(",")),
        "--no-new-privs",
    ]);
    command.arg(agent.get_program()).args(agent.get_args()).arg(cgroup.path()).stdin(Stdio::null());
    let (fine, _printed, said) = runtime::attempt(&mut command);
    assert!(fine && said.contains("watching") && !said.contains("probe not attached"), "{said}");
}

#[test]
fn systemd_is_told_that_the_agent_looks_that_it_still_does_and_that_it_stops() {
    assert_eq!(value("Type"), "notify");
    assert!(
        value("WatchdogSec").parse::<u32>().expect("seconds") > 10,
        "a pipeline may be silent for so long"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(limit())).expect("a deadline");
    let told = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("a word of the agent");
        String::from_utf8_lossy(bytes.get(..length).expect("its bytes")).into_owned()
    };
    let variables = [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "200000".to_owned())];
    let agent = Agent::with(|| Setup::default().variables(variables.clone()));
    assert_eq!(told(), "READY=1\nSTATUS=watching\n");
    for _ in 0..3 {
        assert_eq!(told(), "WATCHDOG=1\n");
    }
    assert_eq!(agent.stop().status.code(), Some(0));
    let mut last = told();
    while last == "WATCHDOG=1\n" {
        last = told();
    }
    assert_eq!(last, "STOPPING=1\n");
}
