//! Attaching: each row of the hook table by the first of its alternatives that this kernel takes.

use std::{fs::File, os::fd::AsFd as _, path::Path};

use anyhow::Context as _;
use aya::{
    Btf, BtfError, Ebpf,
    maps::ProgramArray,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FEntry, FExit, Program, ProgramError, RawTracePoint,
        TracePoint, UProbe,
    },
};

use tellwire_ebpf::wire::Kind;

use super::{
    hooks::{Alternative, By, Hook, Point, Probe},
    support::Support,
};

/// A row of the hook table, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) probe: &'static Probe,
    /// How it is attached, if it is.
    pub(crate) chosen: Option<&'static Alternative>,
    /// The better alternatives, each with the reason why it is not the one.
    pub(crate) passed_over: Vec<(&'static Alternative, String)>,
}

impl Attached {
    pub(crate) fn is_attached(&self) -> bool {
        self.chosen.is_some()
    }

    /// Why it is not attached: what its last alternative failed by.
    pub(crate) fn failure(&self) -> Option<&str> {
        if self.is_attached() { None } else { Some(self.passed_over.last().map_or("", |(_, why)| why)) }
    }
}

/// What decides between the ways to attach a row.
pub(super) struct Ways<'a> {
    pub(super) support: &'a Support,
    /// The kernel's types, where functions are looked up.
    pub(super) types: Option<&'a Btf>,
    /// Whether functions may be hooked, see `kernel.function-hooks`.
    pub(super) function_hooks: bool,
}

impl Ways<'_> {
    /// Attaches the row by its best alternative; nothing of the others stays.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, probe: &'static Probe) -> Attached {
        let mut passed_over = Vec::new();
        for alternative in probe.alternatives {
            if alternative.by == By::Functions && !self.function_hooks {
                passed_over.push((alternative, "switched off by kernel.function-hooks".into()));
                continue;
            }
            if let Some(why) = self.support.no_returns.as_ref().filter(|_| probe.probes_returns()) {
                passed_over.push((alternative, why.clone()));
                continue;
            }
            match self.attach_all(ebpf, alternative.points) {
                Ok(()) => return Attached { probe, chosen: Some(alternative), passed_over },
                Err(error) => {
                    tracing::debug!(probe = probe.name, by = alternative.by.name(), "{error:#}");
                    passed_over.push((alternative, brief(&error)));
                    for point in alternative.points {
                        if let Some(program) = ebpf.program_mut(point.program) {
                            detach(point.program, program);
                        }
                    }
                }
            }
        }
        Attached { probe, chosen: None, passed_over }
    }

    fn attach_all(&self, ebpf: &mut Ebpf, points: &[Point]) -> anyhow::Result<()> {
        let first = points.first().map(|point| point.program);
        for Point { program, hook } in points {
            match hook {
                Hook::Again(_) | Hook::JumpAgain(..) if self.support.facts.preemptible == 0 => continue,
                Hook::JumpAgain(_, kind) => set_target(ebpf, first.context("a row of no programs")?, *kind)?,
                _ => {}
            }
            self.attach_one(ebpf.program_mut(program).context("not in the object")?, hook)?;
        }
        Ok(())
    }

    fn attach_one(&self, program: &mut Program, hook: &Hook) -> anyhow::Result<()> {
        match *hook {
            Hook::RawTracepoint(tracepoint) | Hook::JumpAgain(tracepoint, _) => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load()?;
                program.attach(tracepoint).with_context(|| format!("raw tracepoint {tracepoint}"))?;
            }
            Hook::TypedTracepoint(tracepoint) => {
                let types = self.types.context("the kernel's types cannot be read")?;
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(tracepoint, types)?;
                program.attach().with_context(|| format!("BTF tracepoint {tracepoint}"))?;
            }
            Hook::Syscalls(tracepoints) => {
                let program: &mut TracePoint = program.try_into()?;
                program.load()?;
                for tracepoint in tracepoints {
                    program
                        .attach("syscalls", tracepoint)
                        .with_context(|| format!("tracepoint syscalls:{tracepoint}"))?;
                }
            }
            Hook::CgroupRoot => {
                let root = self.support.hierarchies.v2.as_deref();
                attach_to_cgroup(program, root.context("no cgroup v2 hierarchy is mounted")?)?;
            }
            Hook::Library(_) | Hook::LibraryReturn(_) => {
                let program: &mut UProbe = program.try_into()?;
                program.load()?;
            }
            Hook::Entry(function) | Hook::Exit(function) => {
                let types = self.types.context("the kernel's types cannot be read")?;
                match attach_to_function(program, function.name, types) {
                    Err(ProgramError::Btf(BtfError::UnknownBtfTypeName { .. })) if function.optional => {}
                    outcome => outcome.with_context(|| format!("function {}", function.name))?,
                }
            }
            Hook::Again(hook) => self.attach_one(program, hook)?,
        }
        Ok(())
    }
}

/// Says which program others of its kind jump into.
fn set_target(ebpf: &mut Ebpf, program: &str, kind: Kind) -> anyhow::Result<()> {
    let target = ebpf.program(program).context("not in the object")?.fd()?.try_clone()?;
    let map = ebpf.map_mut("AGAIN").context("no map of programs")?;
    ProgramArray::try_from(map)?.set(kind as u32, &target, 0).context("the map of programs")
}

/// Detaches a program and unloads it, if it is loaded.
pub(super) fn detach(name: &str, program: &mut Program) {
    let outcome = match program {
        Program::RawTracePoint(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::CgroupSockAddr(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::UProbe(program) => program.unload(),
        _ => Ok(()),
    };
    if let Err(error) = outcome
        && !matches!(error, ProgramError::NotLoaded)
    {
        tracing::debug!(program = name, %error, "not unloaded");
    }
}

fn attach_to_function(program: &mut Program, function: &str, types: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::FEntry(program) => {
            let program: &mut FEntry = program;
            program.load(function, types)?;
            program.attach()?;
        }
        Program::FExit(program) => {
            let program: &mut FExit = program;
            program.load(function, types)?;
            program.attach()?;
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(())
}

fn attach_to_cgroup(program: &mut Program, root: &Path) -> anyhow::Result<()> {
    let program: &mut CgroupSockAddr = program.try_into()?;
    program.load()?;
    let root_directory = File::open(root).with_context(|| format!("opening {}", root.display()))?;
    // A link is one of many by itself; the mode that says so is refused for links.
    program.attach(root_directory.as_fd(), CgroupAttachMode::Single)?;
    Ok(())
}

/// The error in one line: of a verifier's log, what it says at the end.
fn brief(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let Some((first, log)) = text.split_once("Verifier output:") else { return text };
    let is_verdict = |line: &&str| {
        let line = line.trim();
        let is_step = line.starts_with(|c: char| c.is_ascii_digit() || c == ';' || c == ':');
        let is_figure = ["processed ", "verification time ", "stack depth "]
            .iter()
            .any(|figure| line.starts_with(figure));
        !(line.is_empty() || is_step || is_figure)
    };
    let verdict = log.lines().rfind(is_verdict).unwrap_or_default();
    format!("{} {}", first.trim_end(), verdict.trim()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_verifier_s_log_its_verdict_is_told() {
        let log = "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). Verifier output: \
                   0: R1=ctx() R10=fp0\n; x @ y.rs:1\n1: (79) r2 = *(u64 *)(r1 +16)\n\
                   combined stack size of 2 calls is 544. Too large\nverification time 91 usec\n\
                   stack depth 472+56\nprocessed 3501 insns\n: Permission denied (os error 13)";
        assert_eq!(
            brief(&anyhow::anyhow!(log)),
            "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). \
             combined stack size of 2 calls is 544. Too large"
        );
    }
}
