//! The container of a line, and its pod.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Serialize;

use crate::enrich::{
    cgroup_path::{Qos, Runtime},
    container,
};

/// Text to text, for labels.
type Labels<'a> = BTreeMap<&'a str, &'a str>;

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Container<'a> {
    pub(crate) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<&'a str>,
    /// What its runtime calls it; in a pod, what the pod's specification calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<Image<'a>>,
    /// Those that `containers.labels` lets through, outside of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<Labels<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Image<'a> {
    /// As it was asked for, with its tag or digest.
    pub(crate) name: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Kubernetes<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<Named<'a>>,
    pub(crate) pod: Pod<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<Named<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Pod<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    /// Ours: `guaranteed`, `burstable` or `besteffort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) qos: Option<&'a str>,
    /// Those that `containers.labels` lets through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<Labels<'a>>,
}

impl<'a> Container<'a> {
    /// What is known of a container.
    pub(crate) fn new(container: &'a container::Container) -> Self {
        let names = container.names().map(|names| &**names);
        Self {
            id: &container.id,
            runtime: container.runtime.map(Runtime::as_str),
            name: names.and_then(|names| names.container.as_deref()),
            image: names.and_then(|names| names.image.as_deref()).map(|name| Image { name }),
            labels: names.filter(|names| names.pod.is_none()).and_then(|names| labels(&names.labels)),
        }
    }
}

impl<'a> Kubernetes<'a> {
    /// What is known of a container's pod, if it is in one.
    pub(crate) fn new(container: &'a container::Container, is_full: bool) -> Option<Self> {
        let names = container.names().map(|names| &**names);
        let pod = names.and_then(|names| names.pod.as_ref());
        let path = container.pod.as_ref();
        let uid = path.map(|pod| pod.uid.as_str()).or(pod.map(|pod| &*pod.uid))?;
        Some(Self {
            namespace: pod.map(|pod| Named { name: &pod.namespace }),
            pod: Pod {
                uid: Some(uid),
                name: pod.map(|pod| &*pod.name),
                qos: path.and_then(|pod| pod.qos).filter(|_| is_full).map(Qos::as_str),
                label: names.filter(|_| pod.is_some()).and_then(|names| labels(&names.labels)),
            },
            container: pod.and(names).and_then(|names| names.container.as_deref()).map(|name| Named { name }),
        })
    }

    /// The pod's names alone, where they are known.
    pub(crate) fn names_only(self) -> Option<Self> {
        let Self { namespace, pod, container: _ } = self;
        namespace.as_ref()?;
        Some(Self { namespace, pod: Pod { uid: None, qos: None, label: None, ..pod }, container: None })
    }
}

/// Labels, if there are any.
fn labels(labels: &BTreeMap<Arc<str>, Arc<str>>) -> Option<Labels<'_>> {
    (!labels.is_empty()).then(|| labels.iter().map(|(key, value)| (&**key, &**value)).collect())
}
