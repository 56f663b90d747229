//! The dashboards against Grafana's own types (`@grafana/schema`), by the TypeScript compiler.
//!
//! Both come by npm into the cache, as the lock file beside this one pins them with their digests; nothing of them is run at
//! installation.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use crate::{archive::sha256, dashboards, say, setup, summary::Summary};

const PACKAGE: &str = include_str!("types/package.json");
const LOCK: &str = include_str!("types/package-lock.json");
const TYPES: &str = include_str!("types/check.ts");

/// What no type allows: a compiler that takes it would take everything.
const WRONG: [(&str, &str, &str); 3] = [
    ("an option that there is not", "\"showHeader\":", "\"showHead\":"),
    ("a value that there is not", "\"displayMode\":\"list\"", "\"displayMode\":\"lists\""),
    ("a place that is no number", "\"x\":0", "\"x\":\"0\""),
];

/// As a stage of the tests: each dashboard is one, and each thing that is to be refused.
pub(super) fn check(sh: &Shell) -> Result<Summary> {
    let folder = installed(sh)?;
    let all = dashboards::texts();
    let mut texts: Vec<(String, String, bool)> = Vec::new();
    for (name, text) in &all {
        texts.push((name.replace(['-', '.'], "_"), text.clone(), true));
    }
    for (what, right, wrong) in WRONG {
        let (_, text) = all.iter().find(|(_, text)| text.contains(right)).context("nothing to spoil")?;
        texts.push((what.replace(' ', "_"), text.replacen(right, wrong, 1), false));
    }
    let mut source = TYPES.to_owned();
    let mut lines = Vec::new();
    for (name, text, _) in &texts {
        // One line each, by which the compiler's complaints are told apart.
        writeln!(source, "export const {name}: Checked = {text};")?;
        lines.push(source.lines().count());
    }
    let file = folder.join(format!("dashboards.{}.ts", std::process::id()));
    fs::write(&file, source).with_context(|| format!("writing {}", file.display()))?;
    let said = compiled(sh, &folder, &file);
    fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    let said = said?;
    let mut summary = Summary::default();
    for ((name, _, is_right), line) in texts.iter().zip(lines) {
        let place = format!(".ts({line},");
        let complaints: Vec<&str> = said.lines().filter(|complaint| complaint.contains(&place)).collect();
        let is_ok = complaints.is_empty() == *is_right;
        say(format_args!("test grafana_types_{name} ... {}", if is_ok { "ok" } else { "FAILED" }));
        if !is_ok {
            say(complaints.first().unwrap_or(&"the compiler takes it"));
        }
        let (passed, failed) = (u8::from(is_ok), u8::from(!is_ok));
        summary.see(&format!(
            "test result: {}. {passed} passed; {failed} failed",
            if is_ok { "ok" } else { "FAILED" }
        ));
    }
    Ok(summary)
}

/// What the compiler says of the file; it must have looked at it.
fn compiled(sh: &Shell, folder: &Path, file: &Path) -> Result<String> {
    let _folder = sh.push_dir(folder);
    let options =
        ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"];
    let output = cmd!(sh, "node node_modules/typescript/bin/tsc {options...} {file}")
        .quiet()
        .ignore_status()
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // All that is wrong in a package, and not in a dashboard, is an error of the check itself.
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let elsewhere = said.lines().find(|line| line.contains("error TS") && !line.contains(name));
    if let Some(line) = elsewhere {
        bail!("tsc: {line}");
    }
    if !said.contains("error TS") {
        bail!(
            "tsc complains of nothing, not even of what is wrong: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(said)
}

/// The folder with the packages; others make another one.
fn installed(sh: &Shell) -> Result<PathBuf> {
    let sum = sha256(format!("{PACKAGE}{LOCK}").as_bytes());
    let folder = setup::cache_dir()?.join(format!("types-{}", sum.get(..12).unwrap_or_default()));
    let done = folder.join("done");
    if done.exists() {
        return Ok(folder);
    }
    say(format_args!("installing Grafana's types into {}", folder.display()));
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for (name, text) in [("package.json", PACKAGE), ("package-lock.json", LOCK)] {
        fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    let _folder = sh.push_dir(&folder);
    cmd!(sh, "npm ci --ignore-scripts --no-audit --no-fund --loglevel error")
        .quiet()
        .ignore_stdout()
        .run()
        .context("the packages in xtask/src/deployment/types/package-lock.json cannot be had")?;
    fs::write(&done, "").with_context(|| format!("writing {}", done.display()))?;
    Ok(folder)
}
