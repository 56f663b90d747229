//! Kernels that Debian does not build: its source, compiled into the cache with a configuration of ours.
//!
//! The configuration is what the tests need and no more, on top of `allnoconfig`: some minutes instead of an hour.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use super::{
    super::debian::{Apt, Suite},
    updates, within,
};
use crate::{
    archive::sha256,
    build::Arch,
    packages::{self, Need},
    say, setup,
};

/// A kernel of arm64 alone.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// Debian's package of the source.
    package: &'static str,
    suite: Suite,
    configuration: &'static str,
}

/// Memory in pages of 64 KiB, which some distributions for servers have and Debian has not.
pub(super) const PAGES_64K: Recipe = Recipe {
    name: "6.12-64k",
    package: "linux-source-6.12",
    suite: updates("trixie-security"),
    configuration: include_str!("pages-64k.config"),
};

/// The kernel, compiled where the cache has none of this configuration.
pub(super) fn image(sh: &Shell, recipe: &Recipe, arch: Arch) -> Result<PathBuf> {
    ensure!(arch == Arch::Aarch64, "{} is a kernel of arm64: `--arch aarch64`", recipe.name);
    let cache = setup::cache_dir()?;
    let sum = sha256(recipe.configuration.as_bytes());
    let kernels = cache.join("kernels");
    let folder = kernels.join(format!("compiled-{}-{}", recipe.name, sum.get(..12).unwrap_or_default()));
    let kept = folder.join("vmlinuz");
    if !kept.is_file() {
        packages::ensure(sh, Need::Kernel)?;
        packages::ensure(sh, Need::Arm)?;
        let apt = Apt::of(sh, &cache, recipe.suite, arch)?;
        say(format_args!("downloading and compiling {}: some ten minutes on two cores, once", recipe.name));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        within(&kernels, |work| {
            let image = compile(sh, recipe, &apt, work)?;
            // A rename at the end: an interrupted build is never taken for a kernel.
            fs::rename(image, &kept).context("keeping a kernel")
        })?;
    }
    Ok(kept)
}

fn compile(sh: &Shell, recipe: &Recipe, apt: &Apt<'_>, work: &Path) -> Result<PathBuf> {
    apt.unpack(recipe.package, work)?;
    let package = recipe.package;
    let source = work.join(format!("root/usr/src/{package}.tar.xz"));
    cmd!(sh, "tar -C {work} -xf {source}").quiet().run().context("unpacking the kernel's source")?;
    let tree = work.join(package);
    let asked = work.join("asked.config");
    fs::write(&asked, recipe.configuration).context("writing the kernel's configuration")?;
    let compiler = if Arch::HOST == Arch::Aarch64 { "" } else { "aarch64-linux-gnu-" };
    let jobs = thread::available_parallelism().map_or(1, usize::from).to_string();
    let make = |target: &str| {
        cmd!(sh, "make -s -C {tree} ARCH=arm64 CROSS_COMPILE={compiler} -j {jobs} {target}")
            .env("KCONFIG_ALLCONFIG", &asked)
            .quiet()
            .ignore_stdout()
            .ignore_stderr()
    };
    make("allnoconfig").run().context("configuring the kernel")?;
    let taken = fs::read_to_string(tree.join(".config")).context("reading the kernel's configuration")?;
    let missing = missing(recipe.configuration, &taken);
    ensure!(missing.is_empty(), "{package} does not take {}: see {}.config", missing.join(", "), recipe.name);
    make("Image").run().with_context(|| format!("compiling {}", recipe.name))?;
    Ok(tree.join("arch/arm64/boot/Image"))
}

/// What was asked for, and is not in the configuration that came of it.
fn missing<'a>(asked: &'a str, taken: &str) -> Vec<&'a str> {
    let options = asked.lines().filter(|line| line.starts_with("CONFIG_"));
    options.filter(|option| !taken.lines().any(|line| line == *option)).collect()
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn options_that_are_not_taken_are_named() {
        let asked = "# Types.\nCONFIG_BPF=y\nCONFIG_NET=y\n";
        assert_eq!(missing(asked, "CONFIG_BPF=y\n# CONFIG_NET is not set\n"), ["CONFIG_NET=y"]);
        assert!(missing(asked, "CONFIG_NET=y\nCONFIG_BPF=y\n").is_empty());
    }
}
