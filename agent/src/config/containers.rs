//! The sections `containers` and `metrics`: names of containers, and metrics by workload.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Count, Time};

/// Names of containers and pods, as their runtimes tell them by a socket of the host. Nobody else is asked: not the
/// API server, and no network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Containers {
    /// Whether runtimes are asked. Without names a line has the container's id and its pod's UID, which its cgroup tells.
    pub(crate) names: bool,
    /// Sockets of container runtimes on the host. Where the file's name begins with "docker" or "podman" Docker's API
    /// is spoken, else Kubernetes' container runtime interface. An empty list means those of the usual places that are
    /// there.
    pub(crate) sockets: Vec<PathBuf>,
    /// Labels of pods, or of containers outside of pods, that lines have, such as "app". With "app.kubernetes.io/name"
    /// in the list, it is also what metrics call the workload.
    pub(crate) labels: Vec<String>,
    /// How often everything is listed anew, beside what the runtime tells by itself and what is asked for.
    pub(crate) resync: Time<1_000, 3_600_000>,
}

/// Metrics by workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Metrics {
    /// Series of this node at the most, those of the node and of the agent included. Workloads beyond are told together,
    /// as "__overflow__", so that sums stay exact.
    pub(crate) series: Count<0, 1_000_000>,
    /// Whether each pod has series of its own, by the label "pod".
    pub(crate) pods: bool,
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            names: true,
            sockets: Vec::new(),
            labels: Vec::new(),
            resync: const { Time::from_millis(60_000) },
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { series: const { Count::new(1_000) }, pods: false }
    }
}
