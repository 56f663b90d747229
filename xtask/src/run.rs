//! `cargo xtask run`: builds as the user, and asks for root only to run.

use std::{env, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    build::{self, Linking, Profile},
    say, setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Arguments for `tellwire run`, as in `cargo xtask run -- --json`.
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { args } = options;
    let sh = setup::ready()?;
    // The release profile: what people see here is what is shipped.
    let agent = build::agent(&sh, Profile::Release, Linking::Host)?;

    let mut command = as_root(&agent)?;
    command.arg("run").args(args);
    say(format_args!("running {} run {}", agent.display(), args.join(" ")));
    // The agent takes the place of this process: signals and the exit status are its own.
    Err(command.exec()).with_context(|| format!("starting {}", command.get_program().display()))
}

/// A command that runs `program` as root: itself, or through sudo.
fn as_root(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    ensure!(has_sudo(), "loading eBPF programs needs root, and sudo is missing: run this as root");
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(program);
    Ok(sudo)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn has_sudo() -> bool {
    on_path("sudo")
}

/// Whether a program of this name stands in PATH, or where Debian keeps root's programs.
pub(crate) fn on_path(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into);
    env::split_paths(&path).chain(system).any(|folder| folder.join(name).is_file())
}
