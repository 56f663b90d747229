//! The only place that knows all parts: configuration → parts, in order → run → drain.

mod last;
mod libraries;
mod manager;
mod options;
mod reload;
mod running;
mod tasks;

use std::{
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::Context as _;
use tellwire_ebpf::wire::{Ring, Subject};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use self::{
    last::Last,
    libraries::{Looking, Tools, look},
    options::options,
    reload::Reloader,
    running::{Running, Signals},
    tasks::{harvest, kernel_log, observer, on_a_thread},
};
use crate::{
    audit,
    books::Books,
    cli::RunArgs,
    config::{self, Config, Label, Listen},
    enrich::{containers::Containers, processes::Processes, users::Users},
    events::action,
    failure::Failure,
    host::HostRoot,
    http::{self, Readiness},
    kernel::{
        Alive, Kernel, Sources, filter::KernelFilter, ledger::KernelBooks, mapping::Positions, offsets,
        options::Options, support, types,
    },
    lines::{
        clock::{boot_now, wall_now},
        fields::{Boot, Host},
        origin::{Agent, Origin, Place},
    },
    logging,
    metrics::{Histograms, Metrics, Parts},
    outputs::{Fanout, Opened, Registry},
    own::{self, Own},
    pam::PamBooks,
    pipeline::{Folds, Judge, Order, Outbox, Pipeline, Recorder, Selection, State},
    redact::Redactor,
    rules::{RuleBooks, Rules},
    runtimes::{self, RuntimeBooks},
    scope::Scope,
    workloads::Places,
};

/// What the pipeline may be told at one time. Those who tell it more wait.
const ORDERS: usize = 16;

/// Runs the agent until a signal, or for the duration given.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(args, action::NAMES).map_err(Failure::usage)?;
    let level = logging::start(config.agent.log_level);
    let read = wall_now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("starting the runtime")
        .map_err(Failure::bug)?;
    // Whatever can be wrong with the configuration shows before anything is attached.
    let redactor = Redactor::new(&config.redaction).map_err(Failure::usage)?;
    if !config.redaction.enabled {
        tracing::warn!("redaction is off: passwords on command lines are in every line and recording");
    }
    let host = HostRoot::new(&config.agent.host_root);
    let opened = Fanout::open(&config.output, &host).map_err(Failure::usage)?;
    let listener = match config.http.listen {
        Listen::None => None,
        Listen::On(address) => {
            Some(runtime.block_on(http::bind(address, &config.http)).map_err(Failure::usage)?)
        }
    };
    support::check_capabilities().map_err(Failure::privilege)?;
    let scoped = !config.agent.cgroups.is_empty();
    let types = types::read(&config.kernel.btf).map_err(types::Error::failure)?;
    let support = support::Support::detect(&host, &types, scoped, support::Probed::new(&config.auth));
    let scope = if scoped {
        Some(Scope::new(&config.agent.cgroups, &support.hierarchies).map_err(Failure::usage)?)
    } else {
        None
    };
    let offsets = offsets::resolve(&types.btf).map_err(Failure::unavailable)?;
    let options = options(&config, &Selection::new(&config.agent));
    let kernel =
        Kernel::load(&options, &support, &offsets, &types, scope.as_ref()).map_err(Failure::unavailable)?;
    // Megabytes, which nobody asks again.
    drop(types);
    if !kernel.any_attached() {
        return Err(Failure::unavailable(anyhow::anyhow!(
            "no probe could be attached on kernel {}: `tellwire check` says why",
            support.release
        )));
    }
    let recorder = args
        .record
        .as_deref()
        .map(Recorder::create)
        .transpose()
        .context("--record")
        .map_err(Failure::usage)?;
    let attached = boot_now();
    let args = args.clone();
    let parts = Assembly {
        args,
        config,
        read,
        level,
        options,
        host,
        support,
        kernel,
        scope,
        attached,
        opened,
        listener,
        redactor,
        recorder,
    };
    let balanced = runtime.block_on(parts.run()).map_err(Failure::bug)?;
    // A stalled stdout can keep a blocking thread forever; the process ends all the same.
    runtime.shutdown_background();
    if balanced {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::bug(anyhow::anyhow!(
            "the ledger does not balance after a drain: please report the lines above"
        )))
    }
}

/// All that was checked and opened, before it runs.
struct Assembly {
    args: RunArgs,
    config: Config,
    /// When the configuration was read, by the wall clock.
    read: u64,
    level: logging::Level,
    options: Options,
    host: HostRoot,
    support: support::Support,
    kernel: Kernel,
    scope: Option<Scope>,
    /// When the programs were attached, by boot time.
    attached: u64,
    opened: Opened,
    listener: Option<http::Bound>,
    redactor: Redactor,
    recorder: Option<Recorder>,
}

impl Assembly {
    /// Puts the parts together, runs them, and drains; tells whether the books balance at the end.
    #[expect(clippy::too_many_lines, reason = "every part is named once, in the order in which it is needed")]
    async fn run(self) -> anyhow::Result<bool> {
        let Self {
            args,
            config,
            read,
            level,
            options,
            host,
            support,
            mut kernel,
            scope,
            attached,
            opened,
            listener,
            redactor,
            recorder,
        } = self;
        // Heard from here on: a signal that comes before there is anything to stop is not lost either.
        let signals = Signals::listen().context("listening for signals")?;
        let hangup = signal(SignalKind::hangup()).context("listening for signals")?;
        let cancel = CancellationToken::new();
        let _kernel_log = (options.log_level != 0).then(|| kernel_log(&mut kernel, &cancel));
        let Sources { rings, books: kernel_books, pending, wake, controls, filter, pam, roots } =
            kernel.take_sources(&options)?;
        let filter = Arc::new(filter);
        let rule_books = Arc::new(RuleBooks::default());
        let kernel_books = Arc::new(kernel_books);
        let books = Arc::new(Books::default());
        books.processes_max.store(config.processes.max.get().into(), Relaxed);
        books.config_time.store(read / 1_000_000_000, Relaxed);
        let histograms = Histograms::default();
        let observer = observer(&histograms);
        let fanout = opened.start(config.output.queue_bytes.get() as usize, &observer)?;
        let outputs = fanout.registry();
        let readiness = readiness(&kernel, &support);
        let chosen = scope.as_ref().map(Scope::scan);
        let (scope, looked_at) = scope.map(watch::channel).unzip();
        let tools = Tools {
            libraries: kernel.libraries.clone(),
            state: pam,
            notices: roots,
            readiness: Arc::clone(&readiness),
            scope: looked_at,
        };
        let Looking { books: pam_books, known, host_mounts } = look(&config, &host, tools, &cancel);
        let libraries = Arc::clone(&pam_books);
        let (asks, named, runtime_books) = runtimes::start(&config.containers, &host, &readiness, &cancel);
        kernel_books.configure(&config.metrics);
        let counters =
            (Arc::clone(&kernel_books), Arc::clone(&books), pam_books, histograms.clone(), runtime_books);
        let judged = (Arc::clone(&filter), Arc::clone(&rule_books));
        let parts = scraped(counters, judged, outputs.clone(), rings.usages(), &kernel, &options, &support);
        let ring_bytes = parts.rings.iter().map(|(_, bytes, _)| bytes).sum();
        serve(listener, parts, &readiness, &cancel);

        let boot_id = host.boot_id().context("reading /proc/sys/kernel/random/boot_id")?;
        let agent = Agent::new(host.random_id());
        let mut state =
            state(&config, &host, &support, &mut kernel, &redactor, (&boot_id, &agent), histograms)?;

        let audit = audit::start(&config, &host, &boot_id, &books, &readiness, &cancel);
        state.host_mounts = host_mounts;
        state.libraries = Some(libraries);
        let (places, cgroups) = Places::new(&state.containers);
        state.places = Some(places);
        let chosen = chosen.map(|keys| keys.iter().map(|key| (key.hierarchy, key.id)).collect());
        state.take_inventory(asks, chosen.as_ref());
        judge_by(&config, filter, &rule_books, &mut state)?;
        let last = Last::open(&config.agent.state_dir, &agent.ephemeral_id, &boot_id, &readiness);
        let (orders, told) = mpsc::channel(ORDERS);
        let started = last.started(&args, &config, &kernel, &support, attached);
        // There is room: it is the first.
        let _sent = orders.try_send(Order::Tell(started));
        let subject = own::subject(own::pid_on_host(&host), &host, &state.processes);
        let alive = kernel.alive(&support);
        let own = own_parts((subject, alive, ring_bytes), &kernel_books, &outputs, &readiness);
        let (removed, gone) = mpsc::channel(4096);
        kernel_books.listen(cgroups);
        tokio::spawn(harvest(Arc::clone(&kernel_books), gone));
        say_watching(&kernel, &support);
        tokio::spawn(own::settle());
        let pipeline = Pipeline {
            rings,
            wake,
            pending,
            redactor,
            known,
            state,
            outbox: Outbox::new(fanout, Selection::new(&config.agent)),
            books: Arc::clone(&books),
            readiness: Arc::clone(&readiness),
            removed,
            audit,
            runtimes: named,
            own: Own::new(own, attached),
            orders: told,
            poll_interval: config.kernel.poll_interval.get(),
            recorder,
        };
        let duration = args.duration;
        let pipeline = on_a_thread(pipeline, kernel, cancel.clone())?;
        manager::ready(&readiness, &cancel);
        let notes = tokio::spawn(last.note(cancel.clone()));
        let reloader = Reloader {
            args,
            config,
            host,
            hierarchies: support.hierarchies,
            controls,
            kernel: Arc::clone(&kernel_books),
            scope,
            level,
            outputs,
            observer,
            rule_books,
            orders: orders.clone(),
            books: Arc::clone(&books),
            readiness: Arc::clone(&readiness),
        };
        let reloads = tokio::spawn(reloader.run(hangup, cancel.clone()));
        let running = Running {
            duration,
            orders,
            cancel,
            pipeline,
            notes,
            reloads,
            readiness,
            kernel: kernel_books,
            books,
        };
        running.until_the_end(signals).await
    }
}

/// What the configuration says of the host.
fn place(agent: &config::Agent) -> Place {
    let told = |text: &String| (!text.is_empty()).then(|| text.clone());
    Place {
        cluster: told(&agent.cluster),
        node: told(&agent.node_name),
        cloud_instance: told(&agent.cloud_instance_id),
        labels: agent.labels.iter().map(|Label { key, value }| (key.clone(), value.clone())).collect(),
    }
}

/// Puts the rules to work, here and in the kernel.
fn judge_by(
    config: &Config,
    filter: Arc<KernelFilter>,
    books: &Arc<RuleBooks>,
    state: &mut State,
) -> anyhow::Result<()> {
    state.judge = Judge::new(filter);
    state.judge.replace(Rules::new(&config.rules, books)?, &state.containers);
    Ok(())
}

/// What the agent's own lines ask. `own` are its process, what tells whether probes stay, and the size of the rings.
fn own_parts(
    own: (Subject, Alive, u64),
    kernel: &Arc<KernelBooks>,
    outputs: &Registry,
    readiness: &Arc<Readiness>,
) -> own::Parts {
    let (subject, alive, ring_bytes) = own;
    own::Parts {
        subject,
        kernel: Arc::clone(kernel),
        outputs: outputs.clone(),
        readiness: Arc::clone(readiness),
        alive,
        ring_bytes,
    }
}

/// Serves metrics and health, where there is an address for it.
fn serve(
    listener: Option<http::Bound>,
    parts: Parts,
    readiness: &Arc<Readiness>,
    cancel: &CancellationToken,
) {
    if let Some(listener) = listener {
        let metrics = Arc::new(Metrics::new(parts));
        tokio::spawn(http::serve(listener, metrics, Arc::clone(readiness), cancel.clone()));
    }
}

/// The parts that a scrape asks.
fn scraped(
    counters: (Arc<KernelBooks>, Arc<Books>, Arc<PamBooks>, Histograms, Arc<RuntimeBooks>),
    judged: (Arc<KernelFilter>, Arc<RuleBooks>),
    outputs: Registry,
    rings: Vec<(Ring, u64, Positions)>,
    kernel: &Kernel,
    options: &Options,
    support: &support::Support,
) -> Parts {
    let (kernel_books, books, pam, histograms, runtimes) = counters;
    let (filter, rules) = judged;
    Parts {
        filter,
        rules,
        kernel: kernel_books,
        books,
        pam,
        runtimes,
        outputs,
        probes: kernel.probes.clone(),
        programs: kernel.program_handles(),
        rings,
        capacities: vec![
            ("cgroup_counters", options.cgroup_counters.into()),
            ("pending_connects", options.pending_connects.into()),
            ("open_connections", options.open_connections.into()),
            ("cgroups", crate::enrich::containers::MAX as u64),
        ],
        kernel_release: support.release.clone(),
        histograms,
    }
}

/// What is degraded from the start on.
fn readiness(kernel: &Kernel, support: &support::Support) -> Arc<Readiness> {
    let readiness = Readiness::default();
    for probe in kernel.probes.iter().filter(|probe| !probe.is_attached()) {
        let reason = probe.failure().unwrap_or_default();
        readiness.degrade(format!("probe {} is not attached: {reason}", probe.probe.name));
    }
    for row in kernel.degradations(support) {
        readiness.note(row.name, Some(format!("not to be had here: {}: {}", row.lacks, row.reason)));
    }
    Arc::new(readiness)
}

/// The tables, with what ran before the agent, and what all lines say alike. `run` is of this boot, by this agent.
fn state(
    config: &Config,
    host: &HostRoot,
    support: &support::Support,
    kernel: &mut Kernel,
    redactor: &Redactor,
    run: (&str, &Agent),
    histograms: Histograms,
) -> anyhow::Result<State> {
    let (boot_id, agent) = run;
    let mut containers = Containers::default();
    containers.scan(&support.hierarchies);
    let keep_exited = u64::try_from(config.processes.keep_exited.get().as_nanos()).unwrap_or(u64::MAX);
    let max = config.processes.max.get() as usize;
    let mut processes = Processes::new(boot_id.to_owned(), max, keep_exited);
    processes.seed(host, &std::mem::take(&mut kernel.seeds), &containers, redactor);
    let users = Users::new(&host.join("/etc"));
    let identity =
        Host { name: host.hostname(), id: host.machine_id(), boot: Boot { id: boot_id.to_owned() } };
    let origin = Origin::new(&identity, agent, place(&config.agent))?;
    let mut state = State::new(processes, containers, users, origin, host.all_capabilities(), histograms);
    state.command_line = config.agent.command_line;
    state.scoped = !config.agent.cgroups.is_empty();
    state.configure_auth(&config.auth);
    state.folds = Folds::new(config.agent.fold_window.get());
    Ok(state)
}

fn say_watching(kernel: &Kernel, support: &support::Support) {
    let attached = kernel.probes.iter().filter(|probe| probe.is_attached()).count();
    tracing::info!(kernel = support.release, attached, probes = kernel.probes.len(), "watching");
}
