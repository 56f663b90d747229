//! Whether the dashboards ask for what there is: metrics and fields by the documents that are generated from the agent, and
//! the rules that are deployed.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::build::Dashboard;

/// What Prometheus knows of each target by itself.
const OF_PROMETHEUS: [&str; 3] = ["up", "ALERTS", "scrape_samples_scraped"];

/// Names that begin so are metrics; other words of a query are functions and labels.
const PREFIXES: [&str; 3] = ["tellwire_", "process_", "scrape_"];

/// Fails with all that is wrong.
pub(super) fn check(root: &Path, all: &[Dashboard]) -> Result<()> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"));
    let (metrics, events, rules) =
        (read("docs/metrics.md")?, read("docs/events.md")?, read("deploy/prometheus/rules.yml")?);
    let wrong = wrong(&first_cells(&metrics), &first_cells(&events), &rules, all);
    ensure!(wrong.is_empty(), "dashboards: {}", wrong.join("; "));
    Ok(())
}

fn wrong(
    metrics: &BTreeSet<&str>,
    fields_and_actions: &BTreeSet<&str>,
    rules: &str,
    all: &[Dashboard],
) -> Vec<String> {
    let listed = |key: &str| -> Vec<String> {
        rules.lines().filter_map(|line| line.trim().strip_prefix(key)).map(str::to_owned).collect()
    };
    let (records, alerts) = (listed("- record: "), listed("- alert: "));
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for dashboard in all {
        let panels = dashboard.rows.iter().flat_map(|row| &row.panels);
        for (panel, target) in
            panels.flat_map(|panel| panel.targets.iter().map(move |target| (panel, target)))
        {
            let unknown: Vec<String> = if target.source == "loki" {
                fields(&target.query)
                    .into_iter()
                    .filter(|name| !fields_and_actions.contains(name) && !is_of_the_log(&target.query))
                    .map(str::to_owned)
                    .collect()
            } else {
                let asked: Vec<&str> = names(&target.query).collect();
                used.extend(asked.iter().map(|name| (*name).to_owned()));
                let is_known = |name: &&&str| {
                    metrics.contains(family(name))
                        || records.iter().any(|record| record == **name)
                        || OF_PROMETHEUS.contains(*name)
                };
                asked.iter().filter(|name| !is_known(name)).map(|name| (*name).to_owned()).collect()
            };
            wrong.extend(
                unknown
                    .iter()
                    .map(|name| format!("{} / {}: there is no {name}", dashboard.title, panel.title)),
            );
        }
    }
    let text: String = all.iter().map(|dashboard| dashboard.json().to_string()).collect();
    wrong.extend(
        records
            .iter()
            .filter(|record| !used.contains(*record))
            .map(|record| format!("no panel shows {record}")),
    );
    let unsaid = alerts.iter().filter(|alert| !text.contains(&format!("alert {alert}")));
    wrong.extend(unsaid.map(|alert| format!("no panel says that {alert} is about it")));
    wrong
}

/// Names in the first column of tables.
fn first_cells(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// The metrics of a query. Texts in quotes are values.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let outside = query.split('"').step_by(2);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    outside.flat_map(move |part| part.split(move |c| !is_name(c))).filter(|name| {
        PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || name.contains(':')
            || OF_PROMETHEUS.contains(name)
    })
}

/// A histogram's samples are its own.
fn family(name: &str) -> &str {
    ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The fields that a query of Loki takes out of lines.
fn fields(query: &str) -> Vec<&str> {
    let parts = query.split('|').map(str::trim).filter_map(|stage| stage.strip_prefix("json "));
    // Every second piece between quotes is a path.
    parts.flat_map(|stage| stage.split('"').skip(1).step_by(2)).collect()
}

/// Whether a query is about what agents say on stderr, which has fields of its own.
fn is_of_the_log(query: &str) -> bool {
    query.contains("action=\"\"")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{fields, first_cells, names, wrong};
    use crate::dashboards::all;

    #[test]
    fn metrics_and_fields_are_found_in_queries() {
        let query = r#"sum by (by) (increase(tellwire_a_total{action=~"tellwire_b|c:d"}[5m])) or a:tellwire_b:rate5m"#;
        assert_eq!(names(query).collect::<Vec<_>>(), ["tellwire_a_total", "a:tellwire_b:rate5m"]);
        let query = r#"{job="x"} |= "|" | json a="b.c", d="e" | a="root" | line_format "{{.a}}""#;
        assert_eq!(fields(query), ["b.c", "e"]);
        assert_eq!(first_cells("| `a.b` | x |\n| y | `z` |\n"), BTreeSet::from(["a.b"]));
    }

    #[test]
    fn what_there_is_not_is_found() {
        let wrong = wrong(&BTreeSet::new(), &BTreeSet::new(), "- record: a:b\n- alert: Nobody\n", &all());
        for part in
            ["there is no tellwire_execs_total", "there is no user.name", "no panel shows a:b", "Nobody"]
        {
            assert!(wrong.iter().any(|text| text.contains(part)), "{part}: {wrong:?}");
        }
    }
}
