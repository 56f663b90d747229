//! `cargo xtask`: tellwire's development commands. This file only dispatches.
//!
//! One file per command. What several need stands in `setup` (the toolchain), `build` (cargo's binaries),
//! `stream` (output as it comes) and `summary` (counting tests).

mod archive;
mod bench;
mod btf;
mod build;
mod dashboards;
mod deployment;
mod dist;
mod docs;
mod image;
mod lint;
mod packages;
mod run;
mod sbom;
mod setup;
mod stream;
mod summary;
mod test;
mod tidy;
mod verify;
mod vm;

use std::{fmt::Display, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "tellwire's development commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure what the agent costs and whether anything is lost.
    Bench(bench::Options),
    /// Bring what a build needs: toolchain parts and the BPF linker.
    Setup,
    /// Build the agent and print the path of its binary.
    Build(build::Options),
    /// Make what is installed on machines: tarball, .deb and .rpm.
    Dist(dist::Options),
    /// Write Grafana's dashboards, or check them.
    Dashboards(dashboards::Options),
    /// Check the Kubernetes manifests, the Helm chart and the dashboards.
    Deployment,
    /// Write the generated pages of docs/, or check them.
    Docs(docs::Options),
    /// Make the container image, with neither a daemon nor a base image.
    Image(image::Options),
    /// Build the agent, then run it as root: live events on the terminal.
    Run(run::Options),
    /// Check formatting, clippy (host and BPF) and the house rules.
    Lint,
    /// Run every test: units, live ones on this kernel, live ones in a VM.
    Test(test::Options),
    /// Write what the agent looks up of the matrix's kernels' types into the agent's test data.
    Btf(btf::Options),
    /// Hold what each program costs the verifier against a committed table.
    Verify(verify::Options),
    /// Run the live tests on other kernels, in QEMU.
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let outcome = match command {
        Command::Bench(options) => bench::run(&options),
        Command::Setup => setup::run(),
        Command::Build(options) => build::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Dashboards(options) => dashboards::run(&options),
        Command::Deployment => deployment::run(),
        Command::Docs(options) => docs::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Lint => lint::run(),
        Command::Test(options) => test::run(&options),
        Command::Btf(options) => btf::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Vm(options) => vm::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "xtask speaks to a person")]
fn say(text: impl Display) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "xtask speaks to a person")]
fn complain(text: impl Display) {
    eprintln!("error: {text}");
}
