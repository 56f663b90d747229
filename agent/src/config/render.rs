//! The configuration as TOML: the default with its documentation, which is that of the structs,
//! and the effective one with its sources.

use std::fmt::Display;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::rules::EXAMPLE;
use super::{Config, Source, Sources, changes::is_live};

/// Comments are wrapped here.
const WIDTH: usize = 100;

/// The default configuration, which says what each key is for and what it accepts.
pub(crate) fn default_toml() -> String {
    let mut text = String::new();
    comment(
        &mut text,
        "Configuration of tellwire: every key with its default, and any of them may be left out. \
         Flags and environment variables (TELLWIRE_...) go over this file. It is read again when it \
         changes and on SIGHUP.",
    );
    for section in sections(&Config::default()) {
        text.push('\n');
        comment(&mut text, text_of(&section.schema, "description"));
        push(&mut text, format_args!("[{}]", section.name));
        for (index, key) in section.keys.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            comment(&mut text, text_of(&key.schema, "description"));
            match (
                text_of(&key.schema, "accepts"),
                key.schema.pointer("/items/accepts").and_then(Value::as_str),
            ) {
                ("", None) => {}
                ("", Some(accepts)) => comment(&mut text, &format!("Accepts a list of {accepts}.")),
                (accepts, _) => comment(&mut text, &format!("Accepts {accepts}.")),
            }
            if !is_live(&format!("{}.{}", section.name, key.name)) {
                comment(&mut text, "A change takes effect at the next start.");
            }
            push(&mut text, format_args!("{} = {}", key.name, key.value));
        }
    }
    rules_manual(&mut text);
    text
}

/// The JSON Schema of the file, for editors and for those who write it by program.
pub(crate) fn json_schema() -> String {
    let schema = SchemaSettings::default().into_generator().into_root_schema_for::<Config>();
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

/// There is no rule by default: what a rule can say, and an example, as comments.
fn rules_manual(text: &mut String) {
    let Some((_, rule)) = section_schemas().into_iter().find(|(name, _)| name == "rules") else { return };
    text.push('\n');
    comment(text, text_of(&rule, "description"));
    for (name, key) in keys(&rule) {
        let accepts = |schema: &Value| match (text_of(schema, "accepts"), schema.pointer("/items/accepts")) {
            ("", None) => None,
            ("", Some(accepts)) => {
                Some(format!(" Accepts a list of {}.", accepts.as_str().unwrap_or_default()))
            }
            (accepts, _) => Some(format!(" Accepts {accepts}.")),
        };
        let inner = key.pointer("/anyOf/0").unwrap_or(&key);
        let accepts = accepts(inner).unwrap_or_default();
        push(text, "#");
        comment(text, &format!("{name}: {}{accepts}", text_of(&key, "description")));
    }
    push(text, "#\n# An example:\n#");
    for line in EXAMPLE.lines() {
        push(text, format_args!("# {line}"));
    }
}

/// `config`, and where each of its values comes from. `notes` says something of each rule.
pub(super) fn effective(config: &Config, sources: &Sources, notes: &[String]) -> String {
    let mut text = String::new();
    for (index, section) in sections(config).iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        push(&mut text, format_args!("[{}]", section.name));
        for key in &section.keys {
            let source = sources.get(&format!("{}.{}", section.name, key.name)).unwrap_or(&Source::Default);
            push(&mut text, format_args!("{} = {}  # {source}", key.name, key.value));
        }
    }
    for (index, rule) in config.rules.iter().enumerate() {
        let path = format!("rules[{index}]");
        let source = |path: &str| sources.get(path).unwrap_or(&Source::Default);
        text.push('\n');
        if let Some(note) = notes.get(index) {
            comment(&mut text, note);
        }
        push(&mut text, format_args!("[[rules]]  # {}", source(&path)));
        let values = toml::Table::try_from(rule).unwrap_or_default();
        for name in
            section_schemas().iter().filter(|(name, _)| name == "rules").flat_map(|(_, rule)| keys(rule))
        {
            if let Some(value) = values.get(&name.0) {
                let source = source(&format!("{path}.{}", name.0));
                push(&mut text, format_args!("{} = {value}  # {source}", name.0));
            }
        }
    }
    text
}

/// What serde accepts, with the doc comments.
pub(super) fn schema() -> Value {
    let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// What a struct has, in its order.
fn properties(schema: &Value) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

pub(super) struct Section {
    pub(super) name: String,
    schema: Value,
    pub(super) keys: Vec<Key>,
}

pub(super) struct Key {
    pub(super) name: String,
    schema: Value,
    pub(super) value: toml::Value,
}

fn text_of<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Every section of the file with its keys.
pub(super) fn sections(config: &Config) -> Vec<Section> {
    // What cannot be written as TOML cannot have been read: every path is UTF-8.
    let values = toml::Value::try_from(config).unwrap_or(toml::Value::Boolean(false));
    let section = |(name, schema): (String, Value)| {
        let mut table = name.split('.').try_fold(&values, |value, part| value.get(part))?.as_table()?.clone();
        let key = |(name, schema)| table.remove(&name).map(|value| Key { name, schema, value });
        let keys = keys(&schema).into_iter().filter_map(key).collect();
        Some(Section { name, schema, keys })
    };
    section_schemas().into_iter().filter_map(section).collect()
}

/// Every section with its name (`output`, `output.file`), those within one behind it.
pub(super) fn section_schemas() -> Vec<(String, Value)> {
    fn collect(prefix: &str, schema: &Value, sections: &mut Vec<(String, Value)>) {
        for (name, schema) in properties(schema) {
            if is_section(&schema) {
                let name = format!("{prefix}{name}");
                sections.push((name.clone(), schema.clone()));
                collect(&format!("{name}."), &schema, sections);
            } else if let Some(each) = schema.get("items").filter(|each| is_section(each)) {
                // A list of sections: what each of them has.
                sections.push((format!("{prefix}{name}"), each.clone()));
            }
        }
    }
    let mut sections = Vec::new();
    collect("", &schema(), &mut sections);
    sections
}

/// The keys of a section, without the sections within.
pub(super) fn keys(section: &Value) -> Map<String, Value> {
    properties(section).into_iter().filter(|(_, schema)| !is_section(schema)).collect()
}

fn is_section(schema: &Value) -> bool {
    schema.get("properties").is_some()
}

fn push(text: &mut String, line: impl Display) {
    text.push_str(&line.to_string());
    text.push('\n');
}

/// `words` as comment lines.
fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
            push(text, &line);
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    push(text, line);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Config, from_file, render::sections};
    use super::{WIDTH, default_toml, text_of};

    #[test]
    fn the_documented_default_is_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tellwire.toml");
        fs::write(&path, default_toml()).unwrap();
        let (config, sources) = from_file(&path, &[]).unwrap();
        assert_eq!(config, Config::default());
        let sections = sections(&config);
        let keys: usize = sections.iter().map(|section| section.keys.len()).sum();
        let is_key =
            |path: &&String| !path.contains('[') && !sections.iter().any(|section| section.name == **path);
        assert_eq!(sources.keys().filter(is_key).count(), keys);
    }

    #[test]
    fn every_section_and_key_is_documented() {
        for section in sections(&Config::default()) {
            assert_ne!(text_of(&section.schema, "description"), "", "[{}]", section.name);
            assert!(!section.keys.is_empty(), "[{}]", section.name);
            for key in section.keys {
                let text = text_of(&key.schema, "description");
                assert!(text.ends_with('.'), "{}.{}: {text}", section.name, key.name);
            }
        }
    }

    #[test]
    fn the_documentation_is_readable() {
        let text = default_toml();
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        let key = "\n# How often the rings are read under traffic. Longer costs less and needs larger \
                   rings: a ring must\n# hold what comes in meanwhile.\n# Accepts a time from \"1ms\" to \
                   \"1s\", such as \"500ms\".\npoll-interval = \"50ms\"\n";
        assert!(text.contains(key), "{text}");
    }
}
