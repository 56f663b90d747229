//! The path of a file, from its dentry up through every mount to the root of its mount namespace.
//!
//! `bpf_d_path` may be called from a handful of hooks only, and none of ours is among them. The
//! names are written as the walk meets them, the last one first, each with a NUL behind it; the
//! agent puts them together. What a `chroot` hides from the process is in the path all the same.

use crate::{
    emit::Slot,
    kernel::{Pointer, Ptr, offset},
};

/// `NAME_MAX` and the NUL.
pub(crate) const NAME_SIZE: usize = 256;

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// At the root.
    Complete,
    /// The slot has no room for another name.
    NoRoom,
    /// More names than the walk follows, or a pointer that cannot be read.
    Incomplete,
}

/// Writes the names of `path` (a `struct path`) to the tail of a slot of `N` bytes.
///
/// Between names the position is in the slot's memory, not in a register: so every turn of the loop looks the
/// same to the verifier, and its work grows with the depth and not with the square of it.
#[inline(always)]
pub(crate) fn write<P: Pointer, const N: usize, const DEPTH: usize>(path: P, slot: &Slot) -> Walk {
    walk::<P, N, DEPTH>(path, slot).unwrap_or(Walk::Incomplete)
}

#[inline(always)]
fn walk<P: Pointer, const N: usize, const DEPTH: usize>(path: P, slot: &Slot) -> Option<Walk> {
    let vfsmount = path.follow(offset!(path_mnt))?;
    let mut root = Ptr(slot.forget_type(vfsmount.follow(offset!(vfsmount_root))?.address()));
    // By address from here on: a `struct mount` embeds the `struct vfsmount` that a path points at, and a typed
    // pointer cannot go from the inner to the outer one.
    let mut dentry = Ptr(slot.forget_type(path.follow(offset!(path_dentry))?.address()));
    let in_mount = offset!(mount_mnt);
    let mut mount = Ptr(slot.forget_type(vfsmount.address()).wrapping_sub(u64::from(in_mount.0)));
    // Each turn goes up by a name or by a mount.
    for _ in 0..DEPTH {
        if dentry == root {
            let above = mount.follow(offset!(mount_parent))?;
            if above == mount {
                return Some(Walk::Complete);
            }
            dentry = mount.follow(offset!(mount_mountpoint))?;
            mount = above;
            root = mount.field(in_mount)?.follow(offset!(vfsmount_root))?;
            continue;
        }
        // The parent, the name's hash and length, and the name: they follow one another, the agent has checked.
        let [parent, _hash_len, name] = dentry.read_8(offset!(dentry_parent))?;
        let Some(at) = slot.room::<N, NAME_SIZE>() else { return Some(Walk::NoRoom) };
        // SAFETY: NAME_SIZE bytes are left, as just checked.
        let len = unsafe { Ptr(name).copy_str::<NAME_SIZE>(slot.base.add(at)) }?;
        slot.set_position(at + len);
        if Ptr(parent) == dentry {
            // A root that is no mount's root: a memfd, or a tree that was detached.
            return Some(Walk::Complete);
        }
        dentry = Ptr(parent);
    }
    Some(Walk::Incomplete)
}
