//! How the agents themselves are: whether they see, whether they lose, what they cost.

use super::{
    build::{Dashboard, row},
    links,
    panel::{NONE_IS_GOOD, ONE_IS_GOOD, logs, series, stacked, stat, table},
    variables,
};

#[expect(clippy::too_many_lines, reason = "a table: one entry for each panel")]
pub(super) fn dashboard() -> Dashboard {
    let mut choices = variables::common();
    choices.push(variables::node(true));
    Dashboard {
        uid: links::AGENT,
        title: "tellwire / Agent health",
        description: "The agents: what they see, lose and cost. Each number here has an alert or a symptom in docs/operations.md.",
        variables: choices,
        rows: vec![
            row(
                "Now",
                [
                    stat("Agents up", "The share that Prometheus reaches (alert TellwireDown).")
                        .query("avg(up{@})", "")
                        .unit("percentunit")
                        .thresholds(ONE_IS_GOOD),
                    stat("Books that balance", "Whether every record is accounted for: 1 yes, 0 no (alert TellwireLedgerUnbalanced).")
                        .query("min(tellwire_ledger_balanced{@})", "")
                        .thresholds(ONE_IS_GOOD),
                    stat("Lost", "The share of events that made no line, of all nodes (recorded by the rules, in five minutes).")
                        .query(
                            r#"max(job:tellwire_events_lost:ratio_rate5m{job="tellwire", cluster=~"$cluster"}) or (sum(rate(tellwire_events_lost_total{@}[5m])) / clamp_min(sum(rate(tellwire_events_total{@}[5m])), 1))"#,
                            "",
                        )
                        .unit("percentunit")
                        .thresholds(NONE_IS_GOOD),
                    stat("Outputs that cannot write", "Their lines wait, and are dropped once the queue is full (alert TellwireOutputFailing).")
                        .query("sum(tellwire_output_failed{@})", "")
                        .thresholds(NONE_IS_GOOD),
                    stat("Configurations in use", "The share of agents that run by their file: less where one was refused (alert TellwireConfigRefused).")
                        .query("avg(tellwire_config_last_reload_successful{@})", "")
                        .unit("percentunit")
                        .thresholds(ONE_IS_GOOD),
                    stat("Audit records", "The share of agents that read them: in containers it takes a privilege. 0 where it was switched off.")
                        .query("avg(tellwire_audit_connected{@})", "")
                        .unit("percentunit"),
                ],
            ),
            row(
                "What is lost, and where",
                [
                    series("Lost", "Events that made no line, by the stage that lost them (alert TellwireEventsLost).")
                        .query("sum by (stage) (rate(tellwire_events_lost_total{@}[$__rate_interval]))", "{{stage}}")
                        .unit("eps")
                        .thresholds(NONE_IS_GOOD),
                    stacked("Records", "What became of what the kernel programs saw: throttled and filtered make no line, and are no loss.")
                        .query(
                            "sum by (outcome) (rate(tellwire_kernel_records_total{@}[$__rate_interval]))",
                            "{{outcome}}",
                        )
                        .unit("eps"),
                    table("Nodes that lose", "Of the last ten minutes, as the alert counts, by stage and action.")
                        .column(
                            "Lost",
                            "short",
                            NONE_IS_GOOD,
                            "topk(10, sum by (node, stage, action) (increase(tellwire_events_lost_total{@}[10m])))",
                        )
                        .link(links::node_of_row()),
                    table("Probes", "The worst first: 0 is not attached on any of these nodes, 1 on all.")
                        .column(
                            "Attached",
                            "percentunit",
                            &[(0.0, "red"), (1.0, "green")],
                            "avg by (probe) (tellwire_probe_attached{@})",
                        )
                        .column(
                            "Missed runs",
                            "short",
                            NONE_IS_GOOD,
                            "sum by (probe) (tellwire_probe_missed_total{@}) or sum by (probe) (0 * tellwire_probe_attached{@})",
                        ),
                ],
            ),
            row(
                "How full",
                [
                    series("Rings", "What is not read yet, of the ring that is fullest.")
                        .query("max by (ring) (tellwire_ring_used_bytes{@} / tellwire_ring_bytes{@})", "{{ring}}")
                        .unit("percentunit")
                        .up_to(1.0)
                        .thresholds(&[(0.8, "red")]),
                    series("Tables", "Entries in use, of the table that is fullest.")
                        .query("max by (map) (tellwire_map_entries{@} / tellwire_map_capacity{@})", "{{map}}")
                        .unit("percentunit")
                        .up_to(1.0)
                        .thresholds(&[(0.9, "red")]),
                    series("What found no room", "Sums stay exact, lines or labels say less.")
                        .query("sum by (metric) (rate(tellwire_series_overflow_total{@}[$__rate_interval]))", "{{metric}}")
                        .query("sum by (table) (rate(tellwire_table_refusals_total{@}[$__rate_interval]))", "table {{table}}")
                        .query("sum by (field) (rate(tellwire_truncations_total{@}[$__rate_interval]))", "cut {{field}}")
                        .unit("eps"),
                    series("Series", "Samples of one scrape: what an agent costs Prometheus. Workloads have what the node's own leave of the budget.")
                        .query("max by (node) (scrape_samples_scraped{@})", "{{node}}"),
                ],
            ),
            row(
                "Lines on their way",
                [
                    series("Delivery", "From the kernel's event to the end of its write, for 99 of 100 lines (alert TellwireDeliverySlow at 1 s).")
                        .query(
                            "instance:tellwire_event_delivery_seconds:p99_5m{@} or histogram_quantile(0.99, sum by (job, cluster, node, instance, le) (rate(tellwire_event_delivery_seconds_bucket{@}[5m])))",
                            "{{node}}",
                        )
                        .unit("s")
                        .thresholds(&[(1.0, "red")]),
                    stacked("Written", "Bytes of lines, by output.")
                        .query("sum by (output) (rate(tellwire_output_bytes_total{@}[$__rate_interval]))", "{{output}}")
                        .unit("Bps"),
                    series("Dropped", "Lines that an output lost: it was slower than the events, or gone.")
                        .query("sum by (output) (rate(tellwire_output_dropped_total{@}[$__rate_interval]))", "{{output}}")
                        .unit("eps")
                        .thresholds(NONE_IS_GOOD),
                    stacked("Left out", "Events that make no line of their own: by types, by the profile, folded with others, or by a rule.")
                        .query("sum by (reason) (rate(tellwire_lines_left_out_total{@}[$__rate_interval]))", "{{reason}}")
                        .unit("eps"),
                    series("Events by node", "Recorded by the rules, in five minutes; the eight with most.")
                        .query(
                            "topk(8, sum by (node) (instance_action:tellwire_events:rate5m{@}) or sum by (node) (rate(tellwire_events_total{@}[5m])))",
                            "{{node}}",
                        )
                        .unit("eps")
                        .link(links::node()),
                    stacked("Audit records", "What became of them; overruns found no room in the socket's buffer (alert TellwireAuditDeaf).")
                        .query("sum by (outcome) (rate(tellwire_audit_records_total{@}[$__rate_interval]))", "{{outcome}}")
                        .query("sum(rate(tellwire_audit_overruns_total{@}[$__rate_interval]))", "overruns")
                        .unit("eps"),
                ],
            ),
            row(
                "Names of containers",
                [
                    stacked("When names came", "With a container's first line, late, or never: by containers.")
                        .query(
                            r#"sum by (outcome) (rate(tellwire_enrichments_total{@, kind="names"}[$__rate_interval]))"#,
                            "{{outcome}}",
                        )
                        .unit("ops"),
                    table("Container runtimes", "Whether the runtime behind a socket answers: 1 yes, 0 no.")
                        .column("Up", "short", ONE_IS_GOOD, "min by (node, socket) (tellwire_runtime_up{@})")
                        .link(links::node_of_row())
                        .without("No runtime's socket on these nodes"),
                ],
            ),
            row(
                "What the agents cost",
                [
                    series("CPU", "Seconds a second: 1 is a whole core. Programs in the kernel are on the account of those who call it.")
                        .query("topk(8, sum by (node) (rate(process_cpu_seconds_total{@}[$__rate_interval])))", "{{node}}")
                        .link(links::node()),
                    series("Memory", "Resident, the maps of the rings included.")
                        .query("topk(8, max by (node) (process_resident_memory_bytes{@}))", "{{node}}")
                        .unit("bytes")
                        .link(links::node()),
                    logs(
                        "The agents' own log",
                        "What they say on stderr: lines without an action.",
                        r#"{@, action=""} | json level="level", message="message""#,
                    )
                    .link(links::explore("In Explore", r#"{job="tellwire", cluster=~"$cluster", node=~"$node", action=""}"#)),
                ],
            ),
        ],
    }
}
