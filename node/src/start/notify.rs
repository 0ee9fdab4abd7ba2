//! Telling the service manager (systemd) how the node is.
//!
//! Guarantees: READY=1 is sent once clients can get in, STOPPING=1 when the shutdown begins, and the watchdog is fed only
//! after an actor has answered. Without a service manager nothing happens. Refuses: failing the node over it.

use sd_notify::NotifyState;
use std::future::Future;
use std::time::Duration;

/// The node takes requests.
pub(crate) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The node is shutting down.
pub(crate) fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!(error = %e, "service manager was not told");
    }
}

/// Feeds the watchdog, if there is one, each time `alive` says so; ends when it is dropped.
///
/// Twice per period, as systemd recommends. `alive` gets the time it has to find out.
pub(crate) async fn feed_watchdog<F, A>(alive: F)
where
    F: Fn(Duration) -> A,
    A: Future<Output = bool>,
{
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(period / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if alive(period / 2).await {
            send(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("no actor answers, the watchdog is not fed");
        }
    }
}
