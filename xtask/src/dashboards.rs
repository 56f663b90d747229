//! `cargo xtask dashboards`: Grafana's dashboards, from the tables in this folder.
//!
//! One file of the folder is one dashboard: what it asks, and what a panel says of it. `build` turns that into Grafana's
//! JSON, so that units, legends and links look alike everywhere. The JSON is written where people take it from, and again
//! into the chart, which can hold no file from outside. `--check` writes nothing and names what is out of date.

mod agent;
mod authentication;
mod build;
mod checks;
mod fleet;
mod links;
mod node;
mod panel;
mod picture;
mod variables;
mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::build::Dashboard;
use crate::{say, setup};

#[derive(Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a dashboard is out of date.
    #[arg(long)]
    check: bool,
    /// Draw docs/images from a folder of answers, which the test of the dashboards writes (`TELLWIRE_ANSWERS`).
    #[arg(long, value_name = "FOLDER", conflicts_with = "check")]
    picture: Option<PathBuf>,
}

/// Where the dashboards are, from the root: for people, and in the chart.
const FOLDERS: [&str; 2] = ["deploy/grafana", "deploy/helm/tellwire/dashboards"];

pub(crate) fn run(options: &Options) -> Result<()> {
    let root = setup::root()?;
    match options {
        Options { check: true, picture: _ } => check(&root),
        Options { check: false, picture: None } => write(&root),
        Options { check: false, picture: Some(answers) } => picture::draw(&root, answers, &all()),
    }
}

fn all() -> [Dashboard; 5] {
    [
        fleet::dashboard(),
        node::dashboard(),
        workload::dashboard(),
        authentication::dashboard(),
        agent::dashboard(),
    ]
}

fn write(root: &Path) -> Result<()> {
    for (path, text) in files(root) {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        say(path.display());
    }
    Ok(())
}

/// Fails with the names of the dashboards that are not what they would be, or with what they ask for and nobody has.
pub(crate) fn check(root: &Path) -> Result<()> {
    let files = files(root);
    let is_outdated =
        |(path, text): &&(PathBuf, String)| fs::read_to_string(path).ok().as_ref() != Some(text);
    let outdated: Vec<String> =
        files.iter().filter(is_outdated).map(|(path, _)| path.display().to_string()).collect();
    ensure!(outdated.is_empty(), "out of date: {}: run `cargo xtask dashboards`", outdated.join(", "));
    checks::check(root, &all())?;
    say("dashboards: up to date");
    Ok(())
}

fn files(root: &Path) -> Vec<(PathBuf, String)> {
    let texts = all().map(|dashboard| (dashboard.file(), format!("{:#}\n", dashboard.json())));
    let in_folder = |folder: &str| -> Vec<_> {
        texts.iter().map(|(name, text)| (root.join(folder).join(name), text.clone())).collect()
    };
    FOLDERS.into_iter().flat_map(in_folder).collect()
}

/// Each dashboard by the name of its file, in one line.
pub(crate) fn texts() -> Vec<(String, String)> {
    all().iter().map(|dashboard| (dashboard.file(), dashboard.json().to_string())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::all;

    #[test]
    fn every_panel_says_what_it_shows_and_stands_beside_the_others() {
        for dashboard in all() {
            let (json, mut taken) = (dashboard.json(), HashSet::new());
            let panels = json["panels"].as_array().unwrap();
            assert!(panels.len() > 8, "{}", json["title"]);
            for panel in panels {
                let is_row = panel["type"] == "row";
                assert!(is_row || panel["description"].as_str().unwrap().len() > 20, "{panel}");
                assert!(is_row || !panel["targets"].as_array().unwrap().is_empty(), "{panel}");
                let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
                assert!(x + w <= 24, "{panel}");
                let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
                assert!(cells.into_iter().all(|cell| taken.insert(cell)), "covers another one: {panel}");
            }
            let ids: HashSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
            assert_eq!(ids.len(), panels.len());
        }
    }

    #[test]
    fn every_link_leads_to_a_dashboard_that_there_is() {
        let all = all();
        let known: Vec<String> = all.iter().map(|dashboard| format!("/d/{}", dashboard.uid)).collect();
        let mut links = 0;
        for dashboard in &all {
            let text = dashboard.json().to_string();
            for (at, _) in text.match_indices("/d/") {
                let rest = &text[at..];
                let end = rest.find(|c: char| c != '/' && c != '-' && !c.is_alphanumeric()).unwrap();
                assert!(known.iter().any(|known| known == &rest[..end]), "{}", &rest[..end]);
                links += 1;
            }
        }
        assert!(links > 10, "{links}");
    }

    #[test]
    fn a_uid_is_one_that_grafana_takes_and_nobody_elses() {
        let uids: HashSet<_> = all().iter().map(|dashboard| dashboard.uid).collect();
        assert_eq!(uids.len(), 5);
        assert!(uids.iter().all(|uid| uid.len() <= 40));
    }
}
