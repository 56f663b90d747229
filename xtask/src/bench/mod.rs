//! `cargo xtask bench`: what the agent costs and whether anything is lost, measured on this machine.
//!
//! Times are given as ratios or per event, in one run with and without the agent in turns: the machine may be
//! shared. `load` makes the work, `agent` runs the agent and reads its metrics, `report` says what came of it, `rules`
//! is a part by itself.

mod agent;
mod load;
mod names;
mod report;
mod rules;
mod services;
mod volume;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    agent::Agent,
    load::{Work, Workload},
    report::{Goal, Report},
};
use crate::{
    build::{self, Linking, Profile},
    run::is_root,
    say, setup,
};

/// Measure the agent on this machine.
#[derive(Args)]
pub(crate) struct Options {
    /// Length of each loaded stretch, in seconds; the figures of the README are those of 60
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only these parts: start, kernel, tax, cost, load, overload, rules, volume
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Write the result as JSON to this file too
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// Set by the bench itself: be the workload
    #[arg(long, hide = true)]
    workload: Option<String>,
}

/// Runs the bench, or, in the child that it starts, a workload.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(spec) = &options.workload {
        return load::child(spec);
    }
    if !is_root() {
        bail!(
            "the bench loads kernel programs: run it as root (sudo -E env PATH=\"$PATH\" cargo xtask bench)"
        );
    }
    let sh = setup::ready()?;
    let binary = build::agent(&sh, Profile::Release, Linking::Static(build::Arch::HOST))?;
    let length = Duration::from_secs(options.seconds.max(1));
    let wants = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    let mut report = Report::default();
    let bench = Bench { binary, length };
    if wants("start") {
        bench.start(&mut report)?;
    }
    if wants("kernel") {
        bench.kernel(&mut report)?;
    }
    if wants("tax") {
        bench.tax(&mut report)?;
    }
    if wants("cost") {
        bench.cost(&mut report)?;
    }
    if wants("load") {
        bench.load(&mut report)?;
    }
    if wants("overload") {
        bench.overload(&mut report)?;
    }
    if wants("rules") {
        bench.rules(&mut report)?;
    }
    if wants("volume") {
        volume::measure(&bench.binary, bench.length, &mut report)?;
    }
    report.print();
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()).with_context(|| format!("writing {}", path.display()))?;
    }
    report.verdict()
}

struct Bench {
    binary: std::path::PathBuf,
    length: Duration,
}

/// What some probes took for one event.
struct ProbeTime {
    micros: f64,
    /// Runs of each probe's programs.
    runs: Vec<(&'static str, f64)>,
}

impl ProbeTime {
    fn runs_of(&self, probe: &str) -> f64 {
        self.runs.iter().find(|(name, _)| *name == probe).map_or(0.0, |(_, runs)| *runs)
    }
}

/// Our side changes its state three times (SYN_SENT, ESTABLISHED, CLOSE), and two programs look at each.
const OWN_STATE_RUNS: f64 = 6.0;

/// The rates of the goals, in events a second.
const EXECS: u32 = 1_500;
const CONNECTS: u32 = 20_000;
const CONNECTS_FOR_COST: u32 = 5_000;

/// An agent has settled: `own/memory.rs` gives back what its start needed 10 s after it.
const SETTLED: Duration = Duration::from_secs(12);

impl Bench {
    /// What the agent takes where nothing happens.
    fn start(&self, report: &mut Report) -> Result<()> {
        say("start: memory of an agent that has settled");
        let agent = Agent::start(&self.binary, "", "file:/dev/null")?;
        load::pause(SETTLED);
        report.section("after start");
        report.figure("highest RSS", agent.memory("VmHWM")?, "MiB");
        report.goal(&Goal::at_most("RSS", 10.0, "MiB"), agent.memory("VmRSS")?);
        agent.stop()?;
        let goal = Goal::at_most("types: read, and every field looked up", 20.0, "ms");
        report.goal(&goal, agent::types_millis(&self.binary)?);
        Ok(())
    }

    /// Time in the kernel programs, from BPF statistics.
    fn kernel(&self, report: &mut Report) -> Result<()> {
        say("kernel: time in the programs (BPF statistics on)");
        let _statistics = agent::Statistics::on()?;
        let agent = Agent::start(&self.binary, "", "file:/dev/null")?;
        let exec = self.probe_time(&agent, Workload::Exec, agent::EXEC_PROBES, report)?;
        report.goal(&Goal::at_most("an exec: 1 KiB of argv, path depth 8", 5.0, "µs"), exec.micros);
        // The other end of a connect on loopback changes its state too, on the same machine: that is taken off, by
        // the time of a run that finds nothing to do.
        let idle = self.probe_time(&agent, Workload::Listen, &["connect"], report)?;
        let connect = self.probe_time(&agent, Workload::Connect, agent::CONNECT_PROBES, report)?;
        let of_the_peer =
            (connect.runs_of("connect") - OWN_STATE_RUNS) * idle.micros / idle.runs_of("connect");
        report.figure("both ends", connect.micros, "µs");
        let goal = Goal::at_most("a whole connect: hook, SYN_SENT, outcome, close of our side", 2.0, "µs");
        report.goal(&goal, connect.micros - of_the_peer);
        agent.stop().map(drop)
    }

    /// Runs a workload and reads what the probes took for each of its events.
    fn probe_time(
        &self,
        agent: &Agent,
        workload: Workload,
        probes: &[&'static str],
        report: &mut Report,
    ) -> Result<ProbeTime> {
        let work = Work { workload, rate: 0, length: self.length / 2 };
        let before = agent.read()?;
        let done = work.run(Some(agent.cgroup()))?;
        let after = agent.read()?;
        report.section(&format!("kernel time of {}", workload.name()));
        let mut time = ProbeTime { micros: 0.0, runs: Vec::new() };
        for probe in probes {
            let seconds = after.probe_seconds(probe) - before.probe_seconds(probe);
            let runs = after.probe_runs(probe) - before.probe_runs(probe);
            let each = seconds * 1e6 / done.count();
            time.micros += each;
            time.runs.push((probe, runs / done.count()));
            let note =
                format!("µs ({:.1} runs of {:.0} ns)", runs / done.count(), seconds * 1e9 / runs.max(1.0));
            report.figure(&format!("probe {probe}, for each {}", workload.name()), each, &note);
        }
        Ok(time)
    }

    /// What system calls cost that nobody looks at, in turns with and without the agent.
    fn tax(&self, report: &mut Report) -> Result<()> {
        say("tax: a system call that no probe looks at, in turns without and with the agent");
        let work = Work { workload: Workload::Getppid, rate: 0, length: self.length / 10 };
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            without.push(work.run(None)?.nanos_each());
            let agent = Agent::start(&self.binary, "", "file:/dev/null")?;
            with.push(work.run(None)?.nanos_each());
            agent.stop()?;
        }
        report.section("system calls that no probe looks at");
        let (without, with) = (median(&mut without), median(&mut with));
        report.figure("getppid without the agent", without, "ns");
        report.figure("getppid with it", with, "ns");
        report.goal(&Goal::at_most("tax (syscall tracepoints attached)", 60.0, "ns"), with - without);
        Ok(())
    }

    /// CPU of the agent per event, and what the workload itself feels.
    fn cost(&self, report: &mut Report) -> Result<()> {
        for (workload, rate, goal) in [
            (Workload::Exec, EXECS, Goal::at_most("agent CPU per exec", 20.0, "µs")),
            (Workload::Connect, CONNECTS_FOR_COST, Goal::at_most("agent CPU per connect", 5.0, "µs")),
        ] {
            for profile in ["default", "full"] {
                say(format_args!("cost: {rate} {}s a second, JSON to a file, {profile}", workload.name()));
                let work = Work { workload, rate, length: self.length };
                let config = format!("agent.profile = \"{profile}\"\n");
                let agent = Agent::start(&self.binary, &config, "file:events.ndjson")?;
                let before = agent.read()?;
                let cpu_before = agent.cpu_seconds()?;
                let done = work.run(Some(agent.cgroup()))?;
                let after = agent.read_when_settled(&before, (workload, &done))?;
                report.section(&format!("user side at {rate} {}s a second, {profile}", workload.name()));
                report.figure("reached", done.rate(), "a second");
                let cpu = (agent.cpu_seconds()? - cpu_before) * 1e6 / done.count();
                report.figure("bytes of JSON per event", after.output_bytes() / done.count(), "B");
                match profile {
                    "default" => report.goal(&goal, cpu),
                    _ => report.figure(&format!("agent CPU per {}", workload.name()), cpu, "µs"),
                }
                agent.stop()?;
            }

            let work = Work { workload, rate: 0, length: self.length / 5 };
            let (mut without, mut with) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                without.push(work.run(None)?.nanos_each());
                let agent = Agent::start(&self.binary, "", "file:events.ndjson")?;
                with.push(work.run(Some(agent.cgroup()))?.nanos_each());
                agent.stop()?;
            }
            let slower = median(&mut with) / median(&mut without) - 1.0;
            report.figure("the workload at full speed is slower by", slower * 100.0, "%");
        }
        Ok(())
    }

    /// Nothing is lost at the rates of the goals, and memory stays small.
    fn load(&self, report: &mut Report) -> Result<()> {
        for (workload, rate) in [(Workload::Connect, CONNECTS), (Workload::Exec, EXECS)] {
            say(format_args!("load: {rate} {}s a second for {} s", workload.name(), self.length.as_secs()));
            let work = Work { workload, rate, length: self.length };
            let agent = Agent::start(&self.binary, "", "file:events.ndjson")?;
            let before = agent.read()?;
            let done = work.run(Some(agent.cgroup()))?;
            let after = agent.read_when_settled(&before, (workload, &done))?;
            report.section(&format!("{rate} {}s a second at default settings", workload.name()));
            report.figure("reached", done.rate(), "a second");
            report.figure("generated", done.count(), "");
            report.goal(
                &Goal::exactly("counted minus generated", 0.0),
                after.events(workload) - before.events(workload) - done.count(),
            );
            report.goal(
                &Goal::exactly("lines and folded minus generated", 0.0),
                after.taken(workload) - before.taken(workload) - done.count(),
            );
            report.goal(&Goal::exactly("lost", 0.0), after.lost());
            report.goal(&Goal::exactly("throttled", 0.0), after.throttled());
            report.goal(&Goal::exactly("ledger balanced", 1.0), after.balanced());
            report.goal(&Goal::at_most("steady RSS (VmRSS)", 25.0, "MiB"), agent.memory("VmRSS")?);
            report.figure("peak RSS (VmHWM)", agent.memory("VmHWM")?, "MiB");
            report.figure("of it the rings", after.ring_bytes() / MIB, "MiB");
            if let Some(bytes) = agent.cgroup_memory() {
                report.figure("memory.current (kernel maps included)", bytes / MIB, "MiB");
                let cpus = agent::possible_cpus()?;
                for other in [64.0, 256.0] {
                    let more = (other - cpus) * agent::BYTES_PER_CPU / MIB;
                    report.figure(&format!("the same with {other} possible CPUs"), bytes / MIB + more, "MiB");
                }
            }
            let status = agent.stop()?;
            report.goal(&Goal::exactly("books exact after the drain", 1.0), f64::from(u8::from(status)));
        }
        Ok(())
    }

    /// With rings of 64 KiB records are lost, and every one is counted.
    fn overload(&self, report: &mut Report) -> Result<()> {
        say("overload: rings of 64 KiB, and a reader that is stopped for a second again and again");
        let agent = Agent::start(&self.binary, "[kernel]\nring-bytes = 65536\n", "file:events.ndjson")?;
        let before = agent.read()?;
        let mut balanced = 1.0_f64;
        let mut watch = || -> Result<()> {
            balanced = balanced.min(agent.read()?.balanced());
            // Early wake-ups keep up with the load even so; a reader that does not run is what no wake-up helps.
            agent.stall(Duration::from_millis(500))
        };
        let connects = Work { workload: Workload::Connect, rate: CONNECTS, length: self.length / 2 }
            .run_watched(Some(agent.cgroup()), &mut watch)?;
        let execs = Work { workload: Workload::Exec, rate: EXECS, length: self.length / 2 }
            .run_watched(Some(agent.cgroup()), &mut watch)?;
        let after = agent.read_when_settled(&before, (Workload::Connect, &connects))?;
        report.section("rings of 64 KiB, and a reader that is stopped again and again");
        for (workload, done) in [(Workload::Connect, &connects), (Workload::Exec, &execs)] {
            let name = workload.name();
            report.figure(&format!("{name}s generated"), done.count(), "");
            report.goal(
                &Goal::exactly(&format!("{name}s counted minus generated"), 0.0),
                after.events(workload) - before.events(workload) - done.count(),
            );
            let lost = after.lost_of(workload);
            report.goal(&Goal::at_least(&format!("{name}s lost in the ring"), 1.0), lost);
            report.goal(
                &Goal::exactly(&format!("{name}s: generated minus lines, folded and lost"), 0.0),
                done.count() - (after.taken(workload) - before.taken(workload)) - lost,
            );
        }
        report.goal(&Goal::exactly("ledger balanced at every scrape", 1.0), balanced);
        let status = agent.stop()?;
        report.goal(&Goal::exactly("books exact after the drain", 1.0), f64::from(u8::from(status)));
        Ok(())
    }
}

const MIB: f64 = 1024.0 * 1024.0;

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
