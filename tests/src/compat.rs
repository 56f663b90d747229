//! Programs of 32 bits, made here: i386 on x86-64, 32-bit Arm on arm64.

use std::{os::unix::ffi::OsStrExt as _, path::Path, process::Command, sync::OnceLock};

use crate::program;

/// Where its one segment begins, for pages of up to 64 KiB.
const BASE: u32 = 0x0805_0000;

/// Those of the file and of the segment.
const HEADERS: u32 = 52 + 32;

/// A system call. A program makes some, and ends with the errno of the last.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// setuid, the one with 32-bit ids.
    Setuid(u32),
    /// execve; the path is the only argument.
    Exec(&'a Path),
}

/// Whether such programs run here, and says so where they do not: CPUs and kernels of arm64 may have no part for them, and x86-64 may
/// be booted without.
#[expect(clippy::print_stdout, reason = "what was not tried is told beside the outcome")]
pub fn runs() -> bool {
    static RUNS: OnceLock<bool> = OnceLock::new();
    let runs = *RUNS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("program");
        write(&path, &[]);
        match Command::new(&path).status() {
            Ok(status) => status.success(),
            Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => false,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    });
    if !runs {
        println!("not tried: no program of 32 bits runs here");
    }
    runs
}

/// Writes a program that makes these calls.
pub fn write(path: impl AsRef<Path>, calls: &[Call<'_>]) {
    let (code, _) = assemble(calls, 0);
    // As long whatever the addresses in it are.
    let data = BASE + HEADERS + u32::try_from(code.len()).expect("a few bytes");
    let (code, data) = assemble(calls, data);
    let size = HEADERS + u32::try_from(code.len() + data.len()).expect("a few bytes");
    // ELF32, little-endian; ET_EXEC.
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    elf.extend(MACHINE.to_le_bytes());
    for word in [1, BASE + HEADERS, 52, 0, FLAGS] {
        elf.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1_0000] {
        elf.extend(word.to_le_bytes());
    }
    program::write(path, &[elf, code, data].concat(), 0o755);
}

/// The code, and what it points to, which begins at `at`.
fn assemble(calls: &[Call<'_>], at: u32) -> (Vec<u8>, Vec<u8>) {
    let (mut code, mut data) = (nothing(), Vec::new());
    for made in calls {
        code.extend(match made {
            Call::Setuid(uid) => call(213, *uid, 0),
            Call::Exec(path) => {
                let here = |data: &[u8]| at + u32::try_from(data.len()).expect("a few bytes");
                let name = here(&data);
                data.extend(path.as_os_str().as_bytes());
                data.push(0);
                data.resize(data.len().next_multiple_of(4), 0);
                let arguments = here(&data);
                data.extend([name.to_le_bytes(), [0; 4]].concat());
                call(11, name, arguments)
            }
        });
    }
    code.extend(end());
    (code, data)
}

#[cfg(target_arch = "x86_64")]
use i386::{FLAGS, MACHINE, call, end, nothing};

#[cfg(target_arch = "x86_64")]
mod i386 {
    pub(super) const MACHINE: u16 = 3;
    pub(super) const FLAGS: u32 = 0;

    /// Success of no call: xor eax, eax
    pub(super) fn nothing() -> Vec<u8> {
        b"\x31\xc0".to_vec()
    }

    /// mov ebx, first; mov ecx, second; xor edx, edx; mov eax, number; int 0x80
    pub(super) fn call(number: u8, first: u32, second: u32) -> Vec<u8> {
        let (first, second) = (first.to_le_bytes(), second.to_le_bytes());
        [b"\xbb", &first[..], b"\xb9", &second, b"\x31\xd2\xb8", &[number], b"\0\0\0\xcd\x80"].concat()
    }

    /// neg eax; mov ebx, eax; mov eax, 1 (exit); int 0x80
    pub(super) fn end() -> Vec<u8> {
        b"\xf7\xd8\x89\xc3\xb8\x01\0\0\0\xcd\x80".to_vec()
    }
}

#[cfg(target_arch = "aarch64")]
use arm::{FLAGS, MACHINE, call, end, nothing};

#[cfg(target_arch = "aarch64")]
mod arm {
    pub(super) const MACHINE: u16 = 40;
    /// `EF_ARM_EABI_VER5`: the kernel runs no program without (`compat_elf_check_arch` in arch/arm64).
    pub(super) const FLAGS: u32 = 0x0500_0000;

    /// Success of no call: mov r0, 0
    pub(super) fn nothing() -> Vec<u8> {
        code([0xe3a0_0000])
    }

    /// movw and movt r0, first; movw and movt r1, second; mov r2, 0; mov r7, number; svc 0
    pub(super) fn call(number: u8, first: u32, second: u32) -> Vec<u8> {
        let half = |instruction: u32, register: u32, half: u32| {
            instruction | (half & 0xf000) << 4 | register << 12 | half & 0xfff
        };
        let low = |register, word: u32| half(0xe300_0000, register, word & 0xffff);
        let high = |register, word: u32| half(0xe340_0000, register, word >> 16);
        let number = 0xe3a0_7000 | u32::from(number);
        code([
            low(0, first),
            high(0, first),
            low(1, second),
            high(1, second),
            0xe3a0_2000,
            number,
            0xef00_0000,
        ])
    }

    /// rsb r0, r0, 0; mov r7, 1 (exit); svc 0
    pub(super) fn end() -> Vec<u8> {
        code([0xe260_0000, 0xe3a0_7001, 0xef00_0000])
    }

    fn code<const LEN: usize>(instructions: [u32; LEN]) -> Vec<u8> {
        instructions.into_iter().flat_map(u32::to_le_bytes).collect()
    }
}
