//! One workload, down to a container and its log lines.

use super::{
    build::{Dashboard, row},
    links,
    panel::{NONE_IS_GOOD, logs, series, stacked, stat},
    variables,
};

/// Lines have the pod's name, which begins with the workload's; of containers outside of pods the container's own.
const CHOSEN: &str = r#"| pod=~"(${workload:regex}).*" | container=~"${container:regex}|""#;

#[expect(clippy::too_many_lines, reason = "a table: one entry for each panel")]
pub(super) fn dashboard() -> Dashboard {
    let mut choices = variables::common();
    choices.push(variables::node(true));
    choices.extend(variables::workload());
    Dashboard {
        uid: links::WORKLOAD,
        title: "tellwire / Workload",
        description: "One workload over all its pods and nodes: what it runs, whom it talks to, and its log lines.",
        variables: choices,
        rows: vec![
            row(
                "Now",
                [
                    stat("Executions", "Programs executed a second.")
                        .query("sum(rate(tellwire_workload_execs_total{@w}[$__rate_interval]))", "")
                        .unit("ops"),
                    stat("Connects", "TCP connections tried a second, whatever became of them.")
                        .query("sum(rate(tellwire_workload_connects_total{@w}[$__rate_interval]))", "")
                        .unit("ops"),
                    stat("Connects that fail", "The share, in the chosen time.")
                        .query(
                            r#"sum(increase(tellwire_workload_connects_total{@w, outcome="failed"}[$__range])) / clamp_min(sum(increase(tellwire_workload_connects_total{@w}[$__range])), 1)"#,
                            "",
                        )
                        .unit("percentunit")
                        .thresholds(&[(0.01, "orange"), (0.1, "red")]),
                    stat("Sent", "Payload of closed connections in the chosen time.")
                        .query(
                            r#"sum(increase(tellwire_workload_connection_bytes_total{@w, direction="sent"}[$__range]))"#,
                            "",
                        )
                        .unit("bytes"),
                    stat("Received", "Payload of closed connections in the chosen time.")
                        .query(
                            r#"sum(increase(tellwire_workload_connection_bytes_total{@w, direction="received"}[$__range]))"#,
                            "",
                        )
                        .unit("bytes"),
                    stat("Killed for memory", "Processes that the kernel ended in the chosen time.")
                        .query("sum(increase(tellwire_workload_oom_kills_total{@w}[$__range]))", "")
                        .thresholds(NONE_IS_GOOD),
                ],
            ),
            row(
                "Over time",
                [
                    series("Executions by container", "A server that has started executes little: what begins here is worth a look.")
                        .query(
                            "sum by (namespace, workload, container) (rate(tellwire_workload_execs_total{@w}[$__rate_interval]))",
                            "{{namespace}} {{workload}} {{container}}",
                        )
                        .unit("ops")
                        .link(links::workload()),
                    series("Connects that fail, by container", "Refused, timed out, unreachable and the like; the lines below say which, and where to.")
                        .query(
                            r#"sum by (namespace, workload, container) (rate(tellwire_workload_connects_total{@w, outcome="failed"}[$__rate_interval]))"#,
                            "{{namespace}} {{workload}} {{container}}",
                        )
                        .unit("ops")
                        .link(links::workload()),
                    stacked("Connects", "A second, by what became of them.")
                        .query(
                            "sum by (outcome) (rate(tellwire_workload_connects_total{@w}[$__rate_interval]))",
                            "{{outcome}}",
                        )
                        .unit("ops"),
                    stacked("Payload", "Of connections that were closed.")
                        .query(
                            "sum by (direction) (rate(tellwire_workload_connection_bytes_total{@w}[$__rate_interval]))",
                            "{{direction}}",
                        )
                        .unit("Bps"),
                    series("Executions by node", "Where its pods are, and what they run there.")
                        .query("sum by (node) (rate(tellwire_workload_execs_total{@w}[$__rate_interval]))", "{{node}}")
                        .unit("ops")
                        .link(links::node()),
                    series("Connects that fail, by node", "On one node alone it is the node's network, on all of them it is the other side.")
                        .query(
                            r#"sum by (node) (rate(tellwire_workload_connects_total{@w, outcome="failed"}[$__rate_interval]))"#,
                            "{{node}}",
                        )
                        .unit("ops")
                        .link(links::node()),
                ],
            ),
            row(
                "Lines",
                [
                    logs(
                        "What ran",
                        "Executions in its pods, with all arguments. A line opens to everything that is known.",
                        &format!(
                            r#"{{@, namespace=~"$namespace", action="exec"}} | json pod="k8s.pod.name", container="k8s.container.name", user="user.name", program="process.executable", arguments="process.args" {CHOSEN} | line_format "{{{{.pod}}}} {{{{.user}}}} {{{{.program}}}} {{{{.arguments}}}}""#
                        ),
                    )
                    .link(links::explore(
                        "In Explore",
                        r#"{job="tellwire", cluster=~"$cluster", namespace=~"$namespace", action="exec"} | json pod="k8s.pod.name" | pod=~"(${workload:regex}).*""#,
                    )),
                    logs(
                        "Connects that failed",
                        "Where to, by which program, and why.",
                        &format!(
                            r#"{{@, namespace=~"$namespace", action="connect"}} | json pod="k8s.pod.name", container="k8s.container.name", outcome="event.outcome", why="error.code", ip="destination.ip", port="destination.port", program="process.executable" {CHOSEN} | outcome="failure" | line_format "{{{{.pod}}}} {{{{.why}}}} {{{{.ip}}}}:{{{{.port}}}} by {{{{.program}}}}""#
                        ),
                    )
                    .link(links::explore(
                        "In Explore",
                        r#"{job="tellwire", cluster=~"$cluster", namespace=~"$namespace", action="connect"} | json pod="k8s.pod.name", outcome="event.outcome" | outcome="failure""#,
                    )),
                    logs(
                        "Containers that came and went",
                        "With their images: one that was not there yesterday is new.",
                        &format!(
                            r#"{{@, namespace=~"$namespace", action=~"container_(created|started|stopped|named|running)"}} | json pod="k8s.pod.name", container="k8s.container.name", image="container.image.name" {CHOSEN} | line_format "{{{{.action}}}} {{{{.pod}}}} {{{{.container}}}} {{{{.image}}}}""#
                        ),
                    ),
                ],
            ),
        ],
    }
}
