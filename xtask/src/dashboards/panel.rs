//! A panel: what it asks, how it is drawn, where it leads.

use serde_json::{Map, Value, json};

use super::links::{self, Goes, Link};

/// What Grafana draws.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One number.
    Stat,
    /// Lines over time.
    Series,
    /// Areas over time that add up.
    Stacked,
    /// Rows of what there is now.
    Table,
    /// Log lines.
    Logs,
}

/// A color, and from which value on.
pub(super) type Step = (f64, &'static str);

/// Nothing of this is good.
pub(super) const NONE_IS_GOOD: &[Step] = &[(1e-9, "red")];
/// Less than one is bad.
pub(super) const ONE_IS_GOOD: &[Step] = &[(0.0, "red"), (1.0, "green")];

/// One panel.
pub(super) struct Panel {
    pub(super) kind: Kind,
    pub(super) title: &'static str,
    description: &'static str,
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) targets: Vec<Target>,
    unit: &'static str,
    /// Green below the first one.
    thresholds: &'static [Step],
    maximum: Option<f64>,
    /// Units by the letter of the query, in a table.
    columns: Vec<Column>,
    links: Vec<Link>,
    no_value: Option<&'static str>,
}

/// A query: of Prometheus, or of Loki.
pub(super) struct Target {
    pub(super) source: &'static str,
    pub(super) query: String,
    /// With labels as `{{label}}`.
    pub(super) legend: &'static str,
}

/// What a query of a table is called there, and its unit.
struct Column {
    title: &'static str,
    unit: &'static str,
    thresholds: &'static [Step],
}

fn panel(kind: Kind, title: &'static str, description: &'static str, (width, height): (u64, u64)) -> Panel {
    Panel {
        kind,
        title,
        description,
        width,
        height,
        targets: Vec::new(),
        unit: "short",
        thresholds: &[],
        maximum: None,
        columns: Vec::new(),
        links: Vec::new(),
        no_value: None,
    }
}

/// A number of now.
pub(super) fn stat(title: &'static str, description: &'static str) -> Panel {
    panel(Kind::Stat, title, description, (4, 4))
}

/// Lines over time.
pub(super) fn series(title: &'static str, description: &'static str) -> Panel {
    panel(Kind::Series, title, description, (12, 8))
}

/// Parts of a sum over time.
pub(super) fn stacked(title: &'static str, description: &'static str) -> Panel {
    panel(Kind::Stacked, title, description, (12, 8))
}

/// Rows: each query is a column, by `column`.
pub(super) fn table(title: &'static str, description: &'static str) -> Panel {
    panel(Kind::Table, title, description, (12, 8))
}

/// The lines that a query of Loki finds.
pub(super) fn logs(title: &'static str, description: &'static str, query: &str) -> Panel {
    panel(Kind::Logs, title, description, (24, 9)).asking("loki", query, "")
}

impl Panel {
    pub(super) fn sized(mut self, width: u64, height: u64) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    fn asking(mut self, source: &'static str, query: &str, legend: &'static str) -> Self {
        self.targets.push(Target { source, query: chosen(query), legend });
        self
    }

    /// A query of Prometheus.
    pub(super) fn query(self, query: &str, legend: &'static str) -> Self {
        self.asking("prometheus", query, legend)
    }

    /// A query of Loki that gives numbers.
    pub(super) fn count(self, query: &str, legend: &'static str) -> Self {
        self.asking("loki", query, legend)
    }

    /// A query that is a column of a table.
    pub(super) fn column(
        mut self,
        title: &'static str,
        unit: &'static str,
        thresholds: &'static [Step],
        query: &str,
    ) -> Self {
        self.columns.push(Column { title, unit, thresholds });
        self.asking("prometheus", query, "")
    }

    /// Of Grafana's units, such as `s`, `bytes`, `percentunit`.
    pub(super) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(super) fn thresholds(mut self, thresholds: &'static [Step]) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// The end of the axis, where there is one.
    pub(super) fn up_to(mut self, maximum: f64) -> Self {
        self.maximum = Some(maximum);
        self
    }

    pub(super) fn link(mut self, link: Link) -> Self {
        self.links.push(link);
        self
    }

    /// What is said instead of a number where there is none.
    pub(super) fn without(mut self, text: &'static str) -> Self {
        self.no_value = Some(text);
        self
    }

    #[expect(clippy::indexing_slicing, reason = "a member of a JSON object is made by naming it")]
    pub(super) fn json(&self, x: u64, y: u64) -> Value {
        let source = self.targets.first().map_or("prometheus", |target| target.source);
        let mut json = json!({
            "type": match self.kind {
                Kind::Stat => "stat",
                Kind::Series | Kind::Stacked => "timeseries",
                Kind::Table => "table",
                Kind::Logs => "logs",
            },
            "title": self.title,
            "description": self.description,
            "datasource": { "type": source, "uid": format!("${{{source}}}") },
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height },
            "targets": self.targets(),
            "options": self.options(),
        });
        if self.kind != Kind::Logs {
            json["fieldConfig"] = self.fields();
        }
        if self.kind == Kind::Logs {
            json["links"] = self
                .links
                .iter()
                .map(|Link { title, url }| links::menu(title, url, "external link", Goes::Beside))
                .collect();
        }
        if self.kind == Kind::Table {
            json["transformations"] = self.transformations();
        }
        json
    }

    fn targets(&self) -> Vec<Value> {
        let targets = (b'A'..).map(char::from).zip(&self.targets);
        targets
            .map(|(letter, Target { source, query, legend })| {
                let is_now = matches!(self.kind, Kind::Stat | Kind::Table);
                let mut target = Map::new();
                target.insert("refId".into(), json!(letter.to_string()));
                target
                    .insert("datasource".into(), json!({ "type": source, "uid": format!("${{{source}}}") }));
                target.insert("expr".into(), json!(query));
                if !legend.is_empty() {
                    target.insert("legendFormat".into(), json!(legend));
                }
                if *source == "loki" {
                    target.insert("queryType".into(), json!(if is_now { "instant" } else { "range" }));
                } else {
                    target.insert("instant".into(), json!(is_now));
                    target.insert("range".into(), json!(!is_now));
                }
                if self.kind == Kind::Table {
                    target.insert("format".into(), json!("table"));
                }
                Value::Object(target)
            })
            .collect()
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Stat => json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "colorMode": if self.thresholds.is_empty() { "none" } else { "background" },
                "graphMode": "none",
                "justifyMode": "auto",
                "orientation": "auto",
                "textMode": "auto",
                "wideLayout": true,
                "showPercentChange": false,
                "percentChangeColorMode": "standard",
            }),
            Kind::Series | Kind::Stacked => json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Table => json!({ "showHeader": true, "cellHeight": "sm" }),
            Kind::Logs => json!({
                "showTime": true,
                "showLabels": false,
                "showCommonLabels": false,
                "wrapLogMessage": true,
                "prettifyLogMessage": false,
                "enableLogDetails": true,
                "dedupStrategy": "none",
                "sortOrder": "Descending",
            }),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a member of a JSON object is made by naming it")]
    fn fields(&self) -> Value {
        let mut defaults = json!({
            "unit": self.unit,
            "color": { "mode": if self.kind == Kind::Stat { "thresholds" } else { "palette-classic" } },
            "thresholds": steps(self.thresholds),
            "links": if self.kind == Kind::Table { Vec::new() } else { self.links() },
        });
        if matches!(self.kind, Kind::Series | Kind::Stacked) {
            defaults["min"] = json!(0);
            let (fill, mode) = if self.kind == Kind::Stacked { (30, "normal") } else { (8, "none") };
            defaults["custom"] = json!({
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": fill,
                "showPoints": "never",
                "spanNulls": false,
                "stacking": { "mode": mode, "group": "A" },
                "thresholdsStyle": { "mode": if self.thresholds.is_empty() { "off" } else { "line" } },
            });
        }
        if let Some(maximum) = self.maximum {
            defaults["max"] = json!(maximum);
        }
        if let Some(text) = self.no_value {
            defaults["noValue"] = json!(text);
        }
        json!({ "defaults": defaults, "overrides": self.overrides() })
    }

    /// Units and thresholds of a table's columns; the first label leads on.
    fn overrides(&self) -> Vec<Value> {
        let of = |name: &str, properties: Value| json!({ "matcher": { "id": "byName", "options": name }, "properties": properties });
        let columns = self.columns.iter().map(|Column { title, unit, thresholds }| {
            let mut properties = vec![json!({ "id": "unit", "value": unit })];
            if !thresholds.is_empty() {
                properties.push(json!({ "id": "thresholds", "value": steps(thresholds) }));
                properties.push(json!({ "id": "color", "value": { "mode": "thresholds" } }));
                properties.push(json!({ "id": "custom.cellOptions", "value": { "type": "color-text" } }));
            }
            of(title, json!(properties))
        });
        let links = self.links();
        let leads =
            ["node", "workload"].into_iter().filter(|_| self.kind == Kind::Table && !links.is_empty());
        columns.chain(leads.map(|label| of(label, json!([{ "id": "links", "value": links }])))).collect()
    }

    fn links(&self) -> Vec<Value> {
        let json = |Link { title, url }: &Link| json!({ "title": title, "url": url, "targetBlank": false });
        self.links.iter().map(json).collect()
    }

    /// Queries of a table as columns beside their labels.
    fn transformations(&self) -> Value {
        let names: Map<String, Value> = (b'A'..)
            .map(char::from)
            .zip(&self.columns)
            .map(|(letter, column)| {
                // Grafana calls the only query's column otherwise.
                let value =
                    if self.columns.len() == 1 { "Value".to_owned() } else { format!("Value #{letter}") };
                (value, json!(column.title))
            })
            .collect();
        let sorted = self.columns.first().map(|column| column.title);
        json!([
            { "id": "merge", "options": {} },
            { "id": "organize", "options": { "excludeByName": { "Time": true }, "indexByName": {}, "renameByName": names } },
            { "id": "sortBy", "options": { "fields": {}, "sort": [{ "field": sorted, "desc": true }] } },
        ])
    }
}

/// Writes out what a query is restricted to: `@w` the workload that is chosen at the top, `@` the node. Prometheus and Loki
/// call these labels alike.
fn chosen(query: &str) -> String {
    const NODE: &str = r#"job="tellwire", cluster=~"$cluster", node=~"$node""#;
    const WORKLOAD: &str = r#", namespace=~"$namespace", workload=~"$workload", container=~"$container""#;
    query.replace("{@w", &format!("{{{NODE}{WORKLOAD}")).replace("{@", &format!("{{{NODE}"))
}

fn steps(thresholds: &[Step]) -> Value {
    let mut steps = vec![json!({ "value": null, "color": "green" })];
    steps.extend(thresholds.iter().map(|(value, color)| json!({ "value": value, "color": color })));
    json!({ "mode": "absolute", "steps": steps })
}
