//! The tables of docs/events.md: actions from `tellwire events`, fields from the JSON Schema.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::Table;

/// A row for each line of three columns.
pub(super) fn actions(listing: &str) -> Result<String> {
    let mut table = Table::new(["`event.action`", "`event.dataset`", "What it means"]);
    for line in listing.lines() {
        let columns = line.split_once(' ').and_then(|(action, rest)| {
            let (dataset, about) = rest.trim_start().split_once(' ')?;
            Some((action, dataset, about.trim_start()))
        });
        let (action, dataset, about) = columns.context("a line of `tellwire events` has three columns")?;
        table.row([&format!("`{action}`"), &format!("`{dataset}`"), about]);
    }
    Ok(table.0)
}

/// Every field with its dotted name, in the order of the structs.
pub(super) fn table(schema: &str) -> Result<String> {
    let schema: Value = serde_json::from_str(schema).context("the JSON Schema is JSON")?;
    let definitions = schema.get("$defs").and_then(Value::as_object);
    let definitions = definitions.context("the JSON Schema has definitions")?;
    let mut fields = Fields { definitions, table: Table::new(["Field", "Type", "Always", "What it says"]) };
    fields.members("", &schema, Presence::Always);
    Ok(fields.table.0)
}

/// Whether a field is on every line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Always,
    WhereKnown,
}

struct Fields<'a> {
    definitions: &'a Map<String, Value>,
    table: Table,
}

impl<'a> Fields<'a> {
    fn members(&mut self, prefix: &str, object: &'a Value, of_object: Presence) {
        let required = object.get("required").and_then(Value::as_array);
        let is_required =
            |name: &str| required.is_some_and(|names| names.iter().any(|required| required == name));
        for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let presence = if is_required(name) { of_object } else { Presence::WhereKnown };
            self.field(&format!("{prefix}{name}"), property, presence);
        }
    }

    fn field(&mut self, name: &str, property: &'a Value, presence: Presence) {
        let target = self.target(property);
        let element = target.get("items").map(|items| self.target(items));
        let kind = match element {
            Some(element) => format!("{}[]", kind(element)),
            None => kind(target).to_owned(),
        };
        let description = [Some(property), Some(target), element]
            .into_iter()
            .flatten()
            .find_map(|schema| schema.get("description")?.as_str())
            .unwrap_or_default();
        let always = if presence == Presence::Always { "yes" } else { "" };
        self.table.row([&format!("`{name}`"), &kind, always, description]);
        self.members(&format!("{name}."), element.unwrap_or(target), presence);
    }

    /// What a property is, behind its reference and without the `null` that no line has.
    fn target(&self, property: &'a Value) -> &'a Value {
        let one = match property.get("anyOf").and_then(Value::as_array) {
            Some(choices) => choices.iter().find(|choice| choice.get("$ref").is_some()).unwrap_or(property),
            None => property,
        };
        let name = one.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
        name.and_then(|name| self.definitions.get(name)).unwrap_or(one)
    }
}

fn kind(schema: &Value) -> &str {
    let kind = schema.get("type");
    // `["string", "null"]`: absent rather than null.
    kind.and_then(Value::as_str).or_else(|| kind?.get(0)?.as_str()).unwrap_or("any")
}

#[cfg(test)]
mod tests {
    use super::{actions, table};

    #[test]
    fn an_action_is_a_row() {
        let listing = "exec    tellwire.process   A new image.\n";
        assert!(actions(listing).unwrap().ends_with("| `exec` | `tellwire.process` | A new image. |\n"));
        assert!(actions("exec\n").is_err());
    }

    #[test]
    fn nested_fields_have_dotted_names_and_say_whether_they_are_always_there() {
        let schema = r##"{
            "properties": {
                "a": {"$ref": "#/$defs/A"},
                "b": {"description": "B.", "anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]},
                "c": {"type": "array", "items": {"$ref": "#/$defs/A"}}
            },
            "required": ["a"],
            "$defs": {"A": {
                "description": "An A.", "type": "object", "required": ["x"],
                "properties": {"x": {"type": ["integer", "null"]}, "y": {"type": "string"}}
            }}
        }"##;
        let table = table(schema).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| `a` | object | yes | An A. |",
                "| `a.x` | integer | yes |  |",
                "| `a.y` | string |  |  |",
                "| `b` | object |  | B. |",
                "| `b.x` | integer |  |  |",
                "| `b.y` | string |  |  |",
                "| `c` | object[] |  | An A. |",
                "| `c.x` | integer |  |  |",
                "| `c.y` | string |  |  |",
            ]
        );
    }
}
