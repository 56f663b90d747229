//! What looks like an unexplained change and is none: threads with ids of their own, user namespaces.

use std::{fs, sync::mpsc, thread};

use rustix::thread::UnshareFlags;
use serde_json::json;
use tellwire_tests::{Agent, fork, net, program::Program, sys};

use crate::{Ids, assert_explained};

/// For the kernel, ids belong to a thread; the C library makes it look otherwise.
#[test]
fn a_thread_can_have_ids_of_its_own() {
    let agent = Agent::shared();
    let server = net::Server::start(std::net::Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut child = agent.fork(|| {
        let connect = move || drop(std::net::TcpStream::connect(to).expect("a connection"));
        connect();
        let (go, gone) = mpsc::channel();
        let thread = thread::spawn(move || {
            sys::credential_call(libc::SYS_setresuid, [KEPT, 1000, KEPT]).expect("root may");
            connect();
            // One that it makes inherits its ids.
            thread::spawn(connect).join().expect("a thread");
            go.send(()).expect("someone who waits");
            rustix::thread::gettid().as_raw_pid()
        });
        gone.recv().expect("the thread");
        connect();
        thread.join().expect("the thread")
    });
    agent.settle(&mut child);
    let new = Ids { euid: 1000, fsuid: 1000, ..Ids::ROOT };
    let calls = agent.events_of(child.pid, "setresuid");
    assert_eq!(calls.len(), 1);
    let users: Vec<_> =
        agent.events_of(child.pid, "connect").iter().map(|event| event["user"]["id"].clone()).collect();
    assert_eq!(users, ["0", "1000", "1000", "0"]);
    assert_explained(agent, &mut child);
    let pid = child.pid;
    let thread = child.join();
    agent.expect(
        pid,
        "setresuid",
        &json!({"process.thread.id": thread, "tellwire.credentials.new": new.told()}),
    );
    // The leader is root to the end.
    agent.expect(pid, "exit", &json!({"user.id": "0"}));
}

const KEPT: u32 = u32::MAX;

#[test]
fn the_c_library_s_call_changes_every_thread_and_explains_it() {
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        let (go, gone) = mpsc::channel::<()>();
        let thread = thread::spawn(move || gone.recv().expect_err("the end"));
        sys::setuid_of_all_threads(1000);
        drop(go);
        thread.join().expect("the thread");
    });
    assert_explained(agent, &mut child);
    assert_eq!(agent.events_of(child.pid, "setuid").len(), 2);
    agent.expect(child.pid, "exit", &json!({"user.id": "1000"}));
    child.join();
}

/// login of util-linux does so: its child has a saved group of its own.
#[test]
fn an_exec_gives_saved_ids_up_and_takes_those_of_the_thread_that_calls_it() {
    let agent = Agent::shared();
    let program = agent.subfolder("saved-ids").join("program");
    Program::Exit(0).write(&program);
    let mut saved = agent.fork(|| {
        sys::credential_call(libc::SYS_setresgid, [0, 0, 4321]).expect("root may");
        sys::exec(&program, &["program"])
    });
    let mut of_a_thread = agent.fork(|| {
        let thread = thread::spawn(move || {
            sys::credential_call(libc::SYS_setresgid, [4321; 3]).expect("root may");
            sys::exec(&program, &["program"])
        });
        thread.join().map(drop).expect("it becomes the program");
    });
    for (child, gid) in [(&mut saved, "0"), (&mut of_a_thread, "4321")] {
        agent.settle(child);
        agent.expect(child.pid, "exec", &json!({"process.group.id": gid}));
        assert_eq!(agent.events_of(child.pid, "credentials_changed"), [json!(null); 0]);
    }
}

#[test]
fn a_user_namespace_is_no_change_and_ids_are_the_host_s() {
    let agent = Agent::shared();
    let folder = agent.subfolder("user-namespace");
    let program = folder.join("program");
    Program::Exit(0).write(&program);
    let mut child = agent.fork(|| {
        let inside = fork(|| {
            sys::unshare(UnshareFlags::NEWUSER).expect("a user namespace");
            fs::write(folder.join("unshared"), "").expect("a sign");
            tellwire_tests::until("a map", || folder.join("mapped").exists().then_some(()));
            // Root inside is 100000 outside.
            sys::credential_call(libc::SYS_setresgid, [0; 3]).expect("mapped");
            sys::credential_call(libc::SYS_setresuid, [0; 3]).expect("mapped");
            sys::credential_call(libc::SYS_setuid, [7, 0, 0]).expect("mapped");
            sys::exec(&program, &["program"])
        });
        tellwire_tests::until("a namespace", || folder.join("unshared").exists().then_some(()));
        for map in ["gid_map", "uid_map"] {
            fs::write(format!("/proc/{}/{map}", inside.pid), "0 100000 65536").expect("a map");
        }
        fs::write(folder.join("mapped"), "").expect("a sign");
        let pid = inside.pid;
        inside.join();
        pid
    });
    agent.settle(&mut child);
    let pid = child.join().as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    let credentials =
        json!({"asked": ["0", "0", "0"], "old.uid": "0", "new": {"uid": "100000", "euid": "100000"}});
    agent.expect(pid, "setresuid", &json!({"user.id": "100000", "tellwire.credentials": credentials}));
    let credentials =
        json!({"asked": ["7"], "old.uid": "100000", "new": {"uid": "100007", "suid": "100007"}});
    agent.expect(pid, "setuid", &json!({"tellwire.credentials": credentials}));
    agent.expect(pid, "exec", &json!({"process.user.id": "100007"}));
    assert_eq!(agent.events_of(pid, "credentials_changed"), [json!(null); 0]);
}
