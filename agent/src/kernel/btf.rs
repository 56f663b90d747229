//! The kernel's own description of its types (BTF): just enough to look up members.
//!
//! A library would give every type as an owned value: 100 MB and a second for a file of 6 MB. Here the
//! bytes are walked once for an index, and a look-up reads them in place. Total: any bytes give an
//! answer or `None`. The format: <https://docs.kernel.org/6.18/bpf/btf.html>.

use rustc_hash::FxHashMap;

/// BTF of a kernel, indexed.
#[derive(Debug)]
pub(crate) struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type stands, by id; id 0 is `void`.
    offsets: Vec<u32>,
    structs: FxHashMap<Box<str>, u32>,
    enums: FxHashMap<Box<str>, u32>,
    aliases: FxHashMap<Box<str>, u32>,
}

/// A member found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// From the start of the outermost struct, in bits.
    pub(crate) bit_offset: u32,
    /// In bytes; of a bit field, its declared type's.
    pub(crate) size: u32,
}

const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_TYPE_TAG: u32 = 18;

/// How deep anonymous members and qualifiers may nest before the file counts as broken.
const DEPTH: u32 = 16;

#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    vlen: u32,
    kind_flag: bool,
    /// A size, or the id of the type that this one is about.
    argument: u32,
}

impl Btf {
    /// Indexes the bytes of `/sys/kernel/btf/vmlinux` or of a file like it; `None` if they are no BTF.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Self> {
        if u16::from_le_bytes(bytes.get(0..2)?.try_into().ok()?) != 0xeb9f {
            return None;
        }
        let header = word(&bytes, 4)? as usize;
        let types_at = header + word(&bytes, 8)? as usize;
        let types_end = types_at + word(&bytes, 12)? as usize;
        let strings = header + word(&bytes, 16)? as usize;
        let mut btf = Self {
            bytes,
            strings,
            offsets: vec![0],
            structs: FxHashMap::default(),
            enums: FxHashMap::default(),
            aliases: FxHashMap::default(),
        };
        let mut at = types_at;
        while at < types_end {
            let ty = btf.type_at(at)?;
            let id = u32::try_from(btf.offsets.len()).ok()?;
            btf.offsets.push(u32::try_from(at).ok()?);
            let name = match ty.kind {
                KIND_STRUCT | KIND_ENUM | KIND_TYPEDEF => btf.string(ty.name).unwrap_or_default(),
                _ => "",
            };
            if !name.is_empty() {
                let name: Box<str> = name.into();
                // The first of several types of one name is the kernel's; later ones are a module's or a driver's own.
                match ty.kind {
                    KIND_STRUCT => btf.structs.entry(name).or_insert(id),
                    KIND_ENUM => btf.enums.entry(name).or_insert(id),
                    _ => btf.aliases.entry(name).or_insert(id),
                };
            }
            at += 12 + extra(ty.kind, ty.vlen)?;
        }
        Some(btf)
    }

    /// BTF in which each type has the id that it has here, and only functions and aliases of these names say what they are:
    /// a tracepoint is the alias `btf_trace_*`.
    ///
    /// For a library that turns every type into an owned value, which takes it as long as all the rest of the start.
    pub(crate) fn attachable(&self, names: &[&str]) -> Option<Vec<u8>> {
        let mut strings = vec![0];
        let mut types = Vec::with_capacity(self.offsets.len() * 12);
        for at in self.offsets.iter().skip(1) {
            let ty = self.type_at(*at as usize)?;
            let is_named = matches!(ty.kind, KIND_FUNC | KIND_TYPEDEF);
            let name = if is_named { self.string(ty.name).unwrap_or_default() } else { "" };
            // A function that a machine type does not have has no name in the hook table.
            if !name.is_empty() && names.contains(&name) {
                types.extend_from_slice(&u32::try_from(strings.len()).ok()?.to_le_bytes());
                types.extend_from_slice(self.bytes.get(ty.at + 4..ty.at + 12)?);
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
            } else {
                // A pointer to nothing.
                types.extend([0, KIND_PTR << 24, 0].iter().flat_map(|word: &u32| word.to_le_bytes()));
            }
        }
        let size = |part: &[u8]| u32::try_from(part.len()).map(u32::to_le_bytes);
        let (types_size, strings_size) = (size(&types).ok()?, size(&strings).ok()?);
        // Magic, version, flags, size of the header; then where types and strings begin, and their sizes.
        let mut bytes = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([types_size, types_size, strings_size].concat());
        bytes.append(&mut types);
        bytes.append(&mut strings);
        Some(bytes)
    }

    /// What was parsed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the kernel has a per-CPU variable whose name begins so.
    pub(crate) fn has_variable(&self, beginning: &str) -> bool {
        self.offsets.iter().skip(1).filter_map(|at| self.type_at(*at as usize)).any(|ty| {
            ty.kind == KIND_VAR && self.string(ty.name).is_some_and(|name| name.starts_with(beginning))
        })
    }

    /// The size of a struct, in bytes.
    pub(crate) fn size_of(&self, name: &str) -> Option<u32> {
        Some(self.get(*self.structs.get(name)?)?.argument)
    }

    /// Looks up `struct.member.member`; members of anonymous structs and unions are found by their own names.
    pub(crate) fn member(&self, path: &str) -> Option<Member> {
        let mut parts = path.split('.');
        let mut ty = self.get(*self.structs.get(parts.next()?)?)?;
        let mut bit_offset = 0;
        let mut size = 0;
        for part in parts {
            let (offset, id) = self.find(ty, part, 0)?;
            bit_offset += offset;
            size = self.size(id, 0)?;
            ty = self.resolve(id)?;
        }
        Some(Member { bit_offset, size })
    }

    /// The number that an enum gives a name.
    pub(crate) fn enumerator(&self, of: &str, name: &str) -> Option<u32> {
        let ty = self.get(*self.enums.get(of)?)?;
        (0..ty.vlen as usize).find_map(|index| {
            let at = ty.at + 12 + index * 8;
            (self.string(word(&self.bytes, at)?)? == name).then(|| word(&self.bytes, at + 4))?
        })
    }

    /// The number of arguments of a tracepoint, from its `btf_trace_*` typedef, which has one more.
    pub(crate) fn tracepoint_arguments(&self, tracepoint: &str) -> Option<u32> {
        let id = *self.aliases.get(format!("btf_trace_{tracepoint}").as_str())?;
        let mut ty = self.resolve(id)?;
        if ty.kind == KIND_PTR {
            ty = self.resolve(ty.argument)?;
        }
        (ty.kind == KIND_FUNC_PROTO).then(|| ty.vlen.saturating_sub(1))
    }

    /// A member by name within a struct or union: its bit offset, and its type's id.
    fn find(&self, of: Type, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > DEPTH || !matches!(of.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        (0..of.vlen as usize).find_map(|index| {
            let at = of.at + 12 + index * 12;
            let member_name = self.string(word(&self.bytes, at)?)?;
            let id = word(&self.bytes, at + 4)?;
            let offset = word(&self.bytes, at + 8)?;
            // With the kind flag the upper 8 bits are a bit field's size.
            let offset = if of.kind_flag { offset & 0x00ff_ffff } else { offset };
            if member_name == name {
                Some((offset, id))
            } else if member_name.is_empty() {
                let (inner, id) = self.find(self.resolve(id)?, name, depth + 1)?;
                Some((offset + inner, id))
            } else {
                None
            }
        })
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..DEPTH {
            let ty = self.get(id)?;
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = ty.argument;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn size(&self, id: u32, depth: u32) -> Option<u32> {
        if depth > DEPTH {
            return None;
        }
        let ty = self.resolve(id)?;
        match ty.kind {
            KIND_PTR => Some(8),
            KIND_ARRAY => {
                let element = self.size(word(&self.bytes, ty.at + 12)?, depth + 1)?;
                element.checked_mul(word(&self.bytes, ty.at + 20)?)
            }
            KIND_FUNC_PROTO => None,
            _ => Some(ty.argument),
        }
    }

    fn get(&self, id: u32) -> Option<Type> {
        self.type_at(*self.offsets.get(id as usize).filter(|at| **at != 0)? as usize)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(&self.bytes, at + 4)?;
        Some(Type {
            at,
            name: word(&self.bytes, at)?,
            kind: info >> 24 & 0x1f,
            vlen: info & 0xffff,
            kind_flag: info >> 31 != 0,
            argument: word(&self.bytes, at + 8)?,
        })
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let bytes = self.bytes.get(self.strings + offset as usize..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(bytes.get(..end)?).ok()
    }
}

/// Bytes behind the 12 that every type has; `None` for a kind that is not known, whose length nobody can tell.
fn extra(kind: u32, vlen: u32) -> Option<usize> {
    let vlen = vlen as usize;
    Some(match kind {
        1 | KIND_VAR | 17 => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => vlen * 12,
        KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn running_kernel() -> Btf {
        Btf::parse(std::fs::read("/sys/kernel/btf/vmlinux").unwrap()).unwrap()
    }

    #[test]
    fn members_are_found_in_the_running_kernel() {
        let btf = running_kernel();
        assert_eq!(btf.member("list_head.next"), Some(Member { bit_offset: 0, size: 8 }));
        assert_eq!(btf.member("list_head.prev"), Some(Member { bit_offset: 64, size: 8 }));
        assert_eq!(btf.member("task_struct.comm").unwrap().size, 16);
        assert_eq!(btf.member("task_struct.no_such_member"), None);
        assert_eq!(btf.member("no_such_struct.member"), None);
    }

    #[test]
    fn members_of_anonymous_unions_are_found_by_their_own_names() {
        let btf = running_kernel();
        let address = btf.member("sock.__sk_common.skc_daddr").unwrap();
        assert_eq!(address, Member { bit_offset: 0, size: 4 });
        assert_eq!(btf.member("sock.__sk_common.skc_rcv_saddr").unwrap().bit_offset, 32);
    }

    #[test]
    fn what_is_attached_to_keeps_its_id() {
        let btf = running_kernel();
        let id = |btf: &Btf, name: &str| {
            (1..u32::try_from(btf.offsets.len()).unwrap()).find(|id| {
                let ty = btf.get(*id).unwrap();
                ty.kind == KIND_FUNC && btf.string(ty.name) == Some(name)
            })
        };
        let names = ["__sys_connect_file", "bpf_iter_task", "btf_trace_inet_sock_set_state", ""];
        let reduced = Btf::parse(btf.attachable(&names).unwrap()).unwrap();
        for name in ["__sys_connect_file", "bpf_iter_task"] {
            assert!(id(&btf, name).is_some() && id(&reduced, name) == id(&btf, name), "{name}");
        }
        let tracepoint = btf.aliases.get("btf_trace_inet_sock_set_state");
        assert!(tracepoint.is_some() && tracepoint == reduced.aliases.get("btf_trace_inet_sock_set_state"));
        assert_eq!(reduced.aliases.len(), 1);
        assert_eq!(id(&reduced, "schedule"), None);
        assert_eq!(reduced.offsets.len(), btf.offsets.len());
        assert!(reduced.bytes().len() < btf.bytes().len());
    }

    #[test]
    fn variables_are_found_by_how_they_begin() {
        // kernel/sched/core.c (v6.18).
        assert!(running_kernel().has_variable("runqueues"));
        assert!(!running_kernel().has_variable("no_such_variable"));
    }

    #[test]
    fn tracepoints_tell_their_arguments() {
        assert_eq!(running_kernel().tracepoint_arguments("sched_process_exec"), Some(3));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_index_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), btf in any::<bool>()) {
            if btf && bytes.len() >= 24 {
                bytes[..4].copy_from_slice(&[0x9f, 0xeb, 1, 0]);
                bytes[4..24].copy_from_slice(&[24, 0, 0, 0, 0, 0, 0, 0, 120, 0, 0, 0, 120, 0, 0, 0, 40, 0, 0, 0]);
            }
            if let Some(btf) = Btf::parse(bytes) {
                let _ = btf.member("a.b.c");
                let _ = btf.tracepoint_arguments("x");
            }
        }
    }
}
