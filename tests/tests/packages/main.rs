//! The packages of `cargo xtask dist`, installed into root directories that are thrown away, and what is in them run.
//!
//! `TELLWIRE_DIST` names the folder that `cargo xtask dist` wrote. Nothing is installed on the machine itself.

#![expect(clippy::expect_used, clippy::panic, reason = "tests panic, they do not return errors")]

mod service;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use tellwire_tests::{image, runtime};
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The package with this ending.
fn package(ending: &str) -> PathBuf {
    let folder = env::var_os("TELLWIRE_DIST");
    let folder: PathBuf =
        folder.expect("TELLWIRE_DIST: the folder that `cargo xtask dist -o FOLDER` wrote").into();
    let (debian, machine) =
        if cfg!(target_arch = "aarch64") { ("arm64", "aarch64") } else { ("amd64", "x86_64") };
    let name = match ending {
        "deb" => format!("tellwire_{VERSION}_{debian}.deb"),
        "rpm" => format!("tellwire-{VERSION}-1.{machine}.rpm"),
        _ => format!("tellwire-{VERSION}-linux-{debian}.tar.gz"),
    };
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

/// What every package brings, with these bytes run and read.
fn works(root: &Path) {
    let binary = root.join("usr/bin/tellwire");
    assert_eq!(runtime::run(Command::new(&binary).arg("version")), format!("tellwire {VERSION}\n"));
    let configuration = root.join("etc/tellwire/tellwire.toml");
    runtime::run(Command::new(&binary).args(["config", "check"]).arg(&configuration));
    let text = fs::read_to_string(&configuration).expect("the configuration");
    assert_eq!(runtime::run(Command::new(&binary).args(["config", "default"])), text);
    let page = root.join("usr/share/man/man1/tellwire-run.1.gz");
    let page = runtime::run(Command::new("gzip").arg("-dc").arg(page));
    assert!(page.contains(".TH tellwire\\-run 1") || page.contains(".TH tellwire-run 1"), "{page}");
    assert!(page.contains("host\\-root"), "{page}");
    let completions = root.join("usr/share/bash-completion/completions/tellwire");
    runtime::run(Command::new("bash").arg("-n").arg(completions));
    for file in ["copyright", "LICENSE-MIT", "LICENSE-APACHE", "tellwire.cdx.json"] {
        let path = root.join("usr/share/doc/tellwire").join(file);
        assert!(fs::metadata(&path).is_ok_and(|file| file.len() > 200), "{}", path.display());
    }
    let bill = fs::read_to_string(root.join("usr/share/doc/tellwire/tellwire.cdx.json")).expect("the bill");
    let bill: serde_json::Value = serde_json::from_str(&bill).expect("JSON");
    let components = bill.pointer("/components").and_then(serde_json::Value::as_array).expect("components");
    let named =
        |name: &str| components.iter().any(|part| part.pointer("/name").is_some_and(|found| found == name));
    assert!(named("aya") && named("aya-ebpf") && !named("clap_mangen"), "{components:?}");
}

/// A root directory with a shell and an empty database of dpkg: scripts run in it, and reach nothing outside.
fn debian() -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    image::root_directory(root.path());
    let database = root.path().join("var/lib/dpkg");
    fs::create_dir_all(database.join("info")).expect("dpkg's folders");
    fs::create_dir_all(database.join("updates")).expect("dpkg's folders");
    fs::write(database.join("status"), "").expect("dpkg's database");
    root
}

fn dpkg(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(runtime::program("dpkg", "dpkg"));
    command.arg("--root").arg(root).arg("--force-not-root").arg("--force-confold").args(arguments);
    // Scripts find the shell of the root alone.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    runtime::run(&mut command)
}

#[test]
fn dpkg_installs_keeps_what_was_changed_and_removes() {
    let root = debian();
    let package = package("deb");
    let package = package.to_str().expect("UTF-8");
    dpkg(root.path(), &["--install", package]);
    works(root.path());
    let status = dpkg(root.path(), &["--status", "tellwire"]);
    assert!(
        status.contains("Status: install ok installed") && status.contains(" /etc/tellwire/tellwire.toml ")
    );

    let configuration = root.path().join("etc/tellwire/tellwire.toml");
    fs::write(&configuration, "# mine\n").expect("a change");
    dpkg(root.path(), &["--install", package]);
    assert_eq!(fs::read_to_string(&configuration).expect("it is there"), "# mine\n");
    let notes = root.path().join("var/lib/tellwire");
    fs::create_dir(&notes).expect("notes of the agent");
    dpkg(root.path(), &["--remove", "tellwire"]);
    assert!(!root.path().join("usr/bin/tellwire").exists() && configuration.exists() && notes.exists());
    dpkg(root.path(), &["--purge", "tellwire"]);
    assert!(!configuration.exists() && !notes.exists());
}

#[test]
fn rpm_finds_nothing_wrong_and_unpacks_the_same_files() {
    let package = package("rpm");
    let rpm = || Command::new(runtime::program("rpm", "rpm"));
    let said = runtime::run(rpm().args(["--query", "--info", "--package"]).arg(&package));
    assert!(said.contains("Name        : tellwire") && said.contains(VERSION), "{said}");
    let said = runtime::run(rpm().args(["--checksig", "--nosignature"]).arg(&package));
    assert!(said.contains("digests OK"), "{said}");
    let said = runtime::run(rpm().args(["--query", "--configfiles", "--package"]).arg(&package));
    assert_eq!(said, "/etc/tellwire/tellwire.toml\n");
    let root = tempfile::tempdir().expect("a folder");
    let mut install = rpm();
    install.args(["--install", "--nodeps", "--noscripts", "--ignorearch", "--root"]).arg(root.path());
    runtime::run(install.arg(&package));
    works(root.path());
}

#[test]
fn the_tarball_has_the_same_files_below_one_folder() {
    let root = tempfile::tempdir().expect("a folder");
    runtime::run(Command::new("tar").arg("-C").arg(root.path()).arg("-xzf").arg(package("tar.gz")));
    let mut folders =
        fs::read_dir(root.path()).expect("the folder").map(|entry| entry.expect("an entry").path());
    works(&folders.next().expect("a folder"));
    assert_eq!(folders.next(), None);
}
