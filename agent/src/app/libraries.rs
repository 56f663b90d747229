//! Libraries that are found while the agent runs: the task, and what it tells others.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    host::HostRoot,
    http::Readiness,
    kernel::{
        libraries::Libraries,
        pam::{PamState, RootNotices},
    },
    pam::{Discovery, KnownUsers, NameHash, PamBooks, Parts, Processes},
    scope::Scope,
};

/// Mount namespaces whose users are told at one time.
const NAMES: usize = 4096;

/// What finds libraries with.
pub(super) struct Tools {
    pub(super) libraries: Libraries,
    pub(super) state: PamState,
    pub(super) notices: RootNotices,
    pub(super) readiness: Arc<Readiness>,
    /// Whose processes are looked at, where it is not everybody's.
    pub(super) scope: Option<watch::Receiver<Scope>>,
}

/// What is known of libraries, for others.
pub(super) struct Looking {
    pub(super) books: Arc<PamBooks>,
    pub(super) known: KnownUsers,
    /// The host's mount namespace.
    pub(super) host_mounts: Option<u32>,
}

/// Looks at the host and at what runs, and begins to look at what comes.
pub(super) fn look(config: &Config, host: &HostRoot, tools: Tools, cancel: &CancellationToken) -> Looking {
    let Tools { libraries, state, notices, readiness, scope } = tools;
    let books = Arc::new(PamBooks::default());
    let hash = NameHash::default();
    let (names, told) = mpsc::channel(NAMES);
    let host_mounts = Discovery::host_namespace(host);
    if config.auth.pam {
        let mut discovery = Discovery::new(Parts {
            host: host.clone(),
            processes: scope.map_or(Processes::All, Processes::Of),
            notices,
            state,
            libraries,
            books: Arc::clone(&books),
            readiness,
            names,
            hash: hash.clone(),
            watch_mounts: config.auth.watch_mounts,
        });
        let found = discovery.begin();
        tracing::info!(libpam = found.text(), "libraries of the host");
        tokio::spawn(discovery.run(cancel.clone()));
    }
    let known = KnownUsers::new(config.auth.unknown_user_names, host_mounts, hash, told);
    Looking { books, known, host_mounts }
}
