//! Pictures of the dashboards for docs/, as SVG: text that a browser draws and a diff shows.
//!
//! They are drawn from what a real Prometheus answered in the test of the dashboards. Grafana draws otherwise: these
//! pictures show which panels there are, where, and what is in them.

mod chart;
mod numbers;

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::build::Dashboard;
use crate::say;

/// Pixels of a column and of a row of Grafana's grid.
const CELL: (f64, f64) = (60.0, 32.0);
/// Above the panels.
const HEAD: f64 = 64.0;

/// Where something is drawn.
#[derive(Clone, Copy)]
struct Frame {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

pub(super) fn draw(root: &Path, answers: &Path, all: &[Dashboard]) -> Result<()> {
    let folder = root.join("docs/images");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for dashboard in all {
        let file = answers.join(dashboard.file());
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let answers = serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
        let picture = folder.join(format!("{}.svg", dashboard.uid));
        fs::write(&picture, drawn(&dashboard.json(), &answers)?)
            .with_context(|| format!("writing {}", picture.display()))?;
        say(picture.display());
    }
    Ok(())
}

fn drawn(dashboard: &Value, answers: &Value) -> Result<String> {
    let panels = dashboard.get("panels").and_then(Value::as_array).context("panels")?;
    let bottom = panels.iter().map(frame).map(|frame| frame.y + frame.height).fold(0.0, f64::max);
    let (width, height) = (24.0 * CELL.0 + 16.0, bottom + 16.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#d8d9da\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#111217\"/>\n"
    );
    words(&mut svg, (16.0, 28.0), text_of(dashboard, "title"), "font-size=\"20\"")?;
    let note = "Drawn by cargo xtask dashboards --picture from what Prometheus answered under a demonstration load; not a \
                screenshot of Grafana.";
    words(&mut svg, (16.0, 50.0), note, "fill=\"#8e8e8e\"")?;
    for panel in panels {
        let frame = frame(panel);
        if text_of(panel, "type") == "row" {
            words(&mut svg, (frame.x + 4.0, frame.y + 21.0), text_of(panel, "title"), "font-size=\"15\"")?;
            continue;
        }
        let answer = panel.get("id").and_then(|id| answers.get("panels")?.get(id.to_string())?.as_array());
        let answer = answer.with_context(|| format!("no answer for {}", text_of(panel, "title")))?;
        draw_panel(&mut svg, panel, frame, answer)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn draw_panel(svg: &mut String, panel: &Value, frame: Frame, answer: &[Value]) -> Result<()> {
    let Frame { x, y, width, height } = frame;
    writeln!(
        svg,
        "<svg x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\">\
         <rect width=\"{width}\" height=\"{height}\" rx=\"3\" fill=\"#181b1f\" stroke=\"#2c3235\"/>"
    )?;
    words(svg, (8.0, 18.0), text_of(panel, "title"), "font-weight=\"bold\"")?;
    let inner = Frame { x: 8.0, y: 28.0, width: width - 16.0, height: height - 36.0 };
    let is_lines = answer.iter().all(|answer| answer.get("lines").is_some());
    match text_of(panel, "type") {
        "stat" => stat(svg, panel, inner, answer)?,
        "table" => table(svg, panel, inner, answer)?,
        "logs" => logs(svg, inner, answer)?,
        _ if is_lines => counted(svg, inner, answer)?,
        _ => chart::draw(svg, panel, inner, answer)?,
    }
    svg.push_str("</svg>\n");
    Ok(())
}

fn stat(svg: &mut String, panel: &Value, frame: Frame, answer: &[Value]) -> Result<()> {
    let value = series(answer).next().and_then(|(_, series)| numbers::last(series));
    let text =
        value.map_or_else(|| "no data".to_owned(), |value| numbers::with_unit(value, numbers::unit(panel)));
    let color = numbers::color(panel, value.unwrap_or(0.0));
    let style = format!("font-size=\"26\" text-anchor=\"middle\" fill=\"{color}\"");
    words(svg, (frame.x + frame.width / 2.0, frame.y + frame.height / 2.0 + 10.0), &text, &style)
}

/// Rows are label sets, which every query fills in.
fn table(svg: &mut String, panel: &Value, frame: Frame, answer: &[Value]) -> Result<()> {
    let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    for (number, answer) in answer.iter().enumerate() {
        for (_, series) in series(std::slice::from_ref(answer)) {
            let labels = labels(series);
            let known = rows.iter().position(|(known, _)| *known == labels);
            let row = known.unwrap_or_else(|| {
                rows.push((labels, Vec::new()));
                rows.len() - 1
            });
            if let Some((_, cells)) = rows.get_mut(row) {
                cells.resize(number, None);
                cells.push(numbers::last(series));
            }
        }
    }
    let by_first = |row: &(String, Vec<Option<f64>>)| row.1.first().copied().flatten().unwrap_or(0.0);
    rows.sort_by(|one, other| by_first(other).total_cmp(&by_first(one)));
    let columns = numbers::columns(panel);
    let names = if columns.len() > 2 { 180.0 } else { frame.width - 110.0 * numbers::float(columns.len()) };
    let step = (frame.width - names) / numbers::float(columns.len().max(1));
    let end = |number: usize| frame.x + names + step * numbers::float(number + 1);
    for (number, (title, _)) in columns.iter().enumerate() {
        words(svg, (end(number), frame.y + 14.0), title, "text-anchor=\"end\" fill=\"#6e9fff\"")?;
    }
    for (line, (labels, cells)) in (0..).zip(&rows) {
        let y = frame.y + 36.0 + 22.0 * f64::from(line);
        if y > frame.y + frame.height {
            break;
        }
        words(svg, (frame.x, y), labels, "")?;
        for (number, (cell, (_, unit))) in cells.iter().zip(&columns).enumerate() {
            let text = cell.map_or_else(String::new, |cell| numbers::with_unit(cell, unit));
            words(svg, (end(number), y), &text, "text-anchor=\"end\"")?;
        }
    }
    Ok(())
}

fn logs(svg: &mut String, frame: Frame, answer: &[Value]) -> Result<()> {
    let lines = answer.iter().filter_map(|answer| answer.get("lines")?.as_array()).flatten();
    for (number, line) in (0..).zip(lines.filter_map(Value::as_str)) {
        let y = frame.y + 14.0 + 18.0 * f64::from(number);
        if y > frame.y + frame.height {
            break;
        }
        let line: String = line.chars().take(170).collect();
        words(svg, (frame.x, y), &line, "font-family=\"monospace\" font-size=\"11\"")?;
    }
    Ok(())
}

/// What was counted of log lines: bars, since there is no Loki that gives them over time.
fn counted(svg: &mut String, frame: Frame, answer: &[Value]) -> Result<()> {
    let mut counts: Vec<(&str, f64)> = Vec::new();
    let lines = answer.iter().filter_map(|answer| answer.get("lines")?.as_array()).flatten();
    for label in lines.filter_map(Value::as_str) {
        match counts.iter_mut().find(|(known, _)| *known == label) {
            Some((_, count)) => *count += 1.0,
            None => counts.push((label, 1.0)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).fold(1.0, f64::max);
    for (number, (label, count)) in (0..).zip(&counts) {
        let (y, width) = (frame.y + 8.0 + 28.0 * f64::from(number), (frame.width - 220.0) * count / most);
        words(svg, (frame.x, y + 14.0), label, "")?;
        writeln!(svg, "<rect x=\"160\" y=\"{y:.0}\" width=\"{width:.0}\" height=\"18\" fill=\"#73bf69\"/>")?;
        words(svg, (168.0 + width, y + 14.0), &format!("{count}"), "")?;
    }
    ensure!(!counts.is_empty(), "nothing was counted");
    Ok(())
}

/// All series of some answers, with the legend of their query.
fn series(answer: &[Value]) -> impl Iterator<Item = (&str, &Value)> {
    answer.iter().flat_map(|answer| {
        let legend = text_of(answer, "legend");
        let series = answer.get("series").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        series.iter().map(move |series| (legend, series))
    })
}

/// What tells a row of a table from another one.
fn labels(series: &Value) -> String {
    let metric = series.get("metric").and_then(Value::as_object);
    let values = metric.into_iter().flatten().filter_map(|(_, value)| value.as_str());
    values.collect::<Vec<_>>().join("  ")
}

/// The place of a panel.
fn frame(panel: &Value) -> Frame {
    let number = |key: &str| {
        panel.get("gridPos").and_then(|place| place.get(key)).and_then(Value::as_f64).unwrap_or(0.0)
    };
    Frame {
        x: 8.0 + number("x") * CELL.0 + 3.0,
        y: HEAD + number("y") * CELL.1 + 3.0,
        width: number("w") * CELL.0 - 6.0,
        height: number("h") * CELL.1 - 6.0,
    }
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn words(svg: &mut String, (x, y): (f64, f64), text: &str, style: &str) -> Result<()> {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    writeln!(svg, "<text x=\"{x:.0}\" y=\"{y:.0}\" {style}>{text}</text>").context("writing to a string")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::drawn;
    use crate::dashboards::all;

    #[test]
    fn a_panel_without_an_answer_is_an_error_and_one_with_numbers_is_drawn() {
        let dashboard = all()[0].json();
        assert!(drawn(&dashboard, &json!({"panels": {}})).is_err());
        let series = json!({"metric": {"node": "<n>"}, "value": [1, "7"], "values": [[1, "7"], [3, "9"]]});
        let answer = json!([{"legend": "{{node}}", "series": [series], "lines": ["a line"]}]);
        let panels = dashboard["panels"].as_array().unwrap();
        let answers: serde_json::Map<_, _> =
            panels.iter().map(|panel| (panel["id"].to_string(), answer.clone())).collect();
        let svg = drawn(&dashboard, &json!({"panels": answers})).unwrap();
        assert!(svg.contains("&lt;n&gt;") && svg.contains("a line"), "{svg}");
    }
}
