//! What the guest finds: busybox, the static agent, the static test binaries, libpam, runc and the scripts of `guest/`, one archive for
//! each machine type; another for nodes.

mod initramfs;
mod node;
mod userland;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use self::initramfs::Archive;
use super::kernel;
use crate::{
    build::{self, Arch, Executable, Linking, Profile, Purpose},
    complain, setup,
};

/// The suites of `tests/tests` that run in a VM. The others need the distribution's programs, and so do modules of some of
/// these, which `guest/tests.sh` names.
pub(super) const TESTS: [&str; 7] =
    ["process", "network", "privilege", "audit", "pam", "containers", "machine"];

/// The one suite of a guest that is a node, which no other guest has.
pub(super) const NODE: &str = "node";

/// What the guest's first process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// A script.
    Script,
    /// systemd, with containerd and the agent as services.
    Systemd,
}

/// Those that `--suite` names.
pub(super) fn suites(asked: Option<&str>) -> Result<Vec<&'static str>> {
    let Some(asked) = asked else { return Ok(TESTS.to_vec()) };
    let known = |name: &str| TESTS.into_iter().find(|known| *known == name);
    let suite = |name| known(name).with_context(|| format!("no suite {name}: {}", TESTS.join(", ")));
    asked.split(',').map(suite).collect()
}

const BUSYBOX: &str = "/bin/busybox";

/// Builds what the guest runs and packs it; gives the archive's path.
pub(super) fn pack(sh: &Shell, arch: Arch, system: System) -> Result<PathBuf> {
    let linking = Linking::Static(arch);
    let agent = build::agent(sh, Profile::Release, linking)?;
    let tests = test_binaries(sh, linking)?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let busybox = if arch == Arch::HOST { BUSYBOX.into() } else { kernel::busybox(sh, arch)? };
    let program = read(&busybox)?;
    ensure!(
        build::is_static(&program),
        "{} is not static: `apt-get install busybox-static`",
        busybox.display()
    );

    let mut archive = Archive::default();
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tests", "tmp"] {
        archive.directory(directory)?;
    }
    archive.program("init", include_bytes!("guest/init.sh"))?;
    archive.text("options.sh", include_str!("guest/options.sh"))?;
    archive.text("tests.sh", include_str!("guest/tests.sh"))?;
    archive.program("bin/busybox", &program)?;
    // The same for every machine type, or nearly.
    for applet in cmd!(sh, "{BUSYBOX} --list").quiet().read()?.lines().filter(|name| *name != "busybox") {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    // Nobody has a password. That of `x` would be in another file, which pam_unix reads by a program since 1.6.
    archive.text("etc/passwd", "root:*:0:0:root:/root:/bin/sh\nnobody:*:65534:65534:nobody:/:/bin/sh\n")?;
    archive.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
    archive.program("etc/apparmor.policy", &confinement(sh)?)?;
    archive.program("bin/tellwire", &read(&agent)?)?;
    for Executable { name, path, .. } in tests {
        archive.program(&format!("tests/{name}"), &read(&path)?)?;
    }

    if let Err(error) = userland::add(sh, arch, &mut archive) {
        // Where no mirror has it, the other suites run all the same.
        complain(format_args!(
            "the suites pam and containers will fail, for the guest has no libpam and no runc: {error:#}"
        ));
    }

    let kind = match system {
        System::Script => "initramfs",
        System::Systemd => {
            node::add(sh, arch, &mut archive)?;
            "node"
        }
    };
    let folder = setup::root()?.join("target/vm");
    let path = folder.join(format!("{kind}-{}.cpio", arch.go()));
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(&path, archive.finish()?).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// The policy of `apparmor.profile`, as the kernel takes it.
fn confinement(sh: &Shell) -> Result<Vec<u8>> {
    let features = "/etc/apparmor.d/abi/3.0";
    let known = ["--kernel-features", features, "--policy-features", features];
    let profile = include_str!("guest/apparmor.profile");
    let compile = cmd!(sh, "/sbin/apparmor_parser --skip-kernel-load --skip-cache --stdout {known...}");
    Ok(compile.stdin(profile).quiet().output().context("compiling apparmor.profile")?.stdout)
}

fn test_binaries(sh: &Shell, linking: Linking) -> Result<Vec<Executable>> {
    let all = || TESTS.iter().copied().chain([NODE]);
    let wanted = all().flat_map(|test| ["--test", test]);
    let build = cmd!(sh, "cargo test --no-run --package tellwire-tests {wanted...}");
    let mut tests = build::executables(build.args(build::flags(Profile::Release, linking)).into())?;
    tests.retain(|test| test.purpose == Purpose::IntegrationTest && all().any(|name| name == test.name));
    ensure!(!tests.is_empty(), "none of the tests for a VM is there: {}", TESTS.join(", "));
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::{TESTS, suites};

    #[test]
    fn suites_are_found_by_name() {
        assert_eq!(suites(None).unwrap(), TESTS);
        assert_eq!(suites(Some("pam,machine")).unwrap(), ["pam", "machine"]);
        assert!(suites(Some("no-such")).unwrap_err().to_string().contains("process"));
    }
}
