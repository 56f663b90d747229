//! What the agent tells of itself: the facts of the family `agent`, and how each becomes a line.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Line, build::Frame, fields::Tellwire};
use crate::{enrich::users::Users, events::action::Action};

/// Something that the agent tells of itself.
#[derive(Debug)]
pub(crate) enum Notice {
    Started(Box<StartedFacts>),
    Stopped(Box<StoppedFacts>),
    Lost(Box<LostFacts>),
    Probe(Box<ProbeFacts>),
    Config(Box<ConfigFacts>),
    Clock(Box<ClockFacts>),
    Ledger(Box<LedgerFacts>),
}

/// What the agent begins with.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StartedFacts {
    /// The output of `uname -r`.
    pub(crate) kernel: String,
    pub(crate) probes: Vec<ProbeFacts>,
    /// The configuration file, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config_file: Option<String>,
    /// Keys that do not have their default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) settings: Vec<SettingFacts>,
    /// For how long no agent looked: from the last note of the run before to when the probes were attached. After an
    /// end without a stop it can be up to ten seconds too long. `absent` on a first run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blind_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_run: Option<LastRunFacts>,
}

/// The run before this one, as its state file has it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LastRunFacts {
    /// Its `agent.ephemeral_id`.
    pub(crate) ephemeral_id: String,
    /// It was stopped, and drained what it had; otherwise it was killed or the host went down.
    pub(crate) clean: bool,
    /// The host was started again in between.
    pub(crate) rebooted: bool,
}

/// A row of the hook table: what `tellwire check` says of it too.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ProbeFacts {
    pub(crate) name: &'static str,
    pub(crate) attached: bool,
    /// What it hooks: `raw tracepoint`, `cgroup hook`, `kernel functions` or `syscall tracepoints`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<&'static str>,
    /// What is not seen without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gives: Option<&'static str>,
    /// Why it is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SettingFacts {
    /// With its section: `kernel.args-bytes`.
    pub(crate) key: String,
    /// As TOML.
    pub(crate) value: String,
}

/// What the agent ends with.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StoppedFacts {
    pub(crate) uptime_seconds: f64,
    /// What the programs in the kernel saw.
    pub(crate) seen: u64,
    /// Lines that were made before this one.
    pub(crate) lines: u64,
    /// Events whose line was lost, at any stage.
    pub(crate) lost: u64,
    /// Whether every record is accounted for.
    pub(crate) balanced: bool,
}

/// Lines that there will never be. The metrics count what they would have told.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LostFacts {
    /// They were lost from this time on: RFC 3339.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) lost: Vec<LossFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LossFacts {
    /// The action, or the kind of record where no event came of it.
    pub(crate) action: &'static str,
    /// `ring`, `state`, `decode`, `audit` and `output` as in `tellwire_events_lost_total`; `throttle` where a cgroup sent more
    /// than its share.
    pub(crate) stage: &'static str,
    pub(crate) count: u64,
}

/// The configuration was read again.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfigFacts {
    /// `SIGHUP`, or `file` where the file changed.
    pub(crate) source: &'static str,
    pub(crate) file: String,
    /// What is different in it. On a failure nothing of it was taken over.
    pub(crate) changes: Vec<ChangeFacts>,
    /// Why the agent keeps what it had.
    #[serde(skip)]
    pub(crate) refused: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChangeFacts {
    /// With its section: `kernel.args-bytes`.
    pub(crate) key: String,
    /// As TOML.
    pub(crate) old: String,
    pub(crate) new: String,
}

/// The wall clock was set. Times of lines before and after are not on one scale.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ClockFacts {
    /// How far the wall clock went forward, or back.
    pub(crate) step_seconds: f64,
    /// What was added to the time since boot, in seconds, to get the time since 1970.
    pub(crate) old_offset: f64,
    /// What is added from here on.
    pub(crate) new_offset: f64,
}

/// All counts since the start. Who counts the lines of this `agent.ephemeral_id` between two ledger lines knows
/// whether any were lost on the way: `lines` says how many were made before this one.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LedgerFacts {
    /// What became of the events that the programs in the kernel saw; kinds of which there were none are left out.
    pub(crate) kernel: Vec<KernelFacts>,
    /// By action; those of which there were none are left out.
    pub(crate) lines: Vec<LinesFacts>,
    pub(crate) outputs: Vec<OutputFacts>,
    /// Whether every record is accounted for, up to what is on its way.
    pub(crate) balanced: bool,
    /// The last one of this run: nothing is on its way in the kernel any more.
    pub(crate) last: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct KernelFacts {
    /// The kind of record.
    pub(crate) action: &'static str,
    /// The sum of the next five.
    pub(crate) seen: u64,
    pub(crate) submitted: u64,
    pub(crate) ring_full: u64,
    pub(crate) filtered: u64,
    pub(crate) throttled: u64,
    pub(crate) state_lost: u64,
    /// Taken from the ring: as many as were submitted, but for those that are on their way.
    pub(crate) received: u64,
    pub(crate) decode_errors: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LinesFacts {
    pub(crate) action: &'static str,
    /// Lines made.
    pub(crate) made: u64,
    /// Events that make no line by configuration.
    pub(crate) left_out: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OutputFacts {
    /// As in metrics.
    pub(crate) name: String,
    pub(crate) written: u64,
    pub(crate) dropped: u64,
}

impl Notice {
    pub(crate) fn action(&self) -> Action {
        match self {
            Self::Started(_) => Action::AgentStarted,
            Self::Stopped(_) => Action::AgentStopped,
            Self::Lost(_) => Action::EventsLost,
            Self::Probe(_) => Action::ProbeLost,
            Self::Config(_) => Action::ConfigChanged,
            Self::Clock(_) => Action::ClockChanged,
            Self::Ledger(_) => Action::Ledger,
        }
    }

    /// A throttle that does its work is no failure.
    fn outcome(&self) -> Option<&'static str> {
        let is_ok = match self {
            Self::Started(_) => true,
            Self::Stopped(facts) => facts.balanced,
            Self::Lost(facts) => facts.lost.iter().all(|loss| loss.stage == "throttle"),
            Self::Probe(_) => false,
            Self::Config(facts) => facts.refused.is_none(),
            Self::Clock(_) => return None,
            Self::Ledger(facts) => facts.balanced,
        };
        Some(if is_ok { "success" } else { "failure" })
    }
}

/// The line of a notice, whose frame has the agent's own process. `reason` is why it stopped.
pub(crate) fn line<'a>(
    frame: &Frame<'a>,
    notice: Notice,
    reason: Option<&'a str>,
    users: &mut Users,
) -> Line<'a> {
    let mut line = frame.line(notice.action(), notice.outcome(), users);
    // No record stands behind it.
    line.event.sequence = None;
    line.tellwire = Tellwire { schema: Some(super::SCHEMA), ..Tellwire::default() };
    let (event, to) = (&mut line.event, &mut line.tellwire);
    match notice {
        Notice::Started(facts) => to.started = Some(facts),
        Notice::Stopped(facts) => {
            event.reason = reason.map(Cow::Borrowed);
            to.stopped = Some(facts);
        }
        Notice::Lost(facts) => to.lost = Some(facts),
        Notice::Probe(facts) => {
            event.reason = facts.reason.clone().map(Cow::Owned);
            to.probe = Some(facts);
        }
        Notice::Config(mut facts) => {
            event.reason = facts.refused.take().map(Cow::Owned);
            to.config = Some(facts);
        }
        Notice::Clock(facts) => to.clock = Some(facts),
        Notice::Ledger(facts) => to.ledger = Some(facts),
    }
    line
}

/// The same for a person at a terminal; nothing for lines of other families.
pub(super) fn summary(line: &Line<'_>) -> Option<String> {
    let Tellwire { started, stopped, lost, probe, config, clock, ledger, .. } = &line.tellwire;
    let reason = line.event.reason.as_deref().unwrap_or_default();
    if let Some(facts) = started {
        let attached = facts.probes.iter().filter(|probe| probe.attached).count();
        let blind = facts
            .blind_seconds
            .map_or_else(|| "a first run".to_owned(), |seconds| format!("nobody looked for {seconds:.1} s"));
        return Some(format!("{attached} of {} probes, {blind}", facts.probes.len()));
    }
    if let Some(facts) = stopped {
        let StoppedFacts { uptime_seconds, seen, lines, lost, balanced } = **facts;
        let balance = if balanced { "balanced" } else { "not balanced" };
        return Some(format!(
            "{reason} after {uptime_seconds:.0} s: {seen} seen, {lines} lines, {lost} lost, {balance}"
        ));
    }
    if let Some(facts) = lost {
        let loss = |LossFacts { action, stage, count }: &LossFacts| format!("{count} {action} ({stage})");
        return Some(facts.lost.iter().map(loss).collect::<Vec<_>>().join(", "));
    }
    if let Some(facts) = probe {
        return Some(format!("{}: {reason}", facts.name));
    }
    if let Some(facts) = config {
        if !reason.is_empty() {
            return Some(reason.to_owned());
        }
        let change = |ChangeFacts { key, old, new }: &ChangeFacts| format!("{key} {old} -> {new}");
        return Some(facts.changes.iter().map(change).collect::<Vec<_>>().join(", "));
    }
    if let Some(facts) = clock {
        return Some(format!("{:+.3} s", facts.step_seconds));
    }
    let facts = ledger.as_ref()?;
    let seen: u64 = facts.kernel.iter().map(|kind| kind.seen).sum();
    let made: u64 = facts.lines.iter().map(|lines| lines.made).sum();
    let balance = if facts.balanced { "balanced" } else { "not balanced" };
    Some(format!("{seen} seen, {made} lines, {balance}"))
}
