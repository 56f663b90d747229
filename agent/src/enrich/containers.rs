//! Containers by cgroup: known from the moment the cgroup is made, forgotten a while after it is gone.

use std::{collections::VecDeque, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use rustc_hash::FxHashMap;
use tellwire_ebpf::settings::CgroupKey;

use super::{cgroup_path, container::Container, names::Names};
use crate::{host::Hierarchies, scope::walk};

/// Records of a container's last moments can come after its cgroup is gone.
const KEPT_NS: u64 = 60_000_000_000;

/// Cgroups that are remembered at the most; those that are gone go first.
pub(crate) const MAX: usize = 65_536;

/// Names that are remembered of containers that have no cgroup yet, or none any more.
const MAX_NAMES: usize = 16_384;

/// The cgroups of the host, by hierarchy and id, and the containers that they belong to.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    cgroups: FxHashMap<(u64, u64), Cgroup>,
    /// Containers that engines gave an id, which all their cgroups share.
    by_id: FxHashMap<Arc<str>, Arc<Container>>,
    /// What runtimes tell, by the container's id: it can come before the container's first cgroup.
    names: FxHashMap<Arc<str>, Arc<Names>>,
    /// Containers that were forgotten without names, though lines told of them.
    pub(crate) never_named: u64,
    /// Removed cgroups with the time of their removal, oldest first.
    gone: VecDeque<(u64, (u64, u64))>,
    /// Cgroups that were not taken in, since there were too many.
    pub(crate) refused: u64,
}

#[derive(Debug)]
struct Cgroup {
    container: Option<Arc<Container>>,
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

    /// A cgroup was made at `path`; gives the container that it belongs to.
    pub(crate) fn made(&mut self, hierarchy: u64, id: u64, path: &str) -> Option<Arc<Container>> {
        if self.cgroups.len() >= MAX && !self.forget_oldest() {
            self.refused += 1;
            return None;
        }
        let container = cgroup_path::parse(path).map(|path| {
            let container = Container::new(path);
            if container.is_known() { self.shared(container) } else { Arc::new(container) }
        });
        if let Some(container) = &container {
            container.cgroup_made();
        }
        let cgroup = Cgroup { container: container.clone(), gone: false };
        if let Some(Cgroup { container: Some(before), gone: false }) =
            self.cgroups.insert((hierarchy, id), cgroup)
        {
            // Its removal was not told.
            before.cgroup_removed(0);
        }
        container
    }

    /// The container of this id: its cgroups, in two hierarchies or below one another, are one container's.
    fn shared(&mut self, container: Container) -> Arc<Container> {
        if let Some(known) = self.by_id.get(container.id.as_str()) {
            return Arc::clone(known);
        }
        let id: Arc<str> = container.id.as_str().into();
        let container = Arc::new(container);
        if let Some(names) = self.names.get(&id) {
            container.name(names);
        }
        self.by_id.insert(id, Arc::clone(&container));
        container
    }

    /// A cgroup was removed at `time`; gives its container where that was the last one of it.
    pub(crate) fn removed(&mut self, hierarchy: u64, id: u64, time: u64) -> Option<Arc<Container>> {
        let cgroup = self.cgroups.get_mut(&(hierarchy, id)).filter(|cgroup| !cgroup.gone)?;
        cgroup.gone = true;
        self.gone.push_back((time, (hierarchy, id)));
        cgroup.container.as_ref().filter(|container| container.cgroup_removed(time)).map(Arc::clone)
    }

    /// Takes in what a runtime calls a container; gives the container where it had no names.
    pub(crate) fn named(&mut self, id: &Arc<str>, names: &Arc<Names>) -> Option<Arc<Container>> {
        if self.names.len() < MAX_NAMES || self.names.contains_key(id) {
            self.names.insert(Arc::clone(id), Arc::clone(names));
        }
        self.by_id.get(id).filter(|container| container.name(names)).map(Arc::clone)
    }

    /// A runtime has forgotten a container. One that has cgroups keeps its names.
    pub(crate) fn unnamed(&mut self, id: &str) {
        self.names.remove(id);
    }

    /// A container that an engine gave this id.
    pub(crate) fn by_id(&self, id: &str) -> Option<&Arc<Container>> {
        self.by_id.get(id)
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
        if self.cgroups.get(&key).is_some_and(|cgroup| cgroup.gone)
            && let Some(Cgroup { container: Some(container), .. }) = self.cgroups.remove(&key)
            && container.is_known()
            && !container.is_there()
        {
            self.by_id.remove(container.id.as_str());
            self.never_named += u64::from(container.take_unnamed());
        }
        true
    }

    /// The container of a process in these cgroups (0 for none).
    ///
    /// Runtimes use either hierarchy or both, and a free-text name counts only for a process whose
    /// namespaces are its own.
    pub(crate) fn of(&self, v2: u64, v1: u64, isolated: bool) -> Option<Arc<Container>> {
        let find =
            |hierarchy, id| self.cgroups.get(&(hierarchy, id)).and_then(|cgroup| cgroup.container.as_ref());
        let (v2, v1) = (find(CgroupKey::V2, v2), find(CgroupKey::V1, v1));
        let known = [v2, v1].into_iter().flatten().find(|container| container.is_known());
        known.or_else(|| v2.or(v1).filter(|_| isolated)).map(Arc::clone)
    }

    /// Cgroups that are a container's by their path alone: hierarchy and id, and the container's id.
    pub(crate) fn known(&self) -> impl Iterator<Item = ((u64, u64), &str)> {
        self.cgroups.iter().filter_map(|(key, cgroup)| {
            let container = cgroup.container.as_ref()?;
            let is_known = container.is_known() && !cgroup.gone;
            is_known.then_some((*key, container.id.as_str()))
        })
    }

    /// The same of one cgroup.
    pub(crate) fn known_at(&self, hierarchy: u64, id: u64) -> Option<&str> {
        let container = self.cgroups.get(&(hierarchy, id))?.container.as_ref()?;
        container.is_known().then_some(container.id.as_str())
    }

    /// Cgroups that belong to containers: hierarchy and id.
    pub(crate) fn cgroups(&self) -> impl Iterator<Item = ((u64, u64), &Arc<Container>)> {
        self.cgroups.iter().filter_map(|(key, cgroup)| Some((*key, cgroup.container.as_ref()?)))
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
        assert!(containers.of(7, 0, false).is_none());
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
        assert!(containers.of(5, 0, false).is_none());
        assert_eq!(containers.of(5, 0, true).unwrap().id, "web-1");
    }

    fn names(name: &str) -> Arc<Names> {
        Arc::new(Names { container: Some(name.into()), ..Names::default() })
    }

    #[test]
    fn names_may_come_before_the_cgroup_and_after_it() {
        let mut containers = Containers::default();
        let id: Arc<str> = ID.into();
        assert!(containers.named(&id, &names("web")).is_none());
        let container = containers.made(CgroupKey::V2, 1, &format!("/docker/{ID}")).unwrap();
        assert_eq!(container.names().unwrap().container.as_deref(), Some("web"));
        let other: Arc<str> = "1".repeat(64).into();
        let container = containers.made(CgroupKey::V2, 2, &format!("/docker/{other}")).unwrap();
        assert!(container.names().is_none());
        assert!(containers.named(&other, &names("db")).is_some());
        assert_eq!(container.names().unwrap().container.as_deref(), Some("db"));
        assert!(containers.named(&other, &names("db")).is_none(), "the second time is no news");
    }

    #[test]
    fn a_container_ends_with_the_last_of_its_cgroups() {
        let mut containers = Containers::default();
        containers.made(CgroupKey::V2, 1, &format!("/docker/{ID}"));
        containers.made(CgroupKey::V2, 2, &format!("/docker/{ID}/nested"));
        containers.made(CgroupKey::V1, 3, &format!("/docker/{ID}"));
        assert!(containers.removed(CgroupKey::V2, 2, 1).is_none());
        assert!(containers.removed(CgroupKey::V2, 1, 2).is_none());
        assert!(containers.removed(CgroupKey::V2, 1, 2).is_none(), "a removal is told twice");
        assert_eq!(containers.removed(CgroupKey::V1, 3, 3).unwrap().id, ID);
    }

    #[test]
    fn lines_that_never_had_names_are_counted() {
        let mut containers = Containers::default();
        for (number, told) in [(1, true), (2, false)] {
            let id = number.to_string().repeat(64);
            let container = containers.made(CgroupKey::V2, number, &format!("/docker/{id}")).unwrap();
            if told {
                container.on_line();
            }
            containers.removed(CgroupKey::V2, number, 0);
        }
        containers.expire(KEPT_NS * 2);
        assert_eq!((containers.never_named, containers.by_id.len()), (1, 0));
    }
}
