//! `cargo xtask vm`: the live tests on another kernel, in QEMU without acceleration.
//!
//! The guest is a kernel and an initramfs: busybox, the static agent, the static test binaries and `init.sh`.
//! Its last line says how it went; without that line it failed, whatever QEMU's exit status.

mod initramfs;
mod kernel;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use self::initramfs::Archive;
use crate::{
    build::{self, Arch, Executable, Linking, Profile, Purpose},
    packages::{self, Need},
    say, setup,
    stream::{self, Limit},
    summary::{Summary, stage},
};

pub(crate) const DEFAULT_KERNEL: &str = "6.1";

/// The files of `tests/tests` that run in a VM. The others need the distribution's programs.
const TESTS: [&str; 3] = ["process", "network", "privilege"];

const LIMIT: Duration = Duration::from_mins(15);
const BUSYBOX: &str = "/bin/busybox";
const LINKING: Linking = Linking::Static(Arch::X86_64);

#[derive(Args)]
pub(crate) struct Options {
    /// A release of Debian's cloud kernels, or the path of a kernel image.
    #[arg(long, default_value = DEFAULT_KERNEL)]
    kernel: String,
    /// Run only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { kernel, filter } = options;
    let sh = setup::ready()?;
    stage(&format!("live tests on Linux {kernel}"), || tests(&sh, kernel, filter.as_deref())).conclude()
}

/// Builds what the guest runs, boots it, and counts its tests.
pub(crate) fn tests(sh: &Shell, kernel: &str, filter: Option<&str>) -> Result<Summary> {
    packages::ensure(sh, Need::Vm)?;
    let kernel = kernel::image(sh, kernel)?;
    let agent = build::agent(sh, Profile::Release, LINKING)?;
    let tests = test_binaries(sh)?;
    let initramfs = pack(sh, &agent, &tests, filter)?;
    boot(&kernel, &initramfs)
}

fn test_binaries(sh: &Shell) -> Result<Vec<Executable>> {
    let build = cmd!(sh, "cargo test --no-run --package tellwire-tests");
    let mut tests = build::executables(build.args(build::flags(Profile::Release, LINKING)).into())?;
    tests.retain(|test| test.purpose == Purpose::IntegrationTest && TESTS.contains(&test.name.as_str()));
    ensure!(!tests.is_empty(), "none of the tests for a VM is there: {}", TESTS.join(", "));
    Ok(tests)
}

fn pack(sh: &Shell, agent: &Path, tests: &[Executable], filter: Option<&str>) -> Result<PathBuf> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let busybox = read(Path::new(BUSYBOX))?;
    ensure!(build::is_static(&busybox), "{BUSYBOX} is not static: `apt-get install busybox-static`");

    let mut archive = Archive::default();
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tests", "tmp"] {
        archive.directory(directory)?;
    }
    archive.program("init", include_bytes!("init.sh"))?;
    archive.program("bin/busybox", &busybox)?;
    for applet in cmd!(sh, "{BUSYBOX} --list").quiet().read()?.lines().filter(|name| *name != "busybox") {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    archive.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    archive.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
    archive.text("etc/test-filter", filter.unwrap_or_default())?;
    archive.program("bin/tellwire", &read(agent)?)?;
    for Executable { name, path, .. } in tests {
        archive.program(&format!("tests/{name}"), &read(path)?)?;
    }

    let folder = setup::root()?.join("target/vm");
    let path = folder.join("initramfs.cpio");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(&path, archive.finish()?).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn boot(kernel: &Path, initramfs: &Path) -> Result<Summary> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Emulated even where /dev/kvm exists: on some machines it hangs the guest.
    qemu.args(["-accel", "tcg", "-cpu", "max", "-m", "1024", "-smp", "2"]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);

    say(format_args!("booting {} with {}", kernel.display(), initramfs.display()));
    let mut summary = Summary::default();
    let mut exit = None;
    stream::watch(qemu, Limit::After(LIMIT), |line| {
        summary.see(line);
        exit = marker(line).or(exit);
    })?;
    let exit = exit.context("the guest ended without saying how: no `EXIT=` line")?;
    Ok(summary.checked_by(exit == 0))
}

/// The guest's last word.
fn marker(line: &str) -> Option<u8> {
    line.strip_prefix("EXIT=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::marker;

    #[test]
    fn the_marker_stands_alone_on_its_line() {
        assert_eq!(marker("EXIT=0"), Some(0));
        assert_eq!(marker("EXIT=101"), Some(101));
        assert_eq!(marker("the line EXIT=0 ends it"), None);
        assert_eq!(marker("EXIT="), None);
    }
}
