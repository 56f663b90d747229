//! Waiting: for something, and never longer than the limit.

use std::{
    env,
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How often is looked again. Looking is cheap; nothing tells a test when a file has grown or a child has ended.
const PAUSE: Duration = Duration::from_millis(2);

/// How long anything may take before it counts as never.
pub fn limit() -> Duration {
    if in_vm() { Duration::from_mins(2) } else { Duration::from_secs(30) }
}

/// Whether this is the emulated machine of `cargo xtask vm`.
pub fn in_vm() -> bool {
    env::var_os("TELLWIRE_VM").is_some()
}

/// What `ready` gives, once it gives something.
pub fn until<T>(what: impl Display, ready: impl FnMut() -> Option<T>) -> T {
    within(limit(), ready).unwrap_or_else(|| panic!("not within {:?}: {what}", limit()))
}

/// What it gives before the deadline, or nothing: for who says more about it than [`until`].
pub fn within_limit<T>(ready: impl FnMut() -> Option<T>) -> Option<T> {
    within(limit(), ready)
}

/// Waits for a moment, for who does things at a pace.
pub fn until_moment(moment: Instant) {
    while let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

/// What `ready` gives within the time, if anything.
pub(crate) fn within<T>(time: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::park_timeout(PAUSE);
    }
}
