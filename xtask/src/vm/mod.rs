//! `cargo xtask vm`: the live tests on other kernels, machine types and configurations, in QEMU without acceleration.
//!
//! The guest is a kernel and an initramfs (`guest`). A boot is a [`Job`] (`machine`): `tellwire check`, then the tests. Its last
//! line says how it went; without that line it failed, whatever QEMU's exit status.

mod configuration;
mod debian;
mod guest;
mod kernel;
mod machine;
mod table;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use serde_json::Value;
use xshell::Shell;

use self::{
    configuration::Configuration,
    guest::System,
    kernel::Image,
    machine::{Job, Outcome},
};
use crate::{
    build::Arch,
    packages::{self, Need},
    say, setup,
    summary::{Summary, stage},
    verify,
};

/// What `cargo xtask test` boots: the oldest kernel and the newest.
pub(crate) const OLDEST_AND_NEWEST: &str = "5.10,7";

#[derive(Args)]
pub(crate) struct Options {
    /// Releases of Debian's cloud kernels, with commas between; `all` for the matrix; `6.12-64k`, which is compiled; or the path
    /// of a kernel image.
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// The machine type: `x86_64`, `aarch64`, or `all`.
    #[arg(long, default_value = Arch::HOST.machine())]
    arch: String,
    /// How the machine is set up, with commas between; `all` for all of them; without it plainly.
    #[arg(long)]
    configuration: Option<String>,
    /// Only these suites, with commas between.
    #[arg(long)]
    suite: Option<String>,
    /// Machines that run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Run only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let sh = setup::ready()?;
    stage("live tests on other kernels", || tests(&sh, options)).conclude()
}

/// All but `pam` and `containers`, which have their turn on the host and take an emulated machine five minutes more.
const IN_EACH_RUN: &str = "process,network,privilege,machine";

/// The live tests on these kernels, as they are run by `cargo xtask test`.
pub(crate) fn on_kernels(sh: &Shell, kernels: &str, filter: Option<&str>) -> Result<Summary> {
    let options = Options {
        kernel: kernels.into(),
        arch: Arch::HOST.machine().into(),
        configuration: None,
        suite: Some(IN_EACH_RUN.into()),
        jobs: 2,
        filter: filter.map(Into::into),
    };
    tests(sh, &options)
}

/// The kernels' types, compressed and in base 64, by release and machine type.
pub(crate) fn types(sh: &Shell, kernels: &str, arch: &str) -> Result<Vec<(String, Arch, String)>> {
    let guests = guests(sh, kernels, arch)?;
    let jobs: Vec<Job<'_>> = guests
        .iter()
        .map(|guest| Job { tests: &[], gives_types: true, ..guest.job(&configuration::PLAIN) })
        .collect();
    let outcomes = all(&jobs, 2);
    guests
        .iter()
        .zip(outcomes)
        .map(|(guest, outcome)| Ok((guest.release.clone(), guest.arch, outcome?.types)))
        .collect()
}

/// What `tellwire check --json` says on these kernels, by release and machine type.
pub(crate) fn checks(sh: &Shell, kernels: &str, arch: &str) -> Result<Vec<(String, Arch, Value)>> {
    let guests = guests(sh, kernels, arch)?;
    let jobs: Vec<Job<'_>> =
        guests.iter().map(|guest| Job { tests: &[], ..guest.job(&configuration::PLAIN) }).collect();
    let outcomes = all(&jobs, 2);
    let check = |outcome: Result<Outcome>| outcome?.check.context("`tellwire check` said nothing");
    guests
        .iter()
        .zip(outcomes)
        .map(|(guest, outcome)| Ok((guest.release.clone(), guest.arch, check(outcome)?)))
        .collect()
}

/// Builds what the guests run, boots them, and counts their tests.
fn tests(sh: &Shell, options: &Options) -> Result<Summary> {
    let configurations = configuration::named(options.configuration.as_deref())?;
    let suites = guest::suites(options.suite.as_deref())?;
    let mut guests = guests(sh, &options.kernel, &options.arch)?;
    if configurations.iter().any(|configuration| configuration.system == System::Systemd) {
        for guest in &mut guests {
            guest.node = Some(guest::pack(sh, guest.arch, System::Systemd)?);
        }
    }
    let jobs: Vec<Job<'_>> = guests
        .iter()
        .flat_map(|guest| configurations.iter().map(move |configuration| guest.job(configuration)))
        .map(|job| {
            let is_node = job.configuration.system == System::Systemd;
            let tests = if is_node { &[guest::NODE] } else { suites.as_slice() };
            Job { tests, filter: options.filter.as_deref(), ..job }
        })
        .collect();
    let outcomes = all(&jobs, options.jobs);
    let rows: Vec<_> = jobs.iter().zip(&outcomes).collect();
    say(table::render(&rows));
    let verified = stage("what the programs cost the verifier", || {
        let plain =
            guests.iter().flat_map(|guest| configurations.iter().map(move |known| (guest, known.name)));
        let checks = plain.zip(&outcomes).filter(|((_, configuration), _)| configuration.is_empty());
        let checks = checks.filter_map(|((guest, _), outcome)| {
            let check = outcome.as_ref().ok()?.check.as_ref()?;
            Some((format!("{} {}", guest.release, guest.arch.machine()), check))
        });
        verify::compare_checks(&checks.collect::<Vec<_>>())
    });
    Ok(outcomes
        .into_iter()
        .map(|outcome| {
            outcome.map_or_else(|error| Summary::broken(format!("{error:#}")), |outcome| outcome.summary)
        })
        .chain([verified])
        .sum())
}

/// A kernel, and what it is booted with.
struct Guest {
    /// As it was asked for.
    release: String,
    kernel: Image,
    arch: Arch,
    initramfs: PathBuf,
    /// What a node is booted with, where one was asked for.
    node: Option<PathBuf>,
}

impl Guest {
    fn job<'a>(&'a self, configuration: &'a Configuration) -> Job<'a> {
        let Self { kernel, arch, .. } = self;
        let (arch, tests) = (*arch, guest::TESTS.as_slice());
        let initramfs = match configuration.system {
            System::Script => &self.initramfs,
            System::Systemd => self.node.as_ref().unwrap_or(&self.initramfs),
        };
        Job { kernel, arch, initramfs, configuration, tests, filter: None, gives_types: false }
    }
}

/// Kernels are fetched before anything is built: what is missing shows at once.
fn guests(sh: &Shell, kernels: &str, arch: &str) -> Result<Vec<Guest>> {
    let archs: Vec<Arch> = match arch {
        "all" => Arch::ALL.to_vec(),
        one => Arch::ALL.into_iter().filter(|known| known.machine() == one).collect(),
    };
    ensure!(!archs.is_empty(), "no machine type {arch}: x86_64, aarch64, all");
    packages::ensure(sh, Need::Vm)?;
    let mut guests = Vec::new();
    for arch in archs {
        if arch != Arch::HOST {
            packages::ensure(sh, Need::ForeignVm)?;
        }
        let releases = kernel::releases(kernels, arch);
        let images: Vec<Image> =
            releases.iter().map(|release| kernel::image(sh, release, arch)).collect::<Result<_>>()?;
        let initramfs = guest::pack(sh, arch, System::Script)?;
        guests.extend(releases.into_iter().zip(images).map(|(release, kernel)| {
            let initramfs = initramfs.clone();
            Guest { release, kernel, arch, initramfs, node: None }
        }));
    }
    Ok(guests)
}

/// Runs all jobs, so many at a time; their outcomes are in the order of the jobs. Those that take longest come first, so that none
/// is alone at the end.
fn all(jobs: &[Job<'_>], at_a_time: usize) -> Vec<Result<Outcome>> {
    let mut order: Vec<(usize, &Job<'_>)> = jobs.iter().enumerate().collect();
    order.sort_by_key(|(_, job)| !job.is_long());
    let queue: Mutex<VecDeque<usize>> = Mutex::new(order.into_iter().map(|(index, _)| index).collect());
    let outcomes: Vec<Mutex<Option<Result<Outcome>>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|threads| {
        for _ in 0..at_a_time.clamp(1, jobs.len().max(1)) {
            threads.spawn(|| {
                while let Some(index) = next() {
                    if let (Some(job), Some(place)) = (jobs.get(index), outcomes.get(index)) {
                        let outcome = job.run();
                        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                    }
                }
            });
        }
    });
    let taken = outcomes.into_iter().map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner));
    taken.map(|outcome| outcome.unwrap_or_else(|| Err(anyhow!("it was not booted")))).collect()
}
