//! What a program can be that is no plain file: a script, a descriptor, memory, a file without a name.

use std::{env, fs, io::Write as _, os::fd::AsFd as _, path::Path};

use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use tellwire_tests::{Agent, compat, program, program::Program, sys};

use crate::{folder_with_program, text};

#[test]
fn a_script_is_told_with_its_interpreter() {
    let (folder, interpreter) = folder_with_program("script");
    let script = folder.join("script");
    program::write(&script, format!("#!{} -x\nanything\n", interpreter.display()).as_bytes(), 0o755);
    let agent = Agent::shared();
    let child = agent.exec(&script, &["whatever", "", "one"]);
    agent.expect(
        child.pid,
        "exec",
        &json!({
            "process": {
                "executable": interpreter, "name": "script",
                "args": [interpreter, "-x", script, "", "one"], "args_count": 5,
            },
            "tellwire.exec": {"filename": script, "script": script, "interpreter": interpreter},
        }),
    );
}

#[test]
fn a_script_that_was_named_by_a_relative_path_has_an_absolute_one() {
    let (folder, interpreter) = folder_with_program("relative-script");
    let script = folder.join("script");
    program::write(&script, format!("#! {}\n", interpreter.display()).as_bytes(), 0o755);
    let agent = Agent::shared();
    let child = agent.fork(|| {
        env::set_current_dir(&folder).expect("the folder");
        sys::exec(Path::new("./script"), &["script"])
    });
    let exec = json!({"filename": "./script", "script": script, "interpreter": interpreter});
    agent.expect(child.pid, "exec", &json!({"process.executable": interpreter, "tellwire.exec": exec}));
}

#[test]
fn a_script_whose_interpreter_is_a_script_runs_what_is_told() {
    let (folder, interpreter) = folder_with_program("nested-script");
    let (inner, outer) = (folder.join("inner"), folder.join("outer"));
    program::write(&inner, format!("#!{}\n", interpreter.display()).as_bytes(), 0o755);
    program::write(&outer, format!("#!{}\n", inner.display()).as_bytes(), 0o755);
    let agent = Agent::shared();
    let child = agent.exec(&outer, &["outer"]);
    agent.expect(
        child.pid,
        "exec",
        &json!({
            "process": {"executable": interpreter, "args": [interpreter, inner, outer]},
            "tellwire.exec": {"script": outer, "interpreter": interpreter},
        }),
    );
}

#[test]
fn a_descriptor_is_told_by_the_path_of_its_file() {
    let (_folder, program) = folder_with_program("descriptor");
    let agent = Agent::shared();
    let child = agent.fork(|| {
        let file = fs::File::open(&program).expect("the program");
        sys::exec_descriptor(file.as_fd(), &["by descriptor"])
    });
    let event = agent.expect(
        child.pid,
        "exec",
        &json!({"process": {"executable": program, "args": ["by descriptor"]}, "tellwire.exec.unlinked": null}),
    );
    let filename = text(&event, "tellwire.exec.filename");
    assert!(filename.starts_with("/dev/fd/") || filename.starts_with("/proc/self/fd/"), "{event}");
}

#[test]
fn a_memfd_is_told_as_one() {
    let agent = Agent::shared();
    let child = agent.fork(|| {
        let memory = memfd_create("payload", MemfdFlags::CLOEXEC).expect("a memfd");
        fs::File::from(memory.try_clone().expect("a descriptor"))
            .write_all(&Program::Exit(0).elf())
            .expect("a program");
        sys::exec_descriptor(memory.as_fd(), &["[kworker/0:1]"])
    });
    agent.expect(
        child.pid,
        "exec",
        &json!({
            "process": {"executable": "memfd:payload", "args": ["[kworker/0:1]"]},
            "tellwire.exec.unlinked": "memfd",
        }),
    );
}

#[test]
fn a_file_that_only_looks_like_a_memfd_is_none() {
    let agent = Agent::shared();
    let program = agent.subfolder("looks").join("memfd:payload");
    Program::Exit(0).write(&program);
    let child = agent.fork(|| {
        let file = fs::File::open(&program).expect("the program");
        fs::remove_file(&program).expect("removing it");
        sys::exec_descriptor(file.as_fd(), &["deleted"])
    });
    agent.expect(
        child.pid,
        "exec",
        &json!({"process.executable": program, "tellwire.exec.unlinked": "deleted"}),
    );
}

#[test]
fn a_deleted_file_keeps_its_path() {
    let (_folder, program) = folder_with_program("deleted");
    let agent = Agent::shared();
    let child = agent.fork(|| {
        let file = fs::File::open(&program).expect("the program");
        fs::remove_file(&program).expect("removing it");
        sys::exec_descriptor(file.as_fd(), &["deleted"])
    });
    agent.expect(
        child.pid,
        "exec",
        &json!({"process.executable": program, "tellwire.exec.unlinked": "deleted"}),
    );
}

#[test]
fn a_32_bit_program_is_told_like_any_other() {
    if !compat::runs() {
        return;
    }
    let agent = Agent::shared();
    let program = agent.subfolder("32-bit").join("program");
    compat::write(&program, &[]);
    let mut child = agent.exec(&program, &["program", "", "last"]);
    let process = json!({"executable": program, "args": ["program", "", "last"], "args_count": 3});
    agent.expect(child.pid, "exec", &json!({ "process": process }));
    assert!(child.wait().success());
    agent.expect(child.pid, "exit", &json!({"process.exit_code": 0}));
}
