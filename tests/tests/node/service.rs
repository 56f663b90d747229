//! Services of systemd, and the agent as one of them.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tellwire_tests::{Metrics, differences, get, runtime, until};

/// Where the unit has the agent write.
const EVENTS: &str = "/var/log/tellwire/events.ndjson";
/// Where it reads its configuration, which need not be there.
pub(crate) const CONFIG: &str = "/etc/tellwire/tellwire.toml";
/// Where it listens if nothing else is said.
const PORT: u16 = 9477;

pub(crate) fn systemctl(arguments: &[&str]) -> String {
    runtime::run(Command::new(runtime::program("systemctl", "systemd")).args(arguments))
}

/// The same, whether systemd did it or not.
pub(crate) fn try_systemctl(arguments: &[&str]) -> bool {
    runtime::attempt(Command::new(runtime::program("systemctl", "systemd")).args(arguments)).0
}

/// A property of a unit.
pub(crate) fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit]).trim().to_owned()
}

pub(crate) fn expect_property(unit: &str, name: &str, value: &str) {
    until(format_args!("{unit} has {name}={value}"), || (property(unit, name) == value).then_some(()));
}

/// The agent's service, which is stopped with this value. Its lines before do not count.
pub(crate) struct Service {
    skipped: usize,
}

impl Service {
    pub(crate) fn start(config: &str) -> Self {
        fs::create_dir_all(Path::new(CONFIG).parent().expect("a folder")).expect("a folder");
        fs::write(CONFIG, config).expect("the configuration");
        let skipped = lines().len();
        systemctl(&["start", "tellwire"]);
        Self { skipped }
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        lines().split_off(self.skipped)
    }

    /// Waits for a line with these fields, nested or with dotted names.
    pub(crate) fn expect(&self, fields: &Value) -> Value {
        until(format_args!("a line with {fields}"), || {
            self.lines().into_iter().find(|line| differences(fields, line).is_empty())
        })
    }

    pub(crate) fn pid() -> String {
        property("tellwire", "MainPID")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _stopped = try_systemctl(&["stop", "tellwire"]);
        let _none = try_systemctl(&["reset-failed", "tellwire"]);
        let _none = fs::remove_file(CONFIG);
    }
}

pub(crate) fn scrape() -> Metrics {
    let (status, body) = get(PORT, "/metrics");
    assert_eq!(status, 200, "{body}");
    Metrics::parse(&body)
}

fn lines() -> Vec<Value> {
    let text = fs::read_to_string(EVENTS).unwrap_or_default();
    // The last one may have no end yet.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
