//! A package for Fedora, RHEL, SUSE and what comes of them.

use anyhow::{Context as _, Result};
use rpm::{BuildConfig, CompressionType, FileOptions, PackageBuilder, Timestamp};

use super::{DESCRIPTION, Installed, SUMMARY, UNIT, VERSION};
use crate::build::Arch;

pub(super) fn package(arch: Arch, content: &[Installed], time: u64) -> Result<Vec<u8>> {
    let time = u32::try_from(time).context("the time is out of range")?;
    // Of all kinds of compression every rpm reads gzip.
    let config = BuildConfig::v4().compression(CompressionType::Gzip).source_date(Timestamp(time));
    let mut builder = PackageBuilder::new("tellwire", VERSION, "MIT OR Apache-2.0", arch.machine(), SUMMARY);
    builder.using_config(config).release("1").description(DESCRIPTION);
    // What rpmbuild fills in by itself, and what would be another machine's name each time.
    builder.build_host("localhost").cookie("tellwire");
    for folder in ["/etc/tellwire", "/usr/share/doc/tellwire"] {
        let options = FileOptions::dir(folder).permissions(0o755).modified_at(Timestamp(time));
        builder.with_dir_entry(options.user("root").group("root"))?;
    }
    for Installed { entry, is_configuration } in content {
        let mode = u16::try_from(entry.mode).context("a file's mode")?;
        let mut options = FileOptions::new(format!("/{}", entry.path)).permissions(mode);
        options = options.modified_at(Timestamp(time)).user("root").group("root");
        if *is_configuration {
            options = options.config().noreplace();
        }
        builder.with_file_contents(entry.bytes.clone(), options)?;
    }
    builder
        .post_install_script(script(AFTER_INSTALL))
        .pre_uninstall_script(script(BEFORE_REMOVAL))
        .post_uninstall_script(script(AFTER_REMOVAL));
    let mut bytes = Vec::new();
    builder.build()?.write(&mut bytes)?;
    Ok(bytes)
}

fn script(body: &str) -> String {
    body.replace("{unit}", UNIT)
}

// `$1` is how many versions are installed afterwards. Not enabled by the package, as in the .deb.
const AFTER_INSTALL: &str = "[ ! -d /run/systemd/system ] || systemctl daemon-reload || :";
const BEFORE_REMOVAL: &str =
    "[ \"$1\" -ne 0 ] || [ ! -d /run/systemd/system ] || systemctl --no-reload disable --now {unit} || :";
const AFTER_REMOVAL: &str = "\
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    [ \"$1\" -eq 0 ] || systemctl try-restart {unit} || :
fi";
