//! tracefs for this thread alone: the perf events of syscall tracepoints are found by its files.

use std::{io, path::Path};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Where it belongs, and where older systems have it.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Sees to it that this thread finds tracefs. Where the host has not mounted it, it is mounted in a mount
/// namespace of this thread's own; nobody else sees it, and it goes with the thread.
#[expect(unsafe_code, reason = "unshare is unsafe for the file table only")]
pub(super) fn provide() -> io::Result<()> {
    if PLACES.iter().any(|place| Path::new(place).join("events").exists()) {
        return Ok(());
    }
    // SAFETY: the file table is not among what is unshared.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount("tracefs", "/sys/kernel/tracing", "tracefs", MountFlags::empty(), None)?;
    Ok(())
}
