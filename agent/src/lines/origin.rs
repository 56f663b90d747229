//! Where lines come from: what all of them say alike, encoded once.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::fields::Host;

/// The program that makes the lines.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Agent {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// Another one each time the agent starts.
    pub(crate) ephemeral_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Orchestrator {
    pub(crate) cluster: Cluster,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Cluster {
    pub(crate) name: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Cloud {
    pub(crate) instance: Instance,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Instance {
    pub(crate) id: String,
}

/// What the configuration says of the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) cluster: Option<String>,
    pub(crate) cloud_instance: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// What Kubernetes calls the host.
    pub(crate) node: Option<String>,
}

/// Parts of every line, as JSON.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) host: Box<RawValue>,
    /// The host's name alone, for lines of the profile `default`.
    pub(crate) host_name: Box<RawValue>,
    pub(crate) agent: Box<RawValue>,
    pub(crate) orchestrator: Option<Box<RawValue>>,
    pub(crate) cloud: Option<Box<RawValue>>,
    pub(crate) labels: Option<Box<RawValue>>,
    /// Within what a line says of the pod, so it is not encoded yet.
    pub(crate) node: Option<String>,
}

impl Origin {
    pub(crate) fn new(host: &Host, agent: &Agent, place: Place) -> serde_json::Result<Self> {
        let Place { cluster, cloud_instance, labels, node } = place;
        let orchestrator = cluster.map(|name| Orchestrator { cluster: Cluster { name } });
        let cloud = cloud_instance.map(|id| Cloud { instance: Instance { id } });
        let labels = (!labels.is_empty()).then_some(labels);
        Ok(Self {
            host: to_raw_value(host)?,
            host_name: to_raw_value(&serde_json::json!({ "name": host.name }))?,
            agent: to_raw_value(agent)?,
            orchestrator: orchestrator.as_ref().map(to_raw_value).transpose()?,
            cloud: cloud.as_ref().map(to_raw_value).transpose()?,
            labels: labels.as_ref().map(to_raw_value).transpose()?,
            node,
        })
    }
}

impl Agent {
    pub(crate) fn new(ephemeral_id: String) -> Self {
        Self { name: "tellwire", version: env!("CARGO_PKG_VERSION"), ephemeral_id }
    }
}
