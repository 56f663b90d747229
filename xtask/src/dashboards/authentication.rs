//! Who tried to come in, from where, and who became somebody else.

use super::{
    build::{Dashboard, row},
    links,
    panel::{NONE_IS_GOOD, logs, series, stacked, stat},
    variables,
};

/// Either of the two reports of an attempt; where both are there they are one line.
const ATTEMPTS: &str = "pam_authenticate|user_auth";

#[expect(clippy::too_many_lines, reason = "a table: one entry for each panel")]
pub(super) fn dashboard() -> Dashboard {
    let mut choices = variables::common();
    choices.push(variables::node(true));
    Dashboard {
        uid: links::AUTHENTICATION,
        title: "tellwire / Authentication",
        description: "Logins, sudo and su on all nodes, in containers too: attempts, bursts, sessions, and changes of privilege.",
        variables: choices,
        rows: vec![
            row(
                "In the chosen time",
                [
                    stat("Accepted", "Proofs that were accepted. A key that sshd accepts by itself shows as a session.")
                        .query(r#"sum(increase(tellwire_auth_attempts_total{@, outcome="success"}[$__range]))"#, ""),
                    stat("Failed", "Proofs that were not accepted.")
                        .query(r#"sum(increase(tellwire_auth_attempts_total{@, outcome="failure"}[$__range]))"#, "")
                        .thresholds(&[(20.0, "orange"), (200.0, "red")]),
                    stat("Denied", "Accounts that were refused whatever the proof.")
                        .query(r#"sum(increase(tellwire_auth_attempts_total{@, outcome="denied"}[$__range]))"#, "")
                        .thresholds(&[(1e-9, "orange")]),
                    stat("Bursts", "Of failures from one address or for one user (alert TellwireAuthenticationBurst).")
                        .query("sum(increase(tellwire_auth_bursts_total{@}[$__range]))", "")
                        .thresholds(NONE_IS_GOOD),
                    stat("Sessions that are open", "Now, of those opened since the agents started.")
                        .query("sum(tellwire_auth_sessions{@})", ""),
                    stat("Accounts that were changed", "Accounts and groups added, deleted, changed, locked; by audit records.")
                        .query(
                            r#"sum(increase(tellwire_events_total{@, action=~"account_.*|group_(added|deleted|changed)|user_changed|user_password_changed"}[$__range]))"#,
                            "",
                        )
                        .thresholds(&[(1e-9, "orange")]),
                ],
            ),
            row(
                "Over time",
                [
                    stacked("Attempts", "A second, by what became of them.")
                        .query("sum by (outcome) (rate(tellwire_auth_attempts_total{@}[$__rate_interval]))", "{{outcome}}")
                        .unit("ops"),
                    series("Failures in five minutes", "By service; at 20 on one node it is the alert TellwireAuthenticationFailures.")
                        .query(
                            r#"sum by (service) (instance_service:tellwire_auth_failures:increase5m{@}) or sum by (service) (increase(tellwire_auth_attempts_total{@, outcome=~"failure|denied"}[5m]))"#,
                            "{{service}}",
                        )
                        .thresholds(&[(20.0, "red")]),
                    series("Failures by node", "A second, of the eight nodes with most.")
                        .query(
                            r#"topk(8, sum by (node) (rate(tellwire_auth_attempts_total{@, outcome=~"failure|denied"}[$__rate_interval])))"#,
                            "{{node}}",
                        )
                        .unit("ops")
                        .link(links::node()),
                    series("Failures by workload", "A second, of the eight with most; __host__ is the node itself, and containers beyond the budget of series are __overflow__.")
                        .query(
                            r#"topk(8, sum by (workload) (rate(tellwire_workload_auth_attempts_total{@, outcome="failure"}[$__rate_interval])))"#,
                            "{{workload}}",
                        )
                        .unit("ops")
                        .link(links::workload_everywhere()),
                    series("Attempts by workload", "A second, whatever came of them: most workloads have no business with passwords.")
                        .query(
                            "topk(8, sum by (workload) (rate(tellwire_workload_auth_attempts_total{@}[$__rate_interval])))",
                            "{{workload}}",
                        )
                        .unit("ops")
                        .link(links::workload_everywhere()),
                    stacked("Sessions that were opened", "By service, with or without a proof.")
                        .query("sum by (service) (rate(tellwire_auth_sessions_opened_total{@}[$__rate_interval]))", "{{service}}")
                        .unit("ops"),
                    series("Bursts", "By what the failures had in common, in ten minutes.")
                        .query("sum by (by) (increase(tellwire_auth_bursts_total{@}[10m]))", "by {{by}}"),
                    stacked("Credential calls", "setuid and the like: every change of ids, by call.")
                        .query(r#"sum by (call) (rate(tellwire_privilege_changes_total{@, outcome="success"}[$__rate_interval]))"#, "{{call}}")
                        .unit("ops"),
                ],
            ),
            row(
                "Who and from where",
                [
                    series("Addresses with most failures", "From the log lines: the ten with most, in five minutes.")
                        .count(
                            &format!(
                                r#"topk(10, sum by (source) (count_over_time({{@, action=~"{ATTEMPTS}"}} | json source="source.ip", outcome="event.outcome" | outcome="failure" | source!="" [5m])))"#
                            ),
                            "{{source}}",
                        ),
                    series("Users with most failures", "From the log lines: the ten with most, in five minutes.")
                        .count(
                            &format!(
                                r#"topk(10, sum by (user) (count_over_time({{@, action=~"{ATTEMPTS}"}} | json user="user.name", outcome="event.outcome" | outcome="failure" | user!="" [5m])))"#
                            ),
                            "{{user}}",
                        ),
                    logs(
                        "Who failed to log in, where",
                        "Attempts that failed: node, service, user, and from where.",
                        &format!(
                            r#"{{@, action=~"{ATTEMPTS}"}} | json outcome="event.outcome", service="tellwire.auth.service", user="user.name", source="source.ip", host="host.name" | outcome="failure" | line_format "{{{{.host}}}} {{{{.service}}}} {{{{.user}}}} from {{{{.source}}}}""#
                        ),
                    )
                    .link(links::explore(
                        "In Explore",
                        r#"{job="tellwire", cluster=~"$cluster", node=~"$node", action=~"pam_authenticate|user_auth"} | json outcome="event.outcome" | outcome="failure""#,
                    )),
                    logs(
                        "Bursts",
                        "Who it was, how often, and whether somebody got in after all (state succeeded).",
                        r#"{@, action="auth_bruteforce"} | json state="tellwire.bruteforce.state", by="tellwire.bruteforce.by", failures="tellwire.bruteforce.failures", source="source.ip", user="user.name" | line_format "{{.state}} by {{.by}}: {{.failures}} failures, {{.source}} {{.user}}""#,
                    )
                    .sized(24, 6),
                    logs(
                        "Who became root",
                        "Programs that run as root for somebody who logged in as another user.",
                        r#"{@, action="exec"} | json user="user.name", login="tellwire.login.user.name", program="process.executable", arguments="process.args", host="host.name" | user="root" | login!="" | line_format "{{.host}} {{.login}} runs {{.program}} {{.arguments}}""#,
                    ),
                    logs(
                        "Sessions",
                        "Opened and closed, in containers too.",
                        r#"{@, action=~"pam_session_open|pam_session_close|user_session_start|user_session_end"} | json service="tellwire.auth.service", user="user.name", host="host.name" | line_format "{{.host}} {{.action}} {{.service}} {{.user}}""#,
                    ),
                ],
            ),
        ],
    }
}
