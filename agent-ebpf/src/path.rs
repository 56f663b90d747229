//! The path of a file, from its dentry up through every mount to the root of its mount namespace.
//!
//! `bpf_d_path` may be called from a handful of hooks only, and none of ours is among them. The
//! names are written as the walk meets them, the last one first, each with a NUL behind it; the
//! agent puts them together. What a `chroot` hides from the process is in the path all the same.

use aya_ebpf::helpers::generated as helpers;

use crate::{
    emit::Slot,
    kernel::{Field, Pointer, Ptr, offset},
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

/// Names of a path that is no longer than `PATH_MAX`, and mounts: more than there are.
const MOST: u32 = 4096;

/// Writes the names of `path` (a `struct path`) to the tail of a slot of `N` bytes: all that find room where `LOOPS`, up to `DEPTH` else.
///
/// `LOOPS` is for kernels that have `bpf_loop` (since 5.17): the verifier walks one turn, and not every turn of each
/// loop. Between names the position is in the slot's memory, not in a register: so every turn looks the same to it.
#[inline(always)]
pub(crate) fn write<P: Pointer, const N: usize, const DEPTH: usize, const LOOPS: bool>(
    path: P,
    slot: &Slot,
) -> Walk {
    let Some(mut place) = Place::of(path, slot) else { return Walk::Incomplete };
    if LOOPS {
        let callback = turn::<N> as extern "C" fn(u32, *mut Place) -> u64;
        // SAFETY: a function of the kind that the helper calls, and what it hands on to it.
        let _turns = unsafe { helpers::bpf_loop(MOST, callback as *mut _, (&raw mut place).cast(), 0) };
        return place.end;
    }
    for _ in 0..DEPTH {
        if let Err(end) = place.go_up::<N>() {
            return end;
        }
    }
    Walk::Incomplete
}

/// One turn: 1 ends the loop.
extern "C" fn turn<const N: usize>(_turn: u32, place: *mut Place) -> u64 {
    // SAFETY: what `write` gave to the helper.
    let place = unsafe { &mut *place };
    let Err(end) = place.go_up::<N>() else { return 0 };
    place.end = end;
    1
}

/// Where a walk stands, and where it writes.
struct Place {
    slot: Slot,
    dentry: Ptr,
    /// Of the mount.
    root: Ptr,
    mount: Ptr,
    end: Walk,
}

impl Place {
    #[inline(always)]
    fn of<P: Pointer>(path: P, slot: &Slot) -> Option<Self> {
        let vfsmount = path.follow(offset!(path_mnt))?;
        // By address from here on: a `struct mount` embeds the `struct vfsmount` that a path points at, and a typed
        // pointer cannot go from the inner to the outer one.
        Some(Self {
            slot: slot.again(),
            root: Ptr(slot.forget_type(vfsmount.follow(offset!(vfsmount_root))?.address())),
            dentry: Ptr(slot.forget_type(path.follow(offset!(path_dentry))?.address())),
            mount: Ptr(slot.forget_type(vfsmount.address()).wrapping_sub(u64::from(offset!(mount_mnt).0))),
            end: Walk::Incomplete,
        })
    }

    /// Goes up by a name or by a mount; an error is how the walk ended.
    #[inline(always)]
    fn go_up<const N: usize>(&mut self) -> Result<(), Walk> {
        if self.dentry == self.root {
            let above = followed(self.mount, offset!(mount_parent))?;
            if above == self.mount {
                return Err(Walk::Complete);
            }
            self.dentry = followed(self.mount, offset!(mount_mountpoint))?;
            self.mount = above;
            let vfsmount = above.field(offset!(mount_mnt)).ok_or(Walk::Incomplete)?;
            self.root = followed(vfsmount, offset!(vfsmount_root))?;
            return Ok(());
        }
        // The parent, the name's hash and length, and the name: they follow one another, the agent has checked.
        let [parent, _hash_len, name] = self.dentry.read_8(offset!(dentry_parent)).ok_or(Walk::Incomplete)?;
        let at = self.slot.room::<N, NAME_SIZE>().ok_or(Walk::NoRoom)?;
        // SAFETY: NAME_SIZE bytes are left, as just checked.
        let copied = unsafe { Ptr(name).copy_str::<NAME_SIZE>(self.slot.base.add(at)) };
        self.slot.set_position(at + copied.ok_or(Walk::Incomplete)?);
        if Ptr(parent) == self.dentry {
            // A root that is no mount's root: a memfd, or a tree that was detached.
            return Err(Walk::Complete);
        }
        self.dentry = Ptr(parent);
        Ok(())
    }
}

#[inline(always)]
fn followed(from: Ptr, member: Field) -> Result<Ptr, Walk> {
    from.follow(member).ok_or(Walk::Incomplete)
}
