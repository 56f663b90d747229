//! Authentication over time: what single events do not say.

pub(crate) mod attempts;
pub(crate) mod bursts;
pub(crate) mod merge;
pub(crate) mod refusals;
pub(crate) mod sessions;
mod table;
