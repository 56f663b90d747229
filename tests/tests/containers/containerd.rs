//! Containers of a bare containerd, which have names as those of runc.

use std::{fs, path::Path, process::Command};

use serde_json::json;
use tellwire_tests::{
    image,
    runtime::{self, Cgroups, Daemon},
};
use tempfile::TempDir;

use crate::{agent, expect_host, made_up_id};

const IMAGE: &str = "localhost/tellwire-test:1";

pub(crate) struct Containerd {
    // Fields are dropped in this order.
    _daemon: Daemon,
    folder: TempDir,
}

impl Containerd {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name| folder.path().join(name);
        let config = path("config.toml");
        let text = format!(
            "version = 2\n\
             root = \"{0}/root\"\n\
             state = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n\
             address = \"{0}/socket\"\n",
            folder.path().display()
        );
        fs::write(&config, text).expect("a configuration");
        let mut command = Command::new(runtime::program("containerd", "containerd"));
        command.arg("--config").arg(config);
        let mut daemon = Daemon::start_apart(command);
        daemon.until("containerd that answers", || {
            let (is_up, ..) = runtime::attempt(client(folder.path()).arg("version"));
            is_up.then_some(())
        });
        let (work, archive) = (path("image"), path("image.tar"));
        fs::create_dir(&work).expect("a folder");
        image::archive(IMAGE, &work, &archive);
        runtime::run(client(folder.path()).args(["images", "import"]).arg(archive));
        Self { _daemon: daemon, folder }
    }

    pub(crate) fn command(&self) -> Command {
        client(self.folder.path())
    }

    /// Runs a container to its end, in a cgroup.
    fn run(&self, cgroup: &str, name: &str, args: &[&str]) {
        let mut command = client(self.folder.path());
        command.args(["run", "--rm", "--fifo-dir"]).arg(self.folder.path().join("fifos"));
        command.args(["--cgroup", cgroup, IMAGE, name]);
        runtime::run(command.args(args));
    }
}

fn client(folder: &Path) -> Command {
    let mut command = Command::new(runtime::program("ctr", "containerd"));
    command.arg("--address").arg(folder.join("socket"));
    command
}

fn expect_container(
    cgroups: &Cgroups,
    containerd: &Containerd,
    agent: &tellwire_tests::Agent,
    below: &str,
    id: &str,
) {
    let args = ["/bin/sh", "-c", "/bin/usleep 50000; :", id];
    containerd.run(&cgroups.path(below), &format!("test-{}", id.len()), &args);
    let event = agent.expect(None, "exec", &json!({ "process.args": args, "container.id": id }));
    let pid = crate::pid(&event);
    agent.expect(pid, "exit", &json!({ "process.exit_code": 0, "container.id": id }));
}

#[test]
fn containers_of_containerd_are_named_by_name_and_by_id() {
    let (agent, cgroups) = agent();
    let containerd = Containerd::start();
    expect_container(&cgroups, &containerd, &agent, "web-6", "web-6");
    let id = made_up_id(0xc1);
    expect_container(&cgroups, &containerd, &agent, &format!("cri-containerd-{id}.scope"), &id);
    expect_host(&agent);
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
}
