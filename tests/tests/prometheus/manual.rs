//! What `docs/dashboards.md` says of the dashboards: the panels that it names are there, and its queries can be asked.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use tellwire_tests::runtime;

use crate::{dashboards::dashboards, logql, promtool::promtool};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(path).expect("a page")
}

/// The queries of the page's block in this language, one to a line.
fn queries<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    let block = blocks.iter().find_map(|block| block.strip_prefix(language)).expect("a block");
    block.trim().lines().collect()
}

#[test]
fn each_of_the_ten_questions_leads_to_panels_that_are_there() {
    let panels: BTreeMap<String, Vec<String>> = dashboards()
        .iter()
        .map(|dashboard| {
            let title = |value: &Value| value["title"].as_str().unwrap_or_default().to_owned();
            let panels = dashboard["panels"].as_array().expect("panels");
            let panels = panels.iter().filter(|panel| panel["type"] != "row").map(title).collect();
            (title(dashboard).replace("tellwire / ", ""), panels)
        })
        .collect();
    let page = page("dashboards.md");
    let questions: Vec<Vec<&str>> = page
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells.len() == 3 && cells[0].ends_with('?'))
        .collect();
    assert_eq!(questions.len(), 10);
    for question in questions {
        // The way begins in the second column's dashboard, and may lead to one that the third names.
        let (first, way) = (question[1], question[2]);
        let is_on_the_way =
            |name: &str| name == first || way.contains(&format!("the {}", name.to_lowercase()));
        let named: Vec<&str> = way.split('"').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{question:?}");
        assert!(panels[first].iter().any(|panel| panel == named[0]), "no {:?} in {first}", named[0]);
        for title in named {
            let mut there = panels.iter().filter(|(name, _)| is_on_the_way(name)).flat_map(|(_, of)| of);
            assert!(there.any(|panel| panel == title), "{question:?}: no {title:?}");
        }
    }
}

#[test]
fn the_queries_of_loki_can_be_read_and_ask_for_fields_that_lines_have() {
    let (page, events) = (page("dashboards.md"), page("events.md"));
    let queries = queries(&page, "logql\n");
    assert!(queries.len() > 5, "{queries:?}");
    for query in queries {
        let fields = logql::fields(query);
        assert!(!fields.is_empty(), "{query}");
        for field in fields {
            assert!(events.contains(&format!("\n| `{field}` |")), "{query}: no field {field}");
        }
    }
}

#[test]
fn promtool_accepts_the_queries_of_prometheus_and_their_metrics_are_there() {
    let (page, metrics) = (page("dashboards.md"), page("metrics.md"));
    let queries = queries(&page, "promql\n");
    assert!(queries.len() > 2, "{queries:?}");
    let rules: Vec<Value> =
        queries.iter().map(|query| json!({ "record": "manual:query:value", "expr": query })).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    // JSON is YAML.
    fs::write(file.path(), json!({ "groups": [{ "name": "manual", "rules": rules }] }).to_string())
        .expect("the rules");
    let (accepted, printed, said) = runtime::attempt(&mut promtool(&[
        "check",
        "rules",
        "--lint=none",
        file.path().to_str().expect("UTF-8"),
    ]));
    assert!(accepted, "{printed}{said}");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = queries.iter().flat_map(|query| query.split(|c| !is_name(c)));
    let names: Vec<&str> = words.filter(|word| word.starts_with("tellwire_")).collect();
    assert!(!names.is_empty());
    for name in names {
        assert!(metrics.contains(name), "no {name} in docs/metrics.md");
    }
}
