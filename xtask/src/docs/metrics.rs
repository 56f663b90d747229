//! The tables of docs/metrics.md, from what a running agent exports.
//!
//! The agent watches an empty cgroup: nothing of this machine is looked at, and every closed label is there at zero.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{self, Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{Table, command};

/// Labels whose values are the machine's, or more than a table can hold.
const OPEN: [&str; 6] = ["effect", "kernel", "le", "output", "rule", "version"];

/// Families that not every agent has: name, type, labels, help, when.
const CONDITIONAL: [(&str, &str, &str, &str, &str); 4] = [
    ("tellwire_rule_events_total", "counter", "rule, effect", "", "where the configuration has rules"),
    (
        "tellwire_probe_missed_total",
        "counter",
        "probe",
        "Runs that the kernel skipped since the program was running on that CPU already.",
        "since Linux 5.12",
    ),
    (
        "tellwire_probe_run_seconds_total",
        "counter",
        "probe",
        "Time in the probe's programs while BPF statistics were on.",
        "once `kernel.bpf_stats_enabled` was on",
    ),
    (
        "tellwire_probe_runs_total",
        "counter",
        "probe",
        "Runs of the probe's programs while BPF statistics were on.",
        "once `kernel.bpf_stats_enabled` was on",
    ),
];

/// What an agent exports that has nothing to look at.
pub(super) fn scrape(agent: &Path) -> Result<String> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let agent = Watching::start(agent, port)?;
    let mut stream =
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("asking the agent for its metrics")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the agent's metrics")?;
    drop(agent);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    if !head.contains(" 200 ") {
        bail!("/metrics answers {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// An agent in front of an empty cgroup; both go with this value.
struct Watching {
    child: Child,
    cgroup: PathBuf,
    /// Its configuration and its notes.
    folder: PathBuf,
}

impl Watching {
    fn start(agent: &Path, port: u16) -> Result<Self> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists());
        let mount = mount.context("no cgroup v2 hierarchy is mounted")?;
        let cgroup = mount.join(format!("tellwire-docs-{}", process::id()));
        fs::create_dir(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        let folder = env::temp_dir().join(format!("tellwire-docs-{}", process::id()));
        let config = folder.join("tellwire.toml");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        fs::write(&config, format!("[agent]\nstate-dir = '{}'\n", folder.display()))?;
        let child = command(agent)
            .args(["run", "--output", "file:/dev/null", "--config"])
            .arg(&config)
            .arg("--cgroup")
            .arg(&cgroup)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            // Whatever goes wrong here, it ends.
            .args(["--duration", "30s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                let _untidy = fs::remove_dir(&cgroup);
                return Err(error).with_context(|| format!("starting {}", agent.display()));
            }
        };
        let mut watching = Self { child, cgroup, folder };
        let stderr = watching.child.stderr.take().context("the child has a stderr")?;
        let mut said = String::new();
        for line in BufReader::new(stderr).lines() {
            let line = line.context("reading what the agent says")?;
            if line.contains("\"watching\"") {
                return Ok(watching);
            }
            said.extend([line.as_str(), "\n"]);
        }
        bail!("the agent does not start: {said}")
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
        let _untidy = fs::remove_dir(&self.cgroup);
        let _untidy = fs::remove_dir_all(&self.folder);
    }
}

/// What the page shows.
pub(super) struct Tables {
    pub(super) metrics: String,
    pub(super) labels: String,
}

/// A metric with its samples' labels.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    help: String,
    when: &'static str,
    /// Names in the order of the samples, with every value seen.
    labels: Vec<(String, Vec<String>)>,
}

impl Tables {
    pub(super) fn new(exposition: &str) -> Result<Self> {
        let families = families(exposition)?;
        let mut metrics = Table::new(["Metric", "Type", "Labels", "What it says"]);
        // Label and values, with the metrics that have them.
        let mut sets: BTreeMap<(&str, &[String]), BTreeSet<&str>> = BTreeMap::new();
        for Family { name, kind, help, when, labels } in &families {
            let names: Vec<String> = labels.iter().map(|(label, _)| format!("`{label}`")).collect();
            let when = if when.is_empty() { String::new() } else { format!(" Only there {when}.") };
            metrics.row([&format!("`{name}`"), kind, &names.join(", "), &format!("{help}{when}")]);
            for (label, values) in labels.iter().filter(|(label, _)| !OPEN.contains(&label.as_str())) {
                sets.entry((label, values)).or_default().insert(name);
            }
        }
        let mut labels = Table::new(["Label", "Values", "On"]);
        for ((label, values), names) in sets {
            let list = |items: &mut dyn Iterator<Item = &str>| {
                items.map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
            };
            let values = list(&mut values.iter().map(String::as_str));
            labels.row([&format!("`{label}`"), &values, &list(&mut names.into_iter())]);
        }
        Ok(Self { metrics: metrics.0, labels: labels.0 })
    }
}

/// The families of an exposition and the conditional ones, so that the page is the same on every machine.
fn families(exposition: &str) -> Result<Vec<Family>> {
    let mut families: Vec<Family> = Vec::new();
    for line in exposition.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help] => {
                families.push(Family { name: (*name).into(), help: (*help).into(), ..Family::default() });
            }
            ["#", "TYPE", name, kind] => {
                let family = families.last_mut().filter(|family| family.name == *name);
                family.with_context(|| format!("{name} has no help"))?.kind = (*kind).into();
            }
            _ => families.last_mut().context("a sample comes before its family")?.take(line),
        }
    }
    let probes = families.iter().find(|family| family.name == "tellwire_probe_attached");
    let probes = probes.map(|family| family.labels.clone()).unwrap_or_default();
    for (name, kind, label, help, when) in CONDITIONAL {
        let mut family = match families.iter().position(|family| family.name == name) {
            Some(index) => Family { when, ..families.remove(index) },
            None => Family {
                name: name.into(),
                kind: kind.into(),
                help: help.into(),
                when,
                labels: probes.iter().filter(|(probe, _)| probe == label).cloned().collect(),
            },
        };
        if family.labels.is_empty() {
            family.labels = label.split(", ").map(|label| (label.into(), Vec::new())).collect();
        }
        families.push(family);
    }
    families.sort_by_key(|family| !family.name.starts_with("tellwire_"));
    Ok(families)
}

impl Family {
    /// Adds the labels of a sample. No label value of ours has a quote in it.
    fn take(&mut self, sample: &str) {
        let labels = sample.rsplit_once('}').and_then(|(series, _)| series.split_once('{'));
        let pairs = labels.map_or("", |(_, labels)| labels).split_terminator("\",");
        for (label, value) in pairs.filter_map(|pair| pair.trim_end_matches('"').split_once("=\"")) {
            let known = self.labels.iter_mut().find(|(known, _)| known == label);
            match known {
                Some((_, values)) if values.iter().any(|known| known == value) => {}
                Some((_, values)) => values.push(value.into()),
                None => self.labels.push((label.into(), vec![value.into()])),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CONDITIONAL, Tables, families};

    const TEXT: &str = "# HELP process_open_fds Open files.\n# TYPE process_open_fds gauge\nprocess_open_fds 7\n\
        # HELP tellwire_probe_attached Whether.\n# TYPE tellwire_probe_attached gauge\n\
        tellwire_probe_attached{probe=\"exec\"} 1.0\ntellwire_probe_attached{probe=\"exit\"} 0\n\
        # HELP tellwire_probe_runs_total Runs.\n# TYPE tellwire_probe_runs_total counter\n\
        # HELP tellwire_build_info The build.\n# TYPE tellwire_build_info gauge\n\
        tellwire_build_info{version=\"1\",kernel=\"6.1, x\"} 1\n";

    #[test]
    fn every_family_is_a_row_and_the_agents_own_come_first() {
        let Tables { metrics, labels } = Tables::new(TEXT).unwrap();
        assert!(
            metrics.contains("| `tellwire_probe_attached` | gauge | `probe` | Whether. |\n"),
            "{metrics}"
        );
        assert!(
            metrics.contains("| `tellwire_build_info` | gauge | `version`, `kernel` | The build. |\n"),
            "{metrics}"
        );
        assert!(metrics.ends_with("| `process_open_fds` | gauge |  | Open files. |\n"), "{metrics}");
        assert!(labels.contains("| `probe` | `exec`, `exit` | `tellwire_probe_attached`"), "{labels}");
        assert!(!labels.contains("6.1"), "{labels}");
    }

    #[test]
    fn what_not_every_machine_has_is_there_once() {
        let families = families(TEXT).unwrap();
        for (name, ..) in CONDITIONAL {
            assert_eq!(families.iter().filter(|family| family.name == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn what_is_no_exposition_is_an_error() {
        assert!(families("a 1\n").is_err());
        assert!(families("# TYPE a counter\n").is_err());
    }
}
