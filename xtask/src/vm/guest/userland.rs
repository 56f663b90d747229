//! What the guest has of Debian: libpam, with the libraries that it needs and the programs of the suite `pam` that call it, and
//! runc.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::{
    super::{
        debian::{Apt, Suite},
        kernel,
    },
    initramfs::Archive,
};
use crate::{
    build::Arch,
    packages::{self, Need},
    say, setup,
};

/// Newer than the C library of most machines that compile: a program finds every symbol that it was linked with.
pub(super) const SUITE: Suite = kernel::main("trixie");

/// What is unpacked. `libpam0g-dev` is what the programs are compiled with.
const PACKAGES: [&str; 11] = [
    "libaudit1",
    "libc6",
    "libcap-ng0",
    "libcrypt1",
    "libpam-modules",
    "libpam0g",
    "libpam0g-dev",
    "libpcre2-8-0",
    "libseccomp2",
    "libselinux1",
    "runc",
];

/// What the packages are for, below Debian's folder for the machine type: the library, what it and its modules load, modules, and
/// what runc loads.
const FILES: [&str; 11] = [
    "libaudit.so.1",
    "libc.so.6",
    "libcap-ng.so.0",
    "libcrypt.so.1",
    "libpam.so.0",
    "libpcre2-8.so.0",
    "libseccomp.so.2",
    "libselinux.so.1",
    "security/pam_deny.so",
    "security/pam_permit.so",
    "security/pam_unix.so",
];

/// The suite's two programs, with the flags that it compiles them with itself where there is a compiler.
const PROGRAMS: [(&str, &[&str]); 2] =
    [("helper-linked", &["-DLINKED", "-lpam"]), ("helper-opens", &["-ldl"])];

/// Adds all of it to the guest's files.
pub(super) fn add(sh: &Shell, arch: Arch, archive: &mut Archive) -> Result<()> {
    let root = unpacked(sh, arch)?;
    let triplet = format!("{}-linux-gnu", arch.machine());
    let libraries = root.join("usr/lib").join(&triplet);
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));

    for directory in ["usr", "usr/lib", "usr/lib64", "usr/sbin"] {
        archive.directory(directory)?;
    }
    archive.link("lib", "usr/lib")?;
    archive.link("lib64", "usr/lib64")?;
    for directory in [&triplet, &format!("{triplet}/security")] {
        archive.directory(&format!("usr/lib/{directory}"))?;
    }
    for file in FILES {
        archive.program(&format!("usr/lib/{triplet}/{file}"), &read(&libraries.join(file))?)?;
    }
    // Where programs say that it is.
    let linker = match arch {
        Arch::X86_64 => "usr/lib64/ld-linux-x86-64.so.2",
        Arch::Aarch64 => "usr/lib/ld-linux-aarch64.so.1",
    };
    for program in [linker, "usr/sbin/runc"] {
        archive.program(program, &read(&root.join(program))?)?;
    }

    packages::ensure(sh, if arch == Arch::HOST { Need::Vm } else { Need::Arm })?;
    let compiler = format!("{triplet}-gcc");
    let source = setup::root()?.join("tests/tests/pam/helper.c");
    let include = root.join("usr/include");
    let folder = setup::root()?.join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for (name, flags) in PROGRAMS {
        let program = folder.join(format!("{name}-{}", arch.go()));
        // The library is linked with a newer C library than the one at hand.
        cmd!(sh, "{compiler} -Wall -Werror -O1 -Wl,--allow-shlib-undefined -Wl,-rpath-link,{libraries}")
            .args([Path::new("-I"), &include, Path::new("-L"), &libraries])
            .arg("-o")
            .args([&program, &source])
            .args(flags)
            .quiet()
            .run()
            .with_context(|| format!("compiling {name} for {}", arch.machine()))?;
        archive.program(&format!("tests/{name}"), &read(&program)?)?;
    }
    Ok(())
}

/// The packages' files, in the cache.
fn unpacked(sh: &Shell, arch: Arch) -> Result<PathBuf> {
    let cache = setup::cache_dir()?;
    let kept = cache.join(format!("userland-{}", arch.go()));
    if !kept.is_dir() {
        let apt = Apt::of(sh, &cache, SUITE, arch)?;
        say(format_args!("downloading libpam and runc for {}", arch.go()));
        kernel::within(&cache, |work| {
            PACKAGES.iter().try_for_each(|package| apt.unpack(package, work))?;
            fs::rename(work.join("root"), &kept).context("keeping libpam and runc")
        })?;
    }
    Ok(kept)
}
