//! Variables of a dashboard: what its readers choose at the top.

use serde_json::{Value, json};

/// One variable.
pub(super) struct Variable {
    name: &'static str,
    label: &'static str,
    kind: Kind,
}

enum Kind {
    /// A data source of this type.
    Source(&'static str),
    /// Values of a label in Prometheus; one of them, or several and all.
    Labels { query: String, several: bool },
    /// Text that is typed in.
    Text,
}

/// The two data sources and the cluster, which every dashboard has.
pub(super) fn common() -> Vec<Variable> {
    vec![
        Variable { name: "prometheus", label: "Metrics", kind: Kind::Source("prometheus") },
        Variable { name: "loki", label: "Lines", kind: Kind::Source("loki") },
        labels("cluster", "Cluster", "label_values(tellwire_build_info, cluster)", true),
    ]
}

/// The nodes of the chosen clusters: one, or several.
pub(super) fn node(several: bool) -> Variable {
    labels("node", "Node", "label_values(tellwire_build_info{cluster=~\"$cluster\"}, node)", several)
}

pub(super) fn workload() -> [Variable; 3] {
    let chosen = "tellwire_workload_execs_total{cluster=~\"$cluster\", node=~\"$node\"";
    let values = |more: &str, label: &str| format!("label_values({chosen}{more}}}, {label})");
    [
        labels("namespace", "Namespace", values("", "namespace"), true),
        labels("workload", "Workload", values(", namespace=~\"$namespace\"", "workload"), true),
        labels(
            "container",
            "Container",
            values(", namespace=~\"$namespace\", workload=~\"$workload\"", "container"),
            true,
        ),
    ]
}

/// Text that lines must have.
pub(super) fn text(name: &'static str, label: &'static str) -> Variable {
    Variable { name, label, kind: Kind::Text }
}

fn labels(name: &'static str, label: &'static str, query: impl Into<String>, several: bool) -> Variable {
    Variable { name, label, kind: Kind::Labels { query: query.into(), several } }
}

#[expect(clippy::indexing_slicing, reason = "a member of a JSON object is made by naming it")]
pub(super) fn json(variable: &Variable) -> Value {
    let Variable { name, label, kind } = variable;
    match kind {
        Kind::Source(source) => json!({
            "type": "datasource",
            "name": name,
            "label": label,
            "query": source,
            "hide": 0,
            "multi": false,
            "includeAll": false,
            "refresh": 1,
            "options": [],
        }),
        Kind::Labels { query, several } => {
            // A series without the label is one of all: hosts have no cluster where nobody named one.
            let all = json!({ "text": ["All"], "value": ["$__all"] });
            let mut json = json!({
                "type": "query",
                "name": name,
                "label": label,
                "datasource": { "type": "prometheus", "uid": "${prometheus}" },
                "query": { "query": query, "refId": "variable", "qryType": 1 },
                "hide": 0,
                "multi": several,
                "includeAll": several,
                "current": if *several { all } else { json!({ "text": "", "value": "" }) },
                // When the time changes: what there was then can be chosen.
                "refresh": 2,
                "sort": 1,
                "options": [],
            });
            if *several {
                json["allValue"] = json!(".*");
            }
            json
        }
        Kind::Text => json!({
            "type": "textbox",
            "name": name,
            "label": label,
            "hide": 0,
            "query": "",
            "current": { "text": "", "value": "" },
            "options": [],
        }),
    }
}
