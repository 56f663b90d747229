//! A configuration file, and the line of each of its values.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize as _;
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue, Deserializer};

use super::error::{ConfigError, nearest, shown};
use super::{Config, Source, Sources, render};

pub(super) fn read(path: &Path) -> Result<(Config, Sources), ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<(Config, Sources), ConfigError> {
    let file = File { path, text };
    let table = DeTable::parse(text).map_err(|error| file.syntax(&error))?;
    let mut keys = Keys::default();
    keys.collect(table.get_ref(), "");
    file.check_keys(&keys)?;
    let config =
        Config::deserialize(Deserializer::from(table)).map_err(|error| file.value(&error, &keys))?;
    let sources = keys
        .values
        .into_iter()
        .map(|(key, place)| (key, Source::File(path.into(), file.line(place.key.start))))
        .collect();
    Ok((config, sources))
}

/// Every key of a file by its path: `agent`, `agent.types`, `agent.types[0]`.
#[derive(Default)]
struct Keys {
    values: BTreeMap<String, Place>,
}

/// In bytes from the start of the file.
struct Place {
    /// An element of a list has none and stands where its value does.
    key: Range<usize>,
    value: Range<usize>,
}

impl Keys {
    fn collect(&mut self, table: &DeTable<'_>, prefix: &str) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => self.collect(table, &format!("{path}.")),
                DeValue::Array(array) => {
                    for (index, element) in array.iter().enumerate() {
                        let place = Place { key: element.span(), value: element.span() };
                        self.values.insert(format!("{path}[{index}]"), place);
                    }
                }
                _ => {}
            }
            self.values.insert(path, Place { key: key.span(), value: value.span() });
        }
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(self.text);
        1 + before.bytes().filter(|byte| *byte == b'\n').count()
    }

    fn error(&self, offset: usize, wrong: String, instead: Option<String>) -> ConfigError {
        ConfigError::line(self.path, self.line(offset), wrong, instead)
    }

    /// The first key that is none, by its place. Serde would refuse it too, but knows only the
    /// names beside it.
    fn check_keys(&self, keys: &Keys) -> Result<(), ConfigError> {
        let sections = render::properties(&render::schema());
        let unknown = keys.values.iter().filter_map(|(path, place)| {
            let (wrong, instead) = unknown(path, &sections)?;
            Some((place.key.start, wrong, instead))
        });
        match unknown.min() {
            Some((offset, wrong, instead)) => Err(self.error(offset, wrong, Some(instead))),
            None => Ok(()),
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let offset = error.span().map_or(0, |span| span.start);
        let (wrong, expected) = halves(error.message());
        self.error(offset, format!("not TOML: {wrong}"), expected.map(|expected| format!("write {expected}")))
    }

    /// A value that its key does not take: serde says what it does take.
    fn value(&self, error: &toml::de::Error, keys: &Keys) -> ConfigError {
        let (wrong, expected) = halves(error.message());
        let span = error.span().unwrap_or_default();
        let within = |place: &Place| place.value.start <= span.start && span.end <= place.value.end;
        // The innermost: of those that hold the place, the one that begins last.
        let key = keys.values.iter().filter(|(_, place)| within(place)).max_by_key(|(_, place)| place.value.start);
        let wrong = match key {
            Some((path, place)) => {
                let value = self.text.get(place.value.clone()).unwrap_or_default();
                format!("{path} = {}", shown(value))
            }
            None => wrong.to_owned(),
        };
        self.error(span.start, wrong, expected.map(|expected| format!("write {}", plain(expected))))
    }
}

/// What is wrong with the name of a key, and what to write instead.
fn unknown(path: &str, sections: &Map<String, Value>) -> Option<(String, String)> {
    let (section, key) = path.split_once('.').map_or((path, None), |(section, key)| (section, Some(key)));
    match (sections.get(section), key) {
        (Some(known), Some(key)) => {
            let valid = render::properties(known);
            // `types[0]` is an element of a list.
            if valid.contains_key(key) || key.ends_with(']') {
                return None;
            }
            Some((format!("unknown key {key} in [{section}]"), nearest(key, &names(&valid))))
        }
        (None, None) => {
            let home = sections.iter().find(|(_, keys)| render::properties(keys).contains_key(section));
            let instead = match home {
                Some((home, _)) => format!("write it as a key of [{home}]"),
                None => nearest(section, &names(sections)),
            };
            Some((format!("unknown section {section}"), instead))
        }
        // A section that is known, or a key of one that is not.
        (Some(_), None) | (None, Some(_)) => None,
    }
}

fn names(keys: &Map<String, Value>) -> Vec<&str> {
    keys.keys().map(String::as_str).collect()
}

/// Serde and toml say `what is wrong, expected what to write`.
fn halves(message: &str) -> (&str, Option<&str>) {
    message.split_once(", expected ").map_or((message, None), |(wrong, expected)| (wrong, Some(expected)))
}

/// Serde's names of types as what a user writes.
fn plain(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list, such as [\"one\", \"two\"]",
        "a string" | "path string" => "text in quotes",
        "a boolean" => "true or false",
        _ if expected.starts_with("struct ") => "a section with keys",
        _ => expected,
    }
}
