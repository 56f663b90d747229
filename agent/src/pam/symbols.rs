//! Where functions stand in a library's file, by its own dynamic symbol table.
//!
//! The file may be anybody's: whatever its bytes, the answer is an offset in it or a reason.

use object::{Architecture, Object as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind};
use rustc_hash::FxHashMap;
use thiserror::Error;

/// Why a file's functions cannot be probed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum NoSymbols {
    #[error("it is no ELF file")]
    NotElf,
    #[error("its arguments stand elsewhere: it is not for 64-bit programs of this machine")]
    OtherAbi,
    #[error("it has none of the functions")]
    NoFunctions,
}

/// What programs of the machine's own ABI load.
const NATIVE: Architecture =
    if cfg!(target_arch = "x86_64") { Architecture::X86_64 } else { Architecture::Aarch64 };

/// The offset in the file of each function that is defined there, whatever the version of its symbol.
pub(crate) fn offsets(
    file: &[u8],
    functions: &[&'static str],
) -> Result<FxHashMap<&'static str, u64>, NoSymbols> {
    let elf = object::File::parse(file).or(Err(NoSymbols::NotElf))?;
    if elf.architecture() != NATIVE || !elf.is_64() {
        return Err(NoSymbols::OtherAbi);
    }
    let mut offsets = FxHashMap::default();
    for symbol in elf.dynamic_symbols() {
        if !symbol.is_definition() || symbol.kind() != SymbolKind::Text {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        let Some(function) = functions.iter().find(|function| **function == name) else { continue };
        let place = elf.segments().find_map(|segment| {
            let (start, length) = segment.file_range();
            let within = symbol.address().checked_sub(segment.address())?;
            // What is not in the file is not code.
            (within < length && start.saturating_add(within) < file.len() as u64).then_some(start + within)
        });
        if let Some(offset) = place {
            offsets.entry(*function).or_insert(offset);
        }
    }
    if offsets.is_empty() { Err(NoSymbols::NoFunctions) } else { Ok(offsets) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// The C library that this test runs with: versioned symbols, and always there.
    fn c_library() -> Vec<u8> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps
            .lines()
            .find_map(|line| line.split_ascii_whitespace().nth(5).filter(|path| path.contains("libc.so")));
        fs::read(path.expect("a C library")).unwrap()
    }

    #[test]
    fn functions_are_found_where_their_code_is() {
        let library = c_library();
        let found = offsets(&library, &["getpid", "no_such_function"]).unwrap();
        assert_eq!(found.len(), 1);
        let offset = usize::try_from(found["getpid"]).unwrap();
        // The code that runs and the code in the file are one.
        let running = libc::getpid as *const () as usize as *const u8;
        let in_memory: Vec<u8> = (0..8)
            .map(|at| {
                #[expect(unsafe_code, reason = "the code of a function can be read")]
                // SAFETY: a few bytes of a function's code, at any alignment.
                unsafe {
                    running.wrapping_add(at).read()
                }
            })
            .collect();
        assert_eq!(library[offset..offset + 8], in_memory);
    }

    #[test]
    fn what_cannot_be_probed_has_a_reason() {
        assert_eq!(offsets(b"#!/bin/sh\n", &["f"]), Err(NoSymbols::NotElf));
        assert_eq!(offsets(&c_library(), &["no_such_function"]), Err(NoSymbols::NoFunctions));
        let mut other = c_library();
        // EM_386 in the place of this machine's.
        other[18..20].copy_from_slice(&[3, 0]);
        assert_eq!(offsets(&other, &["getpid"]), Err(NoSymbols::OtherAbi));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_damaged_library_gives_offsets_in_it_or_a_reason(at in 0_usize..4096, bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            let mut library = c_library();
            library[at..at + bytes.len()].copy_from_slice(&bytes);
            if let Ok(found) = offsets(&library, &["getpid", "fork"]) {
                prop_assert!(found.values().all(|offset| *offset < library.len() as u64));
            }
        }
    }
}
