//! What the agent tells of itself, beside the events: when it starts and stops, what it lost, what was taken from
//! it, and a ledger once a minute.
//!
//! [`Own`] is the pipeline's: its lines take the same way as all others, in order with them. What it reads are
//! counters and descriptors; the state file, which a disk can hold up, is a task's of its own.

mod identity;
mod last_run;
mod losses;
mod memory;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tellwire_ebpf::{
    counters::Ledger,
    wire::{Kind, Subject},
};

use self::losses::Losses;
pub(crate) use self::{
    identity::{pid_on_host, subject},
    last_run::{NOTE, Note, StateFile},
    memory::settle,
};
use crate::{
    books::{Audit, Books},
    events::action::Action,
    http::Readiness,
    kernel::{Alive, Detached, ledger::KernelBooks, possible_cpus},
    lines::{
        clock::boot_now,
        own::{
            KernelFacts, LedgerFacts, LinesFacts, LostFacts, Notice, OutputFacts, ProbeFacts, StoppedFacts,
        },
    },
    metrics::{NESTING, SMALLEST_RECORD},
    outputs::Registry,
    pipeline::{Outbox, State},
};

const SECOND: u64 = 1_000_000_000;

/// Losses are told so often at the most, however long a storm lasts.
const LOSSES: u64 = 10 * SECOND;

/// How often the ledger is told.
const LEDGER: u64 = 60 * SECOND;

/// The agent as a part of what it tells.
pub(crate) struct Own {
    parts: Parts,
    /// When the programs were attached, by boot time.
    started: u64,
    losses: Losses,
    times: Times,
}

/// When what was told, and is told next, by boot time.
#[derive(Debug)]
struct Times {
    /// Losses were looked for.
    looked: u64,
    /// There were some.
    told: Option<u64>,
    ledger: u64,
}

/// What is looked at.
pub(crate) struct Parts {
    /// The agent's own process.
    pub(crate) subject: Subject,
    pub(crate) kernel: Arc<KernelBooks>,
    pub(crate) outputs: Registry,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) alive: Alive,
    /// Of all rings together.
    pub(crate) ring_bytes: u64,
}

/// Where lines go.
pub(crate) struct Desk<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) books: &'a Books,
}

impl Own {
    pub(crate) fn new(parts: Parts, started: u64) -> Self {
        Self { parts, started, losses: Losses::default(), times: Times::new(started) }
    }

    /// Makes the line of a notice.
    pub(crate) fn tell(&self, notice: Notice, reason: Option<&str>, desk: &mut Desk<'_>) {
        desk.state.tell(&self.parts.subject, notice, reason, desk.outbox, desk.books);
    }

    /// Looks at everything whose time has come.
    pub(crate) fn look(&mut self, now: u64, desk: &mut Desk<'_>) {
        for Detached { number, attached, reason } in self.parts.alive.look() {
            let probe = attached.probe;
            desk.books.probes_lost.fetch_or(1 << number, Relaxed);
            tracing::error!(probe = probe.name, reason, "probe lost: restart the agent to attach it again");
            self.parts.readiness.degrade(format!("probe {} is not attached any more: {reason}", probe.name));
            let facts = ProbeFacts {
                name: probe.name,
                attached: false,
                by: attached.chosen.map(|chosen| chosen.by.name()),
                gives: Some(probe.gives),
                reason: Some(reason),
            };
            self.tell(Notice::Probe(Box::new(facts)), None, desk);
        }
        let (losses, minute) = (self.times.may_tell_losses(now), self.times.is_minute(now));
        if !losses && !minute {
            return;
        }
        let Ok(ledgers) = self.parts.kernel.ledgers() else { return };
        if losses {
            self.tell_losses(now, &ledgers, desk);
        }
        if minute {
            let balanced = self.is_balanced(desk.books);
            self.tell_ledger(&ledgers, balanced, false, desk);
        }
    }

    /// Tells the end, once everything is drained; `reason` is why.
    pub(crate) fn end(&mut self, reason: &str, desk: &mut Desk<'_>) {
        let now = boot_now();
        let Ok(ledgers) = self.parts.kernel.ledgers() else { return };
        self.tell_losses(now, &ledgers, desk);
        let balanced = Audit::is_exact(&ledgers, &desk.books.received());
        self.tell_ledger(&ledgers, balanced, true, desk);
        let facts = StoppedFacts {
            uptime_seconds: seconds(now.saturating_sub(self.started)),
            seen: ledgers.iter().map(|ledger| ledger.seen).sum(),
            lines: desk.books.lines.iter().map(|lines| lines.load(Relaxed)).sum(),
            lost: self.losses.total(),
            balanced,
        };
        self.tell(Notice::Stopped(Box::new(facts)), Some(reason), desk);
    }

    fn tell_losses(&mut self, now: u64, ledgers: &[Ledger; Kind::COUNT], desk: &mut Desk<'_>) {
        let losses = Losses::read(ledgers, desk.books, &self.parts.outputs);
        let lost = losses.since(&self.losses);
        self.losses = losses;
        let from = self.times.looked_for_losses(now, !lost.is_empty());
        if lost.is_empty() {
            return;
        }
        let clock = &mut desk.state.clock;
        let facts = LostFacts { from: clock.text(from), to: clock.text(now), lost };
        self.tell(Notice::Lost(Box::new(facts)), None, desk);
    }

    fn is_balanced(&self, books: &Books) -> bool {
        let kernel = &self.parts.kernel;
        let received = books.received();
        let Ok(before) = kernel.ledgers() else { return false };
        let Ok(after) = kernel.ledgers() else { return false };
        let audit = Audit {
            before,
            received,
            after,
            received_after: books.received(),
            in_programs: possible_cpus() * NESTING,
            in_rings: self.parts.ring_bytes / SMALLEST_RECORD,
        };
        audit.is_balanced()
    }

    fn tell_ledger(&self, ledgers: &[Ledger; Kind::COUNT], balanced: bool, last: bool, desk: &mut Desk<'_>) {
        let facts = ledger(ledgers, &self.parts.outputs, desk.books, balanced, last);
        self.tell(Notice::Ledger(Box::new(facts)), None, desk);
    }
}

/// The ledger as of now.
fn ledger(
    ledgers: &[Ledger; Kind::COUNT],
    outputs: &Registry,
    books: &Books,
    balanced: bool,
    last: bool,
) -> LedgerFacts {
    let kernel = Kind::ALL.iter().zip(ledgers).zip(books.received()).map(|((kind, ledger), received)| {
        let Ledger { seen, submitted, ring_full, filtered, throttled, state_lost } = *ledger;
        let errors = books.decode_errors.get(*kind as usize).map_or(0, |counter| counter.load(Relaxed));
        KernelFacts {
            action: kind.name(),
            seen,
            submitted,
            ring_full,
            filtered,
            throttled,
            state_lost,
            received,
            decode_errors: errors,
        }
    });
    let lines = Action::ALL.iter().zip(books.lines.iter()).map(|(action, made)| LinesFacts {
        action: action.name(),
        made: made.load(Relaxed),
        left_out: left_out(books, *action),
    });
    let outputs = outputs.all().into_iter().map(|(name, stats)| OutputFacts {
        name: name.to_string(),
        written: stats.events.load(Relaxed),
        dropped: stats.dropped.load(Relaxed),
    });
    LedgerFacts {
        kernel: kernel.filter(|kind| kind.seen > 0).collect(),
        lines: lines.filter(|lines| lines.made > 0 || lines.left_out > 0).collect(),
        outputs: outputs.collect(),
        balanced,
        last,
    }
}

/// Events of this action that make no line of their own, for whatever reason.
fn left_out(books: &Books, action: Action) -> u64 {
    books.left_out.iter().filter_map(|by_action| Some(by_action.get(action as usize)?.load(Relaxed))).sum()
}

pub(crate) fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

impl Times {
    fn new(started: u64) -> Self {
        Self { looked: started, told: None, ledger: started + LEDGER }
    }

    fn may_tell_losses(&self, now: u64) -> bool {
        self.told.is_none_or(|told| now >= told + LOSSES)
    }

    /// Losses were looked for now; gives since when.
    fn looked_for_losses(&mut self, now: u64, found: bool) -> u64 {
        if found {
            self.told = Some(now);
        }
        std::mem::replace(&mut self.looked, now)
    }

    /// Whether it is time for a ledger. The next one is a whole number of minutes after the start, however late this one
    /// comes.
    fn is_minute(&mut self, now: u64) -> bool {
        let Some(late) = now.checked_sub(self.ledger) else { return false };
        self.ledger += LEDGER * (late / LEDGER + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{SECOND, Times};

    #[test]
    fn a_ledger_comes_once_a_minute() {
        let mut times = Times::new(5 * SECOND);
        let due = |second: u64| times.is_minute(second * SECOND);
        let seconds = [5, 64, 65, 66, 124, 129, 130, 185, 400, 404, 425];
        assert_eq!(
            seconds.map(due),
            [false, false, true, false, false, true, false, true, true, false, true]
        );
    }

    #[test]
    fn a_storm_of_losses_is_told_every_ten_seconds_without_a_gap() {
        let mut times = Times::new(0);
        assert!(times.may_tell_losses(5));
        assert_eq!(times.looked_for_losses(5, false), 0);
        assert_eq!(times.looked_for_losses(6, true), 5);
        assert!(!times.may_tell_losses(6 + 9 * SECOND));
        assert!(times.may_tell_losses(6 + 10 * SECOND));
        assert_eq!(times.looked_for_losses(6 + 10 * SECOND, true), 6);
    }
}
