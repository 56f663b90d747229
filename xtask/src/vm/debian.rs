//! Packages of other releases of Debian and of other machine types, through an apt of our own.
//!
//! Lists, archives and configuration stand in a folder of the cache, so that the machine's own apt never hears of it. The
//! mirrors are those that the machine itself uses for Debian, and apt checks the archive's signatures as always.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::{build::Arch, run, say};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One of the archives that Debian has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    Main,
    Security,
}

/// Releases that are served by an archive, such as `bullseye-security`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) archive: Archive,
}

/// An apt that knows one suite for one machine type.
pub(super) struct Apt<'a> {
    sh: &'a Shell,
    folder: PathBuf,
    arch: Arch,
    suite: Suite,
}

impl<'a> Apt<'a> {
    /// Reads the suite's lists anew, into a folder below `cache`.
    pub(super) fn of(sh: &'a Shell, cache: &Path, suite: Suite, arch: Arch) -> Result<Self> {
        ensure!(
            run::on_path("apt-get"),
            "packages of Debian are fetched by apt, and apt-get is missing: name an image, `--kernel /path/to/vmlinuz`"
        );
        ensure!(
            Path::new(KEYRING).is_file(),
            "{KEYRING} is missing: `apt-get install debian-archive-keyring`"
        );
        let sources = machine_sources()?;
        let mirror = mirror(&sources, suite.archive).with_context(|| {
            format!(
                "this machine's apt has no source for Debian's archive of {}: name an image, `--kernel /path/to/vmlinuz`",
                suite.name
            )
        })?;
        let folder = cache.join("apt").join(format!("{}-{}", suite.name, arch.go()));
        for part in ["lists/partial", "cache/archives/partial", "preferences.d", "sources.list.d"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("creating {}", part.display()))?;
        }
        let write = |name: &str, text: String| {
            fs::write(folder.join(name), text).with_context(|| format!("writing {name} of apt"))
        };
        write("status", String::new())?;
        let Suite { name, .. } = suite;
        write(
            "sources.list",
            format!("deb [arch={} signed-by={KEYRING}] {mirror} {name} main\n", arch.go()),
        )?;
        let apt = Self { sh, folder, arch, suite };
        say(format_args!("reading the package lists of {name} for {}", arch.go()));
        apt.run("apt-get", &["-qq", "update"])?;
        Ok(apt)
    }

    /// Names of packages that begin so, one a line.
    pub(super) fn names(&self, beginning: &str) -> Result<String> {
        self.run("apt-cache", &["pkgnames", beginning])
    }

    /// What apt knows of a package: its fields, one a line.
    pub(super) fn show(&self, package: &str) -> Result<String> {
        self.run("apt-cache", &["show", "--no-all-versions", package])
    }

    /// Downloads a package and unpacks it below `work`; nothing is installed.
    pub(super) fn unpack(&self, package: &str, work: &Path) -> Result<()> {
        let _folder = self.sh.push_dir(work);
        self.run("apt-get", &["-qq", "download", package])?;
        self.extract(work, work)
    }

    /// The same with all packages that these depend on: this apt knows of none that is there already.
    pub(super) fn unpack_with_dependencies(&self, packages: &[&str], work: &Path) -> Result<()> {
        let install = ["-qq", "-y", "--no-install-recommends", "--download-only", "install"];
        self.run("apt-get", &[&install, packages].concat())?;
        self.extract(&self.folder.join("cache/archives"), work)
    }

    /// Unpacks the packages in a folder, and removes them.
    fn extract(&self, folder: &Path, work: &Path) -> Result<()> {
        let _folder = self.sh.push_dir(work);
        for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let archive = entry?.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                cmd!(self.sh, "dpkg-deb --extract {archive} root").quiet().run().context("unpacking")?;
                fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
            }
        }
        Ok(())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let at = |part: &str| self.folder.join(part).display().to_string();
        let arch = self.arch.go();
        let settings = [
            format!("Dir::State={}", at("")),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            format!("Dir::Etc::sourceparts={}", at("sources.list.d")),
            format!("Dir::Etc::preferencesparts={}", at("preferences.d")),
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures={arch}"),
            // As root apt downloads as a user of its own, which may not enter the cache.
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            // A release that is archived is not signed anew.
            "Acquire::Check-Valid-Until=false".into(),
        ];
        let settings = settings.iter().flat_map(|setting| ["-o", setting.as_str()]);
        cmd!(self.sh, "{program} {settings...} {arguments...}")
            .quiet()
            .read()
            .with_context(|| format!("asking apt about {} for {arch}", self.suite.name))
    }
}

/// What stands in the machine's own lists of sources, whatever their format.
fn machine_sources() -> Result<String> {
    let mut text = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let parts = Path::new("/etc/apt/sources.list.d");
    if parts.is_dir() {
        for entry in fs::read_dir(parts).context("reading apt's sources")? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "list" || extension == "sources") {
                text += "\n\n";
                text += &fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            }
        }
    }
    Ok(text)
}

/// Where the machine gets Debian, or its security updates, from: by the path that Debian gives the two.
fn mirror(sources: &str, archive: Archive) -> Option<&str> {
    let path = match archive {
        Archive::Main => "/debian",
        Archive::Security => "/debian-security",
    };
    let lines = sources.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace);
    words.find(|word| word.contains("://") && word.trim_end_matches('/').ends_with(path))
}

#[cfg(test)]
mod tests {
    use super::{Archive, mirror};

    #[test]
    fn mirrors_are_found_in_both_formats() {
        let deb822 = "Types: deb\n# http://old.invalid/debian\nURIs: http://a.invalid/debian\nSuites: bookworm\n\n\
                      Types: deb\nURIs: http://a.invalid/debian-security/\nSuites: bookworm-security\n";
        assert_eq!(mirror(deb822, Archive::Main), Some("http://a.invalid/debian"));
        assert_eq!(mirror(deb822, Archive::Security), Some("http://a.invalid/debian-security/"));
        let one_line = "deb [arch=amd64] https://b.invalid/mirror/debian/ trixie main contrib\n";
        assert_eq!(mirror(one_line, Archive::Main), Some("https://b.invalid/mirror/debian/"));
        assert_eq!(mirror(one_line, Archive::Security), None);
    }

    #[test]
    fn another_distribution_has_no_mirror_of_debian() {
        assert_eq!(mirror("deb http://c.invalid/ubuntu noble main\n", Archive::Main), None);
    }
}
