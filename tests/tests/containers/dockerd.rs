//! A docker of the test's own: its daemon, its images and its containers go with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tellwire_tests::{
    image,
    runtime::{self, Cgroups, Daemon},
};
use tempfile::TempDir;

const IMAGE: &str = "localhost/tellwire-test:1";

pub(crate) struct Docker {
    // Fields are dropped in this order.
    daemon: Daemon,
    folder: TempDir,
}

impl Docker {
    /// One daemon for the tests that run at the same time.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Docker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let docker = Arc::new(Self::start());
            *shared = Arc::downgrade(&docker);
            docker
        })
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("daemon.json");
        fs::write(&config, "{}").expect("a configuration");
        let mut command = Command::new(runtime::program("dockerd", "docker.io"));
        command.arg("--config-file").arg(config);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "docker.pid")]
        {
            command.arg(option).arg(folder.path().join(name));
        }
        command.args(["--host", &address(folder.path()), "--bridge=none", "--iptables=false"]);
        command.args(["--ip-forward=false", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
        let mut daemon = Daemon::start_apart(command);
        daemon.until("docker that answers", || {
            let (is_up, ..) = runtime::attempt(client(folder.path()).arg("version"));
            is_up.then_some(())
        });
        let work = folder.path().join("image");
        fs::create_dir(&work).expect("a folder");
        let archive = folder.path().join("image.tar");
        image::archive(IMAGE, &work, &archive);
        let docker = Self { daemon, folder };
        runtime::run(docker.command().arg("load").arg("--input").arg(archive));
        docker
    }

    /// Where its API is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    pub(crate) fn command(&self) -> Command {
        client(self.folder.path())
    }

    /// Starts a container without a network, and gives its id.
    pub(crate) fn run(&self, cgroups: &Cgroups, options: &[&str], args: &[&str]) -> String {
        let mut command = self.command();
        command.args(["run", "--detach", "--network=none", "--cgroup-parent", &cgroups.path("docker")]);
        runtime::run(command.args(options).arg(IMAGE).args(args)).trim().to_owned()
    }

    /// Waits for its end; gives its exit code.
    pub(crate) fn wait(&self, id: &str) -> String {
        runtime::run(self.command().args(["wait", id])).trim().to_owned()
    }

    /// A property of a container, such as `.State.Pid`.
    pub(crate) fn inspect(&self, id: &str, property: &str) -> String {
        let format = format!("{{{{{property}}}}}");
        runtime::run(self.command().args(["inspect", "--format", &format, id])).trim().to_owned()
    }

    /// Kills what runs in it, and removes it.
    pub(crate) fn remove(&self, id: &str) {
        runtime::run(self.command().args(["rm", "--force", id]));
    }
}

impl std::fmt::Debug for Docker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Docker").field("daemon", &self.daemon.pid()).finish_non_exhaustive()
    }
}

fn address(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

/// The command line client, with nothing of the user's configuration.
fn client(folder: &Path) -> Command {
    let mut command = Command::new(runtime::program("docker", "docker.io"));
    for variable in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
        command.env_remove(variable);
    }
    command.env("DOCKER_HOST", address(folder)).env("DOCKER_CONFIG", folder.join("client"));
    command
}
