//! Container runtimes: what they call a container, asked by their sockets.
//!
//! Each socket has a task of its own. The pipeline asks by [`Asks`] when it meets a container without names, and finds
//! answers in its [`Feed`]; it waits for neither, and a runtime that hangs, lies or goes away costs names and nothing
//! else. What comes out of here is small, cut, and of a form that was checked.

mod books;
mod cri;
mod docker;
mod grpc;
mod labels;
mod task;
mod wire;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use self::books::{OUTCOMES, RuntimeBooks};
use self::{books::SocketBooks, task::Task};
use crate::{
    config,
    enrich::{cgroup_path::Runtime, names::Names},
    host::HostRoot,
    http::Readiness,
};

/// Where runtimes listen, on distributions of Kubernetes and without it.
const USUAL: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/docker.sock",
];

/// Questions that may wait for a runtime. Those beyond are answered by the next full list.
const QUESTIONS: usize = 1024;

/// Answers that may wait for the pipeline; a runtime's task waits for room.
const ANSWERS: usize = 1024;

/// A container with the names that its runtime gives it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) id: Arc<str>,
    pub(crate) names: Arc<Names>,
}

/// What a runtime said of a container beside its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Removed,
}

/// What the pipeline is told.
#[derive(Debug)]
pub(crate) enum Told {
    Found(Found),
    /// The same; the runtime has just made it.
    Created(Found),
    Removed(Arc<str>),
    /// A socket's first list is complete, or there is none.
    Listed,
}

/// The pipeline's questions. By default there is nobody to ask.
#[derive(Debug, Default)]
pub(crate) struct Asks(Vec<mpsc::Sender<Arc<str>>>);

impl Asks {
    /// Asks what a container is called, without waiting. Where there is no room the next list will tell.
    pub(crate) fn ask(&self, id: &str) {
        let id: Arc<str> = id.into();
        for runtime in &self.0 {
            let _full = runtime.try_send(Arc::clone(&id));
        }
    }

    /// How many sockets are asked.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The pipeline's end of the answers.
#[derive(Debug)]
pub(crate) struct Feed(mpsc::Receiver<Told>);

impl Feed {
    /// What is there, without waiting.
    pub(crate) fn next(&mut self) -> Option<Told> {
        self.0.try_recv().ok()
    }
}

/// Begins to ask, at the sockets that the configuration names or at the usual ones.
pub(crate) fn start(
    config: &config::Containers,
    host: &HostRoot,
    readiness: &Arc<Readiness>,
    cancel: &CancellationToken,
) -> (Asks, Feed, Arc<RuntimeBooks>) {
    let (told, feed) = mpsc::channel(ANSWERS);
    let mut sockets: Vec<(&Path, bool)> = config.sockets.iter().map(|path| (path.as_path(), true)).collect();
    if sockets.is_empty() {
        sockets.extend(USUAL.iter().map(|path| (Path::new(*path), false)));
    }
    if !config.names {
        sockets.clear();
    }
    let allowed: Arc<[String]> = config.labels.clone().into();
    let changed = Arc::default();
    let mut books = Vec::new();
    let mut asks = Vec::new();
    for (path, is_expected) in sockets {
        let (ask, asked) = mpsc::channel(QUESTIONS);
        let of_socket = Arc::new(SocketBooks::new(path.display().to_string(), is_expected, &changed));
        books.push(Arc::clone(&of_socket));
        asks.push(ask);
        let task = Task {
            socket: reached(path, host),
            is_docker: is_docker(path),
            runtime: runtime(path),
            allowed: Arc::clone(&allowed),
            resync: config.resync.get(),
            asked,
            told: told.clone(),
            books: of_socket,
        };
        tokio::spawn(task.run(cancel.clone()));
    }
    let books = Arc::new(RuntimeBooks::new(books, Arc::clone(readiness), changed));
    tokio::spawn(Arc::clone(&books).say(cancel.clone()));
    (Asks(asks), Feed(feed), books)
}

/// Where the agent sees a socket of the host.
fn reached(path: &Path, host: &HostRoot) -> PathBuf {
    host.join(&path.to_string_lossy())
}

/// Whether Docker's API is spoken there, by the socket's name; else it is the container runtime interface.
fn is_docker(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.starts_with("docker") || name.starts_with("podman"))
}

/// Who listens there, by the socket's name; nobody knows of one that is called otherwise.
fn runtime(path: &Path) -> Option<Runtime> {
    match path.file_name()?.to_str()? {
        "containerd.sock" => Some(Runtime::Containerd),
        "crio.sock" => Some(Runtime::CriO),
        "podman.sock" => Some(Runtime::Podman),
        "docker.sock" | "cri-dockerd.sock" => Some(Runtime::Docker),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_socket_tells_what_is_spoken_there() {
        for (path, expected, whose) in [
            ("/run/docker.sock", true, Some(Runtime::Docker)),
            ("/run/podman/podman.sock", true, Some(Runtime::Podman)),
            ("/run/cri-dockerd.sock", false, Some(Runtime::Docker)),
            ("/run/containerd/containerd.sock", false, Some(Runtime::Containerd)),
            ("/run/docker/containerd/containerd.sock", false, Some(Runtime::Containerd)),
            ("/run/crio/crio.sock", false, Some(Runtime::CriO)),
            ("/run/mine.sock", false, None),
        ] {
            let path = Path::new(path);
            assert_eq!((is_docker(path), runtime(path)), (expected, whose), "{}", path.display());
        }
    }
}
