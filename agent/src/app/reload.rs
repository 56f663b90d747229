//! Reading the configuration again while the agent runs: on SIGHUP, and when the file is another one.
//!
//! All or nothing: everything that can be wrong is looked at before anything is changed, and what fails in the
//! middle is taken back. Nothing is attached again: the programs read their settings from a map.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use anyhow::{anyhow, ensure};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, watch},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

use super::options::options;
use crate::{
    books::Books,
    cli::RunArgs,
    config::{Changed, Config, FileWatch, OutputSpec},
    events::action,
    host::{Hierarchies, HostRoot},
    http::Readiness,
    kernel::{Controls, ledger::KernelBooks},
    lines::{
        clock::wall_now,
        own::{ChangeFacts, ConfigFacts, Notice},
    },
    logging,
    outputs::{Observer, Opened, Registry, Swap},
    pipeline::{Change, Order, Selection},
    redact::Redactor,
    rules::{RuleBooks, Rules},
    scope::Scope,
};

/// What the readiness calls it.
const ABOUT: &str = "configuration";

/// Takes over other configurations.
pub(super) struct Reloader {
    pub(super) args: RunArgs,
    /// The one in use.
    pub(super) config: Config,
    pub(super) host: HostRoot,
    pub(super) hierarchies: Hierarchies,
    pub(super) controls: Controls,
    pub(super) kernel: Arc<KernelBooks>,
    /// Tells whoever looks at processes by their cgroup.
    pub(super) scope: Option<watch::Sender<Scope>>,
    pub(super) level: logging::Level,
    pub(super) outputs: Registry,
    pub(super) observer: Observer,
    pub(super) rule_books: Arc<RuleBooks>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) books: Arc<Books>,
    pub(super) readiness: Arc<Readiness>,
}

/// What was read, and what it means.
struct Plan {
    /// Where they are others.
    rules: Option<Rules>,
    config: Config,
    changes: Vec<Changed>,
    redactor: Redactor,
    /// The cgroups to look at, where they are others.
    scope: Option<Scope>,
    /// Outputs that are open and get nothing yet, where they are others.
    outputs: Option<(Vec<OutputSpec>, Opened)>,
}

/// What the kernel side has taken over, for the pipeline.
struct Taken {
    config: Config,
    redactor: Redactor,
    rules: Option<Rules>,
    outputs: Option<Swap>,
}

impl Reloader {
    /// Until it is cancelled.
    pub(super) async fn run(mut self, mut hangup: Signal, cancel: CancellationToken) {
        let mut watch = FileWatch::new(Config::file(&self.args)).map_or_else(
            |error| {
                tracing::warn!(%error, "the configuration file is not watched: send SIGHUP when it changes");
                None
            },
            Some,
        );
        // It can have changed between the start and the watch.
        if Config::load(&self.args, action::NAMES).as_ref() != Ok(&self.config) {
            self.reload("file").await;
        }
        loop {
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(()) = hangup.recv() => {
                    self.outputs.reopen();
                    tracing::info!("SIGHUP: outputs are opened again, the configuration is read again");
                    if let Some(watch) = &mut watch {
                        watch.look();
                    }
                    self.reload("SIGHUP").await;
                }
                changed = changed => match changed {
                    Ok(()) => self.reload("file").await,
                    Err(error) => {
                        tracing::warn!(%error, "the configuration file is watched no more: send SIGHUP when it changes");
                        watch = None;
                    }
                }
            }
        }
    }

    async fn reload(&mut self, source: &'static str) {
        let file = Config::file(&self.args).display().to_string();
        let mut facts = ConfigFacts { source, file, changes: Vec::new(), refused: None };
        let taken = match self.plan(&mut facts).await {
            Ok(plan) if plan.changes.is_empty() => Ok(None),
            Ok(plan) => self.take_over(plan).map(Some),
            Err(error) => Err(error),
        };
        let order = match taken {
            Ok(change) => {
                let was_refused = self.books.config_refused.swap(false, Relaxed);
                self.books.config_time.store(wall_now() / 1_000_000_000, Relaxed);
                self.readiness.degrade_for_now(ABOUT, None);
                let keys: Vec<_> = facts.changes.iter().map(|change| change.key.as_str()).collect();
                tracing::info!(source, changed = keys.join(", "), "configuration taken over");
                let notice = Notice::Config(Box::new(facts));
                match change {
                    Some(Taken { config, redactor, rules, outputs }) => {
                        Order::Change(Box::new(Change { config, redactor, rules, outputs, notice }))
                    }
                    // Nothing to tell, unless what was told last is wrong now.
                    None if was_refused => Order::Tell(notice),
                    None => return,
                }
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::error!(source, reason, "configuration refused: the one in use stays");
                self.books.config_refused.store(true, Relaxed);
                self.readiness.degrade_for_now(ABOUT, Some(format!("configuration refused: {reason}")));
                facts.refused = Some(reason);
                Order::Tell(Notice::Config(Box::new(facts)))
            }
        };
        // The pipeline is there, or the agent stops.
        let _stopping = self.orders.send(order).await;
    }

    /// Reads the configuration and looks at all that can be wrong with it; changes nothing.
    async fn plan(&self, facts: &mut ConfigFacts) -> anyhow::Result<Plan> {
        let config = Config::load(&self.args, action::NAMES)?;
        let redactor = Redactor::new(&config.redaction)?;
        let changes = self.config.changes(&config);
        let fact = |Changed { key, old, new }: &Changed| ChangeFacts {
            key: key.clone(),
            old: old.clone(),
            new: new.clone(),
        };
        facts.changes = changes.iter().map(fact).collect();
        let fixed: Vec<_> =
            changes.iter().filter(|change| !change.is_live()).map(|change| change.key.as_str()).collect();
        ensure!(
            fixed.is_empty(),
            "{} cannot change while the agent runs: restart it, or take the change back",
            fixed.join(", ")
        );
        let (old, new) = (&self.config, &config);
        let scope = if new.agent.cgroups == old.agent.cgroups {
            None
        } else {
            ensure!(
                new.agent.cgroups.is_empty() == old.agent.cgroups.is_empty(),
                "agent.cgroups cannot change between all cgroups and some while the agent runs: restart it, or take \
                 the change back"
            );
            Some(Scope::new(&new.agent.cgroups, &self.hierarchies)?)
        };
        let outputs = if new.output.to == old.output.to {
            None
        } else {
            let without = |to: &[OutputSpec], others: &[OutputSpec]| -> Vec<OutputSpec> {
                to.iter().filter(|output| !others.contains(output)).cloned().collect()
            };
            let added = without(&new.output.to, &old.output.to);
            let (output, host, registry) = (new.output.clone(), self.host.clone(), self.outputs.clone());
            // A disk can take its time.
            let opened = spawn_blocking(move || Opened::new(&added, &output, &host, registry)).await??;
            Some((without(&old.output.to, &new.output.to), opened))
        };
        let rules =
            if new.rules == old.rules { None } else { Some(Rules::new(&new.rules, &self.rule_books)?) };
        Ok(Plan { rules, config, changes, redactor, scope, outputs })
    }

    /// Changes the kernel side and starts the outputs; what is left is the pipeline's.
    fn take_over(&mut self, plan: Plan) -> anyhow::Result<Taken> {
        let Plan { rules, config, changes: _, redactor, scope, outputs } = plan;
        match self.change(&config, scope.as_ref(), outputs) {
            Ok(swap) => {
                self.level.set(config.agent.log_level);
                self.kernel.configure(&config.metrics);
                if self.config.redaction.enabled && !config.redaction.enabled {
                    tracing::warn!(
                        "redaction is off: passwords on command lines are in every line and recording"
                    );
                }
                self.config = config.clone();
                Ok(Taken { config, redactor, rules, outputs: swap })
            }
            Err(error) => Err(match self.take_back(scope.is_some()) {
                Ok(()) => error,
                Err(second) => error.context(format!("not all of it could be taken back ({second:#})")),
            }),
        }
    }

    fn change(
        &mut self,
        config: &Config,
        scope: Option<&Scope>,
        outputs: Option<(Vec<OutputSpec>, Opened)>,
    ) -> anyhow::Result<Option<Swap>> {
        if let Some(scope) = scope {
            self.controls.set_scope(scope).map_err(|error| anyhow!("agent.cgroups: {error}"))?;
            if let Some(told) = &self.scope {
                told.send_replace(scope.clone());
            }
        }
        self.controls.set(&options(config, &Selection::new(&config.agent)).settings())?;
        let Some((removed, opened)) = outputs else { return Ok(None) };
        let added = opened.start(config.output.queue_bytes.get() as usize, &self.observer)?;
        Ok(Some(Swap { removed, added }))
    }

    fn take_back(&mut self, scope: bool) -> anyhow::Result<()> {
        if scope {
            let before = Scope::new(&self.config.agent.cgroups, &self.hierarchies)?;
            self.controls.set_scope(&before)?;
            if let Some(told) = &self.scope {
                told.send_replace(before);
            }
        }
        self.controls.set(&options(&self.config, &Selection::new(&self.config.agent)).settings())?;
        Ok(())
    }
}
