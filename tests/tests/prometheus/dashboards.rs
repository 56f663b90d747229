//! The dashboards, asked of a real Prometheus that scrapes agents at work.
//!
//! Every query of every panel must give something that has the labels which the panel's legend, links and table name. With
//! `TELLWIRE_ANSWERS` the answers are kept in that folder, for `cargo xtask dashboards --picture`.

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use crate::{
    demonstration::{self, CLUSTER, Demonstration},
    logql,
    server::escaped,
};

/// What is chosen at the top, longest names first.
const CHOSEN: [(&str, &str); 12] = [
    ("${workload:regex}", "cart|payments"),
    ("${container:regex}", "server"),
    ("${address:regex}", "127"),
    ("$__rate_interval", "10s"),
    ("$__interval", "2s"),
    ("$namespace", "shop"),
    ("$container", "server"),
    ("$workload", "cart|payments"),
    ("$address", "127"),
    ("$cluster", CLUSTER),
    ("$__range", "5m"),
    ("$node", "node-a|node-b"),
];

struct Asked<'a> {
    demonstration: &'a Demonstration,
    lines: Vec<logql::Line>,
    now: f64,
    wrong: Vec<String>,
}

#[test]
fn every_query_of_every_dashboard_has_an_answer() {
    let demonstration = demonstration::run();
    #[expect(clippy::cast_precision_loss, reason = "seconds of today fit")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs() as f64;
    let lines = demonstration.lines();
    let mut asked = Asked { demonstration: &demonstration, lines, now, wrong: Vec::new() };
    let all = dashboards();
    assert_eq!(all.len(), 5);
    let mut queries = 0;
    for dashboard in &all {
        let mut answers = Map::new();
        for panel in
            dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row")
        {
            let targets = panel["targets"].as_array().expect("targets");
            queries += targets.len();
            let answer: Vec<Value> =
                targets.iter().map(|target| asked.answer(dashboard, panel, target)).collect();
            answers.insert(panel["id"].to_string(), answer.into());
        }
        for variable in dashboard["templating"]["list"].as_array().expect("variables") {
            asked.variable(dashboard, variable);
        }
        keep(dashboard, &json!({ "end": now, "panels": answers }));
    }
    println!("{queries} queries of {} dashboards", all.len());
    assert!(asked.wrong.is_empty(), "{:#?}", asked.wrong);
    assert!(queries > 100, "{queries}");
}

/// The other way round: what the agent counts and no dashboard shows is a decision, which stands here.
#[test]
fn no_metric_is_forgotten() {
    const LEFT_OUT: [&str; 22] = [
        // The books behind tellwire_ledger_balanced, which says whether they are right.
        "tellwire_kernel_seen_total",
        "tellwire_records_received_total",
        "tellwire_sequence_gaps_total",
        "tellwire_connects_swept_total",
        "tellwire_lines_total",
        "tellwire_fold_lines_total",
        "tellwire_audit_received_total",
        // For a look by hand: docs/operations.md says at which symptom.
        "tellwire_auth_untracked_total",
        "tellwire_libraries_attached",
        "tellwire_library_roots",
        "tellwire_library_attachments_total",
        "tellwire_output_events_total",
        "tellwire_output_rotations_total",
        "tellwire_output_deleted_files_total",
        "tellwire_output_reconnects_total",
        "tellwire_redactions_total",
        "tellwire_config_last_reload_timestamp_seconds",
        "tellwire_audit_enabled",
        "tellwire_audit_kernel_lost_total",
        "tellwire_runtime_lookups_total",
        "tellwire_runtime_refused_total",
        // Only there where the configuration has rules.
        "tellwire_rule_events_total",
    ];
    let agent = tellwire_tests::Agent::start();
    let (_, exposition) = agent.get("/metrics");
    let text: String = dashboards().iter().map(Value::to_string).collect();
    let families: BTreeSet<&str> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("tellwire_"))
        .collect();
    let is_shown = |name: &str| text.contains(name);
    let forgotten: Vec<_> =
        families.iter().filter(|name| !is_shown(name) && !LEFT_OUT.contains(name)).collect();
    assert!(forgotten.is_empty(), "neither shown nor left out: {forgotten:?}");
    let stale: Vec<_> = LEFT_OUT.iter().filter(|name| is_shown(name) || !families.contains(**name)).collect();
    assert!(stale.is_empty(), "left out, and shown or not there: {stale:?}");
}

impl Asked<'_> {
    fn answer(&mut self, dashboard: &Value, panel: &Value, target: &Value) -> Value {
        let query = chosen(target["expr"].as_str().expect("a query"));
        let mut wrong = Vec::new();
        let answer = if target["datasource"]["type"] == "loki" {
            let found = logql::found(&query, &self.lines);
            if found.is_empty() {
                wrong.push("finds no line".to_owned());
            }
            json!({ "lines": found })
        } else {
            let is_now = target["instant"] == true;
            let result = self.series(&query, is_now);
            let series = result.as_array().expect("series");
            if !series.iter().any(has_number) {
                wrong.push(format!("gives nothing: {result}"));
            }
            for label in labels(panel, target) {
                let lacks = |series: &&Value| series["metric"].get(&label).is_none();
                if let Some(series) = series.iter().find(lacks) {
                    wrong.push(format!("has no {label} on {}", series["metric"]));
                }
            }
            json!({ "legend": target.get("legendFormat"), "series": result })
        };
        let place = format!("{} / {}", dashboard["title"], panel["title"]);
        self.wrong.extend(wrong.into_iter().map(|what| format!("{place}: {query} {what}")));
        answer
    }

    fn series(&self, query: &str, is_now: bool) -> Value {
        let (query, now) = (escaped(query), self.now);
        let path = if is_now {
            format!("/api/v1/query?query={query}&time={now}")
        } else {
            format!("/api/v1/query_range?query={query}&start={}&end={now}&step=2", now - 60.0)
        };
        self.demonstration.prometheus.ask(&path)["result"].clone()
    }

    /// The values that there are to choose.
    fn variable(&mut self, dashboard: &Value, variable: &Value) {
        let Some(query) = variable["query"]["query"].as_str() else { return };
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(...)");
        let path = format!("/api/v1/label/{label}/values?match%5B%5D={}", escaped(&chosen(selector)));
        let values = self.demonstration.prometheus.ask(&path);
        let wanted = CHOSEN.iter().find(|(name, _)| name[1..] == *variable["name"].as_str().expect("a name"));
        let wanted: BTreeSet<&str> = wanted.expect("a value that is chosen").1.split('|').collect();
        let found: BTreeSet<&str> =
            values.as_array().expect("values").iter().filter_map(Value::as_str).collect();
        if !found.is_superset(&wanted) {
            self.wrong.push(format!("{}: {query} gives {found:?}, and not {wanted:?}", dashboard["title"]));
        }
    }
}

/// The labels that a panel speaks of: in its legend, its links and its columns.
fn labels(panel: &Value, target: &Value) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    let mut between = |text: &str, begin: &str, end: &str| {
        for part in text.split(begin).skip(1) {
            labels.insert(part.split(end).next().unwrap_or_default().trim().to_owned());
        }
    };
    between(target["legendFormat"].as_str().unwrap_or_default(), "{{", "}}");
    let fields = panel["fieldConfig"].to_string();
    between(&fields, "${__field.labels.", "}");
    between(&fields, "${__data.fields.", "}");
    labels
}

fn has_number(series: &Value) -> bool {
    let is_number = |sample: &Value| {
        let number = sample[1].as_str().and_then(|text| text.parse::<f64>().ok());
        number.is_some_and(f64::is_finite)
    };
    is_number(&series["value"])
        || series["values"].as_array().is_some_and(|values| values.iter().any(is_number))
}

fn chosen(query: &str) -> String {
    let text = CHOSEN.iter().fold(query.to_owned(), |text, (name, value)| text.replace(name, value));
    assert!(!text.contains('$'), "nobody chooses all of {text}");
    text
}

pub(crate) fn dashboards() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana");
    let files = fs::read_dir(&folder).expect("the dashboards").map(|file| file.expect("a file").path());
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "json"));
    files
        .map(|file| serde_json::from_str(&fs::read_to_string(file).expect("a dashboard")).expect("JSON"))
        .collect()
}

fn keep(dashboard: &Value, answers: &Value) {
    let Some(folder) = env::var_os("TELLWIRE_ANSWERS") else { return };
    let name = format!("{}.json", dashboard["uid"].as_str().expect("a uid"));
    fs::write(Path::new(&folder).join(name), answers.to_string()).expect("keeping the answers");
}
