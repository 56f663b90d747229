//! The systemd unit: what systemd makes of it, and the agent with exactly what it grants.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tellwire_tests::{Agent, Cgroup, Overlay, Setup, limit, runtime, tellwire, until};

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

/// The system calls that a filter lets through, by systemd's own table of groups.
fn let_through(filter: &str) -> BTreeSet<String> {
    let mut analyze = Command::new(runtime::program("systemd-analyze", "systemd"));
    let table = runtime::run(analyze.arg("syscall-filter"));
    let group = |name: &str| {
        let lines = table.lines().skip_while(|line| *line != name).skip(1);
        let members = lines.take_while(|line| line.starts_with(' ')).map(str::trim);
        members.filter(|member| !member.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut named: Vec<String> = filter.split(' ').map(str::to_owned).collect();
    let mut found = BTreeSet::new();
    while let Some(name) = named.pop() {
        if name.starts_with('@') {
            named.extend(group(&name));
        } else {
            found.insert(name);
        }
    }
    found
}

#[test]
fn the_agent_makes_no_system_call_that_the_unit_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("calls");
    // `-D` has strace beside the agent, which stays the process that is started.
    let strace = || {
        let mut strace = Command::new(runtime::program("strace", "strace"));
        strace.args(["-D", "-f", "-qq", "-s", "0", "-o"]).arg(&trace);
        strace
    };
    let config = "[auth]\npam = true\n[output.file]\nmax-bytes = 65536\n";
    let agent = Agent::with(|| Setup::default().config(config).through(strace()));
    let attached = || agent.metric("tellwire_library_attachments_total", &[("outcome", "attached")]);
    let before = attached();
    let lower = folder.path().join("layer");
    fs::create_dir_all(lower.join("usr/lib")).expect("a folder");
    fs::copy(runtime::libpam(), lower.join("usr/lib/libpam.so.0")).expect("a library");
    let image = Overlay::new(folder.path(), "image", &lower);
    until("a probe on the image's library", || (attached() > before).then_some(()));
    let large = "x".repeat(4_000);
    for _ in 0..40 {
        let mut child = agent.exec("/bin/true", &["true", &large]);
        agent.settle(&mut child);
    }
    agent.signal(Signal::HUP);
    assert_eq!(agent.get("/readyz").0, 200);
    assert_eq!(agent.stop().status.code(), Some(0));
    drop(image);

    // `PID NAME(ARGUMENTS) = RESULT`; what is resumed, signals and ends look different.
    let trace = fs::read_to_string(&trace).expect("strace's file");
    let calls = trace.lines().filter_map(|line| line.split_whitespace().nth(1)?.split_once('('));
    let mut made: BTreeSet<&str> = calls.map(|(name, _arguments)| name).collect();
    for call in ["bpf", "perf_event_open", "open_tree", "execve", "rename"] {
        assert!(made.contains(call), "no {call}: {made:?}");
    }
    // The kernel makes it for its own probes, older tools have no name for it, and Linux asks no filter about it: the
    // agent tries that out (`uretprobe` of x86-64).
    made.retain(|call| !["uretprobe", "syscall_0x14f"].contains(call));
    // The unit wants tracefs, which systemd has mounted. Where nobody has, the agent mounts it.
    if !Path::new("/sys/kernel/tracing/events").exists() {
        made.remove("mount");
    }
    let granted = let_through(&value("SystemCallFilter"));
    let refused: Vec<&&str> = made.iter().filter(|call| !granted.contains(**call)).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
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
