//! Whether a line speaks the Elastic Common Schema: every field is known, and has the type that it should.

use std::{collections::BTreeMap, net::IpAddr, sync::OnceLock};

use serde_json::Value;

/// Fields that the schema does not have, with the type of each. docs/events.md marks them as ours.
const OURS: &[(&str, &str)] = &[
    // The user who logged in, whoever the process is now; and the audit session.
    ("process.login_uid", "keyword"),
    ("process.session_id", "long"),
    // `process.args` is not all of it.
    ("process.args_truncated", "boolean"),
    ("process.args_total_bytes", "long"),
    // The schema has a terminal's device numbers only.
    ("process.tty.name", "keyword"),
];

/// Below these stands what the schema has no place for.
const OWN_ROOTS: [&str; 2] = ["tellwire", "k8s"];

struct Field {
    kind: String,
    is_list: bool,
    /// Empty where any value will do.
    values: Vec<String>,
}

/// What is wrong with a line, one sentence a fault.
pub fn faults(line: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    walk(line, "", &mut faults);
    for required in
        ["@timestamp", "ecs.version", "event.kind", "event.category", "event.type", "event.action"]
    {
        if crate::at(line, required).is_none() {
            faults.push(format!("{required} is missing"));
        }
    }
    faults
}

fn walk(value: &Value, path: &str, faults: &mut Vec<String>) {
    if OWN_ROOTS.contains(&path) {
        return;
    }
    match value {
        // Its keys are anybody's.
        Value::Object(fields) if schema().get(path).is_some_and(|field| field.kind == "object") => {
            for (key, value) in fields.iter().filter(|(_, value)| !value.is_string()) {
                faults.push(format!("{path}.{key} is {value}, and should be a text"));
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                walk(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, faults);
            }
        }
        Value::Null => faults.push(format!("{path} is null, and should be absent")),
        value => match schema().get(path) {
            Some(field) => check(path, field, value, faults),
            None => faults.push(format!("{path} is no field of the schema")),
        },
    }
}

fn check(path: &str, field: &Field, value: &Value, faults: &mut Vec<String>) {
    let values = match value {
        Value::Array(values) if field.is_list => values.as_slice(),
        Value::Array(_) => return faults.push(format!("{path} is a list, and should be one value")),
        _ if field.is_list => return faults.push(format!("{path} is one value, and should be a list")),
        value => std::slice::from_ref(value),
    };
    for value in values {
        if !has_type(value, &field.kind) {
            faults.push(format!("{path} is {value}, and should be of type {}", field.kind));
        } else if !field.values.is_empty() && !field.values.iter().any(|allowed| value == allowed) {
            faults.push(format!("{path} is {value}, and should be one of {:?}", field.values));
        }
    }
}

fn has_type(value: &Value, kind: &str) -> bool {
    match kind {
        "keyword" | "constant_keyword" | "wildcard" | "match_only_text" => value.is_string(),
        "long" | "integer" => value.is_u64() || value.is_i64(),
        "float" | "double" | "scaled_float" => value.is_number(),
        "boolean" => value.is_boolean(),
        "ip" => value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        "date" => value.as_str().is_some_and(is_time),
        _ => false,
    }
}

/// RFC 3339 in UTC with nanoseconds: `2026-01-31T23:59:59.000000000Z`.
pub fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000000000Z"
}

fn schema() -> &'static BTreeMap<String, Field> {
    static SCHEMA: OnceLock<BTreeMap<String, Field>> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let text = include_str!("../testdata/ecs-fields.json");
        let schema: Value = serde_json::from_str(text).expect("the schema is JSON");
        let fields = schema["fields"].as_object().expect("the schema has fields");
        let ecs = fields.iter().map(|(name, field)| (name.clone(), read(field)));
        let ours = OURS.iter().map(|(name, kind)| {
            ((*name).to_owned(), Field { kind: (*kind).to_owned(), is_list: false, values: Vec::new() })
        });
        ecs.chain(ours).collect()
    })
}

fn read(field: &Value) -> Field {
    let words = |key: &str| {
        let words = field[key].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    Field {
        kind: field["type"].as_str().unwrap_or_default().to_owned(),
        is_list: field["array"] == true,
        values: [words("allowed"), words("expected")].concat(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::faults;

    #[test]
    fn what_the_schema_does_not_allow_is_named() {
        let line = json!({
            "@timestamp": "2026-01-31T23:59:59.000000000Z",
            "ecs": {"version": "9.1.0"},
            "event": {"kind": "event", "category": ["proces"], "type": "start", "action": "exec"},
            "process": {"pid": "7", "colour": "red", "login_uid": "1000", "start": "yesterday", "end": null},
            "source": {"ip": "127.0.0"},
            "tellwire": {"anything": [{}]},
        });
        let faults = faults(&line);
        let about = |path: &str| faults.iter().any(|fault| fault.starts_with(&format!("{path} is ")));
        for path in [
            "event.category",
            "event.type",
            "process.pid",
            "process.colour",
            "process.start",
            "process.end",
            "source.ip",
        ] {
            assert!(about(path), "{path} is not in {faults:?}");
        }
        assert_eq!(faults.len(), 7, "{faults:?}");
    }
}
