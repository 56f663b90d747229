//! The kernel's side of the agent, and the only folder that knows aya.
//!
//! `support` gathers facts, `btf` and `offsets` find fields, `probes` is the hook table, `attach` its reader, `ring` and
//! `ledger` read what the programs write. [`Kernel::load`] puts them together.

mod alive;
mod attach;
pub(crate) mod btf;
mod controls;
pub(crate) mod degradations;
pub(crate) mod filter;
pub(crate) mod hooks;
pub(crate) mod ledger;
pub(crate) mod libraries;
pub(crate) mod mapping;
pub(crate) mod offsets;
pub(crate) mod options;
pub(crate) mod pam;
pub(crate) mod pending;
pub(crate) mod probes;
pub(crate) mod program_info;
pub(crate) mod ring;
pub(crate) mod seed;
pub(crate) mod support;
mod tracefs;
pub(crate) mod types;
mod uretprobe;

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::{Array, Map, MapData},
};
use tellwire_ebpf::{offsets::Offsets, settings::Host, wire::Ring};
use zerocopy::IntoBytes as _;

pub(crate) use self::{
    alive::{Alive, Detached},
    attach::Attached,
    controls::Controls,
};
use self::{
    attach::Ways,
    degradations::{Degradation, Found},
    filter::KernelFilter,
    hooks::Hook,
    ledger::KernelBooks,
    libraries::Libraries,
    options::Options,
    pam::{PamState, RootNotices},
    pending::PendingConnects,
    probes::PROBES,
    ring::{Reader, Rings},
    support::Support,
    types::Types,
};
use crate::scope::Scope;

/// The kernel programs, as built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes"));

/// Programs that are loaded and attached; they go with this value.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    /// What became of each row of the table.
    pub(crate) probes: Vec<Attached>,
    /// What is attached to libraries, now and later.
    pub(crate) libraries: Libraries,
    pub(crate) seeds: Vec<tellwire_ebpf::process::Seed>,
}

/// What is taken over from the programs' maps by the parts that read them.
pub(crate) struct Sources {
    pub(crate) rings: Rings,
    pub(crate) books: KernelBooks,
    pub(crate) pending: PendingConnects,
    pub(crate) wake: Wake,
    pub(crate) controls: Controls,
    pub(crate) filter: KernelFilter,
    pub(crate) pam: PamState,
    pub(crate) roots: RootNotices,
}

/// Arms the kernel's early wake-up.
pub(crate) struct Wake(Array<MapData, u32>);

impl Wake {
    /// The next record past a ring's watermark wakes the reader.
    pub(crate) fn arm(&mut self) -> Result<(), aya::maps::MapError> {
        for ring in Ring::ALL {
            self.0.set(*ring as u32, 1, 0)?;
        }
        Ok(())
    }
}

impl Kernel {
    /// Loads the programs, attaches every row that this kernel can, and reads what runs already.
    ///
    /// `scope` are the cgroups that are looked at; `None` for all. Runs in a thread of its own, which may
    /// have mounts of its own: tracefs is mounted there if the host does not have it.
    pub(crate) fn load(
        options: &Options,
        support: &Support,
        offsets: &Offsets,
        types: &Types,
        scope: Option<&Scope>,
    ) -> anyhow::Result<Self> {
        std::thread::scope(|threads| {
            threads
                .spawn(|| {
                    if let Err(error) = tracefs::provide() {
                        tracing::warn!(%error, "no tracefs: probes on system calls cannot attach");
                    }
                    Self::load_here(options, support, offsets, types, scope)
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn load_here(
        options: &Options,
        support: &Support,
        offsets: &Offsets,
        types: &Types,
        scope: Option<&Scope>,
    ) -> anyhow::Result<Self> {
        let facts = FactsBytes::new(&support.facts);
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", offsets.as_bytes(), true)
            .override_global("HOST", facts.0.as_slice(), true)
            .override_global("AYA_LOG_LEVEL", &options.log_level, true)
            .map_max_entries("RING_URGENT", options.bytes_of(Ring::Urgent))
            .map_max_entries("RING_PROCESS", options.bytes_of(Ring::Process))
            .map_max_entries("RING_NETWORK", options.bytes_of(Ring::Network))
            .map_max_entries("CONNECTIONS", options.connections())
            .map_max_entries("COUNTS", options.cgroup_counters)
            // Without the kernel's types: the programs have no relocations against them.
            .btf(None)
            .load(OBJECT)
            .context("loading the kernel programs")?;
        controls::first_settings(&mut ebpf, &options.settings())?;

        let libraries = Libraries::new(&ebpf, &[]);
        let mut kernel = Self { ebpf, probes: Vec::new(), libraries, seeds: Vec::new() };
        let types = attachable(types);
        let ways = Ways { support, types: types.as_ref(), function_hooks: options.function_hooks };
        for probe in PROBES.iter().filter(|probe| options.pam || !probe.is_of_pam()) {
            let attached = ways.attach(&mut kernel.ebpf, probe);
            if let Some(reason) = attached.failure() {
                tracing::warn!(probe = probe.name, reason, "probe not attached");
            }
            kernel.probes.push(attached);
            // New cgroups are heard of from here on; those that were there are scanned now.
            if probe.name == "cgroup_rmdir"
                && let Some(scope) = scope
            {
                controls::first_scope(&mut kernel.ebpf, scope)?;
            }
        }
        kernel.libraries = Libraries::new(&kernel.ebpf, &kernel.probes);
        kernel.seeds = seed::read(&mut kernel.ebpf, types.as_ref()).unwrap_or_else(|error| {
            tracing::warn!(
                error = format!("{error:#}"),
                "no task iterator: processes that run already are known from /proc only"
            );
            Vec::new()
        });
        Ok(kernel)
    }

    /// Whether anything at all is seen.
    pub(crate) fn any_attached(&self) -> bool {
        self.probes.iter().any(Attached::is_attached)
    }

    /// Takes the maps that the agent's parts read. Once.
    pub(crate) fn take_sources(&mut self, options: &Options) -> anyhow::Result<Sources> {
        let mut reader = |name, ring| Reader::new(self.take(name)?, options.bytes_of(ring) as usize);
        let rings = Rings::new(
            reader("RING_URGENT", Ring::Urgent)?,
            reader("RING_PROCESS", Ring::Process)?,
            reader("RING_NETWORK", Ring::Network)?,
        );
        let books =
            KernelBooks::new(self.take("LEDGER")?, self.take("COUNTS")?, self.take("COUNTS_OVERFLOW")?)?;
        let pending = PendingConnects::new(
            self.take("CONNECTIONS")?,
            self.take("ATTEMPTS")?,
            self.take("ATTEMPTS_CROWDED")?,
        )?;
        let wake = Wake(Array::try_from(Map::Array(self.take("WAKE_ARMED")?))?);
        let controls = Controls::new(self.take("SETTINGS")?, self.take("SCOPE")?)?;
        let filter = KernelFilter::new(self)?;
        let pam = PamState::new(self.take("TRANSACTIONS")?, self.take("CALLS")?)?;
        let roots = RootNotices::new(self.take("RING_ROOTS")?, self.take("ROOTS")?)?;
        Ok(Sources { rings, books, pending, wake, controls, filter, pam, roots })
    }

    /// What tells whether the probes stay attached.
    pub(crate) fn alive(&self, support: &Support) -> Alive {
        Alive::new(&self.ebpf, &self.probes, support)
    }

    /// The programs of each attached probe, for their statistics.
    pub(crate) fn program_handles(&self) -> Vec<(&'static str, OwnedFd)> {
        let programs = self
            .probes
            .iter()
            .filter_map(|attached| Some((attached.probe.name, attached.chosen?)))
            .flat_map(|(probe, chosen)| chosen.points.iter().map(move |point| (probe, point)));
        programs
            .filter_map(|(probe, point)| {
                let program = self.ebpf.program(point.program)?;
                Some((probe, program.fd().ok()?.as_fd().try_clone_to_owned().ok()?))
            })
            .collect()
    }

    /// What this kernel and this host cannot give.
    pub(crate) fn degradations(&self, support: &Support) -> Vec<&'static Degradation> {
        let mut programs = self.ebpf.programs().filter_map(|(_, program)| program.fd().ok());
        let stats =
            programs.find_map(|program| program_info::stats(program.as_fd()).ok()).unwrap_or_default();
        degradations::of(&Found { support, probes: &self.probes, stats })
    }

    /// By program: the instructions that the verifier processed, where the kernel tells.
    pub(crate) fn verified_instructions(&self) -> Vec<(&str, u32)> {
        self.ebpf
            .programs()
            .filter_map(|(name, program)| {
                let stats = program_info::stats(program.fd().ok()?.as_fd()).ok()?;
                Some((name, stats.verified?))
            })
            .collect()
    }

    /// Hands the programs' diagnostics to `log`, if any are asked for.
    pub(crate) fn kernel_log(
        &mut self,
    ) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }

    /// Detaches every program: what happens from here on is not seen. The rings stay readable.
    pub(crate) fn detach(&mut self) {
        self.libraries.close();
        for (name, program) in self.ebpf.programs_mut() {
            attach::detach(name, program);
        }
    }

    fn take(&mut self, name: &str) -> anyhow::Result<MapData> {
        match self.ebpf.take_map(name) {
            Some(Map::RingBuf(map) | Map::PerCpuArray(map) | Map::HashMap(map) | Map::Array(map)) => Ok(map),
            _ => anyhow::bail!("the map {name} is missing"),
        }
    }
}

/// What programs are attached to, with the ids that the kernel's types have.
fn attachable(types: &Types) -> Option<Btf> {
    let points = PROBES.iter().flat_map(|probe| probe.alternatives).flat_map(|way| way.points);
    let names = points.filter_map(|point| match point.hook {
        Hook::Entry(function) | Hook::Exit(function) => Some(function.name.into()),
        Hook::TypedTracepoint(name) => Some(format!("btf_trace_{name}")),
        _ => None,
    });
    let names: Vec<String> = names.chain([seed::ITERATOR.into()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Btf::parse(&types.btf.attachable(&names)?, Endianness::default())
        .inspect_err(|error| tracing::warn!(%error, "no program can be attached by the kernel's types"))
        .ok()
}

/// The facts as bytes, for a global.
struct FactsBytes([u8; size_of::<Host>()]);

impl FactsBytes {
    fn new(facts: &Host) -> Self {
        Self(zerocopy::transmute!(*facts))
    }
}

/// CPUs that may ever be there: each has a part of every per-CPU map.
pub(crate) fn possible_cpus() -> u64 {
    aya::util::nr_cpus().map_or(1, |cpus| cpus as u64)
}
