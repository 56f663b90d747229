//! The only place that knows all parts: configuration → parts, in order → run → drain.

use std::{
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::Context as _;
use rustc_hash::FxHashSet;
use tellwire_ebpf::wire::{Kind, Ring};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    books::{Audit, Books},
    cli::RunArgs,
    config::{Config, Listen},
    enrich::{containers::Containers, processes::Processes, users::Users},
    events::action::{self, Action},
    failure::Failure,
    host::HostRoot,
    http::{self, Readiness},
    kernel::{Kernel, Sources, ledger::KernelBooks, offsets, options::Options, support},
    lines::fields::{Boot, Host},
    logging,
    metrics::{Histograms, Metrics, Parts},
    outputs::{Fanout, Observer, Opened, Reopener},
    pipeline::{Judge, Outbox, Pipeline, Recorder, Removed, State},
    rules::{RuleBooks, Rules},
    scope::Scope,
};

/// What is queued for outputs when the agent stops is written within this time, or counted as dropped.
const CLOSE: Duration = Duration::from_secs(5);

/// How often counters of removed cgroups are taken out of the kernel's map.
const HARVEST: Duration = Duration::from_secs(10);

/// Runs the agent until a signal, or for the duration given.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(args, action::NAMES).map_err(Failure::usage)?;
    logging::start(config.agent.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")
        .map_err(Failure::bug)?;
    // Whatever can be wrong with the configuration shows before anything is attached.
    let host = HostRoot::new(&config.agent.host_root);
    let opened = Fanout::open(&config.output, &host).map_err(Failure::usage)?;
    let listener = match config.http.listen {
        Listen::None => None,
        Listen::On(address) => Some(runtime.block_on(http::bind(address)).map_err(Failure::usage)?),
    };
    support::check_capabilities().map_err(Failure::privilege)?;
    let scoped = !config.agent.cgroups.is_empty();
    let (support, btf) = support::Support::detect(&host, scoped).map_err(Failure::unavailable)?;
    let scope = if scoped {
        Some(Scope::new(&config.agent.cgroups, &support.hierarchies).map_err(Failure::usage)?)
    } else {
        None
    };
    let offsets = offsets::resolve(&btf).map_err(Failure::unavailable)?;
    drop(btf);
    let wanted = wanted(&config);
    let options = options(&config, &wanted);
    let kernel = Kernel::load(&options, &support, &offsets, scope.as_ref()).map_err(Failure::unavailable)?;
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
    let parts = Assembly { config, options, host, support, kernel, opened, listener, wanted, recorder };
    let balanced = runtime.block_on(parts.run(args.duration)).map_err(Failure::bug)?;
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

const _: () = assert!(Action::COUNT <= crate::outputs::ACTIONS, "raise ACTIONS");

/// By action: whether it makes a line.
fn wanted(config: &Config) -> [bool; Action::COUNT] {
    let mut wanted = [true; Action::COUNT];
    if !config.agent.types.is_empty() {
        for (wanted, action) in wanted.iter_mut().zip(Action::ALL) {
            *wanted = config.agent.types.iter().any(|name| name == action.name());
        }
    }
    wanted
}

/// The kernel side of the configuration.
fn options(config: &Config, wanted: &[bool; Action::COUNT]) -> Options {
    let is_wanted = |action: Action| wanted.get(action as usize).copied().unwrap_or(true);
    let mut kinds = u32::MAX;
    // The tables live on the other kinds, whether they make lines or not. Credential calls explain changed ids.
    for (kind, action) in [(Kind::ExecFailed, Action::ExecFailed), (Kind::Connect, Action::Connect)] {
        if !is_wanted(action) {
            kinds &= !(1 << kind as u32);
        }
    }
    let kernel = &config.kernel;
    let mut throttle = Ring::ALL.iter().map(|ring| match ring {
        Ring::Urgent => kernel.throttle_urgent.get(),
        Ring::Process => kernel.throttle_process.get(),
        Ring::Network => kernel.throttle_network.get(),
    });
    Options {
        ring_bytes: kernel.ring_bytes.get(),
        args_bytes: kernel.args_bytes.get(),
        pending_connects: kernel.pending_connects.get(),
        cgroup_counters: kernel.cgroup_counters.get(),
        throttle: std::array::from_fn(|_| throttle.next().unwrap_or(0)),
        kinds,
        function_hooks: kernel.function_hooks,
        log_level: kernel.log as u8,
    }
}

/// All that was checked and opened, before it runs.
struct Assembly {
    config: Config,
    options: Options,
    host: HostRoot,
    support: support::Support,
    kernel: Kernel,
    opened: Opened,
    listener: Option<TcpListener>,
    wanted: [bool; Action::COUNT],
    recorder: Option<Recorder>,
}

impl Assembly {
    /// Puts the parts together, runs them, and drains; tells whether the books balance at the end.
    async fn run(self, duration: Option<Duration>) -> anyhow::Result<bool> {
        let Self { config, options, host, support, mut kernel, opened, listener, wanted, recorder } = self;
        // Heard from here on: a signal that comes before there is anything to stop is not lost either.
        let signals = Signals::listen().context("listening for signals")?;
        let cancel = CancellationToken::new();
        let _kernel_log = (options.log_level != 0).then(|| kernel_log(&mut kernel, &cancel));
        let Sources { rings, books: kernel_books, pending, wake, filter } = kernel.take_sources(&options)?;
        let filter = Arc::new(filter);
        let rule_books = Arc::new(RuleBooks::default());
        let rules = Rules::new(&config.rules, &rule_books)?;
        let kernel_books = Arc::new(kernel_books);
        let books = Arc::new(Books::default());
        let histograms = Histograms::default();
        let encodings = opened.encodings();
        let fanout = opened.start(config.output.queue_bytes.get() as usize, &observer(&histograms))?;
        let reopener = fanout.reopener();
        let readiness = Arc::new(Readiness::default());
        for probe in kernel.probes.iter().filter(|probe| !probe.is_attached()) {
            let reason = probe.failure().unwrap_or_default();
            readiness.degrade(format!("probe {} is not attached: {reason}", probe.probe.name));
        }
        let parts = Parts {
            kernel: Arc::clone(&kernel_books),
            filter: Arc::clone(&filter),
            rules: rule_books,
            books: Arc::clone(&books),
            outputs: fanout.stats(),
            probes: kernel.probes.clone(),
            programs: kernel.program_handles(),
            rings: rings.usages(),
            capacities: vec![
                ("cgroup_counters", options.cgroup_counters.into()),
                ("pending_connects", options.pending_connects.into()),
                ("processes", config.processes.max.get().into()),
                ("cgroups", crate::enrich::containers::MAX as u64),
            ],
            kernel_release: support.release.clone(),
            histograms: histograms.clone(),
        };
        if let Some(listener) = listener {
            let metrics = Arc::new(Metrics::new(parts));
            tokio::spawn(http::serve(listener, metrics, Arc::clone(&readiness), cancel.clone()));
        }

        let mut containers = Containers::default();
        containers.scan(&support.hierarchies);
        let boot_id = host.boot_id().context("reading /proc/sys/kernel/random/boot_id")?;
        let keep_exited = u64::try_from(config.processes.keep_exited.get().as_nanos()).unwrap_or(u64::MAX);
        let max = config.processes.max.get() as usize;
        let mut processes = Processes::new(boot_id.clone(), max, keep_exited);
        processes.seed(&host, &kernel.seeds, &containers);
        kernel.seeds = Vec::new();
        let users = Users::new(&host.join("/etc"));
        let identity = Host { name: host.hostname(), id: host.machine_id(), boot: Boot { id: boot_id } };

        let (removed, gone) = mpsc::channel(4096);
        tokio::spawn(harvest(Arc::clone(&kernel_books), gone));
        let attached = kernel.probes.iter().filter(|probe| probe.is_attached()).count();
        tracing::info!(kernel = support.release, attached, probes = kernel.probes.len(), "watching");
        let mut judge = Judge::new(filter);
        judge.replace(rules, &containers);
        let mut state =
            State::new(processes, containers, users, &identity, host.all_capabilities(), histograms)?;
        state.judge = judge;
        let pipeline = Pipeline {
            rings,
            wake,
            pending,
            state,
            outbox: Outbox::new(fanout, encodings, wanted),
            books: Arc::clone(&books),
            readiness: Arc::clone(&readiness),
            removed,
            poll_interval: config.kernel.poll_interval.get(),
            recorder,
        };
        let mut running = tokio::spawn(pipeline.run(kernel, cancel.clone()));
        let outbox = tokio::select! {
            () = wait(signals, duration, &reopener) => {
                cancel.cancel();
                running.await
            }
            ended = &mut running => ended,
        };
        if outbox.is_err() {
            readiness.fail("the pipeline ended by a panic".into());
        }
        let outbox = outbox.context("the pipeline ended by a panic")?;
        outbox.into_fanout().close(CLOSE).await;
        summarise(&kernel_books, &books)
    }
}

/// The signals that mean something to the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Returns when the agent is to stop.
async fn wait(signals: Signals, duration: Option<Duration>, outputs: &Reopener) {
    let Signals { mut terminate, mut interrupt, mut hangup } = signals;
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            () = &mut over => return,
            _ = hangup.recv() => {
                outputs.reopen();
                tracing::info!("SIGHUP: outputs are opened again; the configuration is not read again yet");
            }
        }
    }
}

/// Observes how long lines took from the kernel's event to the end of their write.
fn observer(histograms: &Histograms) -> Observer {
    let histograms = histograms.clone();
    Arc::new(move |facts| {
        let now = crate::lines::clock::boot_now();
        for fact in facts {
            if let Some(histogram) = histograms.delivery.get(usize::from(fact.ring)) {
                histogram.observe(Duration::from_nanos(now.saturating_sub(fact.time)).as_secs_f64());
            }
        }
    })
}

/// Takes the counters of removed cgroups out of the kernel's map, now and then.
async fn harvest(books: Arc<KernelBooks>, mut removed: mpsc::Receiver<Removed>) {
    let mut gone = FxHashSet::default();
    let mut tick = tokio::time::interval(HARVEST);
    loop {
        tick.tick().await;
        loop {
            match removed.try_recv() {
                Ok(cgroup) => {
                    gone.insert(cgroup);
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return,
            }
        }
        if gone.is_empty() {
            continue;
        }
        match books.sweep(|key| gone.contains(&(u64::from(key.hierarchy), key.cgroup))) {
            Ok(left) => gone.retain(|cgroup| left.contains(cgroup)),
            Err(error) => tracing::warn!(%error, "counters of removed cgroups not harvested"),
        }
    }
}

/// Forwards the diagnostics of the kernel programs to the agent's log.
fn kernel_log(kernel: &mut Kernel, cancel: &CancellationToken) {
    match kernel.kernel_log() {
        Ok(mut logger) => {
            let cancel = cancel.clone();
            tokio::spawn(async move {
                while !cancel.is_cancelled() {
                    logger.flush();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        Err(error) => tracing::warn!(%error, "no diagnostics of the kernel programs"),
    }
}

/// Says what became of every record, one line a kind; tells whether nothing is missing.
fn summarise(kernel: &KernelBooks, books: &Books) -> anyhow::Result<bool> {
    let ledgers = kernel.ledgers()?;
    let received = books.received();
    for ((kind, ledger), received) in Kind::ALL.iter().zip(&ledgers).zip(received) {
        let tellwire_ebpf::counters::Ledger { seen, submitted, ring_full, filtered, throttled, state_lost } =
            *ledger;
        tracing::info!(
            action = kind.name(),
            seen,
            submitted,
            ring_full,
            filtered,
            throttled,
            state_lost,
            received,
            decode_errors =
                books.decode_errors.get(*kind as usize).map_or(0, |counter| counter.load(Relaxed)),
            "ledger"
        );
    }
    Ok(Audit::is_exact(&ledgers, &received))
}
