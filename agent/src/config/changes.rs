//! What differs between two configurations, and which keys a running agent can take over.

use std::collections::BTreeMap;

use super::{Config, render::sections};

/// Keys that take effect when the configuration is read again. All others are decided at the start: sizes of
/// maps, what is attached, what is opened.
const LIVE: [&str; 24] = [
    "agent.profile",
    "agent.types",
    "agent.cgroups",
    "agent.fold-window",
    "agent.command-line",
    "agent.log-level",
    "kernel.args-bytes",
    "kernel.throttle-process",
    "kernel.throttle-network",
    "kernel.throttle-urgent",
    "kernel.poll-interval",
    "processes.max",
    "processes.keep-exited",
    "redaction.enabled",
    "redaction.flags",
    "redaction.patterns",
    "redaction.allow",
    "auth.unknown-user-names",
    "auth.burst-failures",
    "auth.burst-window",
    "metrics.series",
    "metrics.pods",
    "output.to",
    "rules",
];

/// A key that has another value than before, both as TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    /// With its section: `kernel.throttle-process`.
    pub(crate) key: String,
    pub(crate) old: String,
    pub(crate) new: String,
}

impl Changed {
    /// Whether a running agent can take it over.
    pub(crate) fn is_live(&self) -> bool {
        is_live(&self.key)
    }
}

pub(super) fn is_live(key: &str) -> bool {
    LIVE.contains(&key)
}

impl Config {
    /// The keys whose values `new` has otherwise, in the order of the documentation.
    pub(crate) fn changes(&self, new: &Self) -> Vec<Changed> {
        let new: BTreeMap<_, _> = new.values().into_iter().collect();
        let changed = |(key, old): (String, String)| {
            let new = new.get(&key).filter(|new| **new != old)?.clone();
            Some(Changed { key, old, new })
        };
        self.values().into_iter().filter_map(changed).collect()
    }

    /// Every key with its value as TOML.
    fn values(&self) -> Vec<(String, String)> {
        let keys = sections(self).into_iter().flat_map(|section| {
            let name = section.name;
            section.keys.into_iter().map(move |key| (format!("{name}.{}", key.name), key.value.to_string()))
        });
        // All of them are one value: what matters is their order.
        let rules =
            toml::Value::try_from(&self.rules).map_or_else(|_| String::new(), |rules| rules.to_string());
        keys.chain([("rules".to_owned(), rules)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::values::Count, Changed, Config, LIVE};

    #[test]
    fn every_live_key_is_one() {
        let values = Config::default().values();
        for key in LIVE {
            assert!(values.iter().any(|(name, _)| name == key), "{key}");
        }
    }

    #[test]
    fn changes_name_the_key_and_both_values() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(old.changes(&new), []);
        new.kernel.throttle_process = const { Count::new(5) };
        new.agent.types = vec!["exec".into()];
        new.kernel.function_hooks = false;
        let one =
            |key: &str, old: &str, new: &str| Changed { key: key.into(), old: old.into(), new: new.into() };
        let changes = old.changes(&new);
        assert_eq!(
            changes,
            [
                one("agent.types", "[]", "[\"exec\"]"),
                one("kernel.throttle-process", "20000", "5"),
                one("kernel.function-hooks", "true", "false"),
            ]
        );
        assert_eq!(changes.iter().map(Changed::is_live).collect::<Vec<_>>(), [true, true, false]);
    }
}
