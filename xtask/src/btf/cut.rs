//! BTF cut to what the agent looks up: a file of megabytes becomes one of some kilobytes.
//!
//! Kept are the structs that the field table names, with all their members, so that a new row of the table needs no new
//! extract; the enums and tracepoints that `support.rs` asks for; and the variable that tells of preemption. Members keep their
//! places and sizes and nothing else: a member's type is a pointer, or an integer of its size. Members of anonymous structs and
//! unions stand in the struct itself, as they are looked up. The format: <https://docs.kernel.org/6.18/bpf/btf.html>.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use tellwire_ebpf::offsets::FIELDS;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;

/// Enums of which the agent asks for a value: all names of one, and one of the other, which has hundreds.
const ENUMS: [(&str, Option<&str>); 2] =
    [("cgroup_subsys_id", None), ("bpf_func_id", Some("BPF_FUNC_get_current_task_btf"))];

/// Tracepoints whose arguments are counted.
const TRACEPOINTS: [&str; 1] = ["btf_trace_sched_process_exit"];

/// Variables whose being there tells something, by how they begin.
const VARIABLES: [&str; 1] = ["tracepoint_srcu"];

/// Cuts the bytes of `/sys/kernel/btf/vmlinux`.
pub(super) fn cut(bytes: &[u8]) -> Result<Vec<u8>> {
    let whole = Whole::parse(bytes).context("the guest gave no BTF")?;
    let mut part = Part::default();
    // What stands in a path between the struct and the member keeps its own members.
    let mut inner: BTreeSet<Vec<&str>> = BTreeSet::new();
    let mut structs: BTreeSet<&str> = ["dentry", "cred", "signal_struct", "inode", "tcp_sock"].into();
    for path in FIELDS.iter().flat_map(|field| field.paths) {
        let names: Vec<&str> = path.split('.').collect();
        structs.extend(names.first());
        for length in 2..names.len() {
            inner.extend(names.get(..length).map(<[&str]>::to_vec));
        }
    }
    for name in structs {
        // A struct that only another kernel has.
        let Some(ty) = whole.find(name, &[STRUCT]) else { continue };
        part.structure(&whole, ty, name, &mut vec![name], &inner)?;
    }
    for (name, only) in ENUMS {
        let ty = whole.find(name, &[ENUM]).with_context(|| format!("no enum {name}"))?;
        let values = (0..ty.vlen).filter_map(|index| {
            let at = ty.at + 12 + index * 8;
            Some((whole.string(whole.word(at)?)?, whole.word(at + 4)?))
        });
        let values: Vec<_> = values.filter(|(value, _)| only.is_none_or(|only| only == *value)).collect();
        part.enumeration(name, &values)?;
    }
    for name in TRACEPOINTS {
        let ty = whole.find(name, &[TYPEDEF]).with_context(|| format!("no tracepoint {name}"))?;
        let prototype = whole.resolve(ty.argument).and_then(|pointer| whole.resolve(pointer.argument));
        let prototype =
            prototype.filter(|ty| ty.kind == FUNC_PROTO).with_context(|| format!("{name} is no function"))?;
        part.tracepoint(name, prototype.vlen)?;
    }
    for name in whole.variables() {
        if VARIABLES.iter().any(|beginning| name.starts_with(beginning)) {
            part.variable(name)?;
        }
    }
    part.finish()
}

#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    vlen: usize,
    has_bit_fields: bool,
    argument: u32,
}

/// A kernel's BTF.
struct Whole<'a> {
    bytes: &'a [u8],
    strings: usize,
    types: Vec<Type>,
}

impl<'a> Whole<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut whole = Self { bytes, strings: 0, types: Vec::new() };
        let header = whole.word(4)? as usize;
        let mut at = header + whole.word(8)? as usize;
        let end = at + whole.word(12)? as usize;
        whole.strings = header + whole.word(16)? as usize;
        while at < end {
            let info = whole.word(at + 4)?;
            let (kind, vlen) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let (name, argument) = (whole.word(at)?, whole.word(at + 8)?);
            whole.types.push(Type { at, name, kind, vlen, has_bit_fields: info >> 31 != 0, argument });
            at += 12
                + match kind {
                    INT | VAR | 17 => 4,
                    ARRAY => 12,
                    STRUCT | UNION | 15 | 19 => vlen * 12,
                    ENUM | FUNC_PROTO => vlen * 8,
                    _ => 0,
                };
        }
        Some(whole)
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn string(&self, offset: u32) -> Option<&'a str> {
        let bytes = self.bytes.get(self.strings + offset as usize..)?;
        str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
    }

    fn find(&self, name: &str, kinds: &[u32]) -> Option<Type> {
        self.types.iter().find(|ty| kinds.contains(&ty.kind) && self.string(ty.name) == Some(name)).copied()
    }

    fn variables(&self) -> impl Iterator<Item = &'a str> {
        self.types.iter().filter(|ty| ty.kind == VAR).filter_map(|ty| self.string(ty.name))
    }

    /// Follows typedefs and qualifiers; ids begin at 1.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        loop {
            let ty = *self.types.get((id as usize).checked_sub(1)?)?;
            match ty.kind {
                TYPEDEF | 9..=11 | 18 => id = ty.argument,
                _ => return Some(ty),
            }
        }
    }

    fn size(&self, ty: Type) -> Option<u32> {
        match ty.kind {
            PTR => Some(8),
            ARRAY => {
                let element = self.size(self.resolve(self.word(ty.at + 12)?)?)?;
                element.checked_mul(self.word(ty.at + 20)?)
            }
            FUNC_PROTO => None,
            _ => Some(ty.argument),
        }
    }

    /// Members by name, with those of anonymous members: offset in bits, and type.
    fn members(&self, ty: Type, base: u32, found: &mut Vec<(&'a str, u32, Type)>) -> Option<()> {
        for index in 0..ty.vlen {
            let at = ty.at + 12 + index * 12;
            let offset = self.word(at + 8)?;
            let offset = base + if ty.has_bit_fields { offset & 0x00ff_ffff } else { offset };
            // A forward declaration or a function has no size; nobody looks it up.
            let Some(member) = self.resolve(self.word(at + 4)?) else { continue };
            match self.string(self.word(at)?)? {
                "" if matches!(member.kind, STRUCT | UNION) => self.members(member, offset, found)?,
                "" => {}
                name => found.push((name, offset, member)),
            }
        }
        Some(())
    }
}

/// The BTF that is written.
#[derive(Default)]
struct Part {
    types: Vec<u8>,
    count: u32,
    strings: Vec<u8>,
    known: BTreeMap<String, u32>,
    integers: BTreeMap<u32, u32>,
    pointer: Option<u32>,
}

impl Part {
    fn add(&mut self, name: &str, kind: u32, vlen: usize, argument: u32, rest: &[u32]) -> Result<u32> {
        let name = self.string(name)?;
        let info = kind << 24
            | u32::try_from(vlen).ok().filter(|vlen| *vlen <= 0xffff).context("too many members")?;
        for word in [name, info, argument].iter().chain(rest) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.count += 1;
        Ok(self.count)
    }

    fn string(&mut self, text: &str) -> Result<u32> {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if text.is_empty() {
            return Ok(0);
        }
        if let Some(at) = self.known.get(text) {
            return Ok(*at);
        }
        let at = u32::try_from(self.strings.len())?;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        self.known.insert(text.to_owned(), at);
        Ok(at)
    }

    fn leaf(&mut self, is_pointer: bool, size: u32) -> Result<u32> {
        if is_pointer {
            if self.pointer.is_none() {
                self.pointer = Some(self.add("", PTR, 0, 0, &[])?);
            }
            return self.pointer.context("a pointer");
        }
        if let Some(id) = self.integers.get(&size) {
            return Ok(*id);
        }
        let id = self.add("", INT, 0, size, &[0])?;
        self.integers.insert(size, id);
        Ok(id)
    }

    fn structure<'n>(
        &mut self,
        whole: &Whole<'n>,
        ty: Type,
        name: &str,
        path: &mut Vec<&'n str>,
        inner: &BTreeSet<Vec<&str>>,
    ) -> Result<u32> {
        let mut members = Vec::new();
        whole.members(ty, 0, &mut members).with_context(|| format!("struct {name} is broken"))?;
        let mut words = Vec::new();
        let mut count = 0;
        for (member, offset, ty) in members {
            path.push(member);
            let id = if inner.contains(path) && matches!(ty.kind, STRUCT | UNION) {
                self.structure(whole, ty, "", path, inner)?
            } else {
                self.leaf(ty.kind == PTR, whole.size(ty).unwrap_or(0))?
            };
            path.pop();
            words.extend([self.string(member)?, id, offset]);
            count += 1;
        }
        self.add(name, STRUCT, count, ty.argument, &words)
    }

    fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> Result<()> {
        let mut words = Vec::new();
        for (value, number) in values {
            words.extend([self.string(value)?, *number]);
        }
        self.add(name, ENUM, values.len(), 4, &words).map(|_| ())
    }

    fn tracepoint(&mut self, name: &str, arguments: usize) -> Result<()> {
        let words = vec![0; arguments * 2];
        let prototype = self.add("", FUNC_PROTO, arguments, 0, &words)?;
        let pointer = self.add("", PTR, 0, prototype, &[])?;
        self.add(name, TYPEDEF, 0, pointer, &[]).map(|_| ())
    }

    fn variable(&mut self, name: &str) -> Result<()> {
        self.add(name, VAR, 0, 0, &[1]).map(|_| ())
    }

    fn finish(self) -> Result<Vec<u8>> {
        ensure!(self.count > 0, "nothing is left");
        let (types, strings) = (u32::try_from(self.types.len())?, u32::try_from(self.strings.len())?);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, strings] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend(self.types);
        bytes.extend(self.strings);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{STRUCT, Whole, cut};

    #[test]
    fn members_keep_their_places() {
        let bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let (part, whole) = (cut(&bytes).unwrap(), Whole::parse(&bytes).unwrap());
        assert!(part.len() < 200_000, "{}", part.len());
        let part = Whole::parse(&part).unwrap();
        for name in ["task_struct", "cred", "sock", "linux_binprm"] {
            let members = |of: &Whole<'_>| {
                let ty = of.find(name, &[STRUCT]).unwrap();
                let mut found = Vec::new();
                of.members(ty, 0, &mut found).unwrap();
                let members = found
                    .iter()
                    .map(|(name, offset, ty)| ((*name).to_owned(), *offset, of.size(*ty).unwrap_or(0)));
                (ty.argument, members.collect::<Vec<_>>())
            };
            assert_eq!(members(&part), members(&whole), "{name}");
        }
        // Anonymous structs are gone, so what was in them is a member of its own.
        assert!(part.find("task_struct", &[STRUCT]).unwrap().vlen > 100);
    }

    #[test]
    fn what_is_no_btf_is_refused() {
        assert!(cut(b"").is_err());
        assert!(cut(&[0; 24]).is_err());
    }
}
