//! Lines and areas over time.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{Frame, numbers, series, words};

const COLORS: [&str; 8] =
    ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#96d98d"];
/// More are not told apart.
const MOST: usize = 10;

/// A series' name, and its values by time.
type Line = (String, Vec<(f64, f64)>);

pub(super) fn draw(svg: &mut String, panel: &Value, frame: Frame, answer: &[Value]) -> Result<()> {
    let mut lines: Vec<Line> =
        series(answer).map(|(legend, series)| (named(legend, series), numbers::over_time(series))).collect();
    // Those that matter, where there are many.
    let peak = |line: &Line| line.1.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    lines.sort_by(|one, other| peak(other).total_cmp(&peak(one)));
    lines.truncate(MOST);
    let mode = panel.pointer("/fieldConfig/defaults/custom/stacking/mode").and_then(Value::as_str);
    let is_stacked = mode == Some("normal");
    if is_stacked {
        stack(&mut lines);
    }
    let times = lines.iter().flat_map(|line| line.1.iter().map(|(time, _)| *time));
    let (first, last) =
        times.fold((f64::MAX, 0.0_f64), |(first, last), time| (first.min(time), last.max(time)));
    let most = lines.iter().map(peak).fold(0.0, f64::max);
    let most = if most > 0.0 { most * 1.1 } else { 1.0 };
    let plot =
        Frame { x: frame.x + 64.0, y: frame.y + 4.0, width: frame.width - 72.0, height: frame.height - 52.0 };
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        let y = plot.y + plot.height * (1.0 - f64::from(part) / 4.0);
        writeln!(svg, "<path d=\"M{:.0} {y:.0}h{:.0}\" stroke=\"#2c3235\"/>", plot.x, plot.width)?;
        let text = numbers::with_unit(value, numbers::unit(panel));
        words(svg, (plot.x - 6.0, y + 4.0), &text, "text-anchor=\"end\" font-size=\"10\" fill=\"#8e8e8e\"")?;
    }
    let span = if last > first { last - first } else { 1.0 };
    let words_of_time = format!("{span:.0} seconds");
    words(svg, (plot.x, plot.y + plot.height + 14.0), &words_of_time, "font-size=\"10\" fill=\"#8e8e8e\"")?;
    let mut at = plot.x;
    // The highest sum first, so that those below are drawn over it.
    for ((name, values), color) in lines.iter().rev().zip(COLORS.iter().cycle()) {
        let mut path = String::new();
        for (time, value) in values {
            let x = plot.x + plot.width * (time - first) / span;
            let y = plot.y + plot.height * (1.0 - value / most);
            write!(path, "{}{x:.0} {y:.1}", if path.is_empty() { "M" } else { "L" })?;
        }
        let area = if is_stacked {
            format!("fill=\"{color}\" fill-opacity=\"0.25\"")
        } else {
            "fill=\"none\"".to_owned()
        };
        let closed = match (is_stacked, values.first(), values.last()) {
            (true, Some((from, _)), Some((to, _))) => {
                let x = |time: &f64| plot.x + plot.width * (time - first) / span;
                let bottom = plot.y + plot.height;
                format!("{path}L{:.0} {bottom:.0}L{:.0} {bottom:.0}Z", x(to), x(from))
            }
            _ => path,
        };
        writeln!(svg, "<path d=\"{closed}\" {area} stroke=\"{color}\" stroke-width=\"1.5\"/>")?;
        let width = 6.5 * numbers::float(name.chars().count()) + 26.0;
        if at + width < plot.x + plot.width {
            let y = frame.y + frame.height - 8.0;
            writeln!(
                svg,
                "<rect x=\"{at:.0}\" y=\"{:.0}\" width=\"12\" height=\"4\" fill=\"{color}\"/>",
                y - 6.0
            )?;
            words(svg, (at + 16.0, y), name, "font-size=\"11\"")?;
        }
        at += width;
    }
    Ok(())
}

/// Adds each to those before it.
fn stack(lines: &mut [Line]) {
    let mut sums: Vec<(f64, f64)> = Vec::new();
    for (_, values) in &mut *lines {
        for (time, value) in values {
            match sums.iter_mut().find(|(known, _)| (*known - *time).abs() < 0.5) {
                Some((_, sum)) => {
                    *sum += *value;
                    *value = *sum;
                }
                None => sums.push((*time, *value)),
            }
        }
    }
    lines.reverse();
}

/// A legend with its labels, or all labels where there is none.
fn named(legend: &str, series: &Value) -> String {
    let mut name = legend.to_owned();
    for (label, value) in series.get("metric").and_then(Value::as_object).into_iter().flatten() {
        name = name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default());
    }
    name.trim().to_owned()
}
