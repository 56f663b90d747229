//! What ran before the agent: the task iterator gives start times in nanoseconds, which /proc does not.

use std::io::Read as _;

use anyhow::Context as _;
use aya::{Btf, Ebpf, programs::Iter};
use tellwire_ebpf::process::Seed;
use zerocopy::FromBytes as _;

/// What the kernel calls the iterator over tasks: aya looks it up by this name.
pub(super) const ITERATOR: &str = "bpf_iter_task";

/// Runs the iterator once over all tasks.
pub(super) fn read(ebpf: &mut Ebpf, types: Option<&Btf>) -> anyhow::Result<Vec<Seed>> {
    let program: &mut Iter = ebpf.program_mut("seed").context("not in the object")?.try_into()?;
    program.load("task", types.context("the kernel's types cannot be read")?)?;
    let link = program.attach()?;
    let mut file = program.take_link(link)?.into_file()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    program.unload()?;
    Ok(bytes.chunks_exact(size_of::<Seed>()).filter_map(|bytes| Seed::read_from_bytes(bytes).ok()).collect())
}
