//! Tiny programs, made here: no compiler is needed, and no library that a virtual machine may lack.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// What a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Ends with this code.
    Exit(u8),
    /// Waits for a signal.
    Wait,
    /// Executes its first argument, with the arguments from there on.
    Chain,
    /// Writes over the first letter of argv[0], and ends.
    Rewrite,
    /// Calls setuid, and ends well whatever came of it.
    Setuid(u16),
}

impl Program {
    /// Its file: one segment of code and nothing else.
    pub fn elf(self) -> Vec<u8> {
        let code = code(self);
        let (base, headers) = (0x40_0000_u64, 64 + 56);
        let size = headers + code.len() as u64;
        let mut elf = Vec::new();
        // ELF64, little-endian; ET_EXEC.
        elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0");
        elf.extend(MACHINE.to_le_bytes());
        elf.extend(1_u32.to_le_bytes());
        for word in [base + headers, 64, 0] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 0, 0, 0] {
            elf.extend(half.to_le_bytes());
        }
        // PT_LOAD, readable and executable.
        elf.extend([1_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat());
        for word in [0, base, base, size, size, 0x1000] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(code);
        elf
    }

    /// Writes it to a file that everyone may execute.
    pub fn write(self, path: impl AsRef<Path>) {
        write(path, &self.elf(), 0o755);
    }
}

/// Writes a file that can be executed at once.
pub fn write(path: impl AsRef<Path>, content: &[u8], mode: u32) {
    let path = path.as_ref();
    // A child that another test forks meanwhile would keep the file open, and "text file busy" would be the answer.
    while_none_is_written(|| fs::write(path, content))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    set_mode(path, mode);
}

/// Sets a file's mode; a change of owner takes set-id bits away.
pub fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

/// Forks and writes of programs keep out of each other's way.
pub(crate) fn while_none_is_written<T>(fork: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let value = fork();
    // In a forked child as well: it has a copy.
    drop(turn);
    value
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

#[cfg(target_arch = "x86_64")]
fn code(program: Program) -> Vec<u8> {
    // mov edi, code; mov eax, 231 (exit_group); syscall
    let exit = |code| [b"\xbf", &[code][..], b"\0\0\0\xb8\xe7\0\0\0\x0f\x05"].concat();
    match program {
        Program::Exit(code) => exit(code),
        // mov eax, 34 (pause); syscall; jmp to the start
        Program::Wait => b"\xb8\x22\0\0\0\x0f\x05\xeb\xf7".to_vec(),
        // mov rdi, [rsp+16]; lea rsi, [rsp+16]; xor edx, edx; mov eax, 59 (execve); syscall
        Program::Chain => {
            [&b"\x48\x8b\x7c\x24\x10\x48\x8d\x74\x24\x10\x31\xd2\xb8\x3b\0\0\0\x0f\x05"[..], &exit(111)]
                .concat()
        }
        // mov rsi, [rsp+8]; mov byte [rsi], 'X'
        Program::Rewrite => [&b"\x48\x8b\x74\x24\x08\xc6\x06X"[..], &exit(0)].concat(),
        // mov edi, uid; mov eax, 105 (setuid); syscall
        Program::Setuid(uid) => {
            [b"\xbf", &uid.to_le_bytes()[..], b"\0\0\xb8\x69\0\0\0\x0f\x05", &exit(0)].concat()
        }
    }
}

#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

#[cfg(target_arch = "aarch64")]
fn code(program: Program) -> Vec<u8> {
    const SVC: u32 = 0xd400_0001;
    // mov w0, code; mov w8, 94 (exit_group)
    let exit = |code: u8| vec![0x5280_0000 | u32::from(code) << 5, 0x5280_0bc8, SVC];
    let instructions = match program {
        Program::Exit(code) => exit(code),
        // mov x0 to x4, 0; mov w8, 73 (ppoll); svc; b to the start
        Program::Wait => {
            vec![
                0xd280_0000,
                0xd280_0001,
                0xd280_0002,
                0xd280_0003,
                0xd280_0004,
                0x5280_0928,
                SVC,
                0x17ff_fff9,
            ]
        }
        // ldr x0, [sp, 16]; add x1, sp, 16; mov x2, 0; mov w8, 221 (execve)
        Program::Chain => [vec![0xf940_0be0, 0x9100_43e1, 0xd280_0002, 0x5280_1ba8, SVC], exit(111)].concat(),
        // ldr x1, [sp, 8]; mov w2, 'X'; strb w2, [x1]
        Program::Rewrite => [vec![0xf940_07e1, 0x5280_0b02, 0x3900_0022], exit(0)].concat(),
        // mov w0, uid; mov w8, 146 (setuid)
        Program::Setuid(uid) => [vec![0x5280_0000 | u32::from(uid) << 5, 0x5280_1248, SVC], exit(0)].concat(),
    };
    instructions.into_iter().flat_map(u32::to_le_bytes).collect()
}
