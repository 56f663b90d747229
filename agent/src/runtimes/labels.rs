//! Labels of a container or a pod: those that are let through, and those that tell the workload.

use std::{collections::BTreeMap, sync::Arc};

use super::wire;
use crate::enrich::{
    names::{Names, PodNames},
    workload,
};

/// The label that the kubelet puts on each container, by what it says (`k8s.io/kubelet` v0.34,
/// `pkg/types/labels.go`).
pub(super) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(super) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(super) const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Labels that are let through at the most.
const MAX: usize = 32;

/// Labels as they came.
#[derive(Debug, Default)]
pub(super) struct Labels<'a>(pub(super) Vec<(&'a [u8], &'a [u8])>);

impl<'a> Labels<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(name, _)| *name == key.as_bytes())?;
        std::str::from_utf8(found.1).ok()
    }

    /// Those that are let through.
    pub(super) fn allowed(&self, allowed: &[String]) -> BTreeMap<Arc<str>, Arc<str>> {
        let taken = allowed.iter().filter_map(|key| {
            let value = self.0.iter().find(|(name, _)| *name == key.as_bytes())?.1;
            Some((Arc::from(key.as_str()), wire::text(value)?))
        });
        taken.take(MAX).collect()
    }

    /// The pod that the kubelet's labels name.
    pub(super) fn pod(&self) -> Option<PodNames> {
        let text = |key| self.get(key).and_then(|value| wire::text(value.as_bytes()));
        Some(PodNames { namespace: text(POD_NAMESPACE)?, name: text(POD_NAME)?, uid: text(POD_UID)? })
    }

    /// What runs the pod.
    pub(super) fn workload(&self, pod: &PodNames, allowed: &[String]) -> Arc<str> {
        let by_application =
            if is_allowed(allowed, workload::APPLICATION) { self.get(workload::APPLICATION) } else { None };
        let workload = by_application.filter(|name| !name.is_empty());
        let workload = workload.unwrap_or_else(|| workload::of_pod(pod, |key| self.get(key)));
        wire::text(workload.as_bytes()).unwrap_or_else(|| Arc::clone(&pod.name))
    }
}

fn is_allowed(allowed: &[String], key: &str) -> bool {
    allowed.iter().any(|allowed| allowed == key)
}

/// The workload of a container outside of pods: its name, or else its image.
pub(super) fn standalone(names: &Names) -> Arc<str> {
    names.container.clone().or_else(|| names.image.clone()).unwrap_or_else(|| "".into())
}

/// Whether this can be a container's id: runtimes make them of hexadecimal digits, and let few choose others.
pub(super) fn is_id(id: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&id.len()) && id.iter().all(is_part)
}
