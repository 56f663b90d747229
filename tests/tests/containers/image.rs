//! The agent's own image in a real docker and a real containerd, with what the manifests of `deploy/` give it.
//!
//! `TELLWIRE_IMAGE` names the folder that `cargo xtask image` wrote. containerd mounts what the kubelet asks for: the host's
//! root directory read-only, tracefs, a folder for notes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tellwire_tests::{
    Cgroup, at,
    runtime::{self, Cgroups},
    until, within_limit,
};
use tempfile::TempDir;

use crate::{containerd::Containerd, dockerd::Docker};

/// `defaultUnixCaps` of containerd's oci/spec.go, 1.6.
const DEFAULTS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

pub(crate) fn written() -> PathBuf {
    let folder = env::var_os("TELLWIRE_IMAGE");
    folder.expect("TELLWIRE_IMAGE: the folder that `cargo xtask image -o FOLDER` wrote").into()
}

pub(crate) fn archive() -> PathBuf {
    written().join(if cfg!(target_arch = "aarch64") { "tellwire-arm64.tar" } else { "tellwire-amd64.tar" })
}

fn version() -> String {
    format!("tellwire {}\n", env!("CARGO_PKG_VERSION"))
}

fn reference() -> String {
    format!("localhost/tellwire:{}", env!("CARGO_PKG_VERSION"))
}

fn load(docker: &Docker) {
    runtime::run(docker.command().arg("load").arg("--input").arg(archive()));
}

/// A container of the image that watches a cgroup until this value goes.
struct Pod<'a> {
    containerd: &'a Containerd,
    name: &'static str,
    /// `ctr`, which takes the container's output and passes signals on.
    client: process::Child,
    folder: TempDir,
}

impl<'a> Pod<'a> {
    fn start(
        containerd: &'a Containerd,
        watched: &Cgroup,
        cgroups: &Cgroups,
        name: &'static str,
        privileges: &[String],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let output = fs::File::create(folder.path().join("output")).expect("a file");
        let mut command = containerd.command();
        command.args(["run", "--rm", "--read-only", "--fifo-dir"]).arg(folder.path().join("fifos"));
        // A pid namespace that is joined is the host's; mounts, network and host name are its own.
        command.args(["--with-ns", "pid:/proc/self/ns/pid", "--cgroup", &cgroups.path(name)]);
        let notes =
            format!("type=bind,src={},dst=/var/lib/tellwire,options=rbind:rw", folder.path().display());
        let mounts = [
            "type=bind,src=/,dst=/host,options=rbind:ro",
            "type=bind,src=/sys/kernel/tracing,dst=/sys/kernel/tracing,options=rbind:rw",
            &notes,
        ];
        command.args(mounts.iter().flat_map(|mount| ["--mount", mount]));
        command.args(privileges).args([&reference(), name, "/tellwire", "run", "--host-root=/host"]);
        let cgroup = watched.path().file_name().and_then(|name| name.to_str()).expect("a cgroup's name");
        command.args(["--json", "--profile=full", "--listen=0.0.0.0:9477", "--cgroup", cgroup]);
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a descriptor")).stderr(output);
        let client = command.spawn().expect("ctr");
        let pod = Self { containerd, name, client, folder };
        pod.line("agent_started");
        pod
    }

    /// Its stdout and its stderr.
    fn logs(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// The first line of an action.
    fn line(&self, action: &str) -> Value {
        let mut logs = String::new();
        let found = within_limit(|| {
            logs = self.logs();
            let mut lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| is(line, action))
        });
        found.unwrap_or_else(|| panic!("no {action} in:\n{logs}"))
    }

    /// Ends it as the kubelet does; gives its exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.client.id().cast_signed()).expect("a process id");
        kill_process(pid, Signal::TERM).expect("a signal");
        let status = until("the container's end", || self.client.try_wait().expect("its status"));
        status.code()
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let kill = ["task", "kill", "--signal", "SIGKILL", self.name];
        let _ended = runtime::attempt(self.containerd.command().args(kill));
        let _status = self.client.wait();
    }
}

fn is(line: &Value, action: &str) -> bool {
    at(line, "event.action").and_then(Value::as_str) == Some(action)
}

/// Runs a program in a cgroup.
fn work(cgroup: &Path) {
    let script = format!("echo $$ > {}/cgroup.procs && exec /bin/true of-the-image-test", cgroup.display());
    runtime::run(Command::new("/bin/sh").args(["-c", &script]));
}

/// An agent in a container sees the host, by its name, and nothing is missing.
fn sees_the_host(name: &'static str, privileges: &[String]) {
    let containerd = Containerd::start();
    runtime::run(containerd.command().args(["images", "import"]).arg(archive()));
    let (watched, cgroups) = (Cgroup::new(), Cgroups::named(name));
    let mut pod = Pod::start(&containerd, &watched, &cgroups, name, privileges);
    let said = pod.logs();
    assert!(!said.contains("probe not attached"), "{said}");
    work(watched.path());
    let exec = pod.line("exec");
    assert_eq!(exec.pointer("/process/args/1"), Some(&"of-the-image-test".into()));
    let host = fs::read_to_string("/etc/hostname").expect("the host's name");
    assert_eq!(at(&exec, "host.name").and_then(Value::as_str), Some(host.trim()));
    assert_eq!(at(&exec, "user.name").and_then(Value::as_str), Some("root"));
    assert_eq!(pod.stop(), Some(0), "{}", pod.logs());
    pod.line("agent_stopped");
}

#[test]
fn the_image_runs_in_docker_and_says_its_version() {
    let docker = Docker::shared();
    load(&docker);
    let reference = reference();
    let said = runtime::run(docker.command().args([
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        &reference,
        "version",
    ]));
    assert_eq!(said, version());
    let label = "{{index .Config.Labels \"org.opencontainers.image.version\"}} {{len .RootFS.Layers}}";
    let said = runtime::run(docker.command().args(["image", "inspect", "--format", label, &reference]));
    assert_eq!(said.trim(), format!("{} 1", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_image_runs_in_containerd_from_its_layout_and_from_its_archive() {
    let containerd = Containerd::start();
    for (number, file) in [written().join("tellwire-oci.tar"), archive()].into_iter().enumerate() {
        // Only this machine's platform may be there, or both.
        runtime::run(containerd.command().args(["images", "import"]).arg(file));
        let name = format!("version-{number}");
        let mut command = containerd.command();
        command.args(["run", "--rm", &reference(), &name, "/tellwire", "version"]);
        assert_eq!(runtime::run(&mut command), version());
    }
    let digest = fs::read_to_string(written().join("digest")).expect("the digest");
    let images = runtime::run(containerd.command().args(["images", "list"]));
    assert!(images.contains(&reference()) && digest.starts_with("sha256:"), "{images}");
}

/// All capabilities that there are, devices and no masks.
#[test]
fn the_image_sees_the_host_as_a_privileged_pod() {
    sees_the_host("privileged", &["--privileged".to_owned()]);
}

#[test]
fn the_image_sees_the_host_with_the_capabilities_of_the_manifests() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/capabilities/daemonset.yaml");
    let manifest = fs::read_to_string(path).expect("the manifest");
    let (_, added) = manifest.split_once("add:\n").expect("capabilities that are added");
    let added: Vec<&str> = added.lines().filter_map(|line| line.trim().strip_prefix("- ")).collect();
    assert!(added.len() > 3 && added.contains(&"BPF"), "{added:?}");
    // What containerd gives where nobody asks, from which the manifest begins by dropping ALL.
    let dropped = DEFAULTS.iter().filter(|name| !added.contains(name));
    let dropped = dropped.map(|name| format!("--cap-drop=CAP_{name}"));
    let added = added.iter().filter(|name| !DEFAULTS.contains(name));
    sees_the_host(
        "capabilities",
        &dropped.chain(added.map(|name| format!("--cap-add=CAP_{name}"))).collect::<Vec<_>>(),
    );
}
