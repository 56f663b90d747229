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

/// What `cargo xtask test` boots: the oldest kernel, the newest, and a node. `containers`, and `pam` on the oldest, have their turn
/// on the host, and would take minutes more.
const IN_EACH_RUN: [(&str, Option<&str>, Option<&str>); 3] = [
    ("5.10", None, Some("process,network,privilege,audit,machine")),
    ("7", None, Some("process,network,privilege,audit,pam,machine")),
    ("6.12", Some("systemd"), None),
];

/// Each guest waits for a part of its time, so three are sooner done on two cores than two.
const AT_A_TIME: usize = 3;

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
    #[arg(long, default_value_t = AT_A_TIME)]
    jobs: usize,
    /// Run only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let sh = setup::ready()?;
    stage("live tests on other kernels", || tests(&sh, std::slice::from_ref(options), options.jobs))
        .conclude()
}

/// The live tests on other kernels, as they are run by `cargo xtask test`.
pub(crate) fn in_each_run(sh: &Shell, filter: Option<&str>) -> Result<Summary> {
    let all = IN_EACH_RUN.map(|(kernel, configuration, suite)| Options {
        kernel: kernel.into(),
        arch: Arch::HOST.machine().into(),
        configuration: configuration.map(Into::into),
        suite: suite.map(Into::into),
        jobs: AT_A_TIME,
        filter: filter.map(Into::into),
    });
    tests(sh, &all, AT_A_TIME)
}

/// The kernels' types, compressed and in base 64, by release and machine type.
pub(crate) fn types(sh: &Shell, kernels: &str, arch: &str) -> Result<Vec<(String, Arch, String)>> {
    let guests = guests(sh, kernels, arch)?;
    let jobs: Vec<Job<'_>> = guests
        .iter()
        .map(|guest| Job { tests: &[], gives_types: true, ..guest.job(&configuration::PLAIN) })
        .collect();
    let outcomes = all(&jobs, AT_A_TIME);
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
    let outcomes = all(&jobs, AT_A_TIME);
    let check = |outcome: Result<Outcome>| outcome?.check.context("`tellwire check` said nothing");
    guests
        .iter()
        .zip(outcomes)
        .map(|(guest, outcome)| Ok((guest.release.clone(), guest.arch, check(outcome)?)))
        .collect()
}

/// Builds what the guests run, boots them, and counts their tests.
fn tests(sh: &Shell, asked: &[Options], at_a_time: usize) -> Result<Summary> {
    let mut plans = Vec::new();
    for Options { kernel, arch, configuration, suite, filter, .. } in asked {
        let configurations = configuration::named(configuration.as_deref())?;
        let suites = guest::suites(suite.as_deref())?;
        let mut guests = guests(sh, kernel, arch)?;
        if configurations.iter().any(|configuration| configuration.system == System::Systemd) {
            for guest in &mut guests {
                guest.node = Some(guest::pack(sh, guest.arch, System::Systemd)?);
            }
        }
        plans.push((guests, configurations, suites, filter.as_deref()));
    }
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (guests, configurations, suites, filter) in &plans {
        for guest in guests {
            jobs.extend(configurations.iter().map(|configuration| {
                let is_node = configuration.system == System::Systemd;
                let tests = if is_node { &[guest::NODE] } else { suites.as_slice() };
                Job { tests, filter: *filter, ..guest.job(configuration) }
            }));
        }
    }
    let outcomes = all(&jobs, at_a_time);
    let rows: Vec<_> = jobs.iter().zip(&outcomes).collect();
    say(table::render(&rows));
    let verified = stage("what the programs cost the verifier", || {
        let checks = rows.iter().filter(|(job, _)| job.configuration.name.is_empty());
        let checks = checks.filter_map(|(job, outcome)| {
            let check = outcome.as_ref().as_ref().ok()?.check.as_ref()?;
            Some((format!("{} {}", job.release, job.arch.machine()), check))
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
        let Self { release, kernel, arch, .. } = self;
        let (arch, tests) = (*arch, guest::TESTS.as_slice());
        let initramfs = match configuration.system {
            System::Script => &self.initramfs,
            System::Systemd => self.node.as_ref().unwrap_or(&self.initramfs),
        };
        Job { release, kernel, arch, initramfs, configuration, tests, filter: None, gives_types: false }
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
