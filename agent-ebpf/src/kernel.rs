//! Reading the kernel's memory: pointers that can only be read with a check.
//!
//! The one place that knows where a field stands (`OFFSETS`) and how it is read. A read of a
//! field that this kernel does not have is `None`, and the verifier drops the code behind it,
//! since the offsets are frozen before the programs load.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::helpers::generated as helpers;

use crate::offsets::{ABSENT, Offsets};

/// Set by the agent from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNSET;

/// Facts about this kernel and this host that never change while the programs are loaded.
#[unsafe(no_mangle)]
static HOST: crate::settings::Host = crate::settings::Host::UNSET;

/// Reads one word of a frozen global; the compiler may not assume its initial value.
macro_rules! frozen {
    ($global:ident . $field:ident) => {
        // SAFETY: a word inside a static that is initialised and never written after load.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!($global.$field)) }
    };
}

/// The offset of a field: `offset!(task_cred)`.
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::Field($crate::kernel::offset_at(core::mem::offset_of!(
            $crate::offsets::Offsets,
            $field
        )))
    };
}
pub(crate) use offset;

/// A field's offset, or `ABSENT`.
#[derive(Clone, Copy)]
pub(crate) struct Field(pub(crate) u32);

/// Reads the offset that stands at a byte of the frozen table. The compiler may not assume its initial value.
#[inline(always)]
pub(crate) fn offset_at(byte: usize) -> u32 {
    // SAFETY: `offset!` gives the place of a word in the static table.
    unsafe { ptr::read_volatile(ptr::addr_of!(OFFSETS).cast::<u8>().add(byte).cast::<u32>()) }
}

/// Index of the v1 controller whose cgroup names a container in `css_set.subsys`; `None` on a host with v2 alone.
#[inline(always)]
pub(crate) fn v1_subsystem() -> Option<u32> {
    let index = frozen!(HOST.v1_subsystem);
    if index == u32::MAX { None } else { Some(index) }
}

/// The id of that controller's hierarchy, as `cgroup_root.hierarchy_id`.
#[inline(always)]
pub(crate) fn v1_hierarchy() -> u32 {
    frozen!(HOST.v1_hierarchy)
}

/// Whether only chosen cgroups are looked at.
#[inline(always)]
pub(crate) fn scoped() -> bool {
    frozen!(HOST.scoped) != 0
}

/// Whether `sched_process_exit` says by itself which thread was the last (since 6.16).
#[inline(always)]
pub(crate) fn exit_has_group_dead() -> bool {
    frozen!(HOST.exit_has_group_dead) != 0
}

/// Whether programs on tracepoints can be preempted (since 7.0).
#[inline(always)]
pub(crate) fn is_preemptible() -> bool {
    frozen!(HOST.preemptible) != 0
}

/// False, which only the verifier knows.
#[inline(always)]
pub(crate) fn never() -> bool {
    frozen!(HOST.never) != 0
}

/// Whether returns of functions in user space are not probed.
#[inline(always)]
pub(crate) fn has_entry_probes_alone() -> bool {
    frozen!(HOST.entry_probes_alone) != 0
}

/// Whether the agent wants to hear of new root directories.
#[inline(always)]
pub(crate) fn tells_roots() -> bool {
    frozen!(HOST.roots_told) != 0
}

/// The system call number of the credential call with this index.
#[inline(always)]
pub(crate) fn credential_call(index: usize) -> u32 {
    let numbers = ptr::addr_of!(HOST.credential_calls).cast::<u32>();
    // SAFETY: as in `frozen!`; callers name an index of the table.
    unsafe { ptr::read_volatile(numbers.add(index)) }
}

/// Where among the saved registers the path of an exec stands, see `Host::exec_path_registers`.
#[inline(always)]
pub(crate) fn exec_path_register(index: usize) -> Field {
    let registers = ptr::addr_of!(HOST.exec_path_registers).cast::<u32>();
    // SAFETY: as in `frozen!`; callers name an index of the table.
    Field(unsafe { ptr::read_volatile(registers.add(index)) })
}

/// Whether [`Typed`] pointers are to be had.
#[inline(always)]
pub(crate) fn has_typed_task() -> bool {
    frozen!(HOST.typed_task) != 0
}

/// A pointer to a struct of the kernel's that can be read with a check.
pub(crate) trait Pointer: Copy {
    fn address(self) -> u64;

    /// Where `field` stands.
    fn field(self, field: Field) -> Option<Self>;

    /// Reads a member of at most 8 bytes that is valid for any bits.
    fn read<T: Copy>(self, field: Field) -> Option<T>;

    /// Reads `N` members of 4 bytes that follow one another.
    fn read_4<const N: usize>(self, field: Field) -> Option<[u32; N]>;

    /// Reads `N` members of 8 bytes that follow one another.
    fn read_8<const N: usize>(self, field: Field) -> Option<[u64; N]>;

    /// Reads a member that is a pointer; `None` where it is null.
    fn follow(self, field: Field) -> Option<Self>;
}

/// An address in the kernel, read by a helper: from anywhere, at some 15 ns a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ptr(pub(crate) u64);

/// A pointer whose type the verifier knows, read by plain loads: a fault reads as zero.
///
/// It begins with the current task or with a hook's argument, and every pointer that is read from one is one again. It
/// cannot go from a member back to its struct, nor to a variable index; there its address goes on as a [`Ptr`].
#[derive(Clone, Copy)]
pub(crate) struct Typed(u64);

impl Typed {
    /// The current task; only where [`has_typed_task`].
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no precondition.
        Self(unsafe { helpers::bpf_get_current_task_btf() } as u64)
    }

    /// What a helper says to be a pointer to a struct.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(address)
    }

    /// The argument `index` of a kernel function or of a tracepoint with types, which is a pointer to a struct.
    ///
    /// # Safety
    ///
    /// `context` is that of a program on one with that many arguments.
    #[inline(always)]
    pub(crate) unsafe fn argument(context: *mut core::ffi::c_void, index: usize) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { argument(context, index) })
    }
}

impl Pointer for Typed {
    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn field(self, field: Field) -> Option<Self> {
        if field.0 == ABSENT { None } else { Some(Self(self.0.wrapping_add(u64::from(field.0)))) }
    }

    #[inline(always)]
    fn read<T: Copy>(self, field: Field) -> Option<T> {
        let at = self.field(field)?.0 as *const T;
        // SAFETY: the verifier has checked the type, and the kernel handles the fault.
        Some(unsafe { at.read_volatile() })
    }

    #[inline(always)]
    fn read_4<const N: usize>(self, field: Field) -> Option<[u32; N]> {
        let at = self.field(field)?.0 as *const u32;
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: as above. One load each, since a load may not span members.
            *word = unsafe { at.add(index).read_volatile() };
        }
        Some(words)
    }

    #[inline(always)]
    fn read_8<const N: usize>(self, field: Field) -> Option<[u64; N]> {
        let at = self.field(field)?.0 as *const u64;
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: as above.
            *word = unsafe { at.add(index).read_volatile() };
        }
        Some(words)
    }

    #[inline(always)]
    fn follow(self, field: Field) -> Option<Self> {
        let to: u64 = self.read(field)?;
        if to == 0 { None } else { Some(Self(to)) }
    }
}

impl Pointer for Ptr {
    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn field(self, field: Field) -> Option<Self> {
        if field.0 == ABSENT { None } else { Some(Self(self.0.wrapping_add(u64::from(field.0)))) }
    }

    #[inline(always)]
    fn read<T: Copy>(self, field: Field) -> Option<T> {
        self.field(field)?.get()
    }

    #[inline(always)]
    fn read_4<const N: usize>(self, field: Field) -> Option<[u32; N]> {
        self.field(field)?.get()
    }

    #[inline(always)]
    fn read_8<const N: usize>(self, field: Field) -> Option<[u64; N]> {
        self.field(field)?.get()
    }

    #[inline(always)]
    fn follow(self, field: Field) -> Option<Self> {
        Self(self.read(field)?).non_null()
    }
}

impl Ptr {
    /// The current task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no precondition.
        Self(unsafe { helpers::bpf_get_current_task() })
    }

    #[inline(always)]
    pub(crate) fn non_null(self) -> Option<Self> {
        if self.0 == 0 { None } else { Some(self) }
    }

    /// The element `index` of an array of elements of `size` bytes at this address.
    #[inline(always)]
    pub(crate) fn element(self, index: u32, size: u32) -> Self {
        Self(self.0.wrapping_add(u64::from(index) * u64::from(size)))
    }

    /// Reads a value that is valid for any bits.
    #[inline(always)]
    pub(crate) fn get<T: Copy>(self) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the destination has the size given; the helper checks the source.
        let failed = unsafe {
            helpers::bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                self.0 as *const _,
            )
        };
        if failed == 0 {
            // SAFETY: the helper has filled it, and every T used here is valid for any bits.
            Some(unsafe { value.assume_init() })
        } else {
            None
        }
    }

    /// Copies a NUL-terminated string of at most `N` bytes to `to`; returns its length with the NUL.
    ///
    /// # Safety
    ///
    /// `to` is valid for `N` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_str<const N: usize>(self, to: *mut u8) -> Option<usize> {
        // SAFETY: the caller's promise; the helper checks the source.
        let len = unsafe { helpers::bpf_probe_read_kernel_str(to.cast(), N as u32, self.0 as *const _) };
        // The upper bound holds by the helper's contract; the verifier of 5.10 does not know it.
        if len > 0 && len <= N as i64 { Some(len as usize) } else { None }
    }
}

/// Copies a NUL-terminated string of the current task's own memory; returns its length with the NUL.
///
/// # Safety
///
/// `to` is valid for `N` bytes.
#[inline(always)]
pub(crate) unsafe fn copy_user_str<const N: usize>(from: u64, to: *mut u8) -> Option<usize> {
    // SAFETY: the caller's promise; the helper checks the source.
    let len = unsafe { helpers::bpf_probe_read_user_str(to.cast(), N as u32, from as *const _) };
    if len > 0 && len <= N as i64 { Some(len as usize) } else { None }
}

/// CLOCK_BOOTTIME in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { helpers::bpf_ktime_get_boot_ns() }
}

/// The process and the thread that run.
#[inline(always)]
pub(crate) fn current_ids() -> (u32, u32) {
    // SAFETY: the helper has no precondition.
    let ids = unsafe { helpers::bpf_get_current_pid_tgid() };
    ((ids >> 32) as u32, ids as u32)
}

/// The thread that runs.
#[inline(always)]
pub(crate) fn current_tid() -> u32 {
    current_ids().1
}

/// The id of the running task's cgroup in the v2 hierarchy.
#[inline(always)]
pub(crate) fn current_cgroup() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { helpers::bpf_get_current_cgroup_id() }
}

/// The argument `index` of a raw tracepoint or of a kernel function; a function's result stands behind its arguments.
///
/// # Safety
///
/// `context` is that of a program on one with that many arguments.
#[inline(always)]
pub(crate) unsafe fn argument(context: *mut core::ffi::c_void, index: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { *context.cast::<u64>().add(index) }
}
