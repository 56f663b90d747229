//! Audit records as a source of events: opened at the start, and what is said of it where it cannot be.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    control::{Control, Status, Switched},
    socket::Socket,
    task::{Feed, Reader},
};
use crate::{
    books::Books,
    config::{self, Config},
    host::HostRoot,
    http::Readiness,
};

/// Records that may wait for the pipeline: a cycle's worth of the worst storm of logins.
const QUEUE: usize = 4096;

/// What the readiness calls it.
pub(super) const ABOUT: &str = "audit";

/// What can be said of the source without starting it.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Why no record can be read; `None` where they can be.
    pub(crate) failure: Option<String>,
    /// Why the kernel does not say whether auditing is on, or its answer.
    pub(crate) status: Result<Status, String>,
}

impl Facts {
    /// One line of what is missing.
    pub(crate) fn reason(&self) -> Option<String> {
        match (&self.failure, &self.status) {
            (Some(reason), _) => Some(reason.clone()),
            (None, Ok(Status { enabled: 0, .. })) => Some(OFF.to_owned()),
            (None, _) => None,
        }
    }

    pub(crate) fn is_enabled(&self) -> Option<bool> {
        self.status.as_ref().ok().map(|status| status.enabled != 0)
    }
}

/// What it means that auditing is off.
pub(super) const OFF: &str = "auditing is off in the kernel (audit_enabled 0): programs' audit records are dropped there; \
                              auditd switches it on, or auth.audit-enable = true";

/// Joins for a moment and asks, for `tellwire check`.
pub(crate) fn facts(host: &HostRoot) -> Facts {
    let failure = Socket::join(host, 4096).err().map(|error| error.to_string());
    let status = Control::open(host)
        .map_err(|error| error.to_string())
        .and_then(|control| control.status().map_err(|error| error.to_string()));
    Facts { failure, status }
}

/// Joins the group and begins to read. What is missing is said, and the agent goes on without; then nothing comes.
pub(crate) fn start(
    config: &Config,
    host: &HostRoot,
    boot_id: &str,
    books: &Arc<Books>,
    readiness: &Arc<Readiness>,
    cancel: &CancellationToken,
) -> Feed {
    let Config { auth, agent, .. } = config;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let feed = Feed::new(receiver);
    if !auth.audit {
        return feed;
    }
    let socket = match Socket::join(host, auth.audit_buffer_bytes.get()) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "no audit records: what sshd and others report is not told");
            readiness.degrade(format!("audit records: {error}"));
            return feed;
        }
    };
    let switched = match switch(auth, host, (&agent.state_dir, boot_id)) {
        Ok(switched) => switched,
        Err(error) => {
            tracing::warn!(%error, "auditing is not switched on");
            readiness.degrade(format!("auth.audit-enable: {error}"));
            None
        }
    };
    books.audit.connected.store(true, Relaxed);
    let reader = Reader {
        host: host.clone(),
        control: Control::open(host).ok().map(Arc::new),
        books: Arc::clone(books),
        readiness: Arc::clone(readiness),
        sender,
        switched,
    };
    if let Err(error) = reader.start(socket, cancel.clone()) {
        tracing::warn!(%error, "no audit records: what sshd and others report is not told");
        readiness.degrade(format!("audit records: {error}"));
        books.audit.connected.store(false, Relaxed);
    }
    feed
}

/// Switches auditing on if that is wanted, or off what an agent that was killed left on.
fn switch(
    auth: &config::Auth,
    host: &HostRoot,
    (folder, boot_id): (&Path, &str),
) -> anyhow::Result<Option<Switched>> {
    let control = match Control::open(host) {
        Err(_) if !auth.audit_enable => return Ok(None),
        control => control?,
    };
    if auth.audit_enable {
        let switched = Switched::on(control, folder, boot_id)?;
        if switched.is_some() {
            tracing::info!("auditing is on in the kernel for as long as the agent runs");
        }
        return Ok(switched);
    }
    if let Some(left) = Switched::left(control, folder, boot_id) {
        tracing::info!("the run before this one left auditing on: it is put back");
        left.off()?;
    }
    Ok(None)
}
