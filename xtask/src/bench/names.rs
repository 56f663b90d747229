//! A made-up runtime that knows every container: what a node's log weighs when pods have names.
//!
//! It answers as Docker's API does (`/containers/json`, `/events`), for whichever id it is asked, with a pod as long as those of a
//! demonstration shop.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The runtime, whose socket goes with this value.
pub(super) struct Runtime {
    folder: PathBuf,
}

impl Runtime {
    pub(super) fn start() -> Result<Self> {
        let folder = Path::new("/tmp").join(format!("tellwire-bench-names-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let this = Self { folder };
        let listener = UnixListener::bind(this.socket()).context("listening as a runtime")?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(&stream));
            }
        });
        Ok(this)
    }

    /// By its name the agent knows what is spoken there.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _untidy = fs::remove_dir_all(&self.folder);
    }
}

fn answer(stream: &UnixStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut stream = stream;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    if request.contains("/events") {
        // Nothing happens until the agent goes.
        write!(stream, "{head}\r\n")?;
        return lines.try_for_each(|line| line.map(drop));
    }
    let body = match asked(&request) {
        Some(id) => json!([container(id)]),
        None => json!([]),
    }
    .to_string();
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The id in a filter, which is 64 digits long.
fn asked(request: &str) -> Option<&str> {
    request.split('%').filter_map(|part| part.get(2..)).find(|id| id.len() == 64)
}

fn container(id: &str) -> Value {
    // The number of the service, see `services`.
    let number = id.get(..2).unwrap_or_default();
    let uid = format!("000000{number}-0000-4000-8000-000000000000");
    json!({
        "Id": id,
        "Names": [format!("/k8s_server_recommendationservice-7d5c9b8f6d-x2v{number}_shop_{uid}_0")],
        "Image": "registry.example/shop/recommendationservice:v0.10.1",
        "Labels": {
            "io.kubernetes.container.name": "server",
            "io.kubernetes.pod.name": format!("recommendationservice-7d5c9b8f6d-x2v{number}"),
            "io.kubernetes.pod.namespace": "shop",
            "io.kubernetes.pod.uid": uid,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::asked;

    #[test]
    fn the_id_is_found_in_the_filter() {
        let id = "0a".repeat(32);
        let request =
            format!("GET /containers/json?all=1&filters=%7B%22id%22%3A%5B%22{id}%22%5D%7D HTTP/1.1");
        assert_eq!(asked(&request), Some(id.as_str()));
        assert_eq!(asked("GET /containers/json?all=1 HTTP/1.1"), None);
    }
}
