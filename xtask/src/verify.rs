//! `cargo xtask verify`: what each program costs the verifier, held against a committed table.
//!
//! A program that comes to need many more instructions is near to being refused on some kernel, so a jump fails. Only
//! kernels that have a column are compared: those of the matrix, booted in QEMU. Before 5.16 the kernel does not tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::{say, setup, summary::Summary, vm};

/// The table, from the root of the workspace.
const TABLE: &str = "xtask/src/verify.tsv";

/// By how many per cent a program may grow unseen.
const GROWTH: u64 = 10;

#[derive(Args)]
pub(crate) struct Options {
    /// Releases of Debian's cloud kernels, with commas between; `all` for the matrix.
    #[arg(long, default_value = "all")]
    kernel: String,
    /// The machine type: `x86_64`, `aarch64`, or `all`.
    #[arg(long, default_value = "all")]
    arch: String,
    /// Write what was found into the table.
    #[arg(long)]
    bless: bool,
}

/// Instructions by kernel (`6.1 x86_64`), then by program.
type Costs = BTreeMap<String, BTreeMap<String, u64>>;

pub(crate) fn run(options: &Options) -> Result<()> {
    let sh = setup::ready()?;
    let mut found = Costs::new();
    for (release, arch, check) in vm::checks(&sh, &options.kernel, &options.arch)? {
        let costs = costs(&check);
        let kernel = format!("{release} {}", arch.machine());
        if costs.is_empty() {
            say(format_args!("{kernel}: the kernel does not tell"));
        } else {
            found.insert(kernel, costs);
        }
    }
    if options.bless { bless(found) } else { compare(&found).map(|_| ()) }
}

/// Compares what the guests of `cargo xtask vm` said, without booting them again.
pub(crate) fn compare_checks(checks: &[(String, &Value)]) -> Result<Summary> {
    compare(&checks.iter().map(|(kernel, check)| (kernel.clone(), costs(check))).collect())
}

fn costs(check: &Value) -> BTreeMap<String, u64> {
    let programs = check.get("programs").and_then(Value::as_object);
    programs.into_iter().flatten().filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()
}

/// Fails with every program that grew too much, or that the table does not have.
fn compare(found: &Costs) -> Result<Summary> {
    let table = parse(&fs::read_to_string(setup::root()?.join(TABLE)).context("reading the table")?)?;
    let mut faults = Vec::new();
    for (kernel, programs) in found {
        let Some(known) = table.get(kernel) else { continue };
        for (program, cost) in programs {
            match known.get(program) {
                Some(before) if *cost * 100 <= *before * (100 + GROWTH) => {}
                Some(before) => {
                    faults.push(format!("{program} on {kernel}: {before} instructions, now {cost}"));
                }
                None => {
                    faults.push(format!("{program} on {kernel}: {cost} instructions, and none in the table"));
                }
            }
        }
        let all: u64 = programs.values().sum();
        say(format_args!("{kernel}: {} programs, {all} instructions", programs.len()));
    }
    ensure!(
        faults.is_empty(),
        "the verifier's work has grown (`cargo xtask verify --bless` if it must):\n{}",
        faults.join("\n")
    );
    Ok(Summary::of_one(true))
}

/// Columns of kernels that were not asked for stay.
fn bless(found: Costs) -> Result<()> {
    let path = setup::root()?.join(TABLE);
    let mut table = if path.is_file() { parse(&fs::read_to_string(&path)?)? } else { Costs::new() };
    table.extend(found);
    fs::write(&path, render(&table)).with_context(|| format!("writing {}", path.display()))?;
    say(path.display());
    Ok(())
}

/// A row for each program, a column for each kernel; `-` where the program is not loaded.
fn render(table: &Costs) -> String {
    let programs: BTreeSet<&String> = table.values().flat_map(BTreeMap::keys).collect();
    let mut text = String::from("program");
    for kernel in table.keys() {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "\t{kernel}");
    }
    for program in programs {
        let _infallible = write!(text, "\n{program}");
        for costs in table.values() {
            let cost = costs.get(program).map_or_else(|| "-".into(), u64::to_string);
            let _infallible = write!(text, "\t{cost}");
        }
    }
    text + "\n"
}

fn parse(text: &str) -> Result<Costs> {
    let mut lines = text.lines();
    let kernels: Vec<&str> = lines.next().context("the table is empty")?.split('\t').skip(1).collect();
    let mut table: Costs = kernels.iter().map(|kernel| ((*kernel).to_owned(), BTreeMap::new())).collect();
    for line in lines {
        let mut cells = line.split('\t');
        let program = cells.next().unwrap_or_default();
        for (kernel, cell) in kernels.iter().zip(cells) {
            match (cell, table.get_mut(*kernel)) {
                ("-", _) => {}
                (cell, Some(costs)) => {
                    costs.insert(program.into(), cell.parse().with_context(|| format!("{program}: {cell}"))?);
                }
                (_, None) => bail!("{kernel} has no column"),
            }
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::{Costs, compare, parse, render};

    fn table() -> Costs {
        parse("program\t6.1 x86_64\t7 x86_64\na\t100\t110\nb\t-\t5\n").unwrap()
    }

    #[test]
    fn a_table_comes_back_as_it_went() {
        let table = table();
        assert_eq!(table["6.1 x86_64"].len(), 1);
        assert_eq!(parse(&render(&table)).unwrap(), table);
    }

    #[test]
    fn a_kernel_without_a_column_is_not_compared_and_a_program_without_a_row_fails() {
        let unknown: Costs = [("4.19 none".to_owned(), [("a".to_owned(), 7)].into())].into();
        assert!(compare(&unknown).is_ok());
        let text = std::fs::read_to_string(crate::setup::root().unwrap().join(super::TABLE)).unwrap();
        let mut found = parse(&text).unwrap();
        assert!(compare(&found).is_ok());
        let programs = found.values_mut().next().unwrap();
        let cost = programs.values_mut().next().unwrap();
        *cost = *cost * 12 / 10 + 10;
        assert!(compare(&found).unwrap_err().to_string().contains("now"));
        found.values_mut().next().unwrap().insert("new".into(), 1);
        assert!(compare(&found).unwrap_err().to_string().contains("none in the table"));
    }
}
