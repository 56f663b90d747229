//! Kernels to boot: Debian's packages, downloaded and unpacked into the cache, never installed.

mod compiled;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::Shell;

use super::debian::{Apt, Archive, Suite};
use crate::{build::Arch, say, setup};

/// A release of the matrix, and where Debian has it: the suite with the newest first.
pub(super) struct Release {
    pub(super) name: &'static str,
    version: &'static str,
    flavour: Flavour,
    suites: &'static [Suite],
}

/// For what Debian has built a kernel.
#[derive(Clone, Copy)]
enum Flavour {
    Cloud,
    /// Memory in pages of 16 KiB, as some distributions for arm64 have it.
    Pages16K,
}

impl Release {
    /// How names of its packages end; `None` where there is none for a machine type.
    fn ending(&self, arch: Arch) -> Option<String> {
        match (self.flavour, arch) {
            (Flavour::Cloud, _) => Some(format!("-cloud-{}", arch.go())),
            (Flavour::Pages16K, Arch::Aarch64) => Some(format!("-{}-16k", arch.go())),
            (Flavour::Pages16K, Arch::X86_64) => None,
        }
    }

    /// The newest image of this release among lines.
    fn newest(&self, packages: &str, arch: Arch) -> Option<String> {
        newest(packages, self.version, &self.ending(arch)?)
    }
}

const fn cloud(version: &'static str, suites: &'static [Suite]) -> Release {
    Release { name: version, version, flavour: Flavour::Cloud, suites }
}

const TRIXIE: &[Suite] = &[updates("trixie-security"), main("trixie")];

const fn updates(name: &'static str) -> Suite {
    Suite { name, archive: Archive::Security }
}

pub(super) const fn main(name: &'static str) -> Suite {
    Suite { name, archive: Archive::Main }
}

/// The matrix, oldest first. `7` is the newest that there is.
pub(super) const MATRIX: [Release; 5] = [
    cloud("5.10", &[updates("bullseye-security"), main("bullseye")]),
    cloud("6.1", &[updates("bookworm-security"), main("bookworm")]),
    cloud("6.12", TRIXIE),
    Release { name: "6.12-16k", version: "6.12", flavour: Flavour::Pages16K, suites: TRIXIE },
    cloud("7", &[main("trixie-backports"), main("sid")]),
];

/// Has busybox for every machine type.
const PROGRAMS: Suite = main("bookworm");

/// A kernel to boot.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// What `uname -r` will say, or the path that was asked for.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The image of the newest cloud kernel of a release (`6.1`), or the image that `release` names by path.
pub(super) fn image(sh: &Shell, release: &str, arch: Arch) -> Result<Image> {
    if release.contains('/') {
        ensure!(Path::new(release).is_file(), "{release} is no kernel image");
        return Ok(Image { name: release.into(), path: release.into() });
    }
    if release == compiled::PAGES_64K.name {
        let path = compiled::image(sh, &compiled::PAGES_64K, arch)?;
        return Ok(Image { name: release.into(), path });
    }
    let known = MATRIX.iter().find(|known| known.name == release).with_context(|| {
        let known = MATRIX.map(|known| known.name).join(", ");
        let compiled = compiled::PAGES_64K.name;
        format!("{release} is not in the matrix ({known}), nor {compiled}: name an image, `--kernel /path/to/vmlinuz`")
    })?;
    let cache = setup::cache_dir()?;
    let kernels = cache.join("kernels");
    let package = match known.newest(&cached(&kernels)?, arch) {
        Some(package) => package,
        None => fetch(sh, &cache, &kernels, known, arch)?,
    };
    let name = package.trim_start_matches("linux-image-").to_owned();
    Ok(Image { name, path: kernels.join(package).join("vmlinuz") })
}

/// Downloads the newest image of a release. A suite's lists may name what its mirror has no longer; then the next suite
/// is asked.
fn fetch(sh: &Shell, cache: &Path, kernels: &Path, release: &Release, arch: Arch) -> Result<String> {
    let mut failures = Vec::new();
    for suite in release.suites {
        let outcome = Apt::of(sh, cache, *suite, arch).and_then(|apt| {
            let package = release
                .newest(&apt.names("linux-image-")?, arch)
                .with_context(|| format!("no kernel {} for {} in {}", release.name, arch.go(), suite.name))?;
            download(&apt, kernels, &package).map(|()| package)
        });
        match outcome {
            Ok(package) => return Ok(package),
            Err(error) => {
                say(format_args!("not from {}: {error:#}", suite.name));
                failures.push(format!("{}: {error:#}", suite.name));
            }
        }
    }
    bail!("no kernel {} for {}: {}", release.name, arch.go(), failures.join("; "))
}

/// A static busybox for a machine type that is not this one.
pub(super) fn busybox(sh: &Shell, arch: Arch) -> Result<PathBuf> {
    let cache = setup::cache_dir()?;
    let kept = cache.join(format!("busybox-{}", arch.go()));
    if !kept.is_file() {
        let apt = Apt::of(sh, &cache, PROGRAMS, arch)?;
        say(format_args!("downloading busybox-static for {}", arch.go()));
        within(&cache, |work| {
            apt.unpack("busybox-static", work)?;
            let places = ["root/bin/busybox", "root/usr/bin/busybox"].map(|place| work.join(place));
            let program =
                places.iter().find(|place| place.is_file()).context("the package holds no busybox")?;
            fs::rename(program, &kept).context("keeping busybox")
        })?;
    }
    Ok(kept)
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

/// The newest image of a release among lines. Meta packages and debug symbols are none.
fn newest(packages: &str, release: &str, ending: &str) -> Option<String> {
    let versions = packages.lines().filter_map(|name| {
        let version = name.strip_prefix("linux-image-")?.strip_suffix(ending)?;
        let rest = version.strip_prefix(release)?.strip_prefix(['.', '-'])?;
        let concrete = rest.starts_with(|c: char| c.is_ascii_digit());
        concrete.then(|| (numbers(version), name))
    });
    versions.max().map(|(_, name)| name.to_owned())
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn download(apt: &Apt<'_>, kernels: &Path, package: &str) -> Result<()> {
    say(format_args!("downloading {package} into {}", kernels.display()));
    within(kernels, |work| {
        // Since 7.x the package of this name holds nothing, and depends on the one that does.
        let binary = package.replacen("linux-image-", "linux-binary-", 1);
        let split = apt.show(package)?.contains(&binary);
        apt.unpack(if split { &binary } else { package }, work)?;
        let image = find(&work.join("root"), "vmlinuz-")?
            .or(find(&work.join("root"), "vmlinuz")?)
            .context("the package holds no kernel")?;
        let folder = kernels.join(package);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        // A rename at the end: an interrupted download is never taken for a kernel.
        fs::rename(&image, folder.join("vmlinuz")).context("keeping a kernel")
    })
}

/// Runs `task` with a folder of this process's own, which goes afterwards.
pub(super) fn within(folder: &Path, task: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let work = folder.join(format!(".{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let outcome = task(&work);
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    outcome
}

/// A file below `folder` whose name begins so.
fn find(folder: &Path, beginning: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, beginning)? {
                return Ok(Some(found));
            }
        } else if entry.file_name().to_string_lossy().starts_with(beginning) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Releases that `--kernel` names: one, or all that the matrix has for a machine type.
pub(super) fn releases(asked: &str, arch: Arch) -> Vec<String> {
    let all = MATRIX.iter().filter(|release| release.ending(arch).is_some());
    match asked {
        "all" => all.map(|release| release.name.to_owned()).collect(),
        one => one.split(',').map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{MATRIX, releases};
    use crate::build::Arch;

    const OFFERED: &str = "linux-image-6.1.0-9-cloud-amd64\n\
        linux-image-6.1.0-56-cloud-amd64\n\
        linux-image-6.1.0-57-cloud-amd64-dbg\n\
        linux-image-6.1.0-58-cloud-amd64-unsigned\n\
        linux-image-6.1.0-59-cloud-arm64\n\
        linux-image-6.12-cloud-amd64\n\
        linux-image-6.12.113+deb12-cloud-amd64\n\
        linux-image-6.12.9+deb12-cloud-amd64\n\
        linux-image-7.0.13+deb13-cloud-amd64\n\
        linux-image-6.12.113+deb13-arm64-16k\n\
        linux-image-7.3.4+deb13-cloud-amd64\n";

    fn newest(offered: &str, release: &str, arch: Arch) -> Option<String> {
        MATRIX.iter().find(|known| known.name == release).unwrap().newest(offered, arch)
    }

    fn found(release: &str) -> Option<String> {
        newest(OFFERED, release, Arch::X86_64)
    }

    #[test]
    fn the_newest_image_is_chosen_by_number() {
        assert_eq!(found("6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(found("6.12").as_deref(), Some("linux-image-6.12.113+deb12-cloud-amd64"));
        assert_eq!(found("7").as_deref(), Some("linux-image-7.3.4+deb13-cloud-amd64"));
    }

    #[test]
    fn another_release_or_machine_is_none() {
        assert_eq!(found("5.10"), None);
        assert_eq!(newest("linux-image-cloud-amd64\n", "6.1", Arch::X86_64), None);
        let arm = newest(OFFERED, "6.1", Arch::Aarch64);
        assert_eq!(arm.as_deref(), Some("linux-image-6.1.0-59-cloud-arm64"));
    }

    #[test]
    fn large_pages_are_of_arm64_alone() {
        let found = |arch| newest(OFFERED, "6.12-16k", arch);
        assert_eq!(found(Arch::Aarch64).as_deref(), Some("linux-image-6.12.113+deb13-arm64-16k"));
        assert_eq!(found(Arch::X86_64), None);
        assert_eq!(releases("all", Arch::X86_64), ["5.10", "6.1", "6.12", "7"]);
        assert_eq!(releases("all", Arch::Aarch64), ["5.10", "6.1", "6.12", "6.12-16k", "7"]);
    }
}
