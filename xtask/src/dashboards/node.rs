//! One node: what ran, who talked, who came in.

use super::{
    build::{Dashboard, row},
    links,
    panel::{NONE_IS_GOOD, ONE_IS_GOOD, logs, series, stacked, stat, table},
    variables,
};

#[expect(clippy::too_many_lines, reason = "a table: one entry for each panel")]
pub(super) fn dashboard() -> Dashboard {
    let mut choices = variables::common();
    choices.push(variables::node(false));
    choices.push(variables::text("address", "Address"));
    Dashboard {
        uid: links::NODE,
        title: "tellwire / Node",
        description: "One node: programs, connections, privileges, and what its log lines say.",
        variables: choices,
        rows: vec![
            row(
                "Now",
                [
                    stat("Agent", "Whether Prometheus reaches the agent: 1 yes, 0 no.")
                        .query("max(up{@})", "")
                        .thresholds(ONE_IS_GOOD)
                        .link(links::Link {
                            title: "Agent health",
                            url: format!("/d/{}?${{cluster:queryparam}}&${{node:queryparam}}", links::AGENT),
                        }),
                    stat("Probes that are not attached", "What they give is not seen here.")
                        .query("count(tellwire_probe_attached{@} == 0) or vector(0)", "")
                        .thresholds(&[(1e-9, "orange")]),
                    stat("Events", "A second, of all actions.")
                        .query("sum(rate(tellwire_events_total{@}[$__rate_interval]))", "")
                        .unit("eps"),
                    stat("PAM sessions that are open", "Opened since the agent started.")
                        .query("sum(tellwire_auth_sessions{@})", ""),
                    stat("Killed for memory", "Processes that the kernel ended in the chosen time.")
                        .query(r#"sum(increase(tellwire_process_exits_total{@, reason="oom_killed"}[$__range]))"#, "")
                        .thresholds(NONE_IS_GOOD),
                    stat(
                        "Ids that changed by no call",
                        "credentials_changed in the chosen time: what no system call explains. An exploit looks like that.",
                    )
                    .query(r#"sum(increase(tellwire_events_total{@, action="credentials_changed"}[$__range]))"#, "")
                    .thresholds(NONE_IS_GOOD),
                ],
            ),
            row(
                "Programs",
                [
                    stacked("Executions", "By outcome. Failures are mostly searches along PATH.")
                        .query("sum by (outcome) (rate(tellwire_execs_total{@}[$__rate_interval]))", "{{outcome}}")
                        .unit("ops"),
                    stacked("Ends of processes", "By how they ended: by themselves, or by a signal.")
                        .query("sum by (reason) (rate(tellwire_process_exits_total{@}[$__rate_interval]))", "{{reason}}")
                        .unit("ops"),
                    series("Executions by container", "A second, of the eight containers with most.")
                        .query(
                            r#"topk(8, sum by (workload, namespace, container) (rate(tellwire_workload_execs_total{@, workload!~"__(host|unnamed|removed)__"}[$__rate_interval])))"#,
                            "{{namespace}} {{workload}} {{container}}",
                        )
                        .unit("ops")
                        .link(links::workload()),
                    stacked("Credential calls", "By call, those that failed too.")
                        .query("sum by (call) (rate(tellwire_privilege_changes_total{@}[$__rate_interval]))", "{{call}}")
                        .unit("ops"),
                ],
            ),
            row(
                "Connections that this node opens",
                [
                    stacked("Connects", "A second, by what became of them.")
                        .query("sum by (outcome) (rate(tellwire_connects_total{@}[$__rate_interval]))", "{{outcome}}")
                        .unit("ops"),
                    stacked("Connects by where they go", "loopback is this node itself, private the addresses of RFC 1918 and the like.")
                        .query("sum by (scope) (rate(tellwire_connects_total{@}[$__rate_interval]))", "{{scope}}")
                        .unit("ops"),
                    stacked("Payload", "Of connections that were closed.")
                        .query(
                            "sum by (direction) (rate(tellwire_connection_bytes_total{@}[$__rate_interval]))",
                            "{{direction}}",
                        )
                        .unit("Bps"),
                    series("Handshakes", "From the first packet to an established connection: the median, and 99 of 100.")
                        .query(
                            "histogram_quantile(0.5, sum by (le) (rate(tellwire_connect_handshake_seconds_bucket{@}[$__rate_interval])))",
                            "median",
                        )
                        .query(
                            "histogram_quantile(0.99, sum by (le) (rate(tellwire_connect_handshake_seconds_bucket{@}[$__rate_interval])))",
                            "99 of 100",
                        )
                        .unit("s"),
                    table("Containers whose connects fail", "Failures in the chosen time. The name leads to its log lines.")
                        .column(
                            "Failed",
                            "short",
                            NONE_IS_GOOD,
                            r#"topk(10, sum by (namespace, workload, container) (increase(tellwire_workload_connects_total{@, outcome="failed", workload!~"__(host|unnamed|removed)__"}[$__range])))"#,
                        )
                        .link(links::workload_of_row()),
                    stacked("Authentications", "A second, by what became of them.")
                        .query("sum by (outcome) (rate(tellwire_auth_attempts_total{@}[$__rate_interval]))", "{{outcome}}")
                        .unit("ops")
                        .link(links::Link {
                            title: "Authentications on this node",
                            url: format!("/d/{}?${{cluster:queryparam}}&${{node:queryparam}}", links::AUTHENTICATION),
                        }),
                ],
            ),
            row(
                "Lines",
                [
                    logs(
                        "What talked to the address",
                        "Connections to what is typed in at the top, a part of an address too; all where nothing is.",
                        r#"{@, action="connect"} |= "$address" | json ip="destination.ip", port="destination.port", program="process.executable", pod="k8s.pod.name", outcome="event.outcome" | ip=~".*${address:regex}.*" | line_format "{{.outcome}} {{.ip}}:{{.port}} by {{.program}} {{.pod}}""#,
                    )
                    .link(links::explore(
                        "In Explore",
                        r#"{job="tellwire", cluster=~"$cluster", node=~"$node", action="connect"} |= "$address" | json ip="destination.ip""#,
                    )),
                    logs(
                        "What ran",
                        "Executions on this node, with all arguments. A line opens to everything that is known.",
                        r#"{@, action="exec"} | json user="user.name", program="process.executable", arguments="process.args", pod="k8s.pod.name" | line_format "{{.user}} {{.pod}} {{.program}} {{.arguments}}""#,
                    )
                    .link(links::explore(
                        "In Explore",
                        r#"{job="tellwire", cluster=~"$cluster", node=~"$node", action="exec"} | json user="user.name""#,
                    )),
                    logs(
                        "Containers that came and went",
                        "With their pods and images.",
                        r#"{@, action=~"container_(created|started|stopped|named|running)"} | json pod="k8s.pod.name", container="k8s.container.name", image="container.image.name", id="container.id" | line_format "{{.action}} {{.pod}} {{.container}} {{.image}} {{.id}}""#,
                    ),
                ],
            ),
        ],
    }
}
