//! What a container runtime calls a container: its own name, its image, its pod.

use std::{collections::BTreeMap, sync::Arc};

use super::cgroup_path::Runtime;

/// Names of a container. Absent is what its runtime does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// The container's own name: in a pod the one that the pod's specification gives it.
    pub(crate) container: Option<Arc<str>>,
    /// The image as it was asked for.
    pub(crate) image: Option<Arc<str>>,
    pub(crate) pod: Option<PodNames>,
    /// Who told of it, as far as its socket says that.
    pub(crate) runtime: Option<Runtime>,
    /// It holds a pod's namespaces, and runs nothing of the workload ("pause").
    pub(crate) is_sandbox: bool,
    /// Labels that the configuration lets through: the pod's, or the container's where there is no pod.
    pub(crate) labels: BTreeMap<Arc<str>, Arc<str>>,
    /// What runs it, for metrics: see [`super::workload`].
    pub(crate) workload: Arc<str>,
}

/// Names of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodNames {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) uid: Arc<str>,
}

impl Names {
    /// The pod's namespace.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.pod.as_ref().map(|pod| &*pod.namespace)
    }
}
