//! Who runs what, from where, as whom.

use std::{env, fs, os::fd::AsFd as _, path::Path, process};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountFlags, mount},
};
use serde_json::json;
use tellwire_tests::{Agent, ecs, fork, program::Program, sys};

use crate::{folder_with_program, number, text};

#[test]
fn an_exec_says_who_runs_what_from_where() {
    let (folder, program) = folder_with_program("fields");
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        rustix::process::setsid().expect("a session without a terminal");
        env::set_current_dir(&folder).expect("the folder");
        sys::exec(&program, &["program", "", "two words", ""])
    });
    let event = agent.expect(
        child.pid,
        "exec",
        &json!({
            "event": {
                "kind": "event", "category": ["process"], "type": ["start"], "outcome": "success",
                "dataset": "tellwire.process",
            },
            "process": {
                "name": "program",
                "executable": program,
                "args": ["program", "", "two words", ""],
                "args_count": 4,
                "args_truncated": null,
                "working_directory": folder,
                "interactive": false,
                "tty": null,
                "user": {"id": "0", "name": "root"},
                "real_user.id": "0",
                "saved_user.id": "0",
                "group.id": "0",
                "real_group.id": "0",
                "saved_group.id": "0",
                "parent.pid": process::id(),
                "vpid": null,
            },
            "user.id": "0",
            "tellwire.exec": {
                "filename": program,
                "script": null,
                "unlinked": null,
                "not_in_image": null,
                "owner": {"uid": "0", "gid": "0"},
                "env_count": 0,
                "path_truncated": null,
            },
        }),
    );
    assert!(child.wait().success());
    assert!(
        ecs::is_time(text(&event, "process.start"))
            && text(&event, "process.start") <= text(&event, "@timestamp")
    );
    assert_eq!(text(&event, "process.entity_id").len(), 24);
    assert_ne!(text(&event, "process.entity_id"), text(&event, "process.parent.entity_id"));
    let metadata = fs::metadata(&program).expect("the program");
    assert_eq!(number(&event, "tellwire.exec.inode"), std::os::unix::fs::MetadataExt::ino(&metadata));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot's id");
    assert_eq!(text(&event, "host.boot.id"), boot.trim());
}

#[test]
fn namespaces_are_those_of_proc() {
    let (_folder, program) = folder_with_program("namespaces");
    let agent = Agent::shared();
    let child = agent.exec(&program, &["program"]);
    let mut expected = serde_json::Map::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        let inode =
            link.to_string_lossy().split(['[', ']']).nth(1).and_then(|inode| inode.parse::<u32>().ok());
        expected.insert(name.to_owned(), json!(inode));
    }
    agent.expect(child.pid, "exec", &json!({ "tellwire.exec.namespaces": expected }));
}

#[test]
fn argv_0_can_lie_and_the_executable_does_not() {
    let (_folder, program) = folder_with_program("lie");
    let agent = Agent::shared();
    let child = agent.exec(&program, &["/usr/sbin/sshd", "-D"]);
    let fields =
        json!({"process": {"executable": program, "args": ["/usr/sbin/sshd", "-D"], "name": "program"}});
    agent.expect(child.pid, "exec", &fields);
}

#[test]
fn one_process_is_one_entity_over_execs() {
    let (folder, program) = folder_with_program("chain");
    let chain = folder.join("chain");
    Program::Chain.write(&chain);
    let agent = Agent::shared();
    let mut child =
        agent.exec(&chain, &[chain.as_os_str().as_encoded_bytes(), program.as_os_str().as_encoded_bytes()]);
    agent.settle(&mut child);
    let execs = agent.events_of(child.pid, "exec");
    let said: Vec<_> = execs.iter().map(|event| text(event, "process.executable")).collect();
    assert_eq!(said, [chain.to_str().expect("UTF-8"), program.to_str().expect("UTF-8")]);
    assert_eq!(text(&execs[0], "process.entity_id"), text(&execs[1], "process.entity_id"));
    assert_eq!(text(&execs[0], "process.start"), text(&execs[1], "process.start"));
    let exit =
        agent.expect(child.pid, "exit", &json!({"process": {"executable": program, "name": "program"}}));
    assert_eq!(text(&exit, "process.entity_id"), text(&execs[0], "process.entity_id"));
}

#[test]
fn a_parent_is_the_one_that_forked_and_ancestors_follow() {
    let (folder, program) = folder_with_program("family");
    let last = folder.join("last");
    Program::Exit(0).write(&last);
    let agent = Agent::shared();
    let child = agent.fork(|| {
        // The agent meets the eldest here: it was forked where nobody looks.
        sys::execve(Path::new("/nowhere"), &["x"]);
        let grandchild = fork(|| {
            fork(|| sys::exec(&program, &["youngest"])).join();
            sys::exec(&program, &["middle"])
        });
        let pid = grandchild.pid;
        grandchild.join();
        sys::exec(&last, &["oldest".to_owned(), pid.to_string()])
    });
    let oldest = agent.expect(child.pid, "exec", &json!({"process.executable": last}));
    let pid: u32 = oldest["process"]["args"][1].as_str().and_then(|pid| pid.parse().ok()).expect("a pid");
    let entity = text(&oldest, "process.entity_id");
    let middle =
        agent.expect(pid, "exec", &json!({"process.parent": {"pid": child.pid, "entity_id": entity}}));
    let parent = json!({"pid": pid, "entity_id": text(&middle, "process.entity_id")});
    let youngest = agent.expect(None, "exec", &json!({"process": {"args": ["youngest"], "parent": parent}}));
    assert_eq!(number(&youngest, "process.parent.pid"), u64::from(pid));
    assert_eq!(youngest["tellwire"]["exec"]["ancestors"][0]["pid"], child.pid, "{youngest}");
}

#[test]
fn a_controlling_terminal_is_named() {
    let (folder, program) = folder_with_program("terminal");
    let agent = Agent::shared();
    let child = agent.fork(|| {
        sys::private_mounts().expect("mounts of its own");
        let terminals = folder.join("pts");
        fs::create_dir(&terminals).expect("a folder");
        mount("devpts", &terminals, "devpts", MountFlags::empty(), Some(c"ptmxmode=0666")).expect("devpts");
        rustix::process::setsid().expect("a session");
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let main = rustix::fs::open(terminals.join("ptmx"), flags, Mode::empty()).expect("a terminal");
        sys::unlock_terminal(main.as_fd());
        // The first terminal that a session's leader opens becomes its own.
        let _other =
            rustix::fs::open(terminals.join("0"), OFlags::RDWR, Mode::empty()).expect("its other end");
        sys::exec(&program, &["program"])
    });
    agent.expect(child.pid, "exec", &json!({"process": {"interactive": true, "tty.name": "pts/0"}}));
}
