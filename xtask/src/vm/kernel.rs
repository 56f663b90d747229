//! Kernels to boot: Debian's packages, downloaded and unpacked into the cache, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{packages, run, say, setup};

/// The image of the newest cloud kernel of a release (`6.1`), or the image that `release` names by path.
pub(super) fn image(sh: &Shell, release: &str) -> Result<PathBuf> {
    if release.contains('/') {
        ensure!(Path::new(release).is_file(), "{release} is no kernel image");
        return Ok(release.into());
    }
    let kernels = setup::cache_dir()?.join("kernels");
    if let Some(package) = newest(&cached(&kernels)?, release) {
        say(format_args!("{package}, from the cache"));
        return Ok(kernels.join(package).join("vmlinuz"));
    }
    ensure!(
        run::on_path("apt-get"),
        "kernels come from Debian's packages, and apt-get is missing: name an image, `--kernel /path/to/vmlinuz`"
    );
    let package = match newest(&offered(sh, release)?, release) {
        Some(package) => package,
        None if run::is_root() => {
            packages::update(sh)?;
            newest(&offered(sh, release)?, release)
                .with_context(|| format!("no cloud kernel {release} in apt"))?
        }
        None => {
            bail!("apt offers no cloud kernel {release}: `sudo apt-get update`, or add the suite that has it")
        }
    };
    download(sh, &kernels, &package)
}

fn cached(kernels: &Path) -> Result<String> {
    let mut names = String::new();
    if kernels.is_dir() {
        for entry in fs::read_dir(kernels).with_context(|| format!("reading {}", kernels.display()))? {
            let entry = entry?;
            if entry.path().join("vmlinuz").is_file() {
                names += &entry.file_name().to_string_lossy();
                names.push('\n');
            }
        }
    }
    Ok(names)
}

fn offered(sh: &Shell, release: &str) -> Result<String> {
    let pattern = format!("^linux-image-{}[.-].*-cloud-amd64$", release.replace('.', "\\."));
    cmd!(sh, "apt-cache search --names-only {pattern}").quiet().read().context("asking apt for kernels")
}

/// The newest image of a release among the first words of lines. Meta packages and debug symbols are none.
fn newest(packages: &str, release: &str) -> Option<String> {
    let names = packages.lines().filter_map(|line| line.split_whitespace().next());
    let versions = names.filter_map(|name| {
        let version = name.strip_prefix("linux-image-")?.strip_suffix("-cloud-amd64")?;
        let rest = version.strip_prefix(release)?.strip_prefix(['.', '-'])?;
        let concrete = rest.starts_with(|c: char| c.is_ascii_digit());
        concrete.then(|| (numbers(version), name))
    });
    versions.max().map(|(_, name)| name.to_owned())
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn download(sh: &Shell, kernels: &Path, package: &str) -> Result<PathBuf> {
    say(format_args!("downloading {package} into {}", kernels.display()));
    // A folder of this process, and a rename at the end: an interrupted download is never taken for a kernel.
    let work = kernels.join(format!(".{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let unpacked = unpack(sh, &work, package);
    let moved = unpacked.and_then(|image| {
        let folder = kernels.join(package);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let kept = folder.join("vmlinuz");
        fs::rename(&image, &kept).with_context(|| format!("moving {}", image.display()))?;
        Ok(kept)
    });
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    moved
}

fn unpack(sh: &Shell, work: &Path, package: &str) -> Result<PathBuf> {
    let _folder = sh.push_dir(work);
    // As root apt downloads as a user of its own, which may not enter the cache: that is worth no warning.
    cmd!(sh, "apt-get -qq -o APT::Sandbox::User=root download {package}")
        .quiet()
        .run()
        .with_context(|| format!("downloading {package}"))?;
    let archive = only(work, |name| name.starts_with(package))?;
    cmd!(sh, "dpkg-deb --extract {archive} root")
        .quiet()
        .run()
        .with_context(|| format!("unpacking {package}"))?;
    only(&work.join("root/boot"), |name| name.starts_with("vmlinuz-"))
}

fn only(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            return Ok(entry.path());
        }
    }
    bail!("the package holds no kernel")
}

#[cfg(test)]
mod tests {
    use super::newest;

    const OFFERED: &str = "linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
        linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
        linux-image-6.1.0-57-cloud-amd64-dbg - Debug symbols\n\
        linux-image-6.12-cloud-amd64 - Linux for x86-64 cloud (meta-package)\n\
        linux-image-6.12.113+deb12-cloud-amd64 - Linux 6.12\n\
        linux-image-6.12.9+deb12-cloud-amd64 - Linux 6.12\n";

    #[test]
    fn the_newest_image_is_chosen_by_number() {
        assert_eq!(newest(OFFERED, "6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(OFFERED, "6.12").as_deref(), Some("linux-image-6.12.113+deb12-cloud-amd64"));
    }

    #[test]
    fn another_release_is_none() {
        assert_eq!(newest(OFFERED, "5.10"), None);
        assert_eq!(newest("linux-image-cloud-amd64 - meta\n", "6.1"), None);
    }
}
