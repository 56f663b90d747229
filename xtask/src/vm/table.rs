//! The table at the end: which kernel, how many tests, how long.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::machine::{Job, Outcome};

/// One row for each boot, and under it what failed and what the kernel cannot give.
pub(super) fn render(rows: &[(&Job<'_>, &Result<Outcome>)]) -> String {
    let mut text =
        String::from("\n| Kernel | Machine | Configuration | Passed | Failed | Minutes | Probes |\n");
    text += "| --- | --- | --- | ---: | ---: | ---: | --- |\n";
    let mut notes = String::new();
    for (job, outcome) in rows {
        let configuration = if job.configuration.name.is_empty() { "plain" } else { job.configuration.name };
        // Writing to a string cannot fail.
        let _infallible = write!(text, "| {} | {} | {configuration} ", job.kernel.name, job.arch.machine());
        match outcome {
            Ok(outcome) => {
                let (passed, failed) = outcome.summary.counts();
                let minutes = outcome.duration.as_secs_f64() / 60.0;
                let probes = outcome.check.as_ref().map_or_else(|| "unknown".into(), attached);
                let _infallible = writeln!(text, "| {passed} | {failed} | {minutes:.1} | {probes} |");
                for name in &outcome.failed {
                    let _infallible = writeln!(notes, "{}: failed: {name}", job.name());
                }
            }
            Err(error) => {
                let _infallible = writeln!(text, "| | broken | | |");
                let _infallible = writeln!(notes, "{}: {error:#}", job.name());
            }
        }
    }
    text + &notes
}

/// What `tellwire check` said that is not as it should be: a line for each probe and each degradation.
pub(super) fn findings(check: &Value) -> Vec<String> {
    let list = |of: &Value, key: &str| of.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or("nothing").to_owned();
    let mut lines = Vec::new();
    for probe in list(check, "probes") {
        for passed_over in list(&probe, "passed_over") {
            let (name, by) = (text(&probe, "probe"), text(&probe, "by"));
            let (way, why) = (text(&passed_over, "by"), text(&passed_over, "reason"));
            lines.push(format!("{name} by {by}, not by {way}: {why}"));
        }
    }
    lines.extend(
        list(check, "degradations").iter().map(|row| format!("not to be had: {}", text(row, "name"))),
    );
    lines
}

/// How many rows of the hook table are attached, and how many of these not by the best way.
fn attached(check: &Value) -> String {
    let probes = check.get("probes").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    let is_attached = |probe: &&Value| probe.get("attached") == Some(&Value::Bool(true));
    let passed_over = |probe: &&Value| {
        probe.get("passed_over").and_then(Value::as_array).is_some_and(|passed_over| !passed_over.is_empty())
    };
    let all = probes.len();
    let attached = probes.iter().filter(is_attached).count();
    let second = probes.iter().filter(is_attached).filter(passed_over).count();
    format!("{attached} of {all}, {second} by a second way")
}
