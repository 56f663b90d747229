//! The types of the running kernel: its own, or those of a file for a kernel that gives none.
//!
//! A raw BTF file does not say whose it is. Where the kernel has types of its own, the file must be the same; where it has
//! none, sizes of structs are held against those of the kernel's caches, which sysfs tells.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error as ThisError;

use super::btf::Btf;
use crate::failure::Failure;

/// Where the kernel gives its types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Where the allocator tells of its caches (SLUB, `CONFIG_SLUB_DEBUG`).
const CACHES: &str = "/sys/kernel/slab";

/// Structs that have a cache for themselves: its name, and the struct's. fs/dcache.c, kernel/cred.c, kernel/fork.c,
/// `net/ipv4/tcp_ipv4.c` (v6.18). Before 6.9 the cache of `cred` is `cred_jar`, and sysfs has the new name as well or neither.
const CACHED: [(&str, &str); 6] = [
    ("dentry", "dentry"),
    ("cred", "cred"),
    ("cred_jar", "cred"),
    ("signal_cache", "signal_struct"),
    ("inode_cache", "inode"),
    ("TCP", "tcp_sock"),
];

/// By how much a cache may be larger than its struct: caches of like sizes are merged. On a cache line, `find_mergeable` in
/// `mm/slab_common.c` (v6.18).
const SLACK: u32 = 64;

/// Why there are no types.
#[derive(Debug, ThisError)]
pub(crate) enum Error {
    #[error(
        "this kernel does not tell its types ({VMLINUX}: {0}): it must be built with CONFIG_DEBUG_INFO_BTF=y, or a file \
         must have them: `--btf FILE`, which `pahole -J --btf_encode_detached FILE vmlinux` makes of the kernel's own \
         debug symbols"
    )]
    None(io::Error),
    #[error("{VMLINUX} is not BTF of this byte order")]
    Broken,
    #[error("reading {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    #[error(
        "{0} is neither BTF of this byte order nor an ELF file with a section .BTF: name a file of the running kernel"
    )]
    NotBtf(PathBuf),
    #[error("{0} is of another kernel: this one's own types, in {VMLINUX}, are different: leave --btf out")]
    Foreign(PathBuf),
    #[error(
        "{file} is of another kernel: {name} is {found} bytes there, and {expected} in this kernel's cache"
    )]
    Size { file: PathBuf, name: &'static str, found: u32, expected: u32 },
}

impl Error {
    /// A file that is no good is a fault of the configuration; a kernel without types is none.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::None(_) | Self::Broken => Failure::unavailable(self),
            _ => Failure::usage(self),
        }
    }
}

/// The kernel's types, and where they are from.
#[derive(Debug)]
pub(crate) struct Types {
    pub(crate) path: PathBuf,
    pub(crate) btf: Btf,
}

/// Reads the kernel's types; `file` has them where it is not empty.
pub(crate) fn read(file: &Path) -> Result<Types, Error> {
    let own = fs::read(VMLINUX);
    if file.as_os_str().is_empty() {
        let btf = Btf::parse(own.map_err(Error::None)?).ok_or(Error::Broken)?;
        return Ok(Types { path: VMLINUX.into(), btf });
    }
    let bytes = fs::read(file).map_err(|error| Error::Unreadable(file.into(), error))?;
    let bytes = if bytes.starts_with(b"\x7fELF") { section(&bytes).map(<[u8]>::to_vec) } else { Some(bytes) };
    let btf = bytes.and_then(Btf::parse).ok_or_else(|| Error::NotBtf(file.into()))?;
    match own {
        Ok(own) if own != btf.bytes() => return Err(Error::Foreign(file.into())),
        Ok(_) => {}
        Err(_) => check_sizes(file, &btf, Path::new(CACHES))?,
    }
    Ok(Types { path: file.into(), btf })
}

/// Holds sizes of structs against those of the kernel's caches.
fn check_sizes(file: &Path, btf: &Btf, caches: &Path) -> Result<(), Error> {
    let mut compared = 0;
    for (cache, name) in CACHED {
        let text = fs::read_to_string(caches.join(cache).join("object_size")).unwrap_or_default();
        let Ok(expected) = text.trim().parse::<u32>() else { continue };
        let found = btf.size_of(name).unwrap_or(0);
        if !(found..=found.saturating_add(SLACK)).contains(&expected) {
            return Err(Error::Size { file: file.into(), name, found, expected });
        }
        compared += 1;
    }
    if compared == 0 {
        tracing::warn!(
            file = %file.display(),
            "nothing tells whether these types are the running kernel's: {} has none of its caches", caches.display()
        );
    }
    Ok(())
}

/// The section `.BTF` of an ELF file of 64 bits, little endian. The format: elf(5).
fn section(elf: &[u8]) -> Option<&[u8]> {
    // Class and byte order.
    if elf.get(4..6)? != [2, 1] {
        return None;
    }
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes.get_mut(..size)?.copy_from_slice(elf.get(at..at.checked_add(size)?)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (headers, size, count, names) = (number(40, 8)?, number(58, 2)?, number(60, 2)?, number(62, 2)?);
    let header = |index: usize| headers.checked_add(index.checked_mul(size)?);
    let content = |header: usize| {
        let (offset, size) = (number(header.checked_add(24)?, 8)?, number(header.checked_add(32)?, 8)?);
        elf.get(offset..offset.checked_add(size)?)
    };
    let names = content(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let name = names.get(number(header, 4)?..)?;
        name.starts_with(b".BTF\0").then(|| content(header))?
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An ELF file with one section, and the table of names.
    fn elf(name: &str, content: &[u8]) -> Vec<u8> {
        let names = format!("\0{name}\0.shstrtab\0");
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        let at = file.len();
        file.extend_from_slice(content);
        let names_at = file.len();
        file.extend_from_slice(names.as_bytes());
        let headers = file.len() as u64;
        for (name, offset, size) in [(0, 0, 0), (1, at, content.len()), (2, names_at, names.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&u32::to_le_bytes(name));
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file[40..48].copy_from_slice(&headers.to_le_bytes());
        file[58..64].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        file
    }

    fn file_with(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn a_copy_of_the_kernel_s_own_types_is_taken_raw_and_in_an_elf_file() {
        let own = fs::read(VMLINUX).unwrap();
        assert_eq!(read(file_with(&own).path()).unwrap().btf.bytes(), own);
        assert_eq!(read(file_with(&elf(".BTF", &own)).path()).unwrap().btf.bytes(), own);
    }

    #[test]
    fn other_files_are_refused() {
        let refused = |bytes: &[u8]| read(file_with(bytes).path()).unwrap_err().to_string();
        assert!(refused(b"no types").contains("neither BTF"));
        assert!(refused(&elf(".text", b"code")).contains("neither BTF"));
        // The other byte order.
        assert!(refused(&[0xeb, 0x9f, 1, 0, 0, 0, 0, 24]).contains("neither BTF"));
        let empty = [&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0][..], &[0; 16], &[0; 4]].concat();
        assert!(refused(&empty).contains("another kernel"));
        let missing = read(Path::new("/no/such/file")).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"));
    }

    #[test]
    fn sizes_of_another_kernel_are_refused() {
        let btf = Btf::parse(fs::read(VMLINUX).unwrap()).unwrap();
        let caches = tempfile::tempdir().unwrap();
        let size = btf.size_of("dentry").unwrap();
        fs::create_dir(caches.path().join("dentry")).unwrap();
        let told = |size: u32| {
            fs::write(caches.path().join("dentry/object_size"), format!("{size}\n")).unwrap();
            check_sizes(Path::new("x"), &btf, caches.path())
        };
        assert!(told(size).is_ok() && told(size + 8).is_ok());
        for wrong in [size - 8, size + 128] {
            assert!(matches!(told(wrong), Err(Error::Size { name: "dentry", .. })));
        }
    }

    #[test]
    fn this_kernel_s_caches_have_the_sizes_of_its_types() {
        let btf = Btf::parse(fs::read(VMLINUX).unwrap()).unwrap();
        check_sizes(Path::new(VMLINUX), &btf, Path::new(CACHES)).unwrap();
    }

    proptest! {
        #[test]
        fn any_elf_gives_a_section_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 6..300)) {
            bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
            let _ = section(&bytes);
        }
    }
}
