//! The agent's own books: what it took from the rings, and what it made of it.
//!
//! Plain atomics, written by the pipeline and read when scraped. Together with the kernel's ledger
//! they answer whether anything was lost, see [`Audit`].

use std::{
    ops::Deref,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use rustc_hash::FxHashMap;
use tellwire_ebpf::{
    counters::Ledger,
    wire::{Header, Kind, Ring},
};

use crate::{
    audit::books::AuditBooks, events::action::Action, outputs::ACTIONS, pipeline::LeftOut, redact::Rule,
};

/// A counter for each action.
#[derive(Debug)]
pub(crate) struct ByAction([AtomicU64; ACTIONS]);

impl Default for ByAction {
    // The library has a default for 32 of them at the most.
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Deref for ByAction {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// Counters of the pipeline.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Records taken from the rings, by kind.
    pub(crate) received: [AtomicU64; Kind::COUNT],
    /// Records that were none, by the kind they claim to be.
    pub(crate) decode_errors: [AtomicU64; Kind::COUNT],
    /// Records of no kind at all.
    pub(crate) unknown_records: AtomicU64,
    /// Events that the agent derived, by action; the kernel counts the others.
    pub(crate) derived: ByAction,
    /// Lines made, by action.
    pub(crate) lines: ByAction,
    /// Events that make no line of their own, by reason and action.
    pub(crate) left_out: [ByAction; LeftOut::ALL.len()],
    /// Of the lines, those that stand for several events.
    pub(crate) summaries: AtomicU64,
    /// Lines that could not be encoded, by action.
    pub(crate) encode_errors: ByAction,
    /// Connects whose outcome never came.
    pub(crate) swept_connects: AtomicU64,
    /// Of these, those of a process that is not known: they make no line.
    pub(crate) swept_lost: AtomicU64,
    /// Records that a rule took a secret out of, by rule.
    pub(crate) redactions: [AtomicU64; Rule::COUNT],
    pub(crate) args_truncated: AtomicU64,
    pub(crate) path_truncated: AtomicU64,
    pub(crate) sequence_gaps: AtomicU64,
    pub(crate) processes: AtomicU64,
    pub(crate) processes_refused: AtomicU64,
    pub(crate) cgroups: AtomicU64,
    pub(crate) cgroups_refused: AtomicU64,
    pub(crate) pending_connects: AtomicU64,
    /// Connections that are open, as of the last look into the kernel's map.
    pub(crate) open_connections: AtomicU64,
    /// Processes that the table has room for.
    pub(crate) processes_max: AtomicU64,
    /// Bit n: the probe of row n was attached and is not any more.
    pub(crate) probes_lost: AtomicU64,
    /// The configuration file is not the one in use: it was refused.
    pub(crate) config_refused: AtomicBool,
    /// When the configuration in use was read, in seconds since 1970.
    pub(crate) config_time: AtomicU64,
    /// Bursts of failed authentications: from one source, for one user.
    pub(crate) bursts: [AtomicU64; 2],
    /// What became of audit records.
    pub(crate) audit: AuditBooks,
    /// Events whose container was looked up: in a container, on the host.
    pub(crate) enriched_container: AtomicU64,
    pub(crate) enriched_host: AtomicU64,
    /// Containers whose first line had their names; whose names came later; that never had names.
    pub(crate) named_at_once: AtomicU64,
    pub(crate) named_late: AtomicU64,
    pub(crate) never_named: AtomicU64,
}

impl Books {
    /// The kinds' received counters, by number.
    pub(crate) fn received(&self) -> [u64; Kind::COUNT] {
        self.received.each_ref().map(|counter| counter.load(Relaxed))
    }

    /// Counts an event that makes no line of its own.
    pub(crate) fn leave_out(&self, action: Action, why: LeftOut) {
        if let Some(counters) = self.left_out.get(why as usize) {
            Self::add(counters, action as usize);
        }
    }

    /// Counts one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn add(counters: &[AtomicU64], index: usize) {
        if let Some(counter) = counters.get(index) {
            counter.fetch_add(1, Relaxed);
        }
    }
}

/// Finds holes in the sequence numbers of each CPU and ring.
///
/// Numbers may come twice while the next is skipped (a program that interrupts another one in the middle of
/// numbering), so what counts is how many came against the highest.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    seen: FxHashMap<(Ring, u32), (u64, u64)>,
}

impl Sequences {
    pub(crate) fn take(&mut self, ring: Ring, header: &Header) {
        let (count, highest) = self.seen.entry((ring, header.cpu)).or_default();
        *count += 1;
        *highest = (*highest).max(header.sequence);
    }

    /// Records that were numbered and have not come.
    pub(crate) fn gaps(&self) -> u64 {
        self.seen.values().map(|(count, highest)| (highest + 1).saturating_sub(*count)).sum()
    }
}

/// Two readings of all books, from which one can tell whether they balance although everything moves.
///
/// Counters only grow. What was seen by the first reading has its outcome by the second, unless a program is in the
/// middle of it; and what is submitted is received, unless it is in a ring.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) before: [Ledger; Kind::COUNT],
    pub(crate) received: [u64; Kind::COUNT],
    pub(crate) after: [Ledger; Kind::COUNT],
    pub(crate) received_after: [u64; Kind::COUNT],
    /// Programs that can be in the middle of an event at one time.
    pub(crate) in_programs: u64,
    /// Records that the rings can hold.
    pub(crate) in_rings: u64,
}

impl Audit {
    /// Whether every record is accounted for, up to what is on its way.
    pub(crate) fn is_balanced(&self) -> bool {
        let kinds = self.before.iter().zip(&self.after).zip(self.received.iter().zip(&self.received_after));
        let mut submitted_before = 0;
        let mut received_after = 0;
        for ((before, after), (received, later)) in kinds {
            // Nothing has an outcome that was not seen, and nothing is received that was not submitted.
            if outcomes(before) > after.seen || *received > after.submitted {
                return false;
            }
            if before.seen > outcomes(after) + self.in_programs {
                return false;
            }
            submitted_before += before.submitted;
            received_after += later;
        }
        submitted_before <= received_after + self.in_rings
    }

    /// After the programs are detached and the rings are empty there is nothing on its way: equality, kind by kind.
    pub(crate) fn is_exact(ledgers: &[Ledger; Kind::COUNT], received: &[u64; Kind::COUNT]) -> bool {
        ledgers
            .iter()
            .zip(received)
            .all(|(ledger, received)| outcomes(ledger) == ledger.seen && ledger.submitted == *received)
    }
}

fn outcomes(ledger: &Ledger) -> u64 {
    let Ledger { seen: _, submitted, ring_full, filtered, throttled, state_lost } = *ledger;
    submitted + ring_full + filtered + throttled + state_lost
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    const NONE: Ledger =
        Ledger { seen: 0, submitted: 0, ring_full: 0, filtered: 0, throttled: 0, state_lost: 0 };

    fn audit(change: impl FnOnce(&mut Audit)) -> bool {
        let ledger = Ledger { seen: 10, submitted: 7, ring_full: 3, ..NONE };
        let mut audit = Audit {
            before: [ledger; Kind::COUNT],
            received: [7; Kind::COUNT],
            after: [ledger; Kind::COUNT],
            received_after: [7; Kind::COUNT],
            in_programs: 2,
            in_rings: 5,
        };
        change(&mut audit);
        audit.is_balanced()
    }

    #[test]
    fn books_at_rest_balance() {
        assert!(audit(|_| {}));
    }

    #[test]
    fn what_is_on_its_way_is_no_loss() {
        assert!(audit(|audit| audit.before[0].seen += 2));
        assert!(audit(|audit| audit.received_after[1] -= 5));
    }

    #[test]
    fn a_record_without_an_outcome_is_found() {
        assert!(!audit(|audit| audit.before[0].seen += 3));
    }

    #[test]
    fn a_record_that_vanished_in_a_ring_is_found() {
        assert!(!audit(|audit| audit.received_after[1] -= 6));
    }

    #[test]
    fn a_record_that_nobody_submitted_is_found() {
        assert!(!audit(|audit| audit.received[3] += 1));
    }

    #[test]
    fn after_a_drain_one_record_breaks_the_balance() {
        let ledgers = [Ledger { seen: 7, submitted: 7, ..NONE }; Kind::COUNT];
        assert!(Audit::is_exact(&ledgers, &[7; Kind::COUNT]));
        let mut received = [7; Kind::COUNT];
        received[4] = 6;
        assert!(!Audit::is_exact(&ledgers, &received));
    }

    fn number(sequence: u64) -> Header {
        let mut header = Header::new_zeroed();
        header.sequence = sequence;
        header
    }

    #[test]
    fn a_number_that_came_twice_for_a_skipped_one_is_no_gap() {
        let mut sequences = Sequences::default();
        for sequence in [0, 1, 1, 3] {
            sequences.take(Ring::Network, &number(sequence));
        }
        assert_eq!(sequences.gaps(), 0);
        sequences.take(Ring::Network, &number(6));
        assert_eq!(sequences.gaps(), 2);
    }
}
