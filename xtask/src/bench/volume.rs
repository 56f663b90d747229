//! How much is written for a node with ordinary services, and how long the lines are.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Result;

use super::{
    agent::Agent,
    load::{Work, Workload},
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
    say(format_args!("volume: {CONTAINERS} services for {} s", length.as_secs()));
    let agent = Agent::start(binary, "", "file:events.ndjson")?;
    let work = Work { workload: Workload::Services, rate: 0, length };
    let done = work.run(Some(agent.cgroup()))?;
    let reading = agent.read()?;
    let lost = reading.lost();
    let text = agent.stop_and_read("events.ndjson")?;
    report.section(&format!("a node with {CONTAINERS} services, at default settings"));
    let mut lengths: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for line in text.lines() {
        let action = line.split("\"action\":\"").nth(1).and_then(|rest| rest.split('"').next());
        #[expect(clippy::cast_precision_loss, reason = "a line is short")]
        lengths.entry(action.unwrap_or("none")).or_default().push(line.len() as f64 + 1.0);
    }
    for (action, lengths) in &mut lengths {
        let (count, median) = (lengths.len(), super::median(lengths));
        report.figure(&format!("{action}: median of {count} lines"), median, "B");
    }
    let longest = text.lines().map(str::len).max().unwrap_or_default();
    report.figure("longest line", f64::from(u32::try_from(longest)?), "B");
    let bytes = f64::from(u32::try_from(text.len())?);
    report.goal(&Goal::at_most("bytes a node and day", 1.0, "GB"), bytes / done.seconds() * DAY / GB);
    let median =
        |action| lengths.get(action).and_then(|all| all.get(all.len() / 2)).copied().unwrap_or(f64::NAN);
    report.goal(&Goal::at_most("median exec line", 900.0, "B"), median("exec"));
    report.goal(&Goal::at_most("median connect line", 500.0, "B"), median("connect"));
    report.goal(&Goal::exactly("lost", 0.0), lost);
    Ok(())
}
