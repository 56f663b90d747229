//! Kernel programs, and the wire format that they share with the agent.
//!
//! Built for BPF this crate is every program of tellwire. Built for the host it is the layout
//! of the records, the counters and the field table, and nothing else. A family's wire structs
//! and its programs stand in one file: `process` (fork, exit), `exec`, `exec_failed`, `network` (connect),
//! `attempt`, `connection` (what ties a connect together), `close`, `privilege`, `pam`, `roots`, `cgroup`.
#![no_std]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(missing_debug_implementations, reason = "zerocopy's derives make helper types without one")
)]
#![cfg_attr(
    target_arch = "bpf",
    feature(core_intrinsics),
    expect(internal_features, reason = "atomic_xadd: AtomicU64::fetch_add does not compile for BPF"),
    expect(unsafe_code, reason = "every helper of the kernel is a call by address"),
    expect(unreachable_pub, reason = "a program is public to the kernel by its section"),
    allow(clippy::multiple_unsafe_ops_per_block, reason = "pointer arithmetic and its read are one step"),
    allow(
        clippy::cast_possible_truncation,
        reason = "every bound is stated where it is used, for the verifier"
    ),
    allow(unexpected_cfgs, reason = "aya-build says by `bpf_target_arch` whose registers the kernel has"),
    allow(clippy::inline_always, reason = "the verifier knows bounds within a function only"),
    allow(clippy::indexing_slicing, reason = "constant indexes into fixed arrays"),
    allow(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "helpers return a length or an error in one"
    ),
    allow(clippy::cast_ptr_alignment, reason = "slots of a ring and frozen tables are aligned to 8"),
    allow(clippy::needless_pass_by_value, reason = "the macros hand a program its context by value"),
    allow(clippy::needless_borrows_for_generic_args, reason = "a key by reference is not copied once more"),
    allow(clippy::similar_names, reason = "tgid and tid, uid and gid are the kernel's names"),
    allow(clippy::items_after_statements, reason = "a slot's size stands where the slot is reserved")
)]

pub mod counters;
pub mod filter;
pub mod offsets;
pub mod settings;
pub mod wire;

pub mod attempt;
pub mod cgroup;
pub mod close;
pub mod connection;
pub mod exec;
pub mod exec_failed;
pub mod network;
pub mod pam;
pub mod privilege;
pub mod process;
pub mod roots;

#[cfg(target_arch = "bpf")]
mod address;
#[cfg(target_arch = "bpf")]
mod again;
#[cfg(target_arch = "bpf")]
mod cpu_time;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod path;
#[cfg(target_arch = "bpf")]
mod scope;
#[cfg(target_arch = "bpf")]
mod task;
