//! Which files a package holds, and where they go.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{Installed, Manual, UNIT};
use crate::archive::{self, Entry};

/// Everything that is installed.
pub(super) fn content(root: &Path, manual: &Manual, binary: Vec<u8>, bill: String) -> Result<Vec<Installed>> {
    let mut content = vec![
        plain("usr/bin/tellwire", 0o755, binary),
        Installed {
            entry: Entry::new("etc/tellwire/tellwire.toml", 0o644, manual.configuration.clone()),
            is_configuration: true,
        },
        plain("usr/share/doc/tellwire/tellwire.cdx.json", 0o644, bill),
    ];
    for (from, to) in [
        (format!("deploy/systemd/{UNIT}"), format!("usr/lib/systemd/system/{UNIT}")),
        ("deploy/packages/copyright".into(), "usr/share/doc/tellwire/copyright".into()),
        ("LICENSE-MIT".into(), "usr/share/doc/tellwire/LICENSE-MIT".into()),
        ("LICENSE-APACHE".into(), "usr/share/doc/tellwire/LICENSE-APACHE".into()),
        ("deploy/prometheus/rules.yml".into(), "usr/share/doc/tellwire/examples/prometheus/rules.yml".into()),
        (
            "deploy/prometheus/scrape.yml".into(),
            "usr/share/doc/tellwire/examples/prometheus/scrape.yml".into(),
        ),
    ] {
        content.push(plain(&to, 0o644, read(&root.join(from))?));
    }
    content.push(plain(
        "usr/share/doc/tellwire/CHANGELOG.md.gz",
        0o644,
        archive::gzip(&read(&root.join("CHANGELOG.md"))?)?,
    ));
    for (from, to) in [
        ("tellwire.bash", "usr/share/bash-completion/completions/tellwire"),
        ("tellwire.fish", "usr/share/fish/vendor_completions.d/tellwire.fish"),
        // A folder of zsh's search path in every distribution; vendor-completions is Debian's own.
        ("_tellwire", "usr/share/zsh/site-functions/_tellwire"),
    ] {
        content.push(plain(to, 0o644, read(&manual.folder.join("completions").join(from))?));
    }
    let pages = manual.folder.join("man");
    for page in fs::read_dir(&pages).with_context(|| format!("reading {}", pages.display()))? {
        let page = page?;
        let name = page.file_name().to_string_lossy().into_owned();
        // That of the hidden command which wrote them.
        if !name.starts_with("tellwire-manual") {
            let to = format!("usr/share/man/man1/{name}.gz");
            content.push(plain(&to, 0o644, archive::gzip(&read(&page.path())?)?));
        }
    }
    content.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    Ok(content)
}

fn plain(path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Installed {
    Installed { entry: Entry::new(path, mode, bytes), is_configuration: false }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
