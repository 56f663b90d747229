//! Containers of a bare runc: an OCI bundle for each.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tellwire_tests::{Agent, image, oci, runtime};

/// A container that is not started yet.
pub(crate) struct Bundle {
    folder: PathBuf,
    id: String,
    cgroup: String,
    args: Vec<String>,
    /// A directory of the host that the container sees as `/cgroup`.
    mount: Option<PathBuf>,
}

impl Bundle {
    /// In a cgroup, by its path from the root of the hierarchies.
    pub(crate) fn new(agent: &Agent, id: &str, cgroup: &str, args: &[&str]) -> Self {
        let root = agent.folder().join("root");
        if !root.exists() {
            image::root_directory(&root);
        }
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { folder: agent.subfolder(id), id: id.to_owned(), cgroup: cgroup.to_owned(), args, mount: None }
    }

    pub(crate) fn mount(mut self, directory: &Path) -> Self {
        self.mount = Some(directory.to_owned());
        self
    }

    /// Runs it to its end; gives the id of its first process, as the host counts.
    pub(crate) fn run(&self) -> u32 {
        self.runc(&["run"]);
        self.pid()
    }

    /// Leaves it running.
    pub(crate) fn start(&self) -> Running<'_> {
        self.runc(&["run", "--detach"]);
        Running(self)
    }

    fn runc(&self, how: &[&str]) {
        fs::write(self.folder.join("config.json"), self.config()).expect("the bundle's configuration");
        let mut command = self.command();
        command.args(how).arg("--bundle").arg(&self.folder);
        command.arg("--pid-file").arg(self.folder.join("pid")).arg(&self.id);
        runtime::run(&mut command);
    }

    fn command(&self) -> Command {
        oci::runc(&self.folder.join("state"))
    }

    fn pid(&self) -> u32 {
        let pid = fs::read_to_string(self.folder.join("pid")).expect("the container's process id");
        pid.parse().expect("a number")
    }

    fn config(&self) -> String {
        let root = self.folder.parent().expect("the agent's folder").join("root");
        let mut config = oci::config(&root, &self.cgroup, &self.args);
        oci::mount(&mut config, oci::scratch("/dev"));
        if let Some(directory) = &self.mount {
            let mount = json!({ "destination": "/cgroup", "source": directory, "options": ["rbind", "rw"] });
            oci::mount(&mut config, mount);
        }
        config.to_string()
    }
}

/// A container that runs; it is removed with this value.
pub(crate) struct Running<'bundle>(&'bundle Bundle);

impl Running<'_> {
    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Runs one more program in it, to its end; gives its process id.
    pub(crate) fn exec(&self, args: &[&str]) -> u32 {
        let file = self.0.folder.join("exec-pid");
        let mut command = self.0.command();
        command.args(["exec", "--pid-file"]).arg(&file).arg(&self.0.id).args(args);
        runtime::run(&mut command);
        fs::read_to_string(file).expect("its process id").parse().expect("a number")
    }

    /// Kills what runs in it, and waits until it is gone.
    pub(crate) fn end(self) {
        drop(self);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (removed, _, said) = runtime::attempt(self.0.command().args(["delete", "--force", &self.0.id]));
        assert!(removed || std::thread::panicking(), "{said}");
    }
}
