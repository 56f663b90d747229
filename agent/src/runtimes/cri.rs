//! Kubernetes' container runtime interface: containerd, CRI-O, cri-dockerd.
//!
//! Numbers of fields are those of `k8s.io/cri-api` v0.34, `pkg/apis/runtime/v1/api.proto`.

use std::{path::Path, sync::Arc};

use rustc_hash::FxHashMap;

use super::{
    Change, Found,
    grpc::{CallError, Channel, Stream},
    labels::{CONTAINER_NAME, Labels, is_id, standalone},
    wire::{Fields, Malformed, Value, bytes, text, with_text},
};
use crate::enrich::{
    cgroup_path::Runtime,
    names::{Names, PodNames},
};

/// Containers and pods that are taken in at the most.
const MAX: usize = 16_384;

const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const LIST_SANDBOXES: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
const EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";

/// A connection, and the pods that are known.
#[derive(Debug)]
pub(super) struct Cri {
    channel: Channel,
    sandboxes: FxHashMap<Arc<str>, Sandbox>,
    allowed: Arc<[String]>,
    runtime: Option<Runtime>,
    /// Entries that made no sense.
    pub(super) refused: u64,
}

/// A pod.
#[derive(Clone, Debug)]
struct Sandbox {
    names: Arc<Names>,
}

/// A container as the list has it.
#[derive(Debug)]
struct Listed {
    id: Arc<str>,
    sandbox: Arc<str>,
    names: Names,
    /// The pod by the container's own labels.
    pod: Option<(PodNames, Arc<str>)>,
}

impl Cri {
    pub(super) async fn connect(
        socket: &Path,
        runtime: Option<Runtime>,
        allowed: Arc<[String]>,
    ) -> Result<Self, CallError> {
        let channel = Channel::connect(socket).await?;
        Ok(Self { channel, sandboxes: FxHashMap::default(), allowed, runtime, refused: 0 })
    }

    /// All containers and sandboxes.
    pub(super) async fn list(&mut self) -> Result<Vec<Found>, CallError> {
        self.sandboxes.clear();
        let mut found = self.read_sandboxes(&[]).await?;
        for listed in self.read_containers(&[]).await? {
            found.push(self.complete(listed).await?);
        }
        Ok(found)
    }

    /// The container of this id, or the sandbox.
    pub(super) async fn look_up(&mut self, id: &str) -> Result<Option<Found>, CallError> {
        let filter = with_text(1, id.as_bytes());
        let listed = self.read_containers(&with_text(1, &filter)).await?;
        if let Some(listed) = listed.into_iter().find(|listed| *listed.id == *id) {
            return self.complete(listed).await.map(Some);
        }
        let sandboxes = self.read_sandboxes(&with_text(1, &filter)).await?;
        Ok(sandboxes.into_iter().find(|sandbox| *sandbox.id == *id))
    }

    /// Asks to be told what happens. Not every runtime does that: containerd has it since 1.7.
    pub(super) async fn events(&self) -> Result<Stream, CallError> {
        self.channel.subscribe(EVENTS).await
    }

    async fn read_sandboxes(&mut self, request: &[u8]) -> Result<Vec<Found>, CallError> {
        let answer = self.channel.call(LIST_SANDBOXES, request).await?;
        let Self { sandboxes, allowed, runtime, refused, .. } = self;
        let mut found = Vec::new();
        answer
            .entries(|entry| match sandbox(entry, allowed) {
                Ok(Some((id, names))) if sandboxes.len() < MAX || sandboxes.contains_key(&id) => {
                    let names = Arc::new(Names { runtime: *runtime, ..names });
                    sandboxes.insert(Arc::clone(&id), Sandbox { names: Arc::clone(&names) });
                    found.push(Found { id, names });
                }
                _ => *refused += 1,
            })
            .await?;
        Ok(found)
    }

    async fn read_containers(&mut self, request: &[u8]) -> Result<Vec<Listed>, CallError> {
        let answer = self.channel.call(LIST_CONTAINERS, request).await?;
        let Self { allowed, refused, .. } = self;
        let mut found = Vec::new();
        answer
            .entries(|entry| match container(entry, allowed) {
                Ok(Some(listed)) if found.len() < MAX => found.push(listed),
                _ => *refused += 1,
            })
            .await?;
        Ok(found)
    }

    /// Adds what the container's pod tells, and the image's name.
    async fn complete(&mut self, listed: Listed) -> Result<Found, CallError> {
        let Listed { id, sandbox, mut names, pod } = listed;
        if !self.sandboxes.contains_key(&sandbox) && is_id(sandbox.as_bytes()) {
            let filter = with_text(1, sandbox.as_bytes());
            self.read_sandboxes(&with_text(1, &filter)).await?;
        }
        match self.sandboxes.get(&sandbox) {
            Some(Sandbox { names: of_pod }) => {
                names.pod.clone_from(&of_pod.pod);
                names.labels.clone_from(&of_pod.labels);
                names.workload = Arc::clone(&of_pod.workload);
            }
            None => match pod {
                Some((pod, workload)) => (names.pod, names.workload) = (Some(pod), workload),
                None => names.workload = standalone(&names),
            },
        }
        if names.image.as_deref().is_none_or(is_digest)
            && let Some(image) = self.image(&id).await?
        {
            names.image = Some(image);
        }
        names.runtime = self.runtime;
        Ok(Found { id, names: Arc::new(names) })
    }

    /// The name of a container's image, where the list has its digest: kubelets before 1.28 ask by digest.
    async fn image(&self, id: &str) -> Result<Option<Arc<str>>, CallError> {
        let mut name = None;
        let answer = match self.channel.call(CONTAINER_STATUS, &with_text(1, id.as_bytes())).await {
            // It is gone by now.
            Err(CallError::Status(_)) => return Ok(None),
            answer => answer?,
        };
        let read = answer
            .entries(|status| name = bytes(status, 8).ok().flatten().and_then(|spec| image(spec).ok()?));
        match read.await {
            Ok(()) | Err(CallError::Status(_)) => Ok(name),
            Err(error) => Err(error),
        }
    }
}

/// What an event is about: a container's id, and whether it was made or removed.
pub(super) fn event(message: &[u8]) -> Option<(Arc<str>, Option<Change>)> {
    let (mut id, mut kind) = (None, 0);
    for field in Fields(message) {
        match field.ok()? {
            (1, Value::Bytes(bytes)) if is_id(bytes) => id = text(bytes),
            (2, Value::Number(number)) => kind = number,
            _ => {}
        }
    }
    let change = match kind {
        0 => Some(Change::Created),
        3 => Some(Change::Removed),
        _ => None,
    };
    Some((id?, change))
}

/// `PodSandbox`; `None` where the entry says nothing that can be used.
fn sandbox(entry: &[u8], allowed: &[String]) -> Result<Option<(Arc<str>, Names)>, Malformed> {
    let (mut id, mut metadata, mut labels) = (None, &[][..], Labels::default());
    for field in Fields(entry) {
        match field? {
            (1, Value::Bytes(bytes)) if is_id(bytes) => id = text(bytes),
            (2, Value::Bytes(bytes)) => metadata = bytes,
            (5, Value::Bytes(bytes)) => labels.0.push(pair(bytes)?),
            _ => {}
        }
    }
    let part = |number| bytes(metadata, number).map(|found| found.and_then(text));
    let (Some(id), Some(name), Some(uid), Some(namespace)) = (id, part(1)?, part(2)?, part(3)?) else {
        return Ok(None);
    };
    let pod = PodNames { namespace, name, uid };
    let names = Names {
        labels: labels.allowed(allowed),
        workload: labels.workload(&pod, allowed),
        pod: Some(pod),
        is_sandbox: true,
        ..Names::default()
    };
    Ok(Some((id, names)))
}

/// `Container`; `None` where the entry says nothing that can be used.
fn container(entry: &[u8], allowed: &[String]) -> Result<Option<Listed>, Malformed> {
    let (mut id, mut sandbox, mut names, mut labels) = (None, None, Names::default(), Labels::default());
    for field in Fields(entry) {
        match field? {
            (1, Value::Bytes(bytes)) if is_id(bytes) => id = text(bytes),
            (2, Value::Bytes(bytes)) => sandbox = text(bytes),
            (3, Value::Bytes(metadata)) => names.container = bytes(metadata, 1)?.and_then(text),
            (4, Value::Bytes(spec)) => names.image = image(spec)?,
            (8, Value::Bytes(bytes)) => labels.0.push(pair(bytes)?),
            _ => {}
        }
    }
    let Some(id) = id else { return Ok(None) };
    if let Some(name) = labels.get(CONTAINER_NAME).and_then(|name| text(name.as_bytes())) {
        names.container = Some(name);
    }
    let pod = labels.pod().map(|pod| {
        let workload = labels.workload(&pod, allowed);
        (pod, workload)
    });
    Ok(Some(Listed { id, sandbox: sandbox.unwrap_or_else(|| "".into()), names, pod }))
}

/// The name in an `ImageSpec`: what the pod's specification says, where the kubelet tells.
fn image(spec: &[u8]) -> Result<Option<Arc<str>>, Malformed> {
    let asked_for = bytes(spec, 18)?.and_then(text);
    Ok(asked_for.or(bytes(spec, 1)?.and_then(text)))
}

fn is_digest(image: &str) -> bool {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An entry of a map of texts.
fn pair(entry: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    Ok((bytes(entry, 1)?.unwrap_or_default(), bytes(entry, 2)?.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, parts: &[Vec<u8>]) -> Vec<u8> {
        with_text(number, &parts.concat())
    }

    fn label(key: &str, value: &[u8]) -> Vec<u8> {
        [with_text(1, key.as_bytes()), with_text(2, value)].concat()
    }

    #[test]
    fn a_text_that_is_not_utf8_does_not_spoil_the_rest() {
        let entry = [
            with_text(1, b"ab12"),
            with_text(2, b"cd34"),
            field(3, &[with_text(1, b"serv\xff")]),
            field(4, &[with_text(1, b"sha256:0"), vec![18 << 3 & 0x7f | 2 | 0x80, 1, 3], b"app".to_vec()]),
            field(8, &[label("app", b"\xff\xfe")]),
        ];
        let listed = container(&entry.concat(), &[]).unwrap().unwrap();
        assert_eq!((&*listed.id, &*listed.sandbox), ("ab12", "cd34"));
        assert_eq!(listed.names.image.as_deref(), Some("app"));
        assert!(listed.names.container.unwrap().starts_with("serv"));
    }

    #[test]
    fn a_pod_has_its_names_and_the_labels_that_are_let_through() {
        let entry = [
            with_text(1, b"ab12"),
            field(2, &[with_text(1, b"cart-7d5c9b8f6d-x2v9k"), with_text(2, b"u"), with_text(3, b"shop")]),
            field(5, &[label("app", b"cart")]),
            field(5, &[label("secret", b"x")]),
        ];
        let (id, names) = sandbox(&entry.concat(), &["app".to_owned()]).unwrap().unwrap();
        assert_eq!((&*id, names.namespace(), &*names.workload), ("ab12", Some("shop"), "cart"));
        assert_eq!((names.labels.len(), names.is_sandbox), (1, true));
    }

    #[test]
    fn an_entry_without_a_usable_id_is_none() {
        let entry = [with_text(1, b"../../etc"), field(3, &[with_text(1, b"server")])].concat();
        assert!(container(&entry, &[]).unwrap().is_none());
        assert!(container(&[0xff, 0xff], &[]).is_err());
    }

    #[test]
    fn an_event_says_what_it_is_about() {
        let removed = [with_text(1, b"ab12"), vec![2 << 3, 3]].concat();
        assert_eq!(event(&removed), Some(("ab12".into(), Some(Change::Removed))));
        assert_eq!(event(&with_text(1, b"ab12")), Some(("ab12".into(), Some(Change::Created))));
        assert_eq!(event(&[]), None);
    }
}
