//! All nodes at a glance: is anybody blind, who stands out, where to look next.

use super::{
    build::{Dashboard, row},
    links,
    panel::{NONE_IS_GOOD, logs, series, stacked, stat, table},
    variables,
};

const LOST: &str = "sum(increase(tellwire_events_lost_total{@}[$__range]))";

#[expect(clippy::too_many_lines, reason = "a table: one entry for each panel")]
pub(super) fn dashboard() -> Dashboard {
    let mut choices = variables::common();
    choices.push(variables::node(true));
    Dashboard {
        uid: links::FLEET,
        title: "tellwire / Fleet",
        description: "Every node that an agent looks at: whether it is seen, what happens there, and what stands out.",
        variables: choices,
        rows: vec![
            row(
                "Is everything seen",
                [
                    stat("Nodes that are seen", "Agents that Prometheus reaches. Where there is none at all: alert TellwireAbsent.")
                        .query("sum(up{@})", "")
                        .thresholds(&[(0.0, "red"), (1.0, "green")]),
                    stat(
                        "Nodes that are blind",
                        "Agents that Prometheus does not reach (alert TellwireDown): nothing is seen there, and nothing is made up for.",
                    )
                    .query("count(up{@} == 0) or vector(0)", "")
                    .thresholds(NONE_IS_GOOD),
                    stat(
                        "Probes that are not attached",
                        "On all nodes. What such a probe gives is not seen on its node (alert TellwireProbeNotAttached).",
                    )
                    .query("count(tellwire_probe_attached{@} == 0) or vector(0)", "")
                    .thresholds(&[(1e-9, "orange")])
                    .link(links::Link { title: "Agent health", url: format!("/d/{}", links::AGENT) }),
                    stat(
                        "Events that made no line",
                        "Lost on their way in the chosen time. The metrics count them all the same (alert TellwireEventsLost).",
                    )
                    .query(LOST, "")
                    .thresholds(NONE_IS_GOOD),
                    stat("Events", "A second, of all nodes of the chosen clusters.")
                        .query(
                            r#"sum(action:tellwire_events:rate5m{job="tellwire", cluster=~"$cluster"}) or sum(rate(tellwire_events_total{@}[5m]))"#,
                            "",
                        )
                        .unit("eps"),
                    stat("Workloads", "Of containers in which something was counted, as far as the budget of series goes: the rest is __overflow__.")
                        .query(
                            r#"count(count by (namespace, workload) (tellwire_workload_execs_total{@, workload!~"__.+__"})) or vector(0)"#,
                            "",
                        ),
                    stat(
                        "Alerts that fire",
                        "Of deploy/prometheus/rules.yml; 0 too where those rules are not loaded.",
                    )
                    .query(
                        r#"count(ALERTS{alertname=~"Tellwire.*", alertstate="firing", cluster=~"$cluster"}) or vector(0)"#,
                        "",
                    )
                    .thresholds(NONE_IS_GOOD),
                    stat("Failed authentications", "Proofs that were not accepted and accounts that were refused, in the chosen time.")
                        .query(
                            r#"sum(increase(tellwire_auth_attempts_total{@, outcome=~"failure|denied"}[$__range]))"#,
                            "",
                        )
                        .thresholds(&[(20.0, "orange"), (200.0, "red")])
                        .link(links::Link {
                            title: "Authentication",
                            url: format!("/d/{}", links::AUTHENTICATION),
                        }),
                ]
                .map(|stat| stat.sized(3, 4)),
            ),
            row(
                "What happens",
                [
                    stacked("Events", "By action, counted in the kernel where they happened: exact whatever is lost behind.")
                        .query(
                            "topk(8, sum by (action) (instance_action:tellwire_events:rate5m{@}) or sum by (action) (rate(tellwire_events_total{@}[5m])))",
                            "{{action}}",
                        )
                        .unit("eps"),
                    series("Busiest nodes", "Events a second, of the eight nodes with most.")
                        .query("topk(8, sum by (node) (rate(tellwire_events_total{@}[$__rate_interval])))", "{{node}}")
                        .unit("eps")
                        .link(links::node()),
                    stacked("Connects that fail", "TCP connections of all nodes that were tried in vain, by what became of them.")
                        .query(
                            r#"sum by (outcome) (rate(tellwire_connects_total{@, outcome!="established"}[$__rate_interval]))"#,
                            "{{outcome}}",
                        )
                        .unit("ops"),
                    series("Failed authentications by node", "In five minutes each, of the eight nodes with most.")
                        .query(
                            r#"topk(8, sum by (node) (instance_service:tellwire_auth_failures:increase5m{@}) or sum by (node) (increase(tellwire_auth_attempts_total{@, outcome=~"failure|denied"}[5m])))"#,
                            "{{node}}",
                        )
                        .thresholds(&[(20.0, "red")])
                        .link(links::authentication()),
                ],
            ),
            row(
                "Who stands out",
                [
                    table("Nodes", "Each node in the chosen time. Its name leads to it.")
                        .sized(24, 9)
                        .column(
                            "Events a second",
                            "eps",
                            &[],
                            "sum by (node) (rate(tellwire_events_total{@}[$__range]))",
                        )
                        .column("Execs", "short", &[], "sum by (node) (increase(tellwire_execs_total{@}[$__range]))")
                        .column(
                            "Connects that failed",
                            "percentunit",
                            &[(0.05, "orange"), (0.25, "red")],
                            r#"sum by (node) (increase(tellwire_connects_total{@, outcome!="established"}[$__range])) / clamp_min(sum by (node) (increase(tellwire_connects_total{@}[$__range])), 1)"#,
                        )
                        .column(
                            "Failed authentications",
                            "short",
                            &[(20.0, "red")],
                            r#"sum by (node) (increase(tellwire_auth_attempts_total{@, outcome=~"failure|denied"}[$__range]))"#,
                        )
                        .column(
                            "Killed for memory",
                            "short",
                            NONE_IS_GOOD,
                            r#"sum by (node) (increase(tellwire_process_exits_total{@, reason="oom_killed"}[$__range]))"#,
                        )
                        .column(
                            "Lost",
                            "short",
                            NONE_IS_GOOD,
                            "sum by (node) (increase(tellwire_events_lost_total{@}[$__range]))",
                        )
                        .column(
                            "Probes attached",
                            "percentunit",
                            &[(0.0, "red"), (1.0, "green")],
                            "avg by (node) (tellwire_probe_attached{@})",
                        )
                        .column("Agent's memory", "bytes", &[], "sum by (node) (process_resident_memory_bytes{@})")
                        .link(links::node_of_row()),
                    table("Containers whose connects fail", "The ten with most failures in the chosen time. The name leads to its log lines.")
                        .column(
                            "Failed",
                            "short",
                            NONE_IS_GOOD,
                            r#"topk(10, sum by (namespace, workload, container) (increase(tellwire_workload_connects_total{@, outcome="failed", workload!~"__(host|unnamed|removed)__"}[$__range])))"#,
                        )
                        .link(links::workload_of_row()),
                    table("Busiest containers", "Programs executed in the chosen time, of the ten with most. The name leads to its log lines.")
                        .column(
                            "Execs",
                            "short",
                            &[],
                            r#"topk(10, sum by (namespace, workload, container) (increase(tellwire_workload_execs_total{@, workload!~"__(host|unnamed|removed)__"}[$__range])))"#,
                        )
                        .link(links::workload_of_row()),
                    table("Versions", "Nodes by the agent's version and the kernel's.")
                        .sized(12, 7)
                        .column("Nodes", "short", &[], "count by (version, kernel) (tellwire_build_info{@})"),
                    series("Series", "Samples of one scrape, of each node: what an agent costs Prometheus.")
                        .sized(12, 7)
                        .query("max by (node) (scrape_samples_scraped{@})", "{{node}}")
                        .link(links::agent()),
                ],
            ),
            row(
                "What the agents say",
                [logs(
                    "Starts, losses, changes",
                    "What agents tell of themselves. A start says how long nobody looked: tellwire.started.blind_seconds.",
                    r#"{@, action=~"agent_started|agent_stopped|events_lost|probe_lost|config_changed|clock_changed"} | json host="host.name", reason="event.reason", blind="tellwire.started.blind_seconds" | line_format "{{.host}} {{.action}} {{.reason}} {{.blind}}""#,
                )],
            ),
        ],
    }
}
