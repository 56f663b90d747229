//! Numbers, and how they are said.

use serde_json::Value;

/// For places in a picture, which are small.
pub(super) fn float(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn sample(sample: &Value) -> Option<(f64, f64)> {
    let value: f64 = sample.get(1)?.as_str()?.parse().ok()?;
    value.is_finite().then_some((sample.get(0)?.as_f64()?, value))
}

/// The latest value.
pub(super) fn last(series: &Value) -> Option<f64> {
    series.get("value").and_then(sample).map(|(_, value)| value)
}

pub(super) fn over_time(series: &Value) -> Vec<(f64, f64)> {
    series.get("values").and_then(Value::as_array).into_iter().flatten().filter_map(sample).collect()
}

pub(super) fn unit(panel: &Value) -> &str {
    panel.pointer("/fieldConfig/defaults/unit").and_then(Value::as_str).unwrap_or("short")
}

/// The columns of a table: title and unit.
pub(super) fn columns(panel: &Value) -> Vec<(&str, &str)> {
    let overrides = panel.pointer("/fieldConfig/overrides").and_then(Value::as_array);
    overrides
        .into_iter()
        .flatten()
        .filter_map(|one| {
            let first = one.pointer("/properties/0")?;
            (first.get("id")?.as_str()? == "unit").then_some(())?;
            Some((one.pointer("/matcher/options")?.as_str()?, first.get("value")?.as_str()?))
        })
        .collect()
}

/// The color of a value by the panel's thresholds.
pub(super) fn color(panel: &Value, value: f64) -> &'static str {
    let steps = panel.pointer("/fieldConfig/defaults/thresholds/steps").and_then(Value::as_array);
    let reached = steps
        .into_iter()
        .flatten()
        .rfind(|step| step.get("value").and_then(Value::as_f64).is_none_or(|threshold| value >= threshold));
    match reached.and_then(|step| step.get("color")?.as_str()) {
        Some("red") => "#f2495c",
        Some("orange") => "#ff780a",
        _ => "#73bf69",
    }
}

/// In one of Grafana's units.
pub(super) fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "percentunit" => format!("{} %", short(value * 100.0)),
        "s" if value < 0.001 => format!("{} µs", short(value * 1e6)),
        "s" if value < 1.0 => format!("{} ms", short(value * 1e3)),
        "s" => format!("{} s", short(value)),
        "bytes" | "Bps" => {
            let (value, prefix) = match value {
                large if large >= f64::from(1 << 20) => (large / f64::from(1 << 20), "Mi"),
                middle if middle >= 1024.0 => (middle / 1024.0, "Ki"),
                small => (small, ""),
            };
            format!("{} {prefix}B{}", short(value), if unit == "Bps" { "/s" } else { "" })
        }
        "eps" | "ops" => format!("{}/s", short(value)),
        _ => short(value),
    }
}

fn short(value: f64) -> String {
    let digits = if value >= 100.0 { 0 } else { 2 };
    let text = format!("{value:.digits$}");
    let is_fraction = text.contains('.');
    if is_fraction { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::with_unit;

    #[test]
    fn numbers_are_said_in_their_unit() {
        for (value, unit, text) in [
            (0.5, "percentunit", "50 %"),
            (0.000_25, "s", "250 µs"),
            (1536.0, "bytes", "1.5 KiB"),
            (1.234, "eps", "1.23/s"),
            (100.0, "short", "100"),
        ] {
            assert_eq!(with_unit(value, unit), text);
        }
    }
}
