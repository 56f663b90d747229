//! The cgroups that are looked at where `--cgroup` chooses some.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tellwire_ebpf::settings::CgroupKey;
use thiserror::Error;

use crate::host::Hierarchies;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ScopeError {
    #[error("cgroup {0}: no such cgroup below {1}")]
    Missing(String, String),
    #[error("cgroup {0}: not in a hierarchy that tellwire reads ({1})")]
    Elsewhere(String, String),
}

/// Directories of chosen cgroups, each with the hierarchy it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Scope(Vec<(PathBuf, u64)>);

impl Scope {
    /// Resolves paths that are absolute (below a cgroup mount), or relative to one.
    pub(crate) fn new(paths: &[PathBuf], hierarchies: &Hierarchies) -> Result<Self, ScopeError> {
        let mounts: Vec<(&Path, u64)> = hierarchies
            .v2
            .iter()
            .map(|mount| (mount.as_path(), CgroupKey::V2))
            .chain(hierarchies.v1.iter().map(|v1| (v1.mount.as_path(), CgroupKey::V1)))
            .collect();
        let known =
            mounts.iter().map(|(mount, _)| mount.display().to_string()).collect::<Vec<_>>().join(" or ");
        let mut directories = Vec::new();
        for path in paths {
            let shown = path.display().to_string();
            // The longest mount first: a v2 hierarchy can be mounted below where v1 controllers are.
            let at = mounts
                .iter()
                .filter(|(mount, _)| path.starts_with(mount))
                .max_by_key(|(mount, _)| mount.as_os_str().len())
                .map(|(_, hierarchy)| (path.clone(), *hierarchy))
                .filter(|(path, _)| path.is_dir());
            let before = directories.len();
            if at.is_some() {
                directories.extend(at);
            } else {
                // In both hierarchies, where engines use both: counters go by the v1 cgroup there.
                let below = path.strip_prefix("/").unwrap_or(path);
                let joined = mounts.iter().map(|(mount, hierarchy)| (mount.join(below), *hierarchy));
                directories.extend(joined.filter(|(path, _)| path.join("cgroup.procs").exists()));
            }
            if directories.len() == before {
                let error = if path.is_dir() { ScopeError::Elsewhere } else { ScopeError::Missing };
                return Err(error(shown, known));
            }
        }
        Ok(Self(directories))
    }

    /// No cgroup at all: programs that are loaded to see whether they load look at nobody.
    pub(crate) fn nothing() -> Self {
        Self(Vec::new())
    }

    /// The chosen cgroups and all that are below them now.
    pub(crate) fn scan(&self) -> Vec<CgroupKey> {
        let mut keys = Vec::new();
        for (directory, hierarchy) in &self.0 {
            walk(directory, &mut |path| {
                if let Ok(metadata) = fs::metadata(path) {
                    keys.push(CgroupKey { id: metadata.ino(), hierarchy: *hierarchy });
                }
            });
        }
        keys
    }
}

impl Scope {
    /// The processes that are in these cgroups now.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut processes = Vec::new();
        for (directory, _) in &self.0 {
            walk(directory, &mut |path| {
                let there = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                processes.extend(there.lines().filter_map(|line| line.parse::<u32>().ok()));
            });
        }
        // One that is in a chosen cgroup of either hierarchy is there twice.
        processes.sort_unstable();
        processes.dedup();
        processes
    }
}

/// Calls `visit` for a cgroup's directory and every one below it.
pub(crate) fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) {
    visit(directory);
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::V1;

    #[test]
    fn a_relative_path_is_looked_at_in_both_hierarchies() {
        let folder = tempfile::tempdir().unwrap();
        let [v2, memory] = ["unified", "memory"].map(|name| folder.path().join(name));
        for (mount, cgroup) in [(&v2, "shop"), (&memory, "shop"), (&v2, "alone")] {
            fs::create_dir_all(mount.join(cgroup)).unwrap();
            fs::write(mount.join(cgroup).join("cgroup.procs"), "7\n").unwrap();
        }
        let v1 = V1 { mount: memory.clone(), controller: "memory".into(), hierarchy: 4 };
        let hierarchies = Hierarchies { v2: Some(v2.clone()), v1: Some(v1) };
        let found = |path: PathBuf| {
            let scope = Scope::new(&[path], &hierarchies).unwrap();
            (scope.scan().iter().map(|key| key.hierarchy).collect::<Vec<_>>(), scope.processes())
        };
        let (both, v2_alone) = (vec![CgroupKey::V2, CgroupKey::V1], vec![CgroupKey::V2]);
        assert_eq!(found("shop".into()), (both.clone(), vec![7]));
        assert_eq!(found("/shop".into()), (both, vec![7]));
        assert_eq!(found("alone".into()), (v2_alone, vec![7]));
        assert_eq!(found(memory.join("shop")), (vec![CgroupKey::V1], vec![7]));
        assert!(matches!(Scope::new(&["nowhere".into()], &hierarchies), Err(ScopeError::Missing(..))));
    }
}
