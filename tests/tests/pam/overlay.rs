//! Files that are one and look like two, and files that become another: overlay mounts, and what is copied up.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;
use tellwire_tests::{Agent, Overlay, runtime, runtime::libpam, until};

use crate::helper::{Form, command, lines};

fn library_of(overlay: &Overlay) -> PathBuf {
    overlay.0.join("usr/lib/libpam.so.0")
}

/// A process that has this directory for its root, in the watched cgroup: a container as far as the agent can tell.
/// It ends with this value.
pub(crate) struct Inhabitant(Child);

impl Inhabitant {
    pub(crate) fn new(agent: &Agent, root: &Path) -> Self {
        let mut shell = Command::new(runtime::program("sh", "dash"));
        // The shell enters the cgroup, and what it becomes makes an exec under the new root.
        shell.args(["-c", "echo 0 > \"$1/cgroup.procs\" && exec chroot \"$2\" /bin/cat", "sh"]);
        shell.arg(agent.cgroup()).arg(root).stdin(Stdio::piped()).stdout(Stdio::null());
        Self(shell.spawn().expect("a process with another root"))
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        // It reads until there is nothing to read.
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

/// A root directory with a library and a program.
pub(crate) fn root(folder: &Path) {
    tellwire_tests::image::root_directory(folder);
    fs::create_dir_all(folder.join("usr/lib")).expect("a folder");
    fs::copy(libpam(), folder.join("usr/lib/libpam.so.0")).expect("copying the library");
}

fn authenticate(agent: &Agent, library: &Path) -> u32 {
    let mut command = command(Form::Opens, "sshd", "root", &["auth"]);
    agent.run(command.env("PAM_LIBRARY", library))
}

#[test]
fn a_file_in_two_overlays_is_attached_to_once_and_told_once() {
    let agent = Agent::start();
    let before = agent.metric("tellwire_libraries_attached", &[]);
    let lower = agent.subfolder("lower");
    root(&lower);
    let (one, two) =
        (Overlay::new(agent.folder(), "one", &lower), Overlay::new(agent.folder(), "two", &lower));
    let device = |overlay: &Overlay| fs::metadata(library_of(overlay)).expect("the library").dev();
    assert_ne!(device(&one), device(&two));
    let (first, second) = (Inhabitant::new(&agent, &one.0), Inhabitant::new(&agent, &two.0));
    agent.expect_metric("tellwire_library_roots", &[], 3);
    agent.expect_metric("tellwire_libraries_attached", &[], before + 1);
    for overlay in [&one, &two, &one, &two] {
        let pid = authenticate(&agent, &library_of(overlay));
        agent.expect(pid, "pam_authenticate", &json!({"user.name": "root"}));
        assert_eq!(agent.events_of(pid, "pam_authenticate").len(), 1);
    }
    agent.expect_metric("tellwire_auth_attempts_total", &[("service", "sshd"), ("outcome", "success")], 4);
    // The one whose path was used goes, and the other is seen all the same.
    drop(first);
    agent.expect_metric("tellwire_library_roots", &[], 2);
    let pid = authenticate(&agent, &library_of(&two));
    agent.expect(pid, "pam_authenticate", &json!({"user.name": "root"}));
    drop(second);
    agent.expect_metric("tellwire_libraries_attached", &[], before);
    agent.expect_metric("tellwire_library_attachments_total", &[("outcome", "released")], 1);
}

#[test]
fn a_file_that_is_copied_up_or_replaced_is_attached_to_again() {
    let agent = Agent::start();
    let lower = agent.subfolder("lower");
    root(&lower);
    let overlay = Overlay::new(agent.folder(), "one", &lower);
    let _inhabitant = Inhabitant::new(&agent, &overlay.0);
    agent.expect_metric("tellwire_library_roots", &[], 2);
    let pid = authenticate(&agent, &library_of(&overlay));
    agent.expect(pid, "pam_authenticate", &json!({"user.name": "root"}));
    let attached = |count| {
        agent.expect_metric("tellwire_library_attachments_total", &[("outcome", "attached")], count);
    };
    attached(2);
    // A write copies it up: another inode, which no probe is on.
    let mode = fs::metadata(library_of(&overlay)).expect("the library").permissions();
    fs::set_permissions(library_of(&overlay), mode).expect("a change");
    attached(3);
    let pid = authenticate(&agent, &library_of(&overlay));
    agent.expect(pid, "pam_authenticate", &json!({"user.name": "root"}));
    // As package managers do.
    let new = overlay.0.join("usr/lib/libpam.new");
    fs::copy(libpam(), &new).expect("copying the library");
    fs::rename(new, library_of(&overlay)).expect("replacing the library");
    attached(4);
    let pid = authenticate(&agent, &library_of(&overlay));
    agent.expect(pid, "pam_authenticate", &json!({"user.name": "root"}));
    assert_eq!(lines(&agent).len(), 3);
}

#[test]
fn what_cannot_be_attached_to_is_said() {
    let agent = Agent::start();
    let folder = agent.subfolder("odd");
    root(&folder);
    fs::write(folder.join("usr/lib/libpam.so.0"), "no library").expect("a file");
    let _inhabitant = Inhabitant::new(&agent, &folder);
    agent.expect_metric("tellwire_library_attachments_total", &[("outcome", "refused")], 1);
    until("the agent is ready all the same", || (agent.get("/readyz").0 == 200).then_some(()));
}
