//! What systemd is told, where it started the agent: that it looks, that it still does, that it stops.
//!
//! `sd_notify(3)`, by the socket that `NOTIFY_SOCKET` names. Without it nothing happens.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::http::Readiness;

/// Says that the agent looks, and keeps saying it as often as the unit's `WatchdogSec` asks for, unless the pipeline is
/// stuck: then the service manager starts the agent again.
pub(super) fn ready(readiness: &Arc<Readiness>, cancel: &CancellationToken) {
    tell(&[NotifyState::Ready, NotifyState::Status("watching")]);
    let alive = sd_notify::watchdog_enabled().map(|limit| keep_alive(Arc::clone(readiness), limit));
    let cancel = cancel.clone();
    tokio::spawn(async move {
        match alive {
            Some(alive) => {
                tokio::select! {
                    () = alive => {}
                    () = cancel.cancelled() => {}
                }
            }
            None => cancel.cancelled().await,
        }
        tell(&[NotifyState::Stopping]);
    });
}

async fn keep_alive(readiness: Arc<Readiness>, limit: Duration) {
    // Half of it, as sd_watchdog_enabled(3) recommends.
    let mut tick = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        tick.tick().await;
        if !readiness.is_failed() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager is not told");
    }
}
