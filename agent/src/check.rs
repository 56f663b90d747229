//! `tellwire check`: what this kernel offers, which probe attaches where, and why not; which rule the kernel takes.
//!
//! The programs are really loaded and attached, for a moment and scoped to nothing, since no list of
//! facts answers whether a verifier takes a program.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    audit,
    config::Config,
    failure::Failure,
    host::HostRoot,
    kernel::{Attached, Kernel, hooks::Point, offsets, options::Options, support, types},
    pam::{self, HostLibraries},
    rules::{Placement, placements},
    scope::Scope,
};

/// The report, and whether anything can be attached at all.
///
/// Where each rule of the configuration is judged is said too.
pub(crate) fn report(as_json: bool, config: &Config) -> Result<(String, bool), Failure> {
    support::check_capabilities().map_err(Failure::privilege)?;
    let host = HostRoot::new("/");
    let start = Instant::now();
    let types = types::read(&config.kernel.btf).map_err(types::Error::failure)?;
    let offsets = offsets::resolve(&types.btf).map_err(Failure::unavailable)?;
    let types_took = start.elapsed();
    let support = support::Support::detect(&host, &types, true, support::Probed::Returns);
    let options = Options::smallest();
    let kernel = Kernel::load(&options, &support, &offsets, &types, Some(&Scope::nothing()))
        .map_err(Failure::unavailable)?;
    let libraries = pam::on_host(&host, &kernel.libraries);
    let audit = audit::facts(&host);
    let report = Report {
        audit,
        support: &support,
        kernel: &kernel,
        libraries,
        rules: placements(&config.rules),
        types,
        types_took,
    };
    let text = if as_json { format!("{:#}\n", report.json()) } else { report.text() };
    Ok((text, kernel.any_attached()))
}

struct Report<'a> {
    types: types::Types,
    /// Reading them, and looking up every field.
    types_took: Duration,
    audit: audit::Facts,
    support: &'a support::Support,
    kernel: &'a Kernel,
    libraries: HostLibraries,
    rules: Vec<Placement>,
}

impl Report<'_> {
    fn json(&self) -> Value {
        let verified = self.kernel.verified_instructions();
        let probes: Vec<Value> = self
            .kernel
            .probes
            .iter()
            .map(|attached| {
                let Attached { probe, chosen, passed_over } = attached;
                let points = chosen.map_or(&[] as &[Point], |chosen| chosen.points);
                json!({
                    "probe": probe.name,
                    "gives": probe.gives,
                    "attached": attached.is_attached(),
                    "by": chosen.map(|chosen| chosen.by.name()),
                    "reason": attached.failure(),
                    "note": chosen.map_or("", |chosen| chosen.note),
                    "passed_over": passed_over
                        .iter()
                        .map(|(alternative, why)| json!({"by": alternative.by.name(), "reason": why}))
                        .collect::<Vec<_>>(),
                    "hooks": points.iter().map(|point| format!("{:?}", point.hook)).collect::<Vec<_>>(),
                    "verified_instructions": points
                        .iter()
                        .filter_map(|point| verified.iter().find(|(name, _)| *name == point.program))
                        .map(|(_, count)| count)
                        .sum::<u32>(),
                })
            })
            .collect();
        json!({
            "kernel": self.support.release,
            "btf": self.types.path,
            "btf_seconds": self.types_took.as_secs_f64(),
            "cgroup_v2": self.support.hierarchies.v2,
            "cgroup_v1": self.support.hierarchies.v1.as_ref().map(|v1| &v1.controller),
            "possible_cpus": crate::kernel::possible_cpus(),
            "probes": probes,
            "programs": verified
                .iter()
                .map(|(program, count)| (program.to_string(), json!(count)))
                .collect::<serde_json::Map<_, _>>(),
            "degradations": self.kernel.degradations(self.support).iter().map(|row| {
                json!({"name": row.name, "kernels": row.kernels, "lacks": row.lacks, "reason": row.reason})
            }).collect::<Vec<_>>(),
            "audit": {
                "connected": self.audit.failure.is_none(),
                "enabled": self.audit.is_enabled(),
                "reason": self.audit.reason(),
            },
            "libpam": self.libraries.json(),
            "rules": self.rules.iter().map(|placement| {
                let Placement { rule, in_kernel, why } = placement;
                let in_kernel: Vec<_> = in_kernel.iter().map(|action| action.name()).collect();
                json!({"rule": rule, "in_kernel_for": in_kernel, "why": why})
            }).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let hierarchies = &self.support.hierarchies;
        let v2 = hierarchies.v2.as_ref().map_or("none".into(), |mount| mount.display().to_string());
        let v1 = hierarchies.v1.as_ref().map_or("none", |v1| v1.controller.as_str());
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "kernel      {}", self.support.release);
        let (path, took) = (self.types.path.display(), self.types_took.as_secs_f64() * 1e3);
        let _infallible = writeln!(text, "types       {path}, looked up in {took:.1} ms");
        let _infallible = writeln!(text, "cgroup v2   {v2}");
        let _infallible = writeln!(text, "cgroup v1   {v1}");
        let _infallible = writeln!(text, "cpus        {}\n", crate::kernel::possible_cpus());
        for attached in &self.kernel.probes {
            let Attached { probe, chosen, passed_over } = attached;
            let mark = if attached.is_attached() { "yes" } else { "NO" };
            let _infallible = writeln!(text, "{mark:<4}{:<17}{}", probe.name, probe.gives);
            if let Some(chosen) = chosen {
                let _infallible = writeln!(text, "{:21}by {}", "", chosen.by.name());
            }
            for (alternative, why) in passed_over {
                let _infallible = writeln!(text, "{:21}not by {}: {why}", "", alternative.by.name());
            }
            if let Some(note) = chosen.map(|chosen| chosen.note).filter(|note| !note.is_empty()) {
                let _infallible = writeln!(text, "{:21}{note}", "");
            }
        }
        let mark = if self.audit.failure.is_none() { "yes" } else { "NO" };
        let _infallible = writeln!(text, "{mark:<4}{:<17}what sshd, libpam, sudo and others report", "audit");
        if let Some(reason) = self.audit.reason() {
            let _infallible = writeln!(text, "{:21}{reason}", "");
        }
        let _infallible = writeln!(text, "\nlibpam      {}", self.libraries.text());
        for row in self.libraries.not_covered() {
            let _infallible = writeln!(text, "    does not cover {row}");
        }
        let degradations = self.kernel.degradations(self.support);
        if !degradations.is_empty() {
            let _infallible = writeln!(text, "\nnot to be had here");
        }
        for row in degradations {
            let _infallible = writeln!(text, "    {}: {}", row.lacks, row.reason);
        }
        if !self.rules.is_empty() {
            let _infallible = writeln!(text, "\nrules");
        }
        for placement in &self.rules {
            let _infallible = writeln!(text, "    {:<17}{placement}", placement.rule);
        }
        text
    }
}
