//! The configurations of `deploy/logs` for shippers that no distribution has: what they make of a line, as far as it can be
//! seen without them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use regex::Regex;
use serde_json::Value;
use tellwire_tests::{at, cri::Made, until};

use crate::{manifest::deployed, names::Node};

/// A few values each, all known. A label of pods, users or programs would make a stream for each.
const LABELS: [&str; 5] = ["action", "cluster", "job", "namespace", "node"];

fn alloy() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/logs/alloy.config");
    fs::read_to_string(path).expect("the configuration")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().unwrap_or_else(|| panic!("no map: {value}")).keys().cloned().collect()
}

/// What stands behind a name and a bracket, up to the bracket that ends it.
fn within<'a>(config: &'a str, name: &str, [begin, end]: [char; 2]) -> &'a str {
    let (_before, behind) = config.split_once(name).unwrap_or_else(|| panic!("no {name}"));
    let (_between, inner) = behind.split_once(begin).expect("its beginning");
    inner.split_once(end).expect("its end").0
}

#[test]
fn all_shippers_set_the_same_few_labels() {
    let fluent_bit = deployed("logs/fluent-bit.yaml");
    let fluent_bit = text(&fluent_bit["pipeline"]["outputs"][0]["labels"]).split(", ");
    let fluent_bit = fluent_bit.map(|pair| pair.split_once('=').expect("a label").0.to_owned()).collect();
    let vector = keys(&deployed("logs/vector.yaml")["sinks"]["loki"]["labels"]);
    let promtail = deployed("logs/promtail.yaml");
    let stages = promtail["scrape_configs"][0]["pipeline_stages"].as_array().expect("stages");
    let allowed = stages.last().expect("a stage")["labelallow"].as_array().expect("the last stage");
    let mut promtail = keys(&promtail["clients"][0]["external_labels"]);
    promtail.extend(allowed.iter().map(|label| text(label).to_owned()));
    let config = alloy();
    let kept = within(&config, "stage.label_keep", ['[', ']']).split(',');
    let set = within(&config, "stage.static_labels", ['{', '}']);
    let set = set.lines().filter_map(|line| line.trim().split_once(" = \"")).map(|(name, _)| name.trim());
    let alloy = kept.map(|label| label.trim().trim_matches('"')).chain(set).map(str::to_owned).collect();
    for (shipper, labels) in
        [("Fluent Bit", fluent_bit), ("Vector", vector), ("Promtail", promtail), ("Alloy", alloy)]
    {
        let labels: Vec<String> = labels;
        let sorted: BTreeSet<&str> = labels.iter().map(String::as_str).collect();
        assert_eq!(sorted, BTreeSet::from(LABELS), "{shipper}: {labels:?}");
    }
}

#[test]
fn every_bracket_of_the_configuration_of_alloy_has_its_other_one() {
    let config = alloy();
    let mut open = Vec::new();
    for (number, line) in (1..).zip(config.lines()) {
        let (mut is_quoted, mut is_escaped) = (false, false);
        let code = if line.trim_start().starts_with("//") { "" } else { line };
        for letter in code.chars() {
            match letter {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                '{' | '[' | '(' if !is_quoted => open.push((letter, number)),
                '}' | ']' | ')' if !is_quoted => {
                    let opened = open.pop().unwrap_or_else(|| panic!("line {number} ends nothing"));
                    assert!(
                        ["{}", "[]", "()"].contains(&format!("{}{letter}", opened.0).as_str()),
                        "{number}"
                    );
                }
                _ => {}
            }
        }
        assert!(!is_quoted, "line {number} ends within quotes");
    }
    assert_eq!(open, []);
}

#[test]
fn fluent_bit_takes_labels_and_time_out_of_a_line_and_sends_the_line_alone() {
    let config = deployed("logs/fluent-bit.yaml");
    let parsers = config["parsers"].as_array().expect("parsers");
    let parsers: BTreeMap<&str, Regex> = parsers
        .iter()
        .map(|parser| (text(&parser["name"]), Regex::new(text(&parser["regex"])).expect("an expression")))
        .collect();
    // What is left of a record is the line: all else is never kept, or is removed.
    let filters = config["pipeline"]["filters"].as_array().expect("filters");
    assert_eq!(text(&filters[0]["allowlist_key"]), "log");
    let mut taken = BTreeSet::new();
    for filter in &filters[1..] {
        assert!(
            filter["preserve_key"] == true && filter["reserve_data"] == true && filter["key_name"] == "log"
        );
        taken.extend(parsers[text(&filter["parser"])].capture_names().flatten());
    }
    assert!(taken.remove("time"), "the time is the record's own");
    let output = &config["pipeline"]["outputs"][0];
    let removed: BTreeSet<&str> = text(&output["remove_keys"]).split(", ").collect();
    assert_eq!((&output["drop_single_key"], taken), (&Value::from("raw"), removed));

    let node =
        Node::new(true, "[agent]\nnode-name = 'node-7'\nlabels = ['k8s={\"namespace\":{\"name\":\"no\"']\n");
    let made = Made::new(1, "cart-7d5c9b8f6d-x2v9k");
    node.runtime.make(&made);
    until("the runtime's event is heard", || {
        (node.agent.metric("tellwire_runtime_lookups_total", &[("outcome", "found")]) == 1).then_some(())
    });
    // An argument that looks like what is looked for.
    let forged =
        "{\"@timestamp\":\"x\",\"event\":{\"action\":\"forged\"},\"k8s\":{\"namespace\":{\"name\":\"forged\"";
    let mut child = node.exec(&made, &["sh", "-c", ":", forged]);
    node.agent.settle(&mut child);
    let mut host = node.agent.exec("/bin/busybox", &["true", forged]);
    node.agent.settle(&mut host);
    let lines = fs::read_to_string(node.agent.folder().join("events.ndjson")).expect("the lines");
    let mut namespaces = 0;
    for line in lines.lines() {
        let json: Value = serde_json::from_str(line).expect("JSON");
        let said = |path: &str| at(&json, path).and_then(Value::as_str);
        let found = parsers["tellwire_action"].captures(line).unwrap_or_else(|| panic!("nothing in {line}"));
        assert_eq!(Some(&found["action"]), said("event.action"), "{line}");
        assert_eq!(Some(&found["time"]), said("@timestamp"), "{line}");
        let found = parsers["tellwire_namespace"].captures(line);
        let found = found.as_ref().map(|found| &found["namespace"]);
        assert_eq!(found, said("k8s.namespace.name"), "{line}");
        namespaces += u32::from(found.is_some());
    }
    assert!(lines.contains("forged") && namespaces > 2 && (namespaces as usize) < lines.lines().count());
}
