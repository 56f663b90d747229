//! A dashboard as Grafana has it: rows, and panels in a grid of 24 columns.

use serde_json::{Value, json};

use super::{
    links,
    panel::Panel,
    variables::{self, Variable},
};

/// Of Grafana's model of dashboards (@grafana/schema 13.2).
const SCHEMA: u64 = 42;

/// The width of the grid.
const COLUMNS: u64 = 24;

/// One dashboard, as it is written down.
pub(super) struct Dashboard {
    /// For good: links and bookmarks lead to it.
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) variables: Vec<Variable>,
    pub(super) rows: Vec<Row>,
}

/// Panels that belong together, below a heading.
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Panel>,
}

/// A row, and its panels from the left to the right.
pub(super) fn row(title: &'static str, panels: impl IntoIterator<Item = Panel>) -> Row {
    Row { title, panels: panels.into_iter().collect() }
}

impl Dashboard {
    pub(super) fn file(&self) -> String {
        format!("{}.json", self.uid)
    }

    pub(super) fn json(&self) -> Value {
        let Self { uid, title, description, variables, rows } = self;
        json!({
            "uid": uid,
            "title": title,
            "description": description,
            "tags": ["tellwire"],
            "schemaVersion": SCHEMA,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "timezone": "browser",
            "links": links::others(),
            "templating": { "list": variables.iter().map(variables::json).collect::<Vec<_>>() },
            "annotations": { "list": [starts()] },
            "panels": panels(rows),
        })
    }
}

/// When an agent started: what comes before it was seen by another one, or by none.
fn starts() -> Value {
    json!({
        "name": "Agent started",
        "enable": true,
        "hide": false,
        "iconColor": "blue",
        "datasource": { "type": "prometheus", "uid": "${prometheus}" },
        "expr": "changes(process_start_time_seconds{job=\"tellwire\", cluster=~\"$cluster\", node=~\"$node\"}[$__interval]) > 0",
        "titleFormat": "tellwire started on {{node}}",
    })
}

/// All panels with their places. A panel that has no room in a line begins the next one.
fn panels(rows: &[Row]) -> Vec<Value> {
    let (mut all, mut y) = (Vec::new(), 0);
    for Row { title, panels } in rows {
        let place = json!({ "x": 0, "y": y, "w": COLUMNS, "h": 1 });
        all.push(
            json!({ "type": "row", "title": title, "collapsed": false, "gridPos": place, "panels": [] }),
        );
        y += 1;
        let (mut x, mut line) = (0, 0);
        for panel in panels {
            if x + panel.width > COLUMNS {
                (x, y, line) = (0, y + line, 0);
            }
            all.push(panel.json(x, y));
            x += panel.width;
            line = line.max(panel.height);
        }
        y += line;
    }
    for (id, panel) in (1..).zip(&mut all) {
        panel["id"] = json!(id);
    }
    all
}
