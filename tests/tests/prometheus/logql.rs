//! What a query of Loki finds among lines, as far as the dashboards use its language: Loki itself is in no distribution.
//!
//! Selector, `|=`, `json` with named paths, comparisons of labels, `line_format`, and around it
//! `topk(n, sum by (label) (count_over_time(... [time])))`, which is counted over all lines here. Anything else is an error.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// A line, and the labels that a shipper gives its stream.
pub(crate) struct Line {
    pub(crate) labels: BTreeMap<&'static str, String>,
    pub(crate) text: String,
}

/// What is shown of each line that is found: its text, or the value of the label that is counted by.
pub(crate) fn found(query: &str, lines: &[Line]) -> Vec<String> {
    let (conditions, stages, by) = parts(query);
    lines.iter().filter_map(|line| through(line, &conditions, &stages, by)).collect()
}

/// The fields of lines that a query asks for. Every part of it is read, also what no line comes to.
pub(crate) fn fields(query: &str) -> Vec<String> {
    let (conditions, stages, by) = parts(query);
    let mut labels: BTreeMap<String, String> =
        conditions.into_iter().map(|condition| (condition.label, String::new())).collect();
    let mut fields = Vec::new();
    for stage in stages {
        if let Some(names) = stage.strip_prefix("json ") {
            for pair in split(names, ',') {
                let (name, path) = pair.split_once('=').expect("a name and a path");
                labels.insert(name.trim().to_owned(), String::new());
                fields.push(unquoted(path).to_owned());
            }
        } else if let Some(template) = stage.strip_prefix("line_format ") {
            filled(unquoted(template), &labels);
        } else if !stage.starts_with('=') {
            let label = Condition::new(stage).label;
            assert!(labels.contains_key(&label), "{query} has {label}, which nothing sets");
        }
    }
    assert!(by.is_none_or(|by| labels.contains_key(by)), "{query} counts by what nothing sets");
    fields
}

/// The selector's conditions, what stands behind them, and the label that is counted by.
fn parts(query: &str) -> (Vec<Condition>, Vec<&str>, Option<&str>) {
    let (inner, by) = match query.split_once("count_over_time(") {
        Some((around, rest)) => {
            let by =
                around.split_once("sum by (").and_then(|(_, rest)| rest.split_once(')')).expect("a label").0;
            (rest.rsplit_once('[').expect("a time").0, Some(by))
        }
        None => (query, None),
    };
    let (selector, pipeline) = inner.split_once('}').expect("a selector");
    let conditions =
        split(selector.trim().trim_start_matches('{'), ',').into_iter().map(Condition::new).collect();
    let stages = split(pipeline, '|').into_iter().map(str::trim).filter(|stage| !stage.is_empty()).collect();
    (conditions, stages, by)
}

fn through(line: &Line, conditions: &[Condition], stages: &[&str], by: Option<&str>) -> Option<String> {
    let mut labels: BTreeMap<String, String> =
        line.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    if !conditions.iter().all(|condition| condition.holds(&labels)) {
        return None;
    }
    let mut text = line.text.clone();
    for stage in stages {
        if let Some(wanted) = stage.strip_prefix('=') {
            if !text.contains(unquoted(wanted)) {
                return None;
            }
        } else if let Some(names) = stage.strip_prefix("json ") {
            let json: Value = serde_json::from_str(&line.text).expect("a line is JSON");
            for pair in split(names, ',') {
                let (name, path) = pair.split_once('=').expect("a name and a path");
                let value = unquoted(path).split('.').try_fold(&json, |value, key| value.get(key));
                let value = match value {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text.clone(),
                    Some(value) => value.to_string(),
                };
                labels.insert(name.trim().to_owned(), value);
            }
        } else if let Some(template) = stage.strip_prefix("line_format ") {
            text = filled(unquoted(template), &labels);
        } else if !Condition::new(stage).holds(&labels) {
            return None;
        }
    }
    match by {
        Some(label) => Some(labels.get(label).expect("a label that is counted by").clone()),
        None => Some(text),
    }
}

/// `label="value"` and the like.
struct Condition {
    label: String,
    value: Regex,
    is_wanted: bool,
}

impl Condition {
    fn new(text: &str) -> Self {
        let at = text.find(['=', '!']).unwrap_or_else(|| panic!("no comparison: {text}"));
        let (label, rest) = text.split_at(at);
        let (operator, value) = rest.split_at(rest.find('"').unwrap_or_else(|| panic!("no value: {text}")));
        let (is_wanted, is_pattern) = match operator {
            "=" => (true, false),
            "!=" => (false, false),
            "=~" => (true, true),
            "!~" => (false, true),
            _ => panic!("no comparison: {text}"),
        };
        let value = unquoted(value);
        let pattern = if is_pattern { value.to_owned() } else { regex::escape(value) };
        let value = Regex::new(&format!("^(?:{pattern})$")).unwrap_or_else(|error| panic!("{text}: {error}"));
        Self { label: label.trim().to_owned(), value, is_wanted }
    }

    /// A label that is not there is empty.
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.label).map_or("", String::as_str);
        self.value.is_match(value) == self.is_wanted
    }
}

/// Puts labels in the places of `{{.label}}`.
fn filled(template: &str, labels: &BTreeMap<String, String>) -> String {
    let mut parts = template.split("{{.");
    let mut text = parts.next().expect("a first part").to_owned();
    for part in parts {
        let (label, rest) =
            part.split_once("}}").unwrap_or_else(|| panic!("a place without an end: {template}"));
        text += labels.get(label).unwrap_or_else(|| panic!("{template} has {label}, which nothing sets"));
        text += rest;
    }
    text
}

/// Splits where the sign stands outside of quotes.
fn split(text: &str, sign: char) -> Vec<&str> {
    let (mut parts, mut begin, mut is_quoted) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        if letter == '"' {
            is_quoted = !is_quoted;
        } else if letter == sign && !is_quoted {
            parts.push(&text[begin..at]);
            begin = at + letter.len_utf8();
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn unquoted(text: &str) -> &str {
    let text = text.trim().trim_start_matches('"');
    text.strip_suffix('"').unwrap_or(text)
}

#[test]
fn a_query_finds_what_it_should_and_no_more() {
    let line = |action: &str, user: &str| Line {
        labels: BTreeMap::from([("job", "tellwire".to_owned()), ("action", action.to_owned())]),
        text: format!(r#"{{"user":{{"name":"{user}"}}}}"#),
    };
    let lines = [line("exec", "root"), line("exec", "ann"), line("connect", "root")];
    let query = r#"{job="tellwire", action=~"exec|exit"} | json user="user.name" | user!="ann" | line_format "{{.user}}!""#;
    assert_eq!(found(query, &lines), ["root!"]);
    let query =
        r#"topk(10, sum by (user) (count_over_time({action="exec"} |= "n" | json user="user.name" [5m])))"#;
    assert_eq!(found(query, &lines), ["root", "ann"]);
    assert!(found(r#"{action=""}"#, &lines).is_empty());
}
