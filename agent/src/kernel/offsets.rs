//! Field offsets of the running kernel, for the programs' read-only table.

use tellwire_ebpf::offsets::{ABSENT, FIELDS, Offsets};
use thiserror::Error;
use zerocopy::FromBytes as _;

use super::btf::Btf;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum OffsetError {
    /// No name of a required field is in this kernel's BTF.
    #[error("this kernel has none of {0}: please report it with the output of `uname -r`")]
    Missing(String),
    /// A field has another size than the programs read.
    #[error(
        "{path} is {found} bytes in this kernel, not {expected}: please report it with the output of `uname -r`"
    )]
    Size { path: &'static str, found: u32, expected: u32 },
    /// Fields that are read in one go do not follow one another.
    #[error("{0} do not follow one another in this kernel: please report it with the output of `uname -r`")]
    Order(&'static str),
}

/// Looks every field up. Optional fields that this kernel lacks are [`ABSENT`].
pub(crate) fn resolve(btf: &Btf) -> Result<Offsets, OffsetError> {
    let values = FIELDS
        .iter()
        .map(|field| {
            let found = field.paths.iter().find_map(|path| Some((*path, btf.member(path)?)));
            match found {
                Some((path, member)) if field.size != 0 && member.size != field.size => {
                    Err(OffsetError::Size { path, found: member.size, expected: field.size })
                }
                // Bit fields stand in the table by their bit.
                Some((_, member)) if field.name == "bprm_secureexec" => Ok(member.bit_offset),
                Some((_, member)) => Ok(member.bit_offset / 8),
                None if field.required => Err(OffsetError::Missing(field.paths.join(", "))),
                None => Ok(ABSENT),
            }
        })
        .collect::<Result<Vec<u32>, _>>()?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    let offsets = Offsets::read_from_bytes(&bytes)
        .or(Err(OffsetError::Order("the rows of the table and the members of its struct")))?;
    check_order(&offsets)?;
    Ok(offsets)
}

/// Some members are read in one go: the ids and the capability sets of `struct cred`, the login of a task, the
/// parent and name of a directory entry, the addresses of a socket.
fn check_order(offsets: &Offsets) -> Result<(), OffsetError> {
    if offsets.cred_fsgid != offsets.cred_uid + 7 * 4 {
        return Err(OffsetError::Order("the ids of struct cred"));
    }
    if offsets.cred_cap_ambient != offsets.cred_cap_inheritable + 4 * 8 {
        return Err(OffsetError::Order("the capability sets of struct cred"));
    }
    if offsets.task_loginuid != ABSENT && offsets.task_sessionid != offsets.task_loginuid + 4 {
        return Err(OffsetError::Order("the login uid and the session id of struct task_struct"));
    }
    if offsets.dentry_name != offsets.dentry_parent + 16 {
        return Err(OffsetError::Order("the parent and the name of struct dentry"));
    }
    let Offsets { sock_daddr: base, sock_rcv_saddr, sock_dport, sock_num, sock_family, .. } = *offsets;
    if [sock_rcv_saddr, sock_dport, sock_num, sock_family] != [base + 4, base + 12, base + 14, base + 16] {
        return Err(OffsetError::Order("the addresses and ports of struct sock_common"));
    }
    if offsets.sock_v6_rcv_saddr != offsets.sock_v6_daddr + 16 {
        return Err(OffsetError::Order("the IPv6 addresses of struct sock_common"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _};

    use flate2::read::GzDecoder;
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn every_required_field_is_found_in_the_running_kernel() {
        let btf = Btf::parse(fs::read("/sys/kernel/btf/vmlinux").unwrap()).unwrap();
        let offsets = resolve(&btf).unwrap();
        assert_ne!(offsets.task_cred, ABSENT);
    }

    /// Types of a kernel of the matrix, cut by `cargo xtask btf`, by the file's name.
    fn matrix() -> Vec<(String, Btf)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernel/testdata/btf");
        let mut kernels: Vec<(String, Btf)> = fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(".btf.gz")?.to_owned();
                let mut bytes = Vec::new();
                GzDecoder::new(fs::File::open(&path).unwrap()).read_to_end(&mut bytes).unwrap();
                Some((name, Btf::parse(bytes).unwrap()))
            })
            .collect();
        kernels.sort_by(|(one, _), (other, _)| one.cmp(other));
        kernels
    }

    /// What the programs are told on each kernel of the matrix: a row for each field.
    fn table() -> String {
        let kernels: Vec<(String, Offsets, Btf)> = matrix()
            .into_iter()
            .map(|(name, btf)| {
                let offsets = resolve(&btf).unwrap_or_else(|error| panic!("{name}: {error}"));
                (name, offsets, btf)
            })
            .collect();
        let mut text = String::from("field");
        for (name, ..) in &kernels {
            text.extend(["\t", name]);
        }
        for (index, field) in FIELDS.iter().enumerate() {
            text.extend(["\n", field.name]);
            for (_, offsets, _) in &kernels {
                let at = index * 4;
                let value = u32::from_ne_bytes(offsets.as_bytes()[at..at + 4].try_into().unwrap());
                text.push('\t');
                text += &if value == ABSENT { "-".into() } else { value.to_string() };
            }
        }
        for tracepoint in ["sched_process_exit"] {
            text.extend(["\narguments of ", tracepoint]);
            for (_, _, btf) in &kernels {
                text.push('\t');
                text += &btf.tracepoint_arguments(tracepoint).unwrap().to_string();
            }
        }
        text += "\ntyped current task";
        for (_, _, btf) in &kernels {
            text += if btf.enumerator("bpf_func_id", "BPF_FUNC_get_current_task_btf").is_some() {
                "\tyes"
            } else {
                "\tno"
            };
        }
        text += "\nvariable tracepoint_srcu";
        for (_, _, btf) in &kernels {
            text += if btf.has_variable("tracepoint_srcu") { "\tyes" } else { "\tno" };
        }
        text + "\n"
    }

    #[test]
    fn offsets_of_the_matrix_are_those_of_the_committed_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernel/testdata/btf/offsets.tsv");
        let found = table();
        // How the table is written after `cargo xtask btf`.
        if std::env::var_os("TELLWIRE_BLESS").is_some() {
            fs::write(path, &found).unwrap();
        }
        let expected = fs::read_to_string(path).unwrap();
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "TELLWIRE_BLESS=1 writes the table");
        }
        assert_eq!(found.lines().count(), expected.lines().count());
        assert!(matrix().len() >= 6, "the matrix has lost a kernel");
    }

    #[test]
    fn a_renamed_field_is_named() {
        let (_, btf) = matrix().pop().unwrap();
        let mut bytes = btf.bytes().to_vec();
        let name = b"\0start_boottime\0";
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        bytes[at + 1] = b'S';
        let error = resolve(&Btf::parse(bytes).unwrap()).unwrap_err();
        assert!(error.to_string().contains("task_struct.start_boottime"), "{error}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let empty = Btf::parse([&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0][..], &[0; 16], &[0; 4]].concat()).unwrap();
        let error = resolve(&empty).unwrap_err();
        assert!(error.to_string().contains("task_struct.tgid"), "{error}");
    }
}
