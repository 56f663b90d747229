//! Docker's API, by HTTP/1.1 over its Unix socket. Podman's service answers the same.
//!
//! Fields are those of version 1.41, <https://docs.docker.com/reference/api/engine/version/v1.41/>; paths without a version
//! get what the daemon has.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::{net::UnixStream, task::AbortHandle};

use super::{
    Change, Found,
    labels::{CONTAINER_NAME, Labels, is_id, standalone},
    wire::text,
};
use crate::enrich::{cgroup_path::Runtime, names::Names};

/// An answer, in bytes. Who sends more is not listened to.
const ANSWER: usize = 8 << 20;

/// One event, in bytes.
const EVENT: usize = 256 << 10;

#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("HTTP status {0}")]
    Status(http::StatusCode),
    #[error("the answer is no answer")]
    Malformed,
    #[error("the answer has no end")]
    Endless,
}

/// The API behind a socket; each call has a connection of its own.
#[derive(Debug)]
pub(super) struct Docker {
    socket: PathBuf,
    allowed: Arc<[String]>,
    runtime: Option<Runtime>,
    /// Entries that made no sense.
    pub(super) refused: u64,
}

/// An element of `/containers/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// What `/events` tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    action: String,
    actor: Actor,
}

#[derive(Debug, Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
}

impl Docker {
    pub(super) fn new(socket: &Path, runtime: Option<Runtime>, allowed: Arc<[String]>) -> Self {
        Self { socket: socket.to_owned(), allowed, runtime, refused: 0 }
    }

    /// All containers.
    pub(super) async fn list(&mut self) -> Result<Vec<Found>, CallError> {
        self.read("/containers/json?all=1").await
    }

    /// The container of this id.
    pub(super) async fn look_up(&mut self, id: &str) -> Result<Option<Found>, CallError> {
        if !is_id(id.as_bytes()) {
            return Ok(None);
        }
        let path = format!("/containers/json?all=1&filters=%7B%22id%22%3A%5B%22{id}%22%5D%7D");
        Ok(self.read(&path).await?.into_iter().find(|found| *found.id == *id))
    }

    /// Asks to be told what happens.
    pub(super) async fn events(&self) -> Result<Events, CallError> {
        // {"type":["container"],"event":["create","start","destroy"]}
        let path = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C\
                    %22destroy%22%5D%7D";
        let (body, driver) = self.get(path).await?;
        Ok(Events { body, driver, buffer: BytesMut::new() })
    }

    async fn read(&mut self, path: &str) -> Result<Vec<Found>, CallError> {
        let (mut body, driver) = self.get(path).await?;
        let mut text = BytesMut::new();
        while let Some(chunk) = chunk(&mut body).await? {
            if text.len() + chunk.len() > ANSWER {
                return Err(CallError::Endless);
            }
            text.extend_from_slice(&chunk);
        }
        drop(driver);
        // Element by element: one that is nonsense does not take the others with it.
        let listed: Vec<&serde_json::value::RawValue> =
            serde_json::from_slice(&text).map_err(|_nonsense| CallError::Malformed)?;
        let mut found = Vec::new();
        for listed in listed {
            match serde_json::from_str::<Listed>(listed.get()) {
                Ok(listed) if is_id(listed.id.as_bytes()) => {
                    let names = Names { runtime: self.runtime, ..names(&listed, &self.allowed) };
                    found.push(Found { id: listed.id.into(), names: Arc::new(names) });
                }
                _ => self.refused += 1,
            }
        }
        Ok(found)
    }

    async fn get(&self, path: &str) -> Result<(Incoming, Driver), CallError> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to docker");
            }
        });
        let driver = Driver(driver.abort_handle());
        let request = Request::get(path).header("host", "docker").body(Empty::<Bytes>::new());
        let response = send.send_request(request.map_err(|_nonsense| CallError::Malformed)?).await?;
        if response.status() != http::StatusCode::OK {
            return Err(CallError::Status(response.status()));
        }
        Ok((response.into_body(), driver))
    }
}

/// Whoever moves a connection's bytes; it ends with this value.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The stream of events: JSON objects, a line each.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    #[expect(dead_code, reason = "the connection lives as long as this value")]
    driver: Driver,
    buffer: BytesMut,
}

impl Events {
    /// The next event: a container's id, and whether it was made or removed; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(Arc<str>, Option<Change>)>, CallError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                let Ok(told) = serde_json::from_slice::<Told>(&line) else { continue };
                if !is_id(told.actor.id.as_bytes()) {
                    continue;
                }
                let change = match told.action.as_str() {
                    "create" => Some(Change::Created),
                    "destroy" => Some(Change::Removed),
                    _ => None,
                };
                return Ok(Some((told.actor.id.into(), change)));
            }
            if self.buffer.len() > EVENT {
                return Err(CallError::Endless);
            }
            let Some(chunk) = chunk(&mut self.body).await? else { return Ok(None) };
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

async fn chunk(body: &mut Incoming) -> Result<Option<Bytes>, CallError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The names of a container: of a pod's too, which cri-dockerd labels as the kubelet does.
fn names(listed: &Listed, allowed: &[String]) -> Names {
    let Listed { names, image, labels, .. } = listed;
    let labels = labels.iter().flatten().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    let labels = Labels(labels.collect());
    let name = names.first().map_or("", |name| name.trim_start_matches('/'));
    let name = labels.get(CONTAINER_NAME).unwrap_or(name);
    let pod = labels.pod();
    let is_sandbox = labels.get("io.kubernetes.docker.type") == Some("podsandbox");
    let mut names = Names {
        container: text(name.as_bytes()).filter(|_| !is_sandbox),
        image: text(image.as_bytes()),
        labels: labels.allowed(allowed),
        is_sandbox,
        ..Names::default()
    };
    names.workload = match &pod {
        Some(pod) => labels.workload(pod, allowed),
        None => standalone(&names),
    };
    names.pod = pod;
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_its_name_without_the_slash() {
        let listed: Listed = serde_json::from_str(
            r#"{"Id":"ab","Names":["/web"],"Image":"nginx:1","Labels":{"app":"shop","secret":"x"}}"#,
        )
        .unwrap();
        let names = names(&listed, &["app".to_owned()]);
        assert_eq!((names.container.as_deref(), names.image.as_deref()), (Some("web"), Some("nginx:1")));
        assert_eq!((&*names.workload, names.labels.len()), ("web", 1));
    }

    #[test]
    fn a_container_of_a_pod_has_the_pods_names() {
        let listed: Listed = serde_json::from_str(
            r#"{"Id":"ab","Names":["/k8s_server_cart-7d5c9b8f6d-x2v9k_shop_u_0"],"Image":"cart:2","Labels":{
                "io.kubernetes.container.name":"server","io.kubernetes.pod.name":"cart-7d5c9b8f6d-x2v9k",
                "io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"u"}}"#,
        )
        .unwrap();
        let names = names(&listed, &[]);
        assert_eq!((names.container.as_deref(), names.namespace()), (Some("server"), Some("shop")));
        assert_eq!(&*names.workload, "cart");
    }
}
