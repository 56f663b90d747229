//! Lines: what an event looks like as JSON. Names are those of the Elastic Common Schema (ECS).
//!
//! The structs are the schema: `tellwire events --json-schema` and docs/events.md are generated from
//! them. What ECS does not name stands under `tellwire.*`, or is marked as ours. Absent rather than null.

mod append;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod build;
pub(crate) mod clock;
pub(crate) mod fields;
pub(crate) mod names;
pub(crate) mod origin;
pub(crate) mod own;
pub(crate) mod pretty;
pub(crate) mod schema;

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use self::{
    append::Appender,
    audit::Group,
    fields::{
        Container, Endpoint, ErrorCode, EventFields, Host, Kubernetes, Network, Process, Related, Tellwire,
        User,
    },
};

/// The version of ECS whose names are used.
pub(crate) const ECS_VERSION: &str = "9.1.0";

/// The version of the lines. Within it, fields are only added.
pub(crate) const SCHEMA: u32 = 1;

/// One event.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Line<'a> {
    /// When it happened, by the kernel's clock: RFC 3339 with nanoseconds.
    #[serde(rename = "@timestamp")]
    pub(crate) timestamp: &'a str,
    /// Not on lines of connections in the profile `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ecs: Option<Ecs>,
    pub(crate) event: EventFields<'a>,
    /// The same on every line, so it is encoded once.
    #[schemars(with = "Host")]
    pub(crate) host: &'a RawValue,
    #[schemars(with = "Option<origin::Agent>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<&'a RawValue>,
    /// `agent.cluster` of the configuration.
    #[schemars(with = "Option<origin::Orchestrator>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) orchestrator: Option<&'a RawValue>,
    /// `agent.cloud-instance-id` of the configuration.
    #[schemars(with = "Option<origin::Cloud>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cloud: Option<&'a RawValue>,
    /// `agent.labels` of the configuration.
    #[schemars(with = "Option<std::collections::BTreeMap<String, String>>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) related: Option<Related>,
    /// Not on lines about a container that no process of it gave rise to.
    #[serde(skip_serializing_if = "Process::is_absent")]
    pub(crate) process: Process<'a>,
    /// Whom the process acts as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<User>,
    /// The group that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<Container<'a>>,
    /// Kubernetes, by the names of the OpenTelemetry semantic conventions (ours).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) k8s: Option<Kubernetes<'a>>,
    /// In the profile `full` alone: all connections are TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Network>,
    /// Our side of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Endpoint>,
    /// The other side of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) destination: Option<Endpoint>,
    /// The errno of what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ErrorCode>,
    /// What rules of the configuration add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<Arc<str>>,
    pub(crate) tellwire: Tellwire<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ecs {
    pub(crate) version: &'static str,
}

/// Appends the line and a newline. The encoder escapes control characters, so that nothing in a
/// string can end the line.
pub(crate) fn write(line: &Line<'_>, to: &mut BytesMut) -> serde_json::Result<()> {
    let start = to.len();
    if let Err(error) = serde_json::to_writer(Appender(to), line) {
        to.truncate(start);
        return Err(error);
    }
    to.put_u8(b'\n');
    Ok(())
}
