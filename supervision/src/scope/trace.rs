//! Records as `tracing` events.

use crate::record::{Event, Record};

/// One `tracing` event per record: errors for what a person should see, as style rule 35 has it.
pub(super) fn trace(r: &Record) {
    macro_rules! emit {
        ($level:ident) => {
            tracing::$level!(
                target: "supervision",
                event = r.event.name(), node = %r.node, path = %r.path, child = r.child.as_deref(),
                reason = r.reason.as_deref(), error = r.error.as_deref(),
                location = r.location.as_deref(), child_type = r.kind.as_deref(),
                restart = r.restart.as_deref(), strategy = r.strategy.as_deref(),
                actor_type = r.actor_type.as_deref(), actor_id = r.actor_id.as_deref(),
                generation = r.generation, message_type = r.message_type.as_deref(),
                mailbox_depth = r.mailbox_depth, uptime_ms = r.uptime_ms,
                restarts_count = r.restarts, restart_in_window = r.restart_in_window,
                intensity_max = r.intensity_max, window_ms = r.window_ms,
                backoff_ms = r.backoff_ms, siblings = r.siblings,
                "supervision"
            )
        };
    }
    let orderly = matches!(r.reason.as_deref(), Some("normal" | "shutdown" | "auto_shutdown"));
    match r.event {
        Event::ChildExited | Event::SupervisorStopped if orderly => emit!(info),
        Event::ChildExited
        | Event::SupervisorStopped
        | Event::IntensityExceeded
        | Event::ChildGaveUp
        | Event::Quarantined
        | Event::StorageFull
        | Event::HashtreeMismatch
        | Event::LogDropped => emit!(error),
        Event::ChildRestarting
        | Event::StrategyApplied
        | Event::ChildKilled
        | Event::UncleanStop => emit!(warn),
        Event::SupervisorStarted
        | Event::ChildStarted
        | Event::ChildRestarted
        | Event::ChildStopping
        | Event::ChildStopped
        | Event::NodeStarted
        | Event::NodeStopping
        | Event::NodeStopped
        | Event::StorageRecovered => emit!(info),
    }
}
