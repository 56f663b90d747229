//! A package for Debian and what comes of it: `deb(5)`, an ar archive of two tars.

use anyhow::Result;

use super::{DESCRIPTION, Installed, SUMMARY, UNIT, VERSION};
use crate::{
    archive::{self, Entry, Folders},
    build::Arch,
};

pub(super) fn package(arch: Arch, content: &[Installed], time: u64) -> Result<Vec<u8>> {
    let files = content.iter().map(|Installed { entry: Entry { path, mode, bytes }, .. }| {
        Entry::new(path.clone(), *mode, bytes.clone())
    });
    let data = archive::tar(files.collect(), Folders::Dotted, time)?;
    let control = archive::tar(control(arch, content), Folders::Dotted, time)?;
    let mut archive = ar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", archive::gzip(&control)?),
        ("data.tar.gz", archive::gzip(&data)?),
    ] {
        let mut header = ar::Header::new(name.into(), bytes.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(time);
        archive.append(&header, bytes.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

fn control(arch: Arch, content: &[Installed]) -> Vec<Entry> {
    let bytes: usize = content.iter().map(|file| file.entry.bytes.len()).sum();
    let description = DESCRIPTION.replace('\n', "\n ");
    let control = format!(
        "Package: tellwire\n\
         Version: {VERSION}\n\
         Architecture: {}\n\
         Maintainer: the tellwire contributors <dev@tellwire.invalid>\n\
         Installed-Size: {}\n\
         Section: admin\n\
         Priority: optional\n\
         Description: {SUMMARY}\n {description}\n",
        arch.go(),
        bytes.div_ceil(1024),
    );
    let configuration = content.iter().filter(|file| file.is_configuration);
    let conffiles: Vec<String> = configuration.map(|file| format!("/{}\n", file.entry.path)).collect();
    vec![
        Entry::new("control", 0o644, control),
        Entry::new("conffiles", 0o644, conffiles.concat()),
        Entry::new("postinst", 0o755, script(AFTER_INSTALL)),
        Entry::new("prerm", 0o755, script(BEFORE_REMOVAL)),
        Entry::new("postrm", 0o755, script(AFTER_REMOVAL)),
    ]
}

fn script(body: &str) -> String {
    format!("#!/bin/sh\nset -e\n{}\nexit 0\n", body.replace("{unit}", UNIT))
}

// The service is not enabled by the package: an agent that reads the kernel's memory is switched on by somebody.
const AFTER_INSTALL: &str = "\
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # After an upgrade, if it ran.
    [ -z \"$2\" ] || systemctl try-restart {unit}
fi";
const BEFORE_REMOVAL: &str = "\
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now {unit}
fi";
const AFTER_REMOVAL: &str = "\
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ \"$1\" = purge ]; then
    # The agent's own notes. What it logged is the administrator's to delete.
    rm -rf /var/lib/tellwire
fi";
