//! Containers by cgroup: known from the moment the cgroup is made, forgotten a while after it is gone.

use std::{collections::VecDeque, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use rustc_hash::FxHashMap;
use tellwire_ebpf::settings::CgroupKey;

use super::cgroup_path::{self, Certainty, ContainerPath};
use crate::{host::Hierarchies, scope::walk};

/// Records of a container's last moments can come after its cgroup is gone.
const KEPT_NS: u64 = 60_000_000_000;

/// Cgroups that are remembered at the most; those that are gone go first.
pub(crate) const MAX: usize = 65_536;

/// The cgroups of the host, by hierarchy and id.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    cgroups: FxHashMap<(u64, u64), Cgroup>,
    /// Removed cgroups with the time of their removal, oldest first.
    gone: VecDeque<(u64, (u64, u64))>,
    /// Cgroups that were not taken in, since there were too many.
    pub(crate) refused: u64,
}

#[derive(Debug)]
struct Cgroup {
    container: Option<Arc<ContainerPath>>,
    gone: bool,
}

impl Containers {
    /// Reads what is there. The tracepoints are attached already, so nothing falls between.
    pub(crate) fn scan(&mut self, hierarchies: &Hierarchies) {
        if let Some(mount) = &hierarchies.v2 {
            self.scan_hierarchy(mount, CgroupKey::V2);
        }
        if let Some(v1) = &hierarchies.v1 {
            self.scan_hierarchy(&v1.mount, CgroupKey::V1);
        }
    }

    fn scan_hierarchy(&mut self, mount: &Path, hierarchy: u64) {
        walk(mount, &mut |directory| {
            if let (Ok(metadata), Ok(below)) = (std::fs::metadata(directory), directory.strip_prefix(mount)) {
                let path = format!("/{}", below.to_string_lossy());
                self.made(hierarchy, metadata.ino(), &path);
            }
        });
    }

    /// A cgroup was made at `path`.
    pub(crate) fn made(&mut self, hierarchy: u64, id: u64, path: &str) {
        if self.cgroups.len() >= MAX && !self.forget_oldest() {
            self.refused += 1;
            return;
        }
        let container = cgroup_path::parse(path).map(Arc::new);
        self.cgroups.insert((hierarchy, id), Cgroup { container, gone: false });
    }

    /// A cgroup was removed at `time`.
    pub(crate) fn removed(&mut self, hierarchy: u64, id: u64, time: u64) {
        if let Some(cgroup) = self.cgroups.get_mut(&(hierarchy, id)) {
            cgroup.gone = true;
            self.gone.push_back((time, (hierarchy, id)));
        }
    }

    /// Forgets cgroups that have been gone for a while at `now`.
    pub(crate) fn expire(&mut self, now: u64) {
        while self.gone.front().is_some_and(|(time, _)| now.saturating_sub(*time) > KEPT_NS) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.gone.pop_front() else { return false };
        // The id can have been given to a new cgroup since.
        if self.cgroups.get(&key).is_some_and(|cgroup| cgroup.gone) {
            self.cgroups.remove(&key);
        }
        true
    }

    /// The container of a process in these cgroups (0 for none).
    ///
    /// Runtimes use either hierarchy or both, and a free-text name counts only for a process whose
    /// namespaces are its own.
    pub(crate) fn of(&self, v2: u64, v1: u64, isolated: bool) -> Option<Arc<ContainerPath>> {
        let find =
            |hierarchy, id| self.cgroups.get(&(hierarchy, id)).and_then(|cgroup| cgroup.container.as_ref());
        let (v2, v1) = (find(CgroupKey::V2, v2), find(CgroupKey::V1, v1));
        let known = [v2, v1].into_iter().flatten().find(|container| container.certainty == Certainty::Known);
        known.or_else(|| v2.or(v1).filter(|_| isolated)).map(Arc::clone)
    }

    /// Cgroups that are a container's by their path alone: hierarchy and id, and the container's id.
    pub(crate) fn known(&self) -> impl Iterator<Item = ((u64, u64), &str)> {
        self.cgroups.iter().filter_map(|(key, cgroup)| {
            let container = cgroup.container.as_ref()?;
            let is_known = container.certainty == Certainty::Known && !cgroup.gone;
            is_known.then_some((*key, container.id.as_str()))
        })
    }

    /// The same of one cgroup.
    pub(crate) fn known_at(&self, hierarchy: u64, id: u64) -> Option<&str> {
        let container = self.cgroups.get(&(hierarchy, id))?.container.as_ref()?;
        (container.certainty == Certainty::Known).then_some(container.id.as_str())
    }

    pub(crate) fn len(&self) -> usize {
        self.cgroups.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "04fa7377143cd0256f28cfa588020589290e40a8f622c50ee63112281ebe537d";

    #[test]
    fn a_container_is_known_after_its_cgroup_is_gone_and_then_forgotten() {
        let mut containers = Containers::default();
        containers.made(CgroupKey::V2, 7, &format!("/docker/{ID}"));
        containers.removed(CgroupKey::V2, 7, 1_000);
        assert_eq!(containers.of(7, 0, false).unwrap().id, ID);
        containers.expire(1_000 + KEPT_NS + 1);
        assert_eq!(containers.of(7, 0, false), None);
    }

    #[test]
    fn an_id_that_is_given_again_is_not_forgotten() {
        let mut containers = Containers::default();
        containers.made(CgroupKey::V1, 7, "/");
        containers.removed(CgroupKey::V1, 7, 0);
        containers.made(CgroupKey::V1, 7, &format!("/docker/{ID}"));
        containers.expire(KEPT_NS * 2);
        assert!(containers.of(0, 7, false).is_some());
    }

    #[test]
    fn either_hierarchy_may_name_the_container() {
        let mut containers = Containers::default();
        containers.made(CgroupKey::V2, 1, "/");
        containers.made(CgroupKey::V1, 9, &format!("/docker/{ID}"));
        assert!(containers.of(1, 9, false).is_some());
        assert!(containers.of(1, 8, false).is_none());
    }

    #[test]
    fn a_free_text_name_counts_for_isolated_processes_only() {
        let mut containers = Containers::default();
        containers.made(CgroupKey::V2, 5, "/web-1");
        assert_eq!(containers.of(5, 0, false), None);
        assert_eq!(containers.of(5, 0, true).unwrap().id, "web-1");
    }
}
