//! What an event should say against what it says.

use std::fmt::{self, Display};

use serde_json::Value;

/// The value at a dotted path, if it is there: `process.parent.pid`.
pub fn at<'a>(event: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(event, |value, key| value.get(key))
}

/// What differs at one path.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    path: String,
    expected: Value,
    found: Option<Value>,
}

/// Holds the event against a subset of it, nested or with dotted keys. `null` stands for a field that must not
/// be there; lists must be equal.
pub fn differences(expected: &Value, event: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    collect(expected, Some(event), "", &mut found);
    found
}

fn collect(expected: &Value, event: Option<&Value>, path: &str, to: &mut Vec<Difference>) {
    if let Value::Object(fields) = expected {
        for (key, expected) in fields {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            collect(expected, event.and_then(|event| at(event, key)), &path, to);
        }
    } else if event.unwrap_or(&Value::Null) != expected {
        to.push(Difference { path: path.to_owned(), expected: expected.clone(), found: event.cloned() });
    }
}

impl Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, expected, found } = self;
        let found = found.as_ref().map_or_else(|| "nothing".to_owned(), |found| short(found, 400));
        write!(formatter, "    {path}\n      expected {}\n      found    {found}", short(expected, 400))
    }
}

/// The value's beginning and end, where it is long.
fn short(value: &Value, limit: usize) -> String {
    let text: Vec<char> = value.to_string().chars().collect();
    if text.len() <= limit {
        return text.into_iter().collect();
    }
    let (start, end) = (text.iter().take(limit / 2), text.iter().skip(text.len() - limit / 2));
    format!("{} … {}", start.collect::<String>(), end.collect::<String>())
}

/// The events that come nearest, field by field: those of the process and the action before the others.
pub(crate) fn nearest(events: &[Value], pid: Option<u32>, action: &str, expected: &Value) -> String {
    let mut ranked: Vec<_> = events
        .iter()
        .map(|event| {
            let is_other = at(event, "event.action").is_none_or(|found| found != action);
            let is_stranger =
                pid.is_some_and(|pid| at(event, "process.pid").is_none_or(|found| *found != pid));
            let differences = differences(expected, event);
            (is_other, is_stranger, differences.len(), differences, event)
        })
        .collect();
    ranked.sort_by_key(|(is_other, is_stranger, count, ..)| (*is_other, *is_stranger, *count));
    let mut text = vec![format!("{} events were told; the nearest:", events.len())];
    for (_, _, _, differences, event) in ranked.iter().take(3) {
        let say = |path| at(event, path).unwrap_or(&Value::Null).to_string();
        text.push(format!("  {} of process {}", say("event.action"), say("process.pid")));
        text.extend(differences.iter().map(ToString::to_string));
        text.push(format!("    in {}", short(event, 2000)));
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{differences, nearest};

    #[test]
    fn a_subset_matches_nested_and_dotted() {
        let event = json!({"process": {"pid": 7, "parent": {"pid": 1}, "args": ["a", ""]}, "event": {"action": "exec"}});
        for subset in [
            json!({}),
            json!({"process.pid": 7, "process.parent.pid": 1}),
            json!({"process": {"parent.pid": 1, "args": ["a", ""]}}),
            json!({"process.executable": null}),
        ] {
            assert_eq!(differences(&subset, &event), [], "{subset}");
        }
    }

    #[test]
    fn what_differs_is_named_by_its_path() {
        let event = json!({"process": {"pid": 7, "args": ["a"]}});
        let expected = json!({"process": {"pid": 8, "args": ["a", ""]}, "user.id": "0"});
        let found: Vec<_> = differences(&expected, &event).into_iter().map(|found| found.path).collect();
        assert_eq!(found, ["process.pid", "process.args", "user.id"]);
    }

    #[test]
    fn the_nearest_event_comes_first() {
        let event = |pid, action| json!({"process": {"pid": pid}, "event": {"action": action}});
        let events = [event(1, "exit"), event(2, "exec"), event(1, "exec")];
        let text = nearest(&events, Some(1), "exec", &json!({"process.name": "x"}));
        assert!(text.lines().nth(1).unwrap().contains("\"exec\" of process 1"), "{text}");
    }
}
