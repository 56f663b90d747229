//! `cargo xtask build`: the agent's binary. The eBPF programs are built by the agent's own build script.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    packages::{self, Need},
    say, setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Build what is shipped: optimised.
    #[arg(long)]
    release: bool,
    /// Link musl statically: one file that runs on every distribution.
    #[arg(long = "static")]
    linked_statically: bool,
    /// Build for this machine type (implies --static).
    #[arg(long, value_name = "ARCH")]
    target_arch: Option<Arch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Arch {
    X86_64,
    Aarch64,
}

#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Debug,
    Release,
}

#[derive(Clone, Copy)]
pub(crate) enum Linking {
    /// With the C library of this machine.
    Host,
    /// With musl, statically.
    Static(Arch),
}

impl Arch {
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The name that Go, and with it OCI images and Debian, has for it.
    pub(crate) fn go(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The name that the kernel has for it, and with it RPM.
    pub(crate) fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The machine type that this xtask was built for.
    pub(crate) const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    pub(crate) fn musl(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { release, linked_statically, target_arch } = *options;
    let profile = if release { Profile::Release } else { Profile::Debug };
    let linking = match target_arch {
        Some(arch) => Linking::Static(arch),
        None if linked_statically => Linking::Static(Arch::HOST),
        None => Linking::Host,
    };
    let sh = setup::ready()?;
    say(agent(&sh, profile, linking)?.display());
    Ok(())
}

/// Builds the agent; gives the path of its binary.
pub(crate) fn agent(sh: &Shell, profile: Profile, linking: Linking) -> Result<PathBuf> {
    if let Linking::Static(Arch::Aarch64) = linking {
        packages::ensure(sh, Need::Arm)?;
    }
    let build = cmd!(sh, "cargo build --package tellwire --bin tellwire").args(flags(profile, linking));
    let binaries = executables(build.into())?;
    let agent = binaries.into_iter().find(|binary| binary.name == "tellwire");
    Ok(agent.context("cargo built no binary named `tellwire`")?.path)
}

/// The flags of cargo that stand for a profile and a way of linking.
pub(crate) fn flags(profile: Profile, linking: Linking) -> Vec<&'static str> {
    let mut flags = match profile {
        Profile::Debug => vec![],
        Profile::Release => vec!["--release"],
    };
    if let Linking::Static(arch) = linking {
        flags.extend(["--target", arch.musl()]);
    }
    flags
}

/// Something that cargo built and that can be run.
pub(crate) struct Executable {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Program,
    /// A test harness that is no unit test: `tests/NAME.rs`.
    IntegrationTest,
    UnitTest,
}

/// Runs a cargo that builds; gives every executable that it names. Progress and errors go to the terminal.
pub(crate) fn executables(mut build: Command) -> Result<Vec<Executable>> {
    build.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = build.spawn().context("starting cargo")?;
    let stdout = child.stdout.take().context("cargo's output")?;
    let mut found = Vec::new();
    for line in BufReader::new(stdout).lines() {
        found.extend(executable(&line.context("reading what cargo prints")?));
    }
    let status = child.wait().context("waiting for cargo")?;
    let args: Vec<OsString> = build.get_args().map(Into::into).collect();
    ensure!(status.success(), "cargo {}: {status}", args.join(" ".as_ref()).display());
    Ok(found)
}

fn executable(message: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?.into();
    let target = message.get("target")?;
    let name = target.get("name")?.as_str()?.into();
    let integration = target.pointer("/kind/0")? == "test";
    let tested = message.pointer("/profile/test")?.as_bool()?;
    let purpose = match (integration, tested) {
        (true, _) => Purpose::IntegrationTest,
        (false, true) => Purpose::UnitTest,
        (false, false) => Purpose::Program,
    };
    Some(Executable { name, path, purpose })
}

/// A dynamic program names its loader; a static one has none.
pub(crate) fn is_static(program: &[u8]) -> bool {
    let loaders: [&[u8]; 2] = [b"/lib64/ld-linux", b"/ld-linux-aarch64"];
    !loaders.iter().any(|loader| program.windows(loader.len()).any(|window| window == *loader))
}

#[cfg(test)]
mod tests {
    use super::{Purpose, executable, is_static};

    #[test]
    fn a_loader_makes_a_program_dynamic() {
        assert!(is_static(b"\x7fELF busybox"));
        assert!(!is_static(b"\x7fELF /lib64/ld-linux-x86-64.so.2"));
    }

    #[test]
    fn cargo_names_its_executables() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"process"},
            "profile":{"test":true},"executable":"/t/deps/process-1f"}"#;
        let built = executable(line).unwrap();
        assert_eq!((built.name.as_str(), built.purpose), ("process", Purpose::IntegrationTest));
        assert_eq!(built.path.to_str(), Some("/t/deps/process-1f"));
    }

    #[test]
    fn libraries_and_other_lines_are_no_executables() {
        let library = r#"{"target":{"kind":["lib"],"name":"x"},"profile":{"test":false},"executable":null}"#;
        assert!(executable(library).is_none());
        assert!(executable("not JSON").is_none());
    }
}
