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
    /// By the cgroup's path, or by the socket that told the container's names.
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
    /// `agent.node-name` of the configuration, on every line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Pod<'a>>,
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
            runtime: container.runtime.or(names.and_then(|names| names.runtime)).map(Runtime::as_str),
            name: names.and_then(|names| names.container.as_deref()),
            image: names.and_then(|names| names.image.as_deref()).map(|name| Image { name }),
            labels: names.filter(|names| names.pod.is_none()).and_then(|names| labels(&names.labels)),
        }
    }
}

impl<'a> Kubernetes<'a> {
    /// The node, and what is known of a container's pod, if it is in one.
    pub(crate) fn new(
        node: Option<&'a str>,
        container: Option<&'a container::Container>,
        is_full: bool,
    ) -> Option<Self> {
        let node = node.map(|name| Named { name });
        let pod = container.and_then(|container| Self::of_pod(container, is_full));
        match pod {
            Some(pod) => Some(Self { node, ..pod }),
            None => node.map(Self::of_node),
        }
    }

    fn of_node(node: Named<'a>) -> Self {
        Self { node: Some(node), namespace: None, pod: None, container: None }
    }

    fn of_pod(container: &'a container::Container, is_full: bool) -> Option<Self> {
        let names = container.names().map(|names| &**names);
        let pod = names.and_then(|names| names.pod.as_ref());
        let path = container.pod.as_ref();
        let uid = path.map(|pod| pod.uid.as_str()).or(pod.map(|pod| &*pod.uid))?;
        Some(Self {
            node: None,
            namespace: pod.map(|pod| Named { name: &pod.namespace }),
            pod: Some(Pod {
                uid: Some(uid),
                name: pod.map(|pod| &*pod.name),
                qos: path.and_then(|pod| pod.qos).filter(|_| is_full).map(Qos::as_str),
                label: names.filter(|_| pod.is_some()).and_then(|names| labels(&names.labels)),
            }),
            container: pod.and(names).and_then(|names| names.container.as_deref()).map(|name| Named { name }),
        })
    }

    /// The names of node and pod alone, where they are known.
    pub(crate) fn names_only(self) -> Option<Self> {
        let Self { node, namespace, pod, container: _ } = self;
        if namespace.is_none() {
            return node.map(Self::of_node);
        }
        let pod = pod.map(|pod| Pod { uid: None, qos: None, label: None, ..pod });
        Some(Self { node, namespace, pod, container: None })
    }
}

/// Labels, if there are any.
fn labels(labels: &BTreeMap<Arc<str>, Arc<str>>) -> Option<Labels<'_>> {
    (!labels.is_empty()).then(|| labels.iter().map(|(key, value)| (&**key, &**value)).collect())
}
