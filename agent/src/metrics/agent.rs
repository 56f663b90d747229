//! The ledger and the agent's own state.

use std::{
    fmt::Error,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tellwire_ebpf::{
    counters::Ledger,
    privilege::Call,
    wire::{Kind, Ring},
};

use super::{
    Parts,
    encode::{Labels, Sink, float},
    kinds,
};
use crate::{books::Audit, events::action::Action, kernel::ledger::Totals, pipeline::LeftOut, redact::Rule};

/// Entries of the map `TRANSACTIONS`, agent-ebpf/src/pam/transactions.rs.
const PAM_TRANSACTIONS: u64 = tellwire_ebpf::pam::TRANSACTIONS as u64;

type Ledgers = [Ledger; Kind::COUNT];

impl Parts {
    pub(super) fn ledger(&self, sink: &mut Sink<'_>, ledgers: &Ledgers, audit: &Audit) -> Result<(), Error> {
        let mut records = Vec::new();
        let mut seen = Vec::new();
        let mut lost = Vec::new();
        for ((index, action), ledger) in kinds().zip(ledgers) {
            let Ledger { seen: total, submitted, ring_full, filtered, throttled, state_lost } = *ledger;
            seen.push(([("action", action)], total));
            for (outcome, value) in [
                ("submitted", submitted),
                ("ring_full", ring_full),
                ("filtered", filtered),
                ("throttled", throttled),
                ("state_lost", state_lost),
            ] {
                records.push(([("action", action), ("outcome", outcome)], value));
            }
            let decode = self.books.decode_errors.get(index).map_or(0, |counter| counter.load(Relaxed));
            let swept = if action == Kind::Connect.name() { self.books.swept_lost.load(Relaxed) } else { 0 };
            for (stage, value) in [("ring", ring_full), ("state", state_lost + swept), ("decode", decode)] {
                lost.push(([("stage", stage), ("action", action)], value));
            }
        }
        lost.push(([("stage", "audit"), ("action", "audit")], self.books.audit.lost()));
        let all_outputs = self.outputs.all();
        for action in Action::ALL {
            let index = *action as usize;
            let dropped =
                |counters: &[AtomicU64]| counters.get(index).map_or(0, |counter| counter.load(Relaxed));
            let outputs: u64 = all_outputs.iter().map(|(_, stats)| dropped(&stats.dropped_by_action)).sum();
            lost.push((
                [("stage", "output"), ("action", action.name())],
                outputs + dropped(&self.books.encode_errors),
            ));
        }
        counter(
            sink,
            "tellwire_kernel_seen_total",
            "Events that the kernel programs saw, by record kind.",
            &seen,
        )?;
        counter(
            sink,
            "tellwire_kernel_records_total",
            "What became of the events that the kernel programs saw: the outcomes of a kind add up to tellwire_kernel_seen_total.",
            &records,
        )?;
        counter(
            sink,
            "tellwire_events_lost_total",
            "Events that did not reach the log, by the stage that lost them. The metrics still count them.",
            &lost,
        )?;
        sink.gauge(
            "tellwire_ledger_balanced",
            "Whether every record is accounted for, up to what is on its way: 1 yes, 0 no.",
            &[(&[], f64::from(u8::from(audit.is_balanced())))],
        )?;
        let received: Vec<_> = kinds()
            .zip(self.books.received())
            .map(|((_, action), value)| ([("action", action)], value))
            .collect();
        counter(
            sink,
            "tellwire_records_received_total",
            "Records taken from the rings, by kind.",
            &received,
        )?;
        sink.counter(
            "tellwire_sequence_gaps_total",
            "Numbered records that never came, by the sequence numbers of each CPU and ring.",
            &[(&[], self.books.sequence_gaps.load(Relaxed))],
        )
    }

    pub(super) fn agent(&self, sink: &mut Sink<'_>, totals: &Totals) -> Result<(), Error> {
        self.lines(sink)?;
        self.probes(sink)?;
        self.rings(sink)?;
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let books = &self.books;
        sink.counter(
            "tellwire_truncations_total",
            "Records in which a field was cut, by field.",
            &[
                (&[("field", "args")], load(&books.args_truncated)),
                (&[("field", "path")], load(&books.path_truncated)),
            ],
        )?;
        let redactions: Vec<_> = Rule::ALL
            .iter()
            .zip(&books.redactions)
            .map(|(rule, counter)| ([("rule", rule.name())], load(counter)))
            .collect();
        counter(
            sink,
            "tellwire_redactions_total",
            "Records that a secret was taken out of, by the rule that found it.",
            &redactions,
        )?;
        sink.counter(
            "tellwire_enrichments_total",
            "Lines by whether their process was found to be in a container (kind container), and containers by when \
             their names came: with their first line, late and told by container_named, or never (kind names).",
            &[
                (&[("kind", "container"), ("outcome", "container")], load(&books.enriched_container)),
                (&[("kind", "container"), ("outcome", "host")], load(&books.enriched_host)),
                (&[("kind", "names"), ("outcome", "at_once")], load(&books.named_at_once)),
                (&[("kind", "names"), ("outcome", "late")], load(&books.named_late)),
                (&[("kind", "names"), ("outcome", "never")], load(&books.never_named)),
            ],
        )?;
        sink.counter(
            "tellwire_table_refusals_total",
            "Entries that a table of the agent had no room for; their lines say less.",
            &[
                (&[("table", "processes")], load(&books.processes_refused)),
                (&[("table", "cgroups")], load(&books.cgroups_refused)),
            ],
        )?;
        sink.counter(
            "tellwire_series_overflow_total",
            "What found no room; sums stay exact. cgroup_counters: events that were counted without their cgroup, since \
             the map was full; workloads: cgroups whose workload the budget of series had no room for.",
            &[
                (&[("metric", "cgroup_counters")], totals.overflow),
                (&[("metric", "workloads")], totals.workloads_refused),
            ],
        )?;
        let entries = |map: &str| match map {
            "cgroup_counters" => totals.entries,
            "pending_connects" => load(&books.pending_connects),
            "open_connections" => load(&books.open_connections),
            "processes" => load(&books.processes),
            "pam_transactions" => load(&self.pam.transactions),
            _ => load(&books.cgroups),
        };
        let processes = ("processes", load(&books.processes_max));
        let transactions = ("pam_transactions", PAM_TRANSACTIONS);
        let maps: Vec<_> = self
            .capacities
            .iter()
            .chain([&processes, &transactions])
            .map(|(map, capacity)| ([("map", *map)], *capacity))
            .collect();
        let used: Vec<_> =
            maps.iter().map(|(labels, _)| (labels.as_slice(), float(entries(labels[0].1)))).collect();
        sink.gauge("tellwire_map_entries", "Entries in use.", &used)?;
        let capacity: Vec<_> =
            maps.iter().map(|(labels, capacity)| (labels.as_slice(), float(*capacity))).collect();
        sink.gauge("tellwire_map_capacity", "Entries that there is room for.", &capacity)?;
        sink.gauge(
            "tellwire_config_last_reload_successful",
            "Whether the configuration in use is that of the file: 0 if the file was refused since.",
            &[(&[], f64::from(u8::from(!books.config_refused.load(Relaxed))))],
        )?;
        sink.gauge(
            "tellwire_config_last_reload_timestamp_seconds",
            "When the configuration in use was read.",
            &[(&[], float(load(&books.config_time)))],
        )?;
        sink.info(
            "tellwire_build_info",
            "The build that runs, and the kernel that it runs on.",
            &[("version", env!("CARGO_PKG_VERSION")), ("kernel", &self.kernel_release)],
        )
    }

    fn lines(&self, sink: &mut Sink<'_>) -> Result<(), Error> {
        let by_action = |counters: &[AtomicU64]| -> Vec<_> {
            Action::ALL
                .iter()
                .zip(counters)
                .map(|(action, counter)| ([("action", action.name())], counter.load(Relaxed)))
                .collect()
        };
        counter(sink, "tellwire_lines_total", "Lines made, by action.", &by_action(&self.books.lines))?;
        sink.counter(
            "tellwire_fold_lines_total",
            "Lines that stand for several connects: with them taken off, lines, what is left out and what is not \
             encoded are the events that reached the agent.",
            &[(&[], self.books.summaries.load(Relaxed))],
        )?;
        // Most products of action and reason never occur, and no alert needs them.
        let left_out: Vec<_> = LeftOut::ALL
            .iter()
            .zip(&self.books.left_out)
            .flat_map(|(why, counters)| {
                by_action(counters)
                    .into_iter()
                    .filter(|([(_, action)], count)| *count > 0 || begins_at_zero(action, *why))
                    .map(|([action], count)| ([action, ("reason", why.name())], count))
            })
            .collect();
        counter(
            sink,
            "tellwire_lines_left_out_total",
            "Events that make no line of their own, by action and reason: `types` names others, the `profile` does \
             without, `folded` into one line with others, or left out by a `rule`.",
            &left_out,
        )?;
        let all_outputs = self.outputs.all();
        let outputs = |value: fn(&crate::outputs::OutputStats) -> u64| -> Vec<_> {
            all_outputs.iter().map(|(name, stats)| ([("output", name.as_ref())], value(stats))).collect()
        };
        let written = outputs(|stats| stats.events.load(Relaxed));
        counter(sink, "tellwire_output_events_total", "Lines written, by output.", &written)?;
        let dropped = outputs(|stats| stats.dropped.load(Relaxed));
        counter(sink, "tellwire_output_dropped_total", "Lines that an output lost.", &dropped)?;
        let bytes = outputs(|stats| stats.bytes.load(Relaxed));
        counter(sink, "tellwire_output_bytes_total", "Bytes of the lines written, by output.", &bytes)?;
        let rotations = outputs(|stats| stats.rotations.load(Relaxed));
        counter(
            sink,
            "tellwire_output_rotations_total",
            "Files that were put aside, by output.",
            &rotations,
        )?;
        let deleted = outputs(|stats| stats.deleted.load(Relaxed));
        counter(
            sink,
            "tellwire_output_deleted_files_total",
            "Rotated files that were deleted to stay below the limit, by output.",
            &deleted,
        )?;
        let reconnects = outputs(|stats| stats.reconnects.load(Relaxed));
        counter(
            sink,
            "tellwire_output_reconnects_total",
            "Connections that an output made after its first.",
            &reconnects,
        )?;
        let failed = outputs(|stats| u64::from(stats.failed.load(Relaxed)));
        let failed: Vec<_> =
            failed.iter().map(|(labels, value)| (labels.as_slice(), float(*value))).collect();
        sink.gauge(
            "tellwire_output_failed",
            "Whether the output cannot write at the moment: 1 yes, 0 no.",
            &failed,
        )
    }

    fn probes(&self, sink: &mut Sink<'_>) -> Result<(), Error> {
        let lost = self.books.probes_lost.load(Relaxed);
        let attached: Vec<_> = self
            .probes
            .iter()
            .enumerate()
            .map(|(number, probe)| {
                let is_attached = probe.is_attached() && lost >> number & 1 == 0;
                ([("probe", probe.probe.name)], f64::from(u8::from(is_attached)))
            })
            .collect();
        let samples: Vec<_> = attached.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.gauge("tellwire_probe_attached", "Whether the probe is attached: 1 yes, 0 no.", &samples)?;
        let stats = self.program_stats();
        let sum = |probe: &str, value: fn(&crate::kernel::program_info::ProgramStats) -> u64| -> u64 {
            stats.iter().filter(|(name, _)| *name == probe).map(|(_, stats)| value(stats)).sum()
        };
        let by_probe = |value: fn(&crate::kernel::program_info::ProgramStats) -> u64| -> Vec<_> {
            self.probes
                .iter()
                .map(|probe| ([("probe", probe.probe.name)], sum(probe.probe.name, value)))
                .collect()
        };
        // Where the kernel cannot say, there is no sample: zero would be a claim.
        if stats.iter().any(|(_, stats)| stats.misses.is_some()) {
            counter(
                sink,
                "tellwire_probe_missed_total",
                "Runs that the kernel skipped since the program was running on that CPU already.",
                &by_probe(|stats| stats.misses.unwrap_or(0)),
            )?;
        }
        if stats.iter().any(|(_, stats)| stats.runs > 0) {
            counter(
                sink,
                "tellwire_probe_runs_total",
                "Runs of the probe's programs while BPF statistics were on.",
                &by_probe(|stats| stats.runs),
            )?;
            let seconds: Vec<_> = by_probe(|stats| stats.run_time_ns)
                .into_iter()
                .map(|(labels, nanos)| (labels, float(nanos) / 1e9))
                .collect();
            let samples: Vec<_> = seconds.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
            sink.counter_f64(
                "tellwire_probe_run_seconds_total",
                "Time in the probe's programs while BPF statistics were on.",
                &samples,
            )?;
        }
        Ok(())
    }

    fn rings(&self, sink: &mut Sink<'_>) -> Result<(), Error> {
        let rings: Vec<_> = self
            .rings
            .iter()
            .map(|(ring, bytes, usage)| ([("ring", ring.name())], *bytes, usage.used()))
            .collect();
        let sizes: Vec<_> =
            rings.iter().map(|(labels, bytes, _)| (labels.as_slice(), float(*bytes))).collect();
        sink.gauge("tellwire_ring_bytes", "Size of the ring.", &sizes)?;
        let used: Vec<_> = rings.iter().map(|(labels, _, used)| (labels.as_slice(), float(*used))).collect();
        sink.gauge("tellwire_ring_used_bytes", "Bytes in the ring that are not read yet.", &used)?;
        let labels: Vec<_> = Ring::ALL.iter().map(|ring| [("ring", ring.name())]).collect();
        let delivery: Vec<_> = labels.iter().map(<[_; 1]>::as_slice).zip(&self.histograms.delivery).collect();
        sink.histogram(
            "tellwire_event_delivery_seconds",
            "Time from the kernel's event to the end of its write to the first output.",
            &delivery,
        )
    }
}

fn counter<const N: usize>(
    sink: &mut Sink<'_>,
    name: &str,
    help: &str,
    samples: &[([(&'static str, &str); N], u64)],
) -> Result<(), Error> {
    let samples: Vec<(Labels<'_>, u64)> =
        samples.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
    sink.counter(name, help, &samples)
}

/// Whether a sample of what is left out is there before it counts something: those of the kernel's frequent events, and what
/// the profile does without.
fn begins_at_zero(action: &str, why: LeftOut) -> bool {
    const FREQUENT: [Action; 5] =
        [Action::Exec, Action::ExecFailed, Action::Exit, Action::Connect, Action::Close];
    let is_call = || Call::ALL.iter().any(|call| call.name() == action);
    FREQUENT.iter().any(|frequent| frequent.name() == action)
        || why == LeftOut::Profile && (action == Action::PamSetcred.name() || is_call())
}
