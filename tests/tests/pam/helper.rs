//! The helper: compiled once, in two forms; here, or where this binary was packed for a machine without a compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;
use tellwire_tests::{Agent, Child, in_vm, runtime};

/// How the helper comes to the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Linked with it, as most programs are.
    Linked,
    /// It opens it, as `sudo` does.
    Opens,
}

/// The programs and the stacks, in a folder that stays as long as the test binary runs.
struct Made {
    folder: tempfile::TempDir,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        if in_vm() {
            take(folder.path());
        } else {
            compile(folder.path());
        }
        stacks(folder.path());
        Made { folder }
    })
}

fn compile(folder: &Path) {
    let source = folder.join("helper.c");
    fs::write(&source, include_str!("helper.c")).expect("the helper's source");
    for (form, flags) in [(Form::Linked, &["-DLINKED", "-lpam"][..]), (Form::Opens, &["-ldl"])] {
        let mut compile = Command::new(runtime::program("gcc", "gcc libc6-dev libpam0g-dev"));
        compile.args(["-Wall", "-Werror", "-O1", "-o"]).arg(folder.join(name(form))).arg(&source);
        runtime::run(compile.args(flags));
    }
}

/// `cargo xtask vm` puts them beside the test binaries (`xtask/src/vm/guest/userland.rs`).
fn take(folder: &Path) {
    let tests = env::current_exe().expect("this binary's path");
    for form in [Form::Linked, Form::Opens] {
        fs::copy(tests.with_file_name(name(form)), folder.join(name(form))).expect("a program of the guest");
    }
}

fn name(form: Form) -> &'static str {
    match form {
        Form::Linked => "helper-linked",
        Form::Opens => "helper-opens",
    }
}

/// Writes the stacks of the services that the tests use.
pub(crate) fn stacks(folder: &Path) {
    let stack = |auth: &str, account: &str| {
        format!(
            "auth {auth}\naccount {account}\nsession required pam_permit.so\npassword required pam_permit.so\n"
        )
    };
    let permit = "required pam_permit.so";
    let deny = "required pam_deny.so";
    for (service, text) in [
        ("sshd", stack(permit, permit)),
        ("sudo", stack(permit, permit)),
        ("refuses", stack(deny, permit)),
        ("login", stack(deny, permit)),
        ("locked", stack(permit, deny)),
        ("unix", stack("required pam_unix.so nodelay", permit)),
        (
            "nothing",
            "session required pam_deny.so\npassword required pam_deny.so\nauth required pam_deny.so\n".into(),
        ),
    ] {
        fs::write(folder.join(service), text).expect("a stack");
    }
}

/// The folder with the stacks.
pub(crate) fn confdir() -> &'static Path {
    made().folder.path()
}

pub(crate) fn path(form: Form) -> PathBuf {
    made().folder.path().join(name(form))
}

/// A transaction of a service and a user, with what is done in it.
pub(crate) fn command(form: Form, service: &str, user: &str, steps: &[&str]) -> Command {
    let mut command = Command::new(path(form));
    command.arg(confdir()).args([service, user]).args(steps).stdout(std::process::Stdio::null());
    command
}

/// Runs a transaction to its end; gives the process.
pub(crate) fn run(agent: &Agent, service: &str, user: &str, steps: &[&str]) -> u32 {
    agent.run(&mut command(Form::Linked, service, user, steps))
}

/// Runs a command, and waits until all of it is told.
pub(crate) fn settle(agent: &Agent, command: &mut Command) -> Child {
    let mut child = agent.spawn(command);
    agent.settle(&mut child);
    child
}

/// The PAM lines so far.
pub(crate) fn lines(agent: &Agent) -> Vec<Value> {
    let is_call =
        |event: &Value| event["event"]["action"].as_str().is_some_and(|action| action.starts_with("pam_"));
    agent.events().into_iter().filter(is_call).collect()
}
