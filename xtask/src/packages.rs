//! What tests need from the distribution: installed where we may, named where we may not.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use crate::{run, say};

/// Who needs a package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Building for the other machine type.
    Arm,
    Deployment,
    /// A kernel that is compiled.
    Kernel,
    /// What the tests are compiled with.
    Lint,
    Live,
    /// Tests that need no kernel and no root.
    Units,
    Vm,
    /// A VM of another machine type than this one.
    ForeignVm,
}

struct Package {
    name: &'static str,
    /// A program in PATH, or an absolute path: whether it is there says whether the package is.
    sign: &'static str,
    needed_by: &'static [Need],
    purpose: &'static str,
}

const fn package(
    name: &'static str,
    sign: &'static str,
    needed_by: &'static [Need],
    purpose: &'static str,
) -> Package {
    Package { name, sign, needed_by, purpose }
}

const PACKAGES: &[Package] = &[
    package("runc", "runc", &[Need::Live], "real containers"),
    package("containerd", "containerd", &[Need::Live], "real containers"),
    package("containernetworking-plugins", "/usr/lib/cni/ptp", &[Need::Live], "networks of pods"),
    package("docker.io", "dockerd", &[Need::Live], "real containers"),
    package(
        "busybox-static",
        "/bin/busybox",
        &[Need::Live, Need::Vm],
        "container images and the VM's programs",
    ),
    package(
        "protobuf-compiler",
        "protoc",
        &[Need::Lint, Need::Live, Need::Vm],
        "builds the tests' container runtime interface",
    ),
    package("apparmor", "/sbin/apparmor_parser", &[Need::Vm], "confines the agent in a VM"),
    package("gcc", "gcc", &[Need::Live, Need::Vm], "programs that call libpam"),
    package("libc6-dev", "/usr/include/stdio.h", &[Need::Live, Need::Vm], "programs that call libpam"),
    package("libpam0g-dev", "/usr/include/security/pam_appl.h", &[Need::Live], "programs that call libpam"),
    package("prometheus", "promtool", &[Need::Units, Need::Live], "scrapes and checks the metrics"),
    package("openssh-server", "/usr/sbin/sshd", &[Need::Live], "logins"),
    package("openssh-client", "ssh-keygen", &[Need::Live], "logins"),
    package("sudo", "sudo", &[Need::Live], "logins"),
    package("openssl", "openssl", &[Need::Live], "passwords of made-up accounts"),
    package("mmdebstrap", "mmdebstrap", &[Need::Live], "another release of Debian"),
    package("auditd", "/usr/sbin/auditd", &[Need::Live], "has the same records as the agent"),
    package("rsyslog", "/usr/sbin/rsyslogd", &[Need::Live], "takes lines by syslog"),
    package(
        "systemd",
        "/lib/systemd/systemd-journald",
        &[Need::Live],
        "takes lines by the journal's protocol",
    ),
    // The folder /usr/lib32 alone proves nothing: Debian's installer makes it, empty.
    #[cfg(target_arch = "x86_64")]
    package("gcc-multilib", "/usr/lib32/crt1.o", &[Need::Live], "32-bit programs"),
    package("virtualenv", "virtualenv", &[Need::Deployment], "checks of the chart and the manifests"),
    package("nodejs", "node", &[Need::Deployment], "checks the dashboards' types"),
    package("npm", "npm", &[Need::Deployment], "checks the dashboards' types"),
    #[cfg(not(target_arch = "aarch64"))]
    package("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", &[Need::Arm], "parts in C of TLS, for arm64"),
    #[cfg(not(target_arch = "aarch64"))]
    package(
        "libc6-dev-arm64-cross",
        "/usr/aarch64-linux-gnu/include/stdint.h",
        &[Need::Arm],
        "parts in C of TLS, for arm64",
    ),
    package("make", "make", &[Need::Kernel], "compiles a kernel"),
    package("flex", "flex", &[Need::Kernel], "compiles a kernel"),
    package("bison", "bison", &[Need::Kernel], "compiles a kernel"),
    package("bc", "bc", &[Need::Kernel], "compiles a kernel"),
    package("libssl-dev", "/usr/include/openssl/ssl.h", &[Need::Kernel], "compiles a kernel"),
    package("libelf-dev", "/usr/include/libelf.h", &[Need::Kernel], "compiles a kernel"),
    package("dwarves", "pahole", &[Need::Kernel], "a kernel's types"),
    package("rpm", "rpm", &[Need::Live], "reads the package for other distributions"),
    package("systemd", "systemd-analyze", &[Need::Live], "checks the unit"),
    package("strace", "strace", &[Need::Live], "names the agent's system calls"),
    #[cfg(target_arch = "x86_64")]
    package("qemu-system-x86", "qemu-system-x86_64", &[Need::Vm], "other kernels"),
    #[cfg(target_arch = "x86_64")]
    package("qemu-system-arm", "qemu-system-aarch64", &[Need::ForeignVm], "other kernels, on arm64"),
    #[cfg(target_arch = "aarch64")]
    package("qemu-system-arm", "qemu-system-aarch64", &[Need::Vm], "other kernels"),
    #[cfg(target_arch = "aarch64")]
    package("qemu-system-x86", "qemu-system-x86_64", &[Need::ForeignVm], "other kernels, on x86-64"),
];

/// Installs what is missing, as root on Debian; otherwise names the command that does.
pub(crate) fn ensure(sh: &Shell, need: Need) -> Result<()> {
    let missing: Vec<&Package> = PACKAGES
        .iter()
        .filter(|package| package.needed_by.contains(&need) && !is_there(package.sign))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !run::on_path("apt-get") {
        let signs: Vec<String> =
            missing.iter().map(|package| format!("{} ({})", package.sign, package.purpose)).collect();
        bail!("missing for the tests: {}: install them with your distribution's tool", signs.join(", "));
    }
    if !run::is_root() {
        let names = names.join(" ");
        bail!("packages are missing for the tests: `sudo apt-get install --no-install-recommends {names}`");
    }
    for Package { name, purpose, .. } in missing {
        say(format_args!("installing {name}: {purpose}"));
    }
    update(sh)?;
    cmd!(sh, "apt-get -qq -y install --no-install-recommends {names...}")
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Without an init that is asked, invoke-rc.d starts no daemon at this run level.
        .env("RUNLEVEL", "1")
        .quiet()
        .run()
        .context("installing packages for the tests")
}

/// Reads the distribution's package lists anew.
pub(crate) fn update(sh: &Shell) -> Result<()> {
    cmd!(sh, "apt-get -qq update")
        .quiet()
        .run()
        .context("reading the package lists: run `apt-get update` as root")
}

fn is_there(sign: &str) -> bool {
    if sign.starts_with('/') { Path::new(sign).exists() } else { run::on_path(sign) }
}

#[cfg(test)]
mod tests {
    use super::{PACKAGES, is_there};

    #[test]
    fn a_sign_is_a_program_or_a_path() {
        assert!(is_there("sh") && is_there("/bin/sh"));
        assert!(!is_there("no-such-program") && !is_there("/no/such/path"));
    }

    #[test]
    fn every_package_says_what_it_is_for() {
        assert!(PACKAGES.iter().all(|package| !package.purpose.is_empty() && !package.sign.is_empty()));
    }
}
