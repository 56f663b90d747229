//! Containers of a bare runc, by the configuration of their bundles.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::runtime;

/// `config.json` of a bundle: root in namespaces of its own, on a root directory that stays as it is, in a cgroup by its path from the
/// root of the hierarchies.
pub fn config(root: &Path, cgroup: &str, args: &[impl AsRef<str>]) -> Value {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin:/usr/bin:/usr/sbin"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": true },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "cgroupsPath": cgroup, "namespaces": namespaces },
    })
}

/// Adds a mount to a configuration.
pub fn mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().expect("the mounts of a configuration").push(mount);
}

/// A place that a container may write to, and that goes with it.
pub fn scratch(place: &str) -> Value {
    json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] })
}

/// runc, which keeps its state in this folder.
pub fn runc(state: &Path) -> Command {
    let mut command = Command::new(runtime::program("runc", "runc"));
    command.arg("--root").arg(state);
    command
}
