//! What makes the guest a node: Debian's systemd and containerd with all that they need, and the agent as its package has it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use xshell::Shell;

use super::{
    super::{debian::Apt, kernel},
    initramfs::Archive,
    userland,
};
use crate::{build::Arch, say, setup};

/// Installed with what they depend on. The tests need another tar than busybox's.
const PACKAGES: [&str; 3] = ["containerd", "systemd", "tar"];

/// What nobody reads in a guest, below `usr/share`.
const UNREAD: [&str; 6] = ["bug", "doc", "info", "lintian", "locale", "man"];

const UNIT: &str = "deploy/systemd/tellwire.service";

/// Adds all of it to the guest's files.
pub(super) fn add(sh: &Shell, arch: Arch, archive: &mut Archive) -> Result<()> {
    let cache = setup::cache_dir()?;
    let kept = cache.join(format!("node-{}", arch.go()));
    if !kept.is_dir() {
        let apt = Apt::of(sh, &cache, userland::SUITE, arch)?;
        say(format_args!("downloading systemd and containerd for {}", arch.go()));
        kernel::within(&cache, |work| {
            apt.unpack_with_dependencies(&PACKAGES, work)?;
            for folder in UNREAD.map(|name| work.join("root/usr/share").join(name)) {
                if folder.is_dir() {
                    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
                }
            }
            fs::rename(work.join("root"), &kept).context("keeping systemd and containerd")
        })?;
    }
    add_tree(archive, &kept, &kept)?;
    for directory in ["etc/containerd", "run", "var", "var/lib", "var/log", "var/tmp"] {
        archive.directory(directory)?;
    }
    archive.text("etc/containerd/config.toml", include_str!("containerd.toml"))?;
    archive.text("etc/systemd/system/tests.service", include_str!("tests.service"))?;
    // The kernel's modules are not here.
    archive.link("etc/systemd/system/systemd-modules-load.service", "/dev/null")?;
    // Copied into pods.
    archive.text("etc/hosts", "127.0.0.1 localhost\n")?;
    archive.text("etc/resolv.conf", "")?;
    // Filled by systemd.
    archive.text("etc/machine-id", "")?;
    let unit = setup::root()?.join(UNIT);
    let unit = fs::read_to_string(&unit).with_context(|| format!("reading {}", unit.display()))?;
    archive.text("usr/lib/systemd/system/tellwire.service", &unit)?;
    archive.link("usr/bin/tellwire", "/bin/tellwire")
}

/// Adds what is below a folder, by its path below `root`.
fn add_tree(archive: &mut Archive, root: &Path, folder: &Path) -> Result<()> {
    let reading = || format!("reading {}", folder.display());
    for entry in fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        let name = path.strip_prefix(root)?.to_str().context("a name that is not UTF-8")?;
        let about = fs::symlink_metadata(&path).with_context(reading)?;
        if about.is_dir() {
            archive.directory(name)?;
            add_tree(archive, root, &path)?;
        } else if about.is_symlink() {
            let to = fs::read_link(&path).with_context(reading)?;
            archive.link(name, to.to_str().context("a link that is not UTF-8")?)?;
        } else {
            let content = fs::read(&path).with_context(reading)?;
            if about.permissions().mode() & 0o111 == 0 {
                archive.file(name, &content)?;
            } else {
                archive.program(name, &content)?;
            }
        }
    }
    Ok(())
}
