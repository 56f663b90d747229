//! A configuration file, and the line of each of its values.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize as _;
use serde_json::Value;
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
    let config = Config::deserialize(Deserializer::from(table)).map_err(|error| file.value(&error, &keys))?;
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
                        let path = format!("{path}[{index}]");
                        if let DeValue::Table(table) = element.get_ref() {
                            self.collect(table, &format!("{path}."));
                        }
                        self.values.insert(path, place);
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
        let sections = render::section_schemas();
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
        let key =
            keys.values.iter().filter(|(_, place)| within(place)).max_by_key(|(_, place)| place.value.start);
        if key.is_some_and(|(path, _)| path == "rules") {
            let wrong = "rules is no list of tables".into();
            return self.error(span.start, wrong, Some("write [[rules]] above each rule".into()));
        }
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

/// What is wrong with the name of a key, and what to write instead. `sections` are all by their full name.
fn unknown(path: &str, sections: &[(String, Value)]) -> Option<(String, String)> {
    let of = |name: &str| sections.iter().find(|(section, _)| section == name).map(|(_, schema)| schema);
    // An element of a list, or a section that is known.
    if path.ends_with(']') || of(path).is_some() {
        return None;
    }
    let Some((section, key)) = path.rsplit_once('.') else {
        let home = sections.iter().find(|(_, schema)| render::keys(schema).contains_key(path));
        let instead = match home {
            Some((home, _)) if home == "rules" => "write it as a key of [[rules]]".into(),
            Some((home, _)) => format!("write it as a key of [{home}]"),
            None => nearest(path, &within("", sections)),
        };
        return Some((format!("unknown section {path}"), instead));
    };
    // Of the sections of a list, each has the same keys.
    let (section, shown) = match section.split_once('[') {
        Some((list, _)) => (list, format!("[[{list}]]")),
        None => (section, format!("[{section}]")),
    };
    // What is in an unknown section is not looked at: the section is what is wrong.
    let known = render::keys(of(section)?);
    if known.contains_key(key) {
        return None;
    }
    let mut valid: Vec<&str> = known.keys().map(String::as_str).collect();
    valid.extend(within(&format!("{section}."), sections));
    Some((format!("unknown key {key} in {shown}"), nearest(key, &valid)))
}

/// The sections directly below, by their last name.
fn within<'a>(prefix: &str, sections: &'a [(String, Value)]) -> Vec<&'a str> {
    let names = sections.iter().filter_map(|(name, _)| name.strip_prefix(prefix));
    names.filter(|name| !name.contains('.')).collect()
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Config, Source, parse};

    fn error(text: &str) -> String {
        parse(Path::new("t.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn every_error_is_one_line_with_its_place_and_what_to_write_instead() {
        for (text, line) in [
            (
                "[kernel]\nring-byte = 5",
                "t.toml:2: unknown key ring-byte in [kernel]: write ring-bytes (valid are ring-bytes, \
                 args-bytes, pending-connects, open-connections, cgroup-counters, throttle-process, throttle-network, \
                 throttle-urgent, poll-interval, function-hooks, btf, log)",
            ),
            (
                "[http]\nlisten = \"none\"\ntls = true",
                "t.toml:3: unknown key tls in [http]: write one of listen, tls-certificate, tls-key, token-file",
            ),
            (
                "\n[kernl]\nlog = \"off\"",
                "t.toml:2: unknown section kernl: write kernel (valid are agent, kernel, processes, \
                 redaction, auth, containers, output, http, metrics, rules)",
            ),
            ("profile = \"full\"", "t.toml:1: unknown section profile: write it as a key of [agent]"),
            ("[agent]\nprofile = 5", "t.toml:2: agent.profile = 5: write \"default\" or \"full\""),
            ("agent.profile = \"ful\"", "t.toml:1: agent.profile = \"ful\": write \"default\" or \"full\""),
            (
                "[agent]\ntypes = \"exec\"",
                "t.toml:2: agent.types = \"exec\": write a list, such as [\"one\", \"two\"]",
            ),
            (
                "[agent]\ntypes = [\n  \"exec\",\n  7,\n]",
                "t.toml:4: agent.types[1] = 7: write text in quotes",
            ),
            ("[agent]\nhost-root = 1", "t.toml:2: agent.host-root = 1: write text in quotes"),
            ("agent = 1", "t.toml:1: agent = 1: write a section with keys"),
            (
                "[kernel]\nring-bytes = 5000",
                "t.toml:2: kernel.ring-bytes = 5000: write a power of two from 4 KiB to 1 GiB, such \
                 as \"2 MiB\"",
            ),
            (
                "[kernel]\nring-bytes = \"2 GiB\"",
                "t.toml:2: kernel.ring-bytes = \"2 GiB\": write a power of two from 4 KiB to 1 GiB, \
                 such as \"2 MiB\"",
            ),
            (
                "[kernel]\nargs-bytes = -1",
                "t.toml:2: kernel.args-bytes = -1: write bytes from 0 to 64 KiB, such as 65536 or \
                 \"64 KiB\"",
            ),
            (
                "[kernel]\npending-connects = 12",
                "t.toml:2: kernel.pending-connects = 12: write a whole number from 256 to 1048576",
            ),
            (
                "[kernel]\npending-connects = \"300\"",
                "t.toml:2: kernel.pending-connects = \"300\": write a whole number from 256 to 1048576",
            ),
            (
                "[kernel]\npending-connects = 300.5",
                "t.toml:2: kernel.pending-connects = 300.5: write a whole number from 256 to 1048576",
            ),
            (
                "[kernel]\npoll-interval = 5",
                "t.toml:2: kernel.poll-interval = 5: write a time from \"1ms\" to \"1s\", such as \
                 \"500ms\"",
            ),
            (
                "[http]\nlisten = \":9477\"",
                "t.toml:2: http.listen = \":9477\": write an address with its port, such as \
                 \"127.0.0.1:9477\" or \"[::]:9477\", or \"none\"",
            ),
            ("[agent]\nprofile = \"full\"\nprofile = \"full\"", "t.toml:3: not TOML: duplicate key"),
            ("[agent", "t.toml:1: not TOML: unclosed table: write `]`"),
            (
                "[agent]\n\"a\\u001bb\" = 1",
                "t.toml:2: unknown key a\\u{1b}b in [agent]: write one of profile, types, cgroups, \
                 fold-window, command-line, cluster, node-name, cloud-instance-id, labels, host-root, state-dir, log-level",
            ),
        ] {
            assert_eq!(error(text), line, "{text}");
        }
    }

    #[test]
    fn sections_within_sections_are_known_by_their_full_name() {
        for (text, line) in [
            (
                "[output]\nto = [\"stdout\", \"file:\"]",
                "t.toml:2: output.to[1] = \"file:\": write \"stdout\", \"file:PATH\", \"journald\", \
                 \"syslog:unix:PATH\", \"syslog:tcp:HOST:PORT\", \"syslog:udp:HOST:PORT\", \
                 \"ndjson:unix:PATH\", \"ndjson:tcp:HOST:PORT\" or \"none\"",
            ),
            (
                "[output.file]\nmax-byte = 1",
                "t.toml:2: unknown key max-byte in [output.file]: write max-bytes (valid are max-bytes, \
                 max-age, total-bytes, compress, mode, group)",
            ),
            (
                "[output.fil]\nmode = 1",
                "t.toml:1: unknown key fil in [output]: write file (valid are to, format, style, \
                 queue-bytes, file, syslog)",
            ),
            (
                "[output.file]\nmode = \"0666\"",
                "t.toml:2: output.file.mode = \"0666\": write an octal mode that lets the owner read and \
                 write, others not write, and nobody execute, such as \"0640\"",
            ),
            (
                "output.syslog.facility = \"mail\"",
                "t.toml:1: output.syslog.facility = \"mail\": write \"user\", \"daemon\", \"auth\", \
                 \"authpriv\" or one of \"local0\" to \"local7\"",
            ),
        ] {
            assert_eq!(error(text), line, "{text}");
        }
    }

    #[test]
    fn the_first_fault_is_the_one_that_stands_first() {
        assert!(error("[zzz]\n[agent]\naaa = 1").starts_with("t.toml:1: unknown section zzz"));
        assert!(error("[kernel]\nzzz = 1\naaa = 1").starts_with("t.toml:2: unknown key zzz"));
    }

    #[test]
    fn an_empty_file_is_the_default_and_values_know_their_line() {
        let (config, sources) = parse(Path::new("t.toml"), "# nothing\n").unwrap();
        assert_eq!(config, Config::default());
        assert!(sources.is_empty());

        let text = "[agent]\ntypes = [\n  'exec',\n]\n[http]\nlisten = 'none'";
        let (_, sources) = parse(Path::new("t.toml"), text).unwrap();
        for (key, line) in [("agent.types", 2), ("agent.types[0]", 3), ("http.listen", 6)] {
            assert_eq!(sources[key], Source::File(PathBuf::from("t.toml"), line), "{key}");
        }
    }
}
