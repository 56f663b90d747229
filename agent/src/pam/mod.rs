//! Finding libpam: on the host, and in every container that comes.
//!
//! A task of its own, so that the pipeline neither waits nor looks into `/proc`. The kernel tells it of root directories
//! that it has not seen; every few seconds it looks at all processes, which makes up for what was not told, and finds
//! libraries that were replaced.

mod books;
mod discovery;
mod host;
mod known;
mod mounts;
mod root;
mod symbols;
mod table;

pub(crate) use self::{
    books::{Outcome, PamBooks},
    discovery::{Discovery, Parts, Processes},
    host::{HostLibraries, on_host},
    known::{KnownUsers, NameHash},
};
