//! Ways from one dashboard to another one. Variables and the time go along.

use serde_json::{Value, json};

pub(super) const FLEET: &str = "tellwire-fleet";
pub(super) const NODE: &str = "tellwire-node";
pub(super) const WORKLOAD: &str = "tellwire-workload";
pub(super) const AUTHENTICATION: &str = "tellwire-authentication";
pub(super) const AGENT: &str = "tellwire-agent";

/// What all dashboards keep when one is left for another one.
const KEPT: &str = "${__url_time_range}&${prometheus:queryparam}&${loki:queryparam}&${cluster:queryparam}";

/// The menu at the top of every dashboard.
pub(super) fn others() -> Vec<Value> {
    [
        (FLEET, "Fleet"),
        (NODE, "Node"),
        (WORKLOAD, "Workload"),
        (AUTHENTICATION, "Authentication"),
        (AGENT, "Agent health"),
    ]
    .into_iter()
    .map(|(uid, title)| menu(title, &format!("/d/{uid}"), "dashboard", Goes::Here))
    .collect()
}

/// Where a link opens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    /// In the place of this dashboard, with its variables.
    Here,
    /// Beside it; the address says all.
    Beside,
}

/// A link of a dashboard, or at the head of a panel.
pub(super) fn menu(title: &str, url: &str, icon: &str, goes: Goes) -> Value {
    json!({
        "type": "link",
        "title": title,
        "url": url,
        "icon": icon,
        "tooltip": "",
        "tags": [],
        "asDropdown": false,
        "targetBlank": goes == Goes::Beside,
        "includeVars": goes == Goes::Here,
        "keepTime": goes == Goes::Here,
    })
}

/// A link of a panel: its title, and where it leads.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) title: &'static str,
    pub(super) url: String,
}

fn link(title: &'static str, uid: &str, rest: &str) -> Link {
    Link { title, url: format!("/d/{uid}?{KEPT}{rest}") }
}

/// From a series with a `node` to that node.
pub(super) fn node() -> Link {
    link("This node", NODE, "&var-node=${__field.labels.node}")
}

/// From a series with a `workload` to it, whatever its namespaces and containers are.
pub(super) fn workload_everywhere() -> Link {
    link("This workload, with its log lines", WORKLOAD, "&var-workload=${__field.labels.workload}")
}

/// From the row of a table to that container.
pub(super) fn node_of_row() -> Link {
    link("This node", NODE, "&var-node=${__data.fields.node}")
}

/// From a series of a workload to that workload, on all nodes.
pub(super) fn workload() -> Link {
    let labels = "&var-namespace=${__field.labels.namespace}&var-workload=${__field.labels.workload}\
                  &var-container=${__field.labels.container}";
    link("This container, with its log lines", WORKLOAD, labels)
}

/// The same from a row of a table.
pub(super) fn workload_of_row() -> Link {
    let fields = "&var-namespace=${__data.fields.namespace}&var-workload=${__data.fields.workload}\
                  &var-container=${__data.fields.container}";
    link("This container, with its log lines", WORKLOAD, fields)
}

/// From a series with a `node` to the authentications there.
pub(super) fn authentication() -> Link {
    link("Authentications on this node", AUTHENTICATION, "&var-node=${__field.labels.node}")
}

/// From a series with a `node` to the agent there.
pub(super) fn agent() -> Link {
    link("The agent on this node", AGENT, "&var-node=${__field.labels.node}")
}

/// A query of lines in Explore, where it can be changed.
pub(super) fn explore(title: &'static str, query: &str) -> Link {
    let pane = json!({
        "a": {
            "datasource": "${loki}",
            "queries": [{
                "refId": "A",
                "expr": query,
                "datasource": { "type": "loki", "uid": "${loki}" },
            }],
            "range": { "from": "${__from}", "to": "${__to}" },
        }
    });
    Link { title, url: format!("/explore?schemaVersion=1&orgId=1&panes={}", encoded(&pane.to_string())) }
}

/// Escapes what would end a parameter of a URL; Grafana's variables stay as they are.
fn encoded(text: &str) -> String {
    let mut url = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            ' ' => url.push_str("%20"),
            '"' => url.push_str("%22"),
            '%' => url.push_str("%25"),
            '&' => url.push_str("%26"),
            '#' => url.push_str("%23"),
            '+' => url.push_str("%2B"),
            '|' => url.push_str("%7C"),
            '\\' => url.push_str("%5C"),
            _ => url.push(letter),
        }
    }
    url
}
