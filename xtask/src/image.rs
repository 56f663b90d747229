//! `cargo xtask image`: the container image, made of the static binary and nothing else.
//!
//! No daemon, no base image, nothing that is fetched: an OCI layout with both platforms, and for each platform an archive
//! as `docker save` writes it. The same binary and commit give the same digests.

mod layout;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::{
    archive::{self, Folders},
    build::{self, Arch, Linking, Profile},
    say, sbom, setup,
};
use layout::{Image, Platform};

/// The image's name where no other is given: of no registry, so that nobody asks one for it.
const NAME: &str = "localhost/tellwire";

#[derive(Args)]
pub(crate) struct Options {
    /// Machine types, separated by commas [default: both].
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// The folder to write; what an earlier run left in it is replaced [default: target/image].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The image's name, without a tag.
    #[arg(long, default_value = NAME)]
    name: String,
    /// The image's tag [default: the version].
    #[arg(long)]
    tag: Option<String>,
}

/// Name and tag where nobody asks for others.
pub(crate) fn reference() -> String {
    format!("{NAME}:{}", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let sh = setup::ready()?;
    let root = setup::root()?;
    let output = options.output.clone().unwrap_or_else(|| root.join("target/image"));
    let arches = if options.arch.is_empty() { Arch::ALL.to_vec() } else { options.arch.clone() };
    let tag = options.tag.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
    make(&sh, &arches, &format!("{}:{tag}", options.name), &output)
}

/// Builds the binaries and writes the image and its bill of materials into a folder.
pub(crate) fn make(sh: &Shell, arches: &[Arch], reference: &str, output: &Path) -> Result<()> {
    let binaries = arches.iter().map(|arch| {
        let binary = build::agent(sh, Profile::Release, Linking::Static(*arch))?;
        let bytes = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
        Ok((*arch, bytes))
    });
    let binaries = binaries.collect::<Result<Vec<_>>>()?;
    let image = image(sh, binaries, reference)?;
    let digest = image.write(output)?;
    for arch in arches {
        let file = output.join(format!("tellwire-{}.cdx.json", arch.go()));
        fs::write(&file, sbom::of(sh, *arch)?).with_context(|| format!("writing {}", file.display()))?;
    }
    say(format_args!("{reference}@{digest}: {}", output.display()));
    Ok(())
}

fn image(sh: &Shell, binaries: Vec<(Arch, Vec<u8>)>, reference: &str) -> Result<Image> {
    let created = archive::epoch()?;
    // What is not from a clone has no commit.
    let revision = cmd!(sh, "git rev-parse HEAD").quiet().ignore_stderr().read().ok();
    let mut labels = vec![
        ("title", "tellwire".to_owned()),
        ("description", "eBPF host telemetry: exact metrics and one JSON line per event".to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("licenses", "MIT OR Apache-2.0".to_owned()),
    ];
    labels.extend(revision.map(|revision| ("revision", revision)));
    let labels =
        labels.into_iter().map(|(name, value)| (format!("org.opencontainers.image.{name}"), value)).collect();
    let platforms = binaries.into_iter().map(|(arch, binary)| {
        ensure!(build::is_static(&binary), "the binary for {} is not static", arch.go());
        let files = vec![archive::Entry::new("tellwire", 0o755, binary)];
        Ok(Platform { arch, layer: archive::tar(files, Folders::None, created.unwrap_or(0))? })
    });
    Ok(Image {
        reference: reference.to_owned(),
        labels,
        created,
        platforms: platforms.collect::<Result<Vec<_>>>()?,
    })
}
