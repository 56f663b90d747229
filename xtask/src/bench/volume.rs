//! How much is written for a node with ordinary services, and how long the lines are.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Result;

use super::{
    agent::Agent,
    load::{Work, Workload},
    names::Runtime,
    report::{Goal, Report},
    services::CONTAINERS,
};
use crate::say;

const GB: f64 = 1e9;
const DAY: f64 = 86_400.0;

/// What is told together shows after a minute.
const SHORTEST: Duration = Duration::from_secs(130);

pub(super) fn measure(binary: &Path, length: Duration, report: &mut Report) -> Result<()> {
    let length = length.max(SHORTEST);
    let [lengths, named] = [false, true].map(|named| node(binary, length, named, report));
    let median = |action| {
        let lengths = lengths.as_ref().ok().and_then(|lengths| lengths.get(action));
        lengths.and_then(|all| all.get(all.len() / 2)).copied().unwrap_or(f64::NAN)
    };
    report.goal(&Goal::at_most("median exec line", 900.0, "B"), median("exec"));
    report.goal(&Goal::at_most("median connect line", 500.0, "B"), median("connect"));
    lengths.and(named).map(drop)
}

/// Lengths of the lines of a node, by action, shortest first; with pods whose names a runtime tells, or without.
fn node(
    binary: &Path,
    length: Duration,
    named: bool,
    report: &mut Report,
) -> Result<BTreeMap<String, Vec<f64>>> {
    let how = if named { ", with pods by name" } else { "" };
    say(format_args!("volume{how}: {CONTAINERS} services for {} s", length.as_secs()));
    let runtime = Runtime::start()?;
    let sockets = format!("[containers]\nsockets = ['{}']\n", runtime.socket().display());
    let agent = Agent::start(binary, if named { &sockets } else { "" }, "file:events.ndjson")?;
    let work = Work { workload: Workload::Services, rate: 0, length };
    let done = work.run(Some(agent.cgroup()))?;
    let reading = agent.read()?;
    let lost = reading.lost();
    let text = agent.stop_and_read("events.ndjson")?;
    report.section(&format!("a node with {CONTAINERS} services, at default settings{how}"));
    if named {
        let with_names = text.lines().filter(|line| line.contains("\"recommendationservice-")).count();
        report.figure("lines with a pod's name", f64::from(u32::try_from(with_names)?), "");
    }
    let mut lengths: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in text.lines() {
        let action = line.split("\"action\":\"").nth(1).and_then(|rest| rest.split('"').next());
        #[expect(clippy::cast_precision_loss, reason = "a line is short")]
        lengths.entry(action.unwrap_or("none").to_owned()).or_default().push(line.len() as f64 + 1.0);
    }
    for (action, lengths) in &mut lengths {
        let (count, median) = (lengths.len(), super::median(lengths));
        report.figure(&format!("{action}: median of {count} lines"), median, "B");
    }
    let longest = text.lines().map(str::len).max().unwrap_or_default();
    report.figure("longest line", f64::from(u32::try_from(longest)?), "B");
    let bytes = f64::from(u32::try_from(text.len())?);
    report.goal(&Goal::at_most("bytes a node and day", 1.0, "GB"), bytes / done.seconds() * DAY / GB);
    report.goal(&Goal::exactly("lost", 0.0), lost);
    Ok(lengths)
}
