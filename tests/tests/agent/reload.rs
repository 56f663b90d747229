//! The configuration is read again: on SIGHUP, when the file changes, and as a whole or not at all.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tellwire_tests::{Agent, Cgroup, Setup, at, bpf, fork, net, program::Program, sys, until};

use crate::{count, work};

const RELOADED: &str = "tellwire_config_last_reload_successful";

/// Waits until it is told that the configuration was read again, with this outcome, as often as this.
fn reloaded(agent: &Agent, outcome: &str, times: usize) -> Value {
    until(format!("{times} reloads with {outcome}"), || {
        let lines = agent.own_events();
        let mut found = lines.into_iter().filter(|line| {
            at(line, "event.action").is_some_and(|action| action == "config_changed")
                && at(line, "event.outcome").is_some_and(|found| found == outcome)
        });
        found.nth(times - 1)
    })
}

/// What a line says was changed: key, old and new value.
fn changed<'l>(line: &'l Value) -> Vec<(&'l str, &'l str, &'l str)> {
    let changes = at(line, "tellwire.config.changes").and_then(Value::as_array).expect("a list");
    let text = |change: &'l Value, key: &str| change[key].as_str().expect("text");
    changes.iter().map(|change| (text(change, "key"), text(change, "old"), text(change, "new"))).collect()
}

/// Execs one after the other; how many made a line once all of them are through.
fn execs(agent: &Agent, many: u64) -> u64 {
    let program = agent.folder().join("program");
    if !program.exists() {
        Program::Exit(0).write(&program);
    }
    let before = count(&agent.events(), "exec");
    let mut child = agent.fork(|| {
        for _ in 0..many {
            fork(|| sys::exec(&program, &["program"])).join();
        }
    });
    agent.settle(&mut child);
    let lines = || count(&agent.events(), "exec");
    until("what was written is read", || {
        (lines() == agent.metric("tellwire_lines_total", &[("action", "exec")])).then_some(())
    });
    lines() - before
}

#[test]
fn a_hangup_changes_the_throttle_and_the_types_and_attaches_nothing_again() {
    let agent = Agent::with_config("");
    let programs = bpf::programs_of(agent.pid());
    assert!(!programs.is_empty());
    assert_eq!(execs(&agent, 30), 30);

    agent.configure("[kernel]\nthrottle-process = 5\n");
    agent.signal(Signal::HUP);
    let line = reloaded(&agent, "success", 1);
    assert_eq!(changed(&line), [("kernel.throttle-process", "20000", "5")]);
    assert!(execs(&agent, 30) < 30);

    agent.configure("[agent]\ntypes = ['exit', 'config_changed']\n");
    agent.signal(Signal::HUP);
    reloaded(&agent, "success", 2);
    assert_eq!(execs(&agent, 5), 0);

    agent.configure("[agent]\ntypes = ['config_changed', 'connect']\n[kernel]\nargs-bytes = 0\n");
    agent.signal(Signal::HUP);
    reloaded(&agent, "success", 3);
    let done = work(&agent, 1, 3);
    agent.expect_metric("tellwire_lines_total", &[("action", "connect")], done.connects);
    assert_eq!(bpf::programs_of(agent.pid()), programs);
    agent.expect_metric(RELOADED, &[], 1);
    let stopped = agent.stop();
    assert_eq!(stopped.status.code(), Some(0), "{:?}", stopped.log);
    assert!(stopped.ledgers.values().all(tellwire_tests::Ledger::is_exact), "{:?}", stopped.ledgers);
}

#[test]
fn a_swapped_config_map_is_noticed() {
    let mount = tempfile::tempdir().expect("a folder");
    let state = tempfile::tempdir().expect("a folder");
    let version = |name: &str, throttle: u32| {
        let folder = mount.path().join(name);
        fs::create_dir(&folder).expect("a version");
        let text = format!(
            "[agent]\nstate-dir = '{}'\n[kernel]\nthrottle-process = {throttle}\n",
            state.path().display()
        );
        fs::write(folder.join("tellwire.toml"), text).expect("its file");
        symlink(name, mount.path().join("..data_tmp")).expect("a link");
        fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).expect("the swap");
    };
    version("..1", 7);
    let file = mount.path().join("tellwire.toml");
    symlink("..data/tellwire.toml", &file).expect("a link");
    let agent = Agent::with(|| Setup::default().config_file(&file));
    for (number, throttle) in [(1, "8"), (2, "9")] {
        version(&format!("..{}", number + 1), throttle.parse().expect("a number"));
        fs::remove_dir_all(mount.path().join(format!("..{number}"))).expect("the old version");
        let line = reloaded(&agent, "success", number);
        assert_eq!(changed(&line)[0].2, throttle);
        assert_eq!(at(&line, "tellwire.config.source"), Some(&json!("file")));
    }
}

#[test]
fn what_is_wrong_is_refused_as_a_whole_and_named() {
    let agent = Agent::with_config("");
    let before = agent.metric("tellwire_config_last_reload_timestamp_seconds", &[]);
    assert!(before > 0);
    let (config, place) = (agent.config(), |line| format!("{}:{line}: ", agent.config().display()));
    for (number, (text, reason)) in [
        (
            "[kernel]\nthrottle-process = 1\nargs-bytes = 'lots'\n",
            format!("{}kernel.args-bytes = 'lots': write bytes from 0 to 64 KiB", place(3)),
        ),
        (
            "[kernel]\nthrottle-process = 1\nring-bytes = '4 MiB'\n",
            "kernel.ring-bytes cannot change while the agent runs: restart it, or take the change back"
                .into(),
        ),
        ("[agent]\ntypes = ['exce']\n", format!("{}unknown event type exce: write exec", place(2))),
    ]
    .into_iter()
    .enumerate()
    {
        // In place, and noticed without a signal.
        agent.configure(text);
        let line = reloaded(&agent, "failure", number + 1);
        let said = at(&line, "event.reason").and_then(Value::as_str).expect("a reason");
        assert!(said.starts_with(&reason), "{said} for {reason}");
        agent.expect_metric(RELOADED, &[], 0);
        let (status, body) = agent.get("/readyz");
        assert!(
            status == 200 && body.contains("degraded") && body.contains("configuration refused"),
            "{body}"
        );
        assert!(agent.log().iter().any(|line| line.contains("configuration refused: the one in use stays")));
        // Nothing of it was taken over.
        assert_eq!(execs(&agent, 20), 20);
    }
    // An editor's way, back to what it was.
    let aside = config.with_extension("new");
    let folder = agent.folder().join("state");
    fs::write(&aside, format!("[agent]\nstate-dir = \"{}\"\n[auth]\npam = false\n", folder.display()))
        .expect("a file");
    fs::rename(&aside, &config).expect("its place");
    reloaded(&agent, "success", 1);
    agent.expect_metric(RELOADED, &[], 1);
    assert!(agent.metric("tellwire_config_last_reload_timestamp_seconds", &[]) >= before);
    assert!(agent.get("/readyz").1.contains("\"ready\""));
}

#[test]
fn an_output_takes_the_place_of_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let to = |path: &Path| format!("[output]\nto = ['file:{}']\n", path.display());
    let config = to(&first);
    let agent = Agent::with(|| Setup::default().config(&config).output_of_config());
    let mut child = agent.exec("/bin/true", &["true", "before"]);
    agent.settle(&mut child);
    agent.configure(&to(&second));
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    until("it is told to the new one", || lines(&second).contains("config_changed").then_some(()));
    let mut child = agent.exec("/bin/true", &["true", "after"]);
    agent.settle(&mut child);
    assert!(lines(&first).contains("before") && !lines(&first).contains("after"));
    assert!(lines(&second).contains("after") && !lines(&second).contains("before"));
    // One that cannot be opened changes nothing.
    agent.configure(&to(&folder.path().join("none/third")));
    agent.expect_metric(RELOADED, &[], 0);
    let mut child = agent.exec("/bin/true", &["true", "later"]);
    agent.settle(&mut child);
    assert!(lines(&second).contains("later"));
    agent.expect_metric("tellwire_output_dropped_total", &[], 0);
    assert_eq!(agent.stop().status.code(), Some(0));
}

#[test]
fn other_cgroups_are_looked_at_instead() {
    let agent = Agent::with_config("[agent]\ncgroups = ['{cgroup}']\n");
    let beside = Cgroup::new();
    let below = beside.path().join("below");
    fs::create_dir(&below).expect("a cgroup");
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    let run = |cgroup: &Path| {
        let mut child = fork(|| {
            fs::write(cgroup.join("cgroup.procs"), "0").expect("entering it");
            sys::exec(&program, &["program"])
        });
        child.wait();
        child.pid
    };
    let (unseen, seen) = (run(&below), run(agent.cgroup()));
    agent.expect(seen, "exec", &json!({}));
    assert_eq!(agent.events_of(unseen, "exec").len(), 0);

    agent.configure(&format!("[agent]\ncgroups = ['{}']\n", beside.path().display()));
    reloaded(&agent, "success", 1);
    let further = below.join("further");
    fs::create_dir(&further).expect("a cgroup");
    let (unseen, seen) = (run(agent.cgroup()), [beside.path(), &below, &further].map(run));
    for pid in seen {
        agent.expect(pid, "exec", &json!({}));
    }
    assert_eq!(agent.events_of(unseen, "exec").len(), 0);

    agent.configure("[agent]\ncgroups = ['/nowhere/at/all']\n");
    let line = reloaded(&agent, "failure", 1);
    assert!(
        at(&line, "event.reason").is_some_and(|reason| reason.to_string().contains("/nowhere/at/all")),
        "{line}"
    );
    agent.configure("[agent]\ncgroups = []\n");
    let line = reloaded(&agent, "failure", 2);
    assert!(
        at(&line, "event.reason").is_some_and(|reason| reason.to_string().contains("restart it")),
        "{line}"
    );
    agent.expect(run(&below), "exec", &json!({}));
    drop(agent);
    for cgroup in [further, below] {
        fs::remove_dir(cgroup).expect("removing it");
    }
}

#[test]
fn what_lines_say_and_which_are_made_follows_too() {
    let agent = Agent::with(|| Setup::default().default_profile().config(""));
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let program = agent.folder().join("program");
    Program::Exit(0).write(&program);
    // One exec with a secret, and three connects.
    let work = |names: [&str; 2]| {
        let [first, second] = names;
        let mut child = agent.exec(&program, &[first, "--password", "hunter2-of-a-test", second]);
        agent.settle(&mut child);
        let mut connects = agent.fork(|| {
            for _ in 0..3 {
                drop(TcpStream::connect(server.address()).expect("a connection"));
            }
        });
        agent.settle(&mut connects);
        agent.expect(child.pid, "exec", &json!({"process.args_count": 4}))
    };
    let line = work(["before", "it"]);
    let redacted = |first| json!([first, "--password", "[redacted]", "it"]);
    assert_eq!(at(&line, "process.args"), Some(&redacted("before")), "{line}");
    assert!(at(&line, "process.command_line").is_none(), "{line}");
    agent.expect_metric("tellwire_lines_left_out_total", &[("reason", "folded")], 2);

    agent.configure(
        "[agent]\ncommand-line = true\nfold-window = '1s'\n[redaction]\nenabled = false\n\
         [[rules]]\nname = 'marked'\neffect = 'tag'\ntags = ['marked']\nactions = ['exec']\n",
    );
    agent.signal(Signal::HUP);
    reloaded(&agent, "success", 1);
    let line = work(["after", "it"]);
    assert_eq!(at(&line, "process.command_line"), Some(&json!("after --password hunter2-of-a-test it")));
    assert_eq!(at(&line, "tags"), Some(&json!(["marked"])), "{line}");
    // By a window of a minute none of them would be told before the end.
    until("connects are told together", || {
        let events = agent.events();
        let counts = events.iter().filter_map(|event| at(event, "tellwire.connect.count")?.as_u64());
        (counts.sum::<u64>() == 5).then_some(())
    });

    agent.configure("");
    agent.signal(Signal::HUP);
    reloaded(&agent, "success", 2);
    let line = work(["again", "it"]);
    assert_eq!(at(&line, "process.args"), Some(&redacted("again")), "{line}");
    assert!(at(&line, "tags").is_none(), "{line}");
    let stopped = agent.stop();
    assert!(stopped.status.success(), "{:?}", stopped.log);
}
