//! Builds the kernel programs: stable Rust, with `-Z build-std` for that one child process only.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
    write::StreamingBuffer,
};

/// The channel of rust-toolchain.toml.
const TOOLCHAIN: &str = "1.95.0";

fn main() -> anyhow::Result<()> {
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is set by cargo")?);
    let root = root.join("../agent-ebpf");
    let root = root.to_str().ok_or_else(|| anyhow!("the path of the project is not UTF-8"))?;

    // `cargo xtask setup` puts the linker here; a linker in PATH does as well.
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let mut path = env::var_os("PATH").unwrap_or_default();
    if let Some(cache) = cache {
        let tools = cache.join("tellwire").join(TOOLCHAIN).join("bin");
        path = env::join_paths(std::iter::once(tools).chain(env::split_paths(&path)))?;
    }
    #[expect(
        unsafe_code,
        clippy::disallowed_methods,
        reason = "a build script has one thread, and aya-build reads its environment"
    )]
    {
        // SAFETY: no other thread runs yet.
        unsafe { env::set_var("PATH", path) };
        // SAFETY: as above.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    aya_build::build_ebpf(
        [aya_build::Package { name: "tellwire-ebpf", root_dir: root, ..Default::default() }],
        aya_build::Toolchain::Custom(TOOLCHAIN),
    )
    .context("building the kernel programs; `cargo xtask setup` installs what this needs")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    strip(&out.join("probes")).context("taking the debug information off the kernel programs")
}

/// Takes off what no loader reads: the agent has the object in it, and two thirds of that are DWARF. The linker
/// needs it to make BTF, which stays.
fn strip(path: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(path)?;
    let mut object = Builder::read(&*bytes)?;
    for section in &mut object.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    // LLVM keeps the names of sections with those of symbols; the writer wants a table for each.
    let names = object.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut StreamingBuffer::new(&mut stripped))?;
    Ok(fs::write(path, stripped)?)
}
