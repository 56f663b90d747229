//! `cargo xtask test`: units, generated documents, the chart and the manifests, then live tests on this kernel, then the same in a VM.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    process::Command,
};

use anyhow::{Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::{
    build::{self, Arch, Linking, Profile},
    deployment, dist, docs, image,
    packages::{self, Need},
    run, setup,
    summary::{Summary, stage},
    vm,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Leave the VM out.
    #[arg(long)]
    no_vm: bool,
    /// Run only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { no_vm, filter } = options;
    let filter = filter.as_deref();
    let sh = setup::ready()?;
    if io::stdout().is_terminal() {
        // Cargo writes to a pipe of ours, and would think that nobody looks.
        sh.set_var("CARGO_TERM_COLOR", "always");
    }
    let mut stages = vec![stage("unit tests", || units(&sh, filter))];
    if filter.is_none() {
        stages.push(stage("generated documents", || documents(&sh)));
        stages.push(stage("chart and manifests", || deployment::check(&sh)));
    }
    stages.push(stage("live tests on this kernel", || live(&sh, filter)));
    if !no_vm {
        stages.push(stage("live tests on other kernels", || vm::in_each_run(&sh, filter)));
    }
    stages.into_iter().sum::<Summary>().conclude()
}

/// Unit, replay and command line tests: no kernel, no root.
fn units(sh: &Shell, filter: Option<&str>) -> Result<Summary> {
    packages::ensure(sh, Need::Units)?;
    let packages = ["--package", "tellwire", "--package", "tellwire-ebpf", "--package", "xtask"];
    let tests = cmd!(sh, "cargo test --no-fail-fast {packages...} {filter...}");
    Summary::of(tests.into())
}

/// The pages of docs/ against what the agent says: one test.
fn documents(sh: &Shell) -> Result<Summary> {
    docs::check(sh)?;
    let mut summary = Summary::default();
    summary.see("test result: ok. 1 passed; 0 failed");
    Ok(summary)
}

fn live(sh: &Shell, filter: Option<&str>) -> Result<Summary> {
    packages::ensure(sh, Need::Live)?;
    // What is shipped: the image, the packages and the VMs have the same one, and it is built once.
    let agent = build::agent(sh, Profile::Release, Linking::Static(Arch::HOST))?;
    let mut tests = live_tests(sh, &agent, filter)?;
    // Minutes of building, which one test seldom needs: those of the image and the packages say what they miss.
    if filter.is_none() {
        let target = setup::root()?.join("target");
        let (image, packages) = (target.join("image-of-the-tests"), target.join("dist-of-the-tests"));
        image::make(sh, &[Arch::HOST], &image::reference(), &image)?;
        dist::make(sh, &[Arch::HOST], &packages)?;
        tests.env("TELLWIRE_IMAGE", image).env("TELLWIRE_DIST", packages);
    }
    Summary::of(tests)
}

/// Cargo builds as the user; only the test binaries run as root.
fn live_tests(sh: &Shell, agent: &Path, filter: Option<&str>) -> Result<Command> {
    let tests = cmd!(sh, "cargo test --no-fail-fast --package tellwire-tests {filter...}");
    let mut tests = Command::from(tests.env("TELLWIRE_BIN", agent));
    if !run::is_root() {
        ensure!(run::has_sudo(), "live tests need root, and sudo is missing: run this as root");
        let host = setup::rustc_says(sh, "host")?.to_uppercase().replace('-', "_");
        tests.env(format!("CARGO_TARGET_{host}_RUNNER"), "sudo --preserve-env");
    }
    Ok(tests)
}
