//! Programs that bring other ids by right, and what must not be taken for an attack.

use std::{os::unix::fs::chown, path::PathBuf};

use rustix::{
    fs::{XattrFlags, setxattr},
    mount::{MountFlags, mount},
};
use serde_json::json;
use tellwire_tests::{Agent, program, program::Program, sys};

/// The owner of the program, and who runs it.
const OWNER: u32 = 1234;
const CALLER: u32 = 1000;

/// `struct vfs_cap_data`, `include/uapi/linux/capability.h` of v6.18: revision 2 with the effective bit, and
/// `CAP_NET_BIND_SERVICE` permitted.
const BINDS: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn program(name: &str, mode: u32) -> PathBuf {
    let program = Agent::shared().subfolder(name).join("program");
    write(&program, mode);
    program
}

fn write(program: &PathBuf, mode: u32) {
    Program::Exit(0).write(program);
    chown(program, Some(OWNER), Some(OWNER)).expect("another owner");
    program::set_mode(program, mode);
}

#[test]
fn a_set_user_id_program_changes_ids_by_right() {
    let program = program("set-uid", 0o4755);
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        sys::become_user(CALLER);
        sys::exec(&program, &["program"])
    });
    agent.settle(&mut child);
    agent.expect(
        child.pid,
        "exec",
        &json!({
            "process": {
                "user.id": "1234", "real_user.id": "1000", "saved_user.id": "1234",
                "group.id": "1000", "real_group.id": "1000", "saved_group.id": "1000",
            },
            "user.id": "1234",
            "tellwire.exec": {"set_id": ["setuid"], "secure": true, "owner": {"uid": "1234", "gid": "1234"}},
        }),
    );
    agent.expect(child.pid, "exit", &json!({"user.id": "1234"}));
    assert_eq!(agent.events_of(child.pid, "credentials_changed"), [json!(null); 0]);
}

#[test]
fn a_set_group_id_program_changes_ids_by_right() {
    let program = program("set-gid", 0o2755);
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        sys::become_user(CALLER);
        sys::exec(&program, &["program"])
    });
    agent.settle(&mut child);
    let process =
        json!({"user.id": "1000", "group.id": "1234", "real_group.id": "1000", "saved_group.id": "1234"});
    let exec = json!({"set_id": ["setgid"], "secure": true});
    agent.expect(child.pid, "exec", &json!({"process": process, "tellwire.exec": exec}));
    assert_eq!(agent.events_of(child.pid, "credentials_changed"), [json!(null); 0]);
}

/// It brings capabilities, and leaves the ids as they are.
#[test]
fn a_program_with_file_capabilities_is_no_attack() {
    let program = program("file-capabilities", 0o755);
    setxattr(&program, "security.capability", &BINDS, XattrFlags::empty()).expect("file capabilities");
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        sys::become_user(CALLER);
        sys::exec(&program, &["program"])
    });
    agent.settle(&mut child);
    let capabilities = json!(["CAP_NET_BIND_SERVICE"]);
    agent.expect(
        child.pid,
        "exec",
        &json!({
            "process": {
                "user.id": "1000", "real_user.id": "1000", "saved_user.id": "1000",
                "thread.capabilities": {"effective": capabilities, "permitted": capabilities},
            },
            "tellwire.exec": {"set_id": null, "secure": true},
        }),
    );
    agent.expect(child.pid, "exit", &json!({"user.id": "1000"}));
    assert_eq!(agent.events_of(child.pid, "credentials_changed"), [json!(null); 0]);
}

#[test]
fn a_set_id_program_on_a_file_system_that_ignores_it_changes_nothing() {
    let agent = Agent::shared();
    let folder = agent.subfolder("nosuid");
    let program = folder.join("program");
    let mut child = agent.fork(|| {
        sys::private_mounts().expect("mounts of its own");
        mount("none", &folder, "tmpfs", MountFlags::NOSUID, None).expect("a file system");
        write(&program, 0o4755);
        sys::become_user(CALLER);
        sys::exec(&program, &["program"])
    });
    agent.settle(&mut child);
    let exec = json!({"set_id": ["setuid"], "secure": null});
    agent.expect(child.pid, "exec", &json!({"process.user.id": "1000", "tellwire.exec": exec}));
    assert_eq!(agent.events_of(child.pid, "credentials_changed"), [json!(null); 0]);
}

#[test]
fn a_script_with_set_id_bits_changes_nothing() {
    let interpreter = program("set-uid-script", 0o755);
    let script = interpreter.with_file_name("script");
    program::write(&script, format!("#!{}\n", interpreter.display()).as_bytes(), 0o755);
    chown(&script, Some(OWNER), Some(OWNER)).expect("another owner");
    program::set_mode(&script, 0o4755);
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        sys::become_user(CALLER);
        sys::exec(&script, &["script"])
    });
    agent.settle(&mut child);
    let fields =
        json!({"process": {"user.id": "1000", "executable": interpreter}, "tellwire.exec.script": script});
    agent.expect(child.pid, "exec", &fields);
    assert_eq!(agent.events_of(child.pid, "credentials_changed"), [json!(null); 0]);
}
