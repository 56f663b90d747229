//! Paths: the file that runs, wherever it lies and however it was named.

use std::{env, ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, os::unix::fs::symlink, path::Path};

use rustix::{
    fs::{CWD, Mode, mkdirat},
    mount::{MountFlags, mount, mount_bind},
    process::fchdir,
};
use serde_json::json;
use tellwire_tests::{Agent, in_vm, is_degraded, program, program::Program, sys};

use crate::{folder_with_program, text};

#[test]
fn a_relative_path_and_a_symlink_are_resolved() {
    let (folder, program) = folder_with_program("links");
    symlink("program", folder.join("link")).expect("a link");
    let agent = Agent::shared();
    let child = agent.fork(|| {
        env::set_current_dir(&folder).expect("the folder");
        sys::exec(Path::new("./link"), &["link"])
    });
    agent.expect(
        child.pid,
        "exec",
        &json!({
            "process": {"executable": program, "working_directory": folder, "name": "link"},
            "tellwire.exec.filename": "./link",
        }),
    );
}

#[test]
fn the_root_is_a_working_directory() {
    let (_folder, program) = folder_with_program("root");
    let agent = Agent::shared();
    let child = agent.fork(|| {
        env::set_current_dir("/").expect("the root");
        sys::exec(&program, &["program"])
    });
    agent.expect(child.pid, "exec", &json!({"process": {"executable": program, "working_directory": "/"}}));
}

#[test]
fn a_bind_mount_has_the_path_of_its_mount_point() {
    let (folder, _program) = folder_with_program("bind");
    let (outer, inner) = (folder.join("outer"), folder.join("outer/inner"));
    let agent = Agent::shared();
    fs::create_dir_all(&inner).expect("a folder");
    let child = agent.fork(|| {
        sys::private_mounts().expect("mounts of its own");
        mount_bind(&folder, &inner).expect("a bind mount");
        // A mount in a mount, and one on top of it.
        mount_bind(&folder, inner.join("outer")).expect("a bind mount");
        mount_bind(&folder, inner.join("outer")).expect("a bind mount");
        env::set_current_dir(inner.join("outer")).expect("the innermost folder");
        sys::exec(&inner.join("outer/program"), &["program"])
    });
    let process =
        json!({"executable": inner.join("outer/program"), "working_directory": outer.join("inner/outer")});
    agent.expect(child.pid, "exec", &json!({ "process": process }));
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever looks must see that it is left out")]
fn an_overlay_says_what_is_not_in_the_image() {
    if in_vm() && !fs::read_to_string("/proc/filesystems").expect("file systems").contains("overlay") {
        // Debian's kernels have it as a module, and the emulated machine has no modules.
        eprintln!("not tested: this kernel has no overlay");
        return;
    }
    let agent = Agent::shared();
    let folder = agent.subfolder("overlay");
    let child = |name: &'static str| {
        let folder = &folder;
        agent.fork(move || {
            sys::private_mounts().expect("mounts of its own");
            mount("none", folder, "tmpfs", MountFlags::empty(), None).expect("a file system for the layers");
            for layer in ["lower", "upper", "work", "merged"] {
                fs::create_dir(folder.join(layer)).expect("a layer");
            }
            Program::Exit(0).write(folder.join("lower/from-image"));
            env::set_current_dir(folder).expect("the folder");
            let options = c"lowerdir=lower,upperdir=upper,workdir=work";
            mount("overlay", "merged", "overlay", MountFlags::empty(), Some(options)).expect("an overlay");
            Program::Exit(0).write(folder.join("merged/dropped"));
            sys::exec(&folder.join("merged").join(name), &["program"])
        })
    };
    for (name, not_in_image) in [("from-image", false), ("dropped", true)] {
        let child = child(name);
        let exec = json!({ "not_in_image": not_in_image });
        let executable = folder.join("merged").join(name);
        agent.expect(child.pid, "exec", &json!({"process.executable": executable, "tellwire.exec": exec}));
    }
}

#[test]
fn a_path_of_almost_4096_bytes_is_whole() {
    let agent = Agent::shared();
    let folder = agent.subfolder("long");
    // The longest that a path may be is 4095 bytes.
    let room = 4095 - folder.as_os_str().len() - "/program".len();
    let (names, rest) = (room / 251, room % 251);
    let lengths: Vec<usize> = std::iter::repeat_n(250, names).chain((rest > 1).then(|| rest - 1)).collect();
    let path = deep(&folder, &lengths);
    assert!((4094..=4095).contains(&(path.len() + "/program".len())), "{}", path.len());
    let child = agent.fork(|| {
        enter(&folder, &lengths);
        program::write("program", &Program::Exit(0).elf(), 0o755);
        sys::exec(Path::new("./program"), &["program"])
    });
    agent.expect(
        child.pid,
        "exec",
        &json!({
            "process": {"executable": format!("{path}/program"), "working_directory": path},
            "tellwire.exec.path_truncated": null,
        }),
    );
}

#[test]
fn a_path_longer_than_any_call_takes_is_whole_or_said_to_be_cut() {
    let agent = Agent::shared();
    for (name, lengths) in [("deepest", vec![1; 300]), ("longest", vec![255; 40])] {
        let folder = agent.subfolder(name);
        let path = deep(&folder, &lengths);
        let child = agent.fork(|| {
            enter(&folder, &lengths);
            program::write("program", &Program::Exit(0).elf(), 0o755);
            sys::exec(Path::new("./program"), &["program"])
        });
        let event = agent.expect(child.pid, "exec", &json!({"process.args": ["program"]}));
        let executable = text(&event, "process.executable");
        let is_whole =
            executable == format!("{path}/program") && text(&event, "process.working_directory") == path;
        let is_cut = event["tellwire"]["exec"]["path_truncated"] == true;
        assert!(is_whole != is_cut, "{} letters, cut: {is_cut}", executable.len());
        assert!(is_whole || is_degraded("paths_of_many_names"), "{} letters", executable.len());
        // The names nearest to the file are what is kept.
        assert!(executable.ends_with(&format!("{}/program", "d".repeat(lengths[0]))), "{executable}");
    }
}

/// The path of folders with names of these lengths.
fn deep(folder: &Path, lengths: &[usize]) -> String {
    let names = lengths.iter().map(|length| format!("/{}", "d".repeat(*length)));
    format!("{}{}", folder.display(), names.collect::<String>())
}

/// Makes the folders and enters them one by one: no call takes so long a path.
fn enter(folder: &Path, lengths: &[usize]) {
    env::set_current_dir(folder).expect("the folder");
    for length in lengths {
        let name = "d".repeat(*length);
        mkdirat(CWD, &name, Mode::from_raw_mode(0o755)).expect("a folder");
        let entered =
            rustix::fs::open(&name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).expect("the folder");
        fchdir(entered).expect("entering it");
    }
}

#[test]
fn awkward_names_of_files_keep_a_line_one_line() {
    let agent = Agent::shared();
    let folder = agent.subfolder("awkward");
    let name = b"new\nline \"quote\" \x1b[31m \xff \\xff";
    let told = "new\nline \"quote\" \u{1b}[31m \\xff \\\\xff";
    let program = folder.join(OsStr::from_bytes(name));
    Program::Exit(0).write(&program);
    let child = agent.exec(&program, &["program"]);
    let path = format!("{}/{told}", folder.display());
    agent.expect(
        child.pid,
        "exec",
        &json!({"process": {"executable": path, "name": "new\nline \"quote"}, "tellwire.exec.filename": path}),
    );
}
