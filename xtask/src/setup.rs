//! `cargo xtask setup`: one pinned stable Rust and a BPF linker that links rustc's own LLVM.
//!
//! Every other command begins here. Nothing is done twice: what is there is skipped, and the linker stands in the
//! user's cache, so that a second clone does not build it again. No nightly, no clang, no distribution LLVM.

use std::{
    env,
    ffi::OsString,
    fs, iter,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::say;

const BPF_LINKER: &str = "0.13.0";
const COMPONENTS: [&str; 3] = ["rust-src", "clippy", "rustfmt"];
const MUSL: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

pub(crate) fn run() -> Result<()> {
    let sh = shell()?;
    rust(&sh)?;
    say(format_args!("Rust {}: ready, with {} and the musl targets", toolchain()?, COMPONENTS.join(", ")));
    linker(&sh)?;
    say(format_args!("bpf-linker {BPF_LINKER}: {}", tools_dir()?.join("bin/bpf-linker").display()));
    Ok(())
}

/// Sets up whatever is missing, and gives the shell that every command works in.
pub(crate) fn ready() -> Result<Shell> {
    let sh = shell()?;
    rust(&sh)?;
    linker(&sh)?;
    Ok(sh)
}

/// The folder of this workspace.
pub(crate) fn root() -> Result<PathBuf> {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Ok(Path::new(&xtask).parent().context("xtask has no parent folder")?.into())
}

/// tellwire's part of the user's cache: tools, kernels.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) if Path::new(&cache).is_absolute() => PathBuf::from(cache),
        _ => env::home_dir().context("no home folder: set HOME or XDG_CACHE_HOME")?.join(".cache"),
    };
    Ok(cache.join("tellwire"))
}

/// Where the tools of this toolchain stand: `bin/` goes first in PATH.
pub(crate) fn tools_dir() -> Result<PathBuf> {
    Ok(cache_dir()?.join(toolchain()?))
}

/// One line of `rustc -vV`, as `host` or `LLVM version`.
pub(crate) fn rustc_says(sh: &Shell, key: &str) -> Result<String> {
    let text = cmd!(sh, "rustc -vV").quiet().read()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    Ok(value.with_context(|| format!("no `{key}` in what `rustc -vV` prints"))?.into())
}

/// A shell in the workspace whose cargo is the pinned one and finds the tools.
fn shell() -> Result<Shell> {
    let sh = Shell::new()?;
    sh.change_dir(root()?);
    let path = env::var_os("PATH").unwrap_or_default();
    let tools = tools_dir()?.join("bin");
    sh.set_var("PATH", env::join_paths(iter::once(tools).chain(env::split_paths(&path)))?);
    sh.set_var("RUSTUP_TOOLCHAIN", toolchain()?);
    Ok(sh)
}

fn toolchain() -> Result<&'static str> {
    channel(include_str!("../../rust-toolchain.toml"))
        .context("rust-toolchain.toml names no channel: add `channel = \"…\"`")
}

fn channel(text: &str) -> Option<&str> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("channel"))?;
    value.trim_start().strip_prefix('=')?.trim().strip_prefix('"')?.strip_suffix('"')
}

fn rust(sh: &Shell) -> Result<()> {
    let toolchain = toolchain()?;
    if cmd!(sh, "rustup --version").quiet().ignore_stderr().read().is_err() {
        bail!("rustup is missing: install it from https://rustup.rs, then run this again");
    }
    let targets = cmd!(sh, "rustup target list --installed --toolchain {toolchain}");
    let targets = if let Ok(targets) = targets.quiet().ignore_stderr().read() {
        targets
    } else {
        say(format_args!("Rust {toolchain} is not installed: installing it"));
        cmd!(sh, "rustup toolchain install {toolchain} --profile minimal --no-self-update")
            .quiet()
            .run()
            .with_context(|| {
                format!(
                    "Rust {toolchain} is missing, and only `rustup toolchain install {toolchain}` brings it"
                )
            })?;
        cmd!(sh, "rustup target list --installed --toolchain {toolchain}").quiet().read()?
    };
    let components = cmd!(sh, "rustup component list --installed --toolchain {toolchain}").quiet().read()?;

    let missing = missing(&COMPONENTS, &components);
    if !missing.is_empty() {
        say(format_args!("adding {} to Rust {toolchain}", missing.join(", ")));
        cmd!(sh, "rustup component add --toolchain {toolchain} {missing...}")
            .quiet()
            .run()
            .context("a part of the toolchain is missing, and only rustup brings it")?;
    }
    let missing = self::missing(&MUSL, &targets);
    if !missing.is_empty() {
        say(format_args!("adding {} to Rust {toolchain}", missing.join(", ")));
        cmd!(sh, "rustup target add --toolchain {toolchain} {missing...}")
            .quiet()
            .run()
            .context("a target of the toolchain is missing, and only rustup brings it")?;
    }
    Ok(())
}

/// The names that no installed one equals or begins with (`clippy` is listed as `clippy-<host>`).
fn missing<'a>(names: &[&'a str], installed: &str) -> Vec<&'a str> {
    let has = |name: &str| {
        installed
            .lines()
            .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
    };
    names.iter().copied().filter(|name| !has(name)).collect()
}

fn linker(sh: &Shell) -> Result<()> {
    let tools = tools_dir()?;
    let linker = tools.join("bin/bpf-linker");
    // A linker that no longer starts (its toolchain was moved) is built anew.
    let version = cmd!(sh, "{linker} --version").quiet().ignore_stderr().read().unwrap_or_default();
    if version.split_whitespace().last() == Some(BPF_LINKER) {
        return Ok(());
    }
    say(format_args!(
        "building bpf-linker {BPF_LINKER} into {}: two to three minutes, once",
        tools.display()
    ));
    if cmd!(sh, "cc --version").quiet().ignore_stderr().read().is_err() {
        bail!("a C compiler is missing, rustc links with it: `apt-get install gcc libc6-dev`");
    }

    let llvm = rustc_says(sh, "LLVM version")?;
    let major = llvm.split('.').next().unwrap_or(&llvm);
    let feature = format!("llvm-{major}");
    let libs = PathBuf::from(cmd!(sh, "rustc --print sysroot").quiet().read()?).join("lib");
    let prefix = llvm_prefix(&tools, &libs)?;
    let mut rpath = OsString::from("-Clink-arg=-Wl,-rpath,");
    rpath.push(&libs);
    cmd!(sh, "cargo install bpf-linker --version {BPF_LINKER} --locked --force --root {tools}")
        .args(["--no-default-features", "--features", &feature])
        .env("LLVM_PREFIX", prefix)
        .env("RUSTFLAGS", rpath)
        .quiet()
        .run()
        .with_context(|| format!("building bpf-linker {BPF_LINKER} against rustc's LLVM {llvm}"))?;

    let version = cmd!(sh, "{linker} --version").quiet().read()?;
    ensure!(version.contains(BPF_LINKER), "bpf-linker says `{version}`, not {BPF_LINKER}");
    Ok(())
}

/// A folder in the form that llvm-sys looks for, `lib/libLLVM.so`, over rustc's own LLVM.
fn llvm_prefix(tools: &Path, libs: &Path) -> Result<PathBuf> {
    let names = fs::read_dir(libs).with_context(|| format!("reading {}", libs.display()))?;
    let mut found = None;
    for entry in names {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("libLLVM.so.") && name.contains("-rust-")) {
            found = Some(libs.join(name));
        }
    }
    let library = found.with_context(|| {
        format!("rustc's LLVM (libLLVM.so.*-rust-*) is not in {}: use rustup's toolchain", libs.display())
    })?;

    let prefix = tools.join("llvm");
    let link = prefix.join("lib/libLLVM.so");
    fs::create_dir_all(prefix.join("lib")).with_context(|| format!("creating {}", prefix.display()))?;
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link).with_context(|| format!("removing {}", link.display()))?;
    }
    symlink(&library, &link).with_context(|| format!("linking {}", link.display()))?;
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::{channel, missing, toolchain};

    #[test]
    fn the_pinned_toolchain_is_a_release() {
        assert!(toolchain().unwrap().starts_with("1."));
        assert_eq!(channel("[toolchain]\n# channel\nchannel = \"1.95.0\"\n"), Some("1.95.0"));
        assert_eq!(channel("[toolchain]\n"), None);
    }

    #[test]
    fn a_component_is_known_with_or_without_its_host() {
        let installed = "clippy-x86_64-unknown-linux-gnu\nrust-src\n";
        assert_eq!(missing(&["rust-src", "clippy", "rustfmt"], installed), ["rustfmt"]);
        assert_eq!(missing(&["rust"], "rustc-x86_64\n"), ["rust"]);
    }
}
