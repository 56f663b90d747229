//! A container image of busybox, made here: nothing is pulled from anywhere.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use serde_json::json;

use crate::runtime;

/// The programs in it, in `/bin`.
const APPLETS: [&str; 8] = ["cat", "echo", "id", "mkdir", "sh", "sleep", "true", "usleep"];

/// Fills a folder with what a container's root directory needs.
pub fn root_directory(folder: &Path) {
    for directory in ["bin", "cgroup", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(folder.join(directory)).expect("a directory of the image");
    }
    let busybox = runtime::program("busybox", "busybox-static");
    fs::copy(busybox, folder.join("bin/busybox")).expect("copying busybox");
    for applet in APPLETS {
        symlink("busybox", folder.join("bin").join(applet)).expect("a link to busybox");
    }
    fs::write(folder.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("a passwd file");
}

/// Writes the image as `docker save` does, which every engine can load; `work` is an empty folder.
pub fn archive(reference: &str, work: &Path, to: &Path) {
    archive_with(reference, work, to, &["/bin/true"]);
}

/// The same with what it runs where nothing else is said.
pub fn archive_with(reference: &str, work: &Path, to: &Path, command: &[&str]) {
    let root = work.join("root");
    root_directory(&root);
    let layer = work.join("layer.tar");
    tar(&root, &layer, &["."]);
    let layer_sum = sha256(&layer);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": command },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_sum}")] },
    });
    let config_file = work.join("config.json");
    fs::write(&config_file, config.to_string()).expect("the image's configuration");
    let config_name = format!("{}.json", sha256(&config_file));
    fs::rename(config_file, work.join(&config_name)).expect("naming it");
    fs::create_dir(work.join(&layer_sum)).expect("the layer's folder");
    let layer_name = format!("{layer_sum}/layer.tar");
    fs::rename(layer, work.join(&layer_name)).expect("the layer");
    let manifest = json!([{ "Config": config_name, "RepoTags": [reference], "Layers": [layer_name] }]);
    fs::write(work.join("manifest.json"), manifest.to_string()).expect("the manifest");
    tar(work, to, &["manifest.json", &config_name, &layer_sum]);
}

fn tar(folder: &Path, to: &Path, names: &[&str]) {
    let mut command = Command::new(runtime::program("tar", "tar"));
    command
        .arg("-C")
        .arg(folder)
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf"])
        .arg(to);
    runtime::run(command.args(names));
}

/// In hex digits.
fn sha256(file: &Path) -> String {
    let said = runtime::run(Command::new(runtime::program("sha256sum", "coreutils")).arg(file));
    said.split_whitespace().next().expect("a sum").to_owned()
}
