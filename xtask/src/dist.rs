//! `cargo xtask dist`: what is installed on machines: a tarball, a .deb and an .rpm for each machine type.
//!
//! All three hold the same files. The same binary gives the same bytes: times are `SOURCE_DATE_EPOCH`, or the commit's.

mod deb;
mod files;
mod rpm;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;
use xshell::{Shell, cmd};

use crate::{
    archive::{self, Entry, Folders},
    build::{self, Arch, Linking, Profile},
    say, sbom, setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Machine types, separated by commas [default: both].
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// The folder to write [default: target/dist].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SUMMARY: &str = "what happens on a host, from the kernel: metrics and JSON lines";
const DESCRIPTION: &str = "Small programs in the kernel meet every exec, exit, TCP connect,\n\
    credential call and authentication. The agent counts them exactly and\n\
    writes one JSON line for each.";
/// The service, for both package formats.
const UNIT: &str = "tellwire.service";

pub(crate) fn run(options: &Options) -> Result<()> {
    let sh = setup::ready()?;
    let output = match &options.output {
        Some(output) => output.clone(),
        None => setup::root()?.join("target/dist"),
    };
    let arches = if options.arch.is_empty() { Arch::ALL.to_vec() } else { options.arch.clone() };
    make(&sh, &arches, &output)
}

/// Builds the binaries and writes the packages into a folder.
pub(crate) fn make(sh: &Shell, arches: &[Arch], output: &Path) -> Result<()> {
    fs::create_dir_all(output).with_context(|| format!("creating {}", output.display()))?;
    let manual = manual(sh)?;
    let time = time(sh)?;
    let mut sums = Vec::new();
    for &arch in arches {
        let binary = build::agent(sh, Profile::Release, Linking::Static(arch))?;
        let binary = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
        let bill = sbom::of(sh, arch)?;
        let content = files::content(&setup::root()?, &manual, binary, bill.clone())?;
        for (name, bytes) in [
            (format!("tellwire-{VERSION}-linux-{}.tar.gz", arch.go()), tarball(arch, &content, time)?),
            (format!("tellwire_{VERSION}_{}.deb", arch.go()), deb::package(arch, &content, time)?),
            (format!("tellwire-{VERSION}-1.{}.rpm", arch.machine()), rpm::package(arch, &content, time)?),
            (format!("tellwire-{VERSION}-{}.cdx.json", arch.go()), bill.into_bytes()),
        ] {
            sums.push(format!("{}  {name}\n", archive::sha256(&bytes)));
            write(&output.join(&name), &bytes)?;
        }
    }
    // `sha256sum --check SHA256SUMS`
    write(&output.join("SHA256SUMS"), sums.concat().as_bytes())
}

/// Pages and completions, and the default configuration, as an agent of this machine's own kind prints them.
struct Manual {
    folder: PathBuf,
    configuration: String,
}

fn manual(sh: &Shell) -> Result<Manual> {
    let folder = setup::root()?.join("target/manual");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    // Its own target folder would build all of the agent again: here only the last crate differs.
    let agent = || cmd!(sh, "cargo run --quiet --package tellwire --features manual --").quiet();
    agent().arg("manual").arg(&folder).run().context("writing the manual pages")?;
    let configuration = agent().args(["config", "default"]).read()? + "\n";
    Ok(Manual { folder, configuration })
}

/// When everything in a package was changed last: `SOURCE_DATE_EPOCH`, or the time of the commit, in seconds since the epoch.
fn time(sh: &Shell) -> Result<u64> {
    if let Some(time) = archive::epoch()? {
        return Ok(time);
    }
    let commit = cmd!(sh, "git log -1 --format=%ct").quiet().ignore_stderr().read();
    // What is not from a clone has none.
    Ok(commit.ok().and_then(|time| time.trim().parse().ok()).unwrap_or(0))
}

/// A file of a package.
struct Installed {
    entry: Entry,
    /// Kept when the package is upgraded, if somebody changed it.
    is_configuration: bool,
}

/// One folder, with the files below it as they are installed.
fn tarball(arch: Arch, content: &[Installed], time: u64) -> Result<Vec<u8>> {
    let folder = format!("tellwire-{VERSION}-linux-{}", arch.go());
    let entries = content.iter().map(|Installed { entry: Entry { path, mode, bytes }, .. }| {
        Entry::new(format!("{folder}/{path}"), *mode, bytes.clone())
    });
    archive::gzip(&archive::tar(entries.collect(), Folders::Plain, time)?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
    say(path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Arch, Entry, Installed, deb, rpm, tarball};

    fn content() -> Vec<Installed> {
        let file = |path: &str, mode, is_configuration| Installed {
            entry: Entry::new(path, mode, path),
            is_configuration,
        };
        vec![
            file("usr/bin/tellwire", 0o755, false),
            file("etc/tellwire/tellwire.toml", 0o644, true),
            file("usr/lib/systemd/system/tellwire.service", 0o644, false),
        ]
    }

    #[test]
    fn the_same_content_gives_the_same_packages() {
        let both = || {
            [
                tarball(Arch::X86_64, &content(), 1).unwrap(),
                deb::package(Arch::X86_64, &content(), 1).unwrap(),
                rpm::package(Arch::X86_64, &content(), 1).unwrap(),
            ]
        };
        assert!(both() == both());
    }
}
