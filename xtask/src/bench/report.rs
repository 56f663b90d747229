//! What was measured, what it should be, and whether it is.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::say;

/// A figure that must be reached.
pub(super) struct Goal {
    name: String,
    bound: Bound,
    unit: &'static str,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
}

impl Goal {
    pub(super) fn at_most(name: &str, bound: f64, unit: &'static str) -> Self {
        Self { name: name.into(), bound: Bound::AtMost(bound), unit }
    }

    pub(super) fn at_least(name: &str, bound: f64) -> Self {
        Self { name: name.into(), bound: Bound::AtLeast(bound), unit: "" }
    }

    pub(super) fn exactly(name: &str, bound: f64) -> Self {
        Self { name: name.into(), bound: Bound::Exactly(bound), unit: "" }
    }

    fn is_met(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
            // Counts: whole numbers below 2^53.
            Bound::Exactly(bound) => (value - bound).abs() < 0.5,
        }
    }

    fn wish(&self) -> String {
        match self.bound {
            Bound::AtMost(bound) => format!("at most {bound}"),
            Bound::AtLeast(bound) => format!("at least {bound}"),
            Bound::Exactly(bound) => format!("{bound}"),
        }
    }
}

#[derive(Default)]
pub(super) struct Report {
    lines: Vec<String>,
    json: Vec<serde_json::Value>,
    missed: Vec<String>,
    section: String,
}

impl Report {
    pub(super) fn section(&mut self, name: &str) {
        self.section = name.into();
        self.lines.push(format!("\n{name}"));
    }

    /// A figure that is only stated.
    pub(super) fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.lines.push(format!("       {name:<52}{value:>12.2} {unit}"));
        self.json
            .push(serde_json::json!({ "section": self.section, "name": name, "value": value, "unit": unit }));
    }

    /// A figure that is held against its goal.
    pub(super) fn goal(&mut self, goal: &Goal, value: f64) {
        let met = goal.is_met(value);
        let mark = if met { "ok" } else { "MISSED" };
        let Goal { name, unit, .. } = goal;
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _infallible = write!(line, "{mark:<7}{name:<52}{value:>12.2} {unit} (goal: {})", goal.wish());
        if !met {
            self.missed.push(format!("{}: {name}", self.section));
        }
        self.lines.push(line);
        self.json.push(serde_json::json!({
            "section": self.section, "name": name, "value": value, "unit": unit, "goal": goal.wish(), "met": met,
        }));
    }

    pub(super) fn print(&self) {
        for line in &self.lines {
            say(line);
        }
    }

    pub(super) fn json(&self) -> String {
        format!("{:#}\n", serde_json::Value::Array(self.json.clone()))
    }

    pub(super) fn verdict(&self) -> Result<()> {
        if !self.missed.is_empty() {
            bail!("missed: {}", self.missed.join("; "));
        }
        Ok(())
    }
}
