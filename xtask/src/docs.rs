//! `cargo xtask docs`: the pages of docs/ that are generated, so that they say what the code does.
//!
//! A page is a template (`docs/*.md` beside this file) and what the built agent prints. `--check` writes nothing
//! and names the pages that are out of date.

mod fields;
mod metrics;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use xshell::Shell;

use crate::{
    build::{self, Arch, Linking, Profile},
    complain,
    run::is_root,
    say, setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a page is out of date.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { check: only_check } = *options;
    let sh = setup::ready()?;
    if only_check { check(&sh) } else { write(&sh) }
}

/// Fails with the names of the pages that are not what they would be.
pub(crate) fn check(sh: &Shell) -> Result<()> {
    let root = setup::root()?;
    let is_outdated =
        |page: &Page| fs::read_to_string(root.join(page.path)).ok().as_ref() != Some(&page.text);
    let outdated: Vec<&str> =
        pages(sh)?.iter().filter(|page| is_outdated(page)).map(|page| page.path).collect();
    ensure!(outdated.is_empty(), "out of date: {}: run `cargo xtask docs`", outdated.join(", "));
    say("documents: up to date");
    Ok(())
}

fn write(sh: &Shell) -> Result<()> {
    let root = setup::root()?;
    for Page { path, text } in pages(sh)? {
        fs::write(root.join(path), text).with_context(|| format!("writing {path}"))?;
        say(path);
    }
    Ok(())
}

/// A generated file, by its path from the root of the workspace.
struct Page {
    path: &'static str,
    text: String,
}

fn pages(sh: &Shell) -> Result<Vec<Page>> {
    let agent = Agent(build::agent(sh, Profile::Release, Linking::Static(Arch::HOST))?);
    let schema = agent.says(&["events", "--json-schema"])?;
    let actions = fields::actions(&agent.says(&["events"])?)?;
    let mut help = String::new();
    agent.help(&mut Vec::new(), &mut help)?;
    let mut pages = vec![
        Page {
            path: "docs/events.md",
            text: filled(
                include_str!("docs/events.md"),
                &[("actions", &actions), ("fields", &fields::table(&schema)?)],
            )?,
        },
        Page {
            path: "docs/configuration.md",
            text: filled(
                include_str!("docs/configuration.md"),
                &[("default", &agent.says(&["config", "default"])?)],
            )?,
        },
        Page { path: "docs/cli.md", text: filled(include_str!("docs/cli.md"), &[("help", &help)])? },
        Page { path: "docs/events.schema.json", text: schema },
        Page { path: "docs/configuration.schema.json", text: agent.says(&["config", "schema"])? },
    ];
    if is_root() {
        let exposition = metrics::scrape(&agent.0)?;
        let tables = metrics::Tables::new(&exposition)?;
        pages.push(Page {
            path: "docs/metrics.md",
            text: filled(
                include_str!("docs/metrics.md"),
                &[("metrics", &tables.metrics), ("labels", &tables.labels)],
            )?,
        });
    } else {
        complain("docs/metrics.md is skipped: it lists what a running agent exports, and that takes root");
    }
    Ok(pages)
}

/// A template with each `{{name}}` replaced by its text. A place without a text, or a text without a place, is an error.
fn filled(template: &str, parts: &[(&str, &str)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, part) in parts {
        let place = format!("{{{{{name}}}}}");
        ensure!(text.contains(&place), "a template has no {place}");
        text = text.replace(&place, part.trim_end());
    }
    ensure!(!text.contains("{{"), "a template has a place that nothing fills");
    Ok(text)
}

/// The built binary.
struct Agent(PathBuf);

impl Agent {
    /// What it prints, without white space at the ends of lines.
    fn says(&self, arguments: &[&str]) -> Result<String> {
        let Self(path) = self;
        let output =
            command(path).args(arguments).output().with_context(|| format!("starting {}", path.display()))?;
        ensure!(output.status.success(), "tellwire {}: {}", arguments.join(" "), output.status);
        let text = String::from_utf8(output.stdout).context("the agent prints UTF-8")?;
        Ok(text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect())
    }

    /// The manual of a command and of those below it, each under its heading.
    fn help(&self, path: &mut Vec<String>, to: &mut String) -> Result<()> {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        let heading = [&["tellwire"], arguments.as_slice()].concat().join(" ");
        arguments.push("--help");
        let text = self.says(&arguments)?;
        to.extend(["## ", &heading, "\n\n```text\n", &text, "```\n\n"]);
        for name in subcommands(&text) {
            path.push(name.to_owned());
            self.help(path, to)?;
            path.pop();
        }
        Ok(())
    }
}

/// The first words of the lines below `Commands:`.
fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next())
}

/// The agent, without variables of this shell that would change what it says.
fn command(agent: &Path) -> Command {
    let mut command = Command::new(agent);
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TELLWIRE_")) {
        command.env_remove(name);
    }
    command
}

/// A table as Markdown has it, row by row.
struct Table(String);

impl Table {
    fn new<const N: usize>(titles: [&str; N]) -> Self {
        let mut table = Self(String::new());
        table.row(titles);
        table.row(["---"; N]);
        table
    }

    /// A cell is one line, in which a bar ends nothing.
    fn row<const N: usize>(&mut self, cells: [&str; N]) {
        for cell in cells {
            self.0.extend(["| ", &cell.replace('\n', " ").replace('|', "\\|"), " "]);
        }
        self.0.push_str("|\n");
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, filled, subcommands};

    #[test]
    fn every_place_has_its_text_and_every_text_its_place() {
        assert_eq!(filled("a {{b}} c\n", &[("b", "x\n")]).unwrap(), "a x c\n");
        assert!(filled("a\n", &[("b", "x")]).is_err());
        assert!(filled("a {{b}} {{c}}\n", &[("b", "x")]).is_err());
    }

    #[test]
    fn the_commands_of_a_help_text_are_found() {
        let help = "About\n\nCommands:\n  run    Watch\n  check  Say\n\nOptions:\n  -h, --help\n";
        assert_eq!(subcommands(help).collect::<Vec<_>>(), ["run", "check"]);
        assert_eq!(subcommands("Options:\n").count(), 0);
    }

    #[test]
    fn a_cell_is_one_line_without_bars() {
        let mut table = Table::new(["A", "B"]);
        table.row(["a\nb", "c | d"]);
        assert_eq!(table.0, "| A | B |\n| --- | --- |\n| a b | c \\| d |\n");
    }
}
