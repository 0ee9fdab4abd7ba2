//! The `sweeper` process: forgets what is stable.
//!
//! What it guarantees: a shard is swept with what the scheduler has last called stable; a sweep is cut into bounded pieces, so
//! that writers never wait for long.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weald_storage::Stable;
use weald_supervision::{BoxError, ChildSpec, TaskContext};

use crate::config::ms;
use crate::core::Shard;
use crate::handle::Shared;

/// Most events in one piece. // guess: a few milliseconds of the writer
const EVENTS_MAX: usize = 2_000;

pub(crate) fn child_spec(shared: Arc<Shared>) -> ChildSpec {
    ChildSpec::task("sweeper", move |context| run(Arc::clone(&shared), context))
}

async fn run(shared: Arc<Shared>, context: TaskContext) -> Result<(), BoxError> {
    let mut tick = tokio::time::interval(shared.config.sweep_timer);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased; // An end that was asked for comes first.
            () = context.cancelled() => return Ok(()),
            _ = tick.tick() => {}
        }
        let stable = Arc::clone(&shared.stable.borrow());
        for (shard, vector) in stable.iter() {
            while !context.is_cancelled() && sweep(&shared, *shard, vector.clone()).await? {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// One piece; true when there is more.
async fn sweep(shared: &Arc<Shared>, shard: Shard, stable: Stable) -> Result<bool, BoxError> {
    let (upkeep, wall_ms) = (Arc::clone(&shared.deps.upkeep), (shared.deps.wall_ms)());
    let min_age_ms = ms(shared.config.min_age);
    let piece = move || upkeep.sweep(shard, &stable, wall_ms, min_age_ms, EVENTS_MAX);
    match tokio::task::spawn_blocking(piece).await? {
        Ok(report) => {
            shared.totals.swept.fetch_add(report.swept, Ordering::Relaxed);
            shared.totals.stripped.fetch_add(report.stripped, Ordering::Relaxed);
            shared.totals.reaped.fetch_add(report.reaped, Ordering::Relaxed);
            Ok(report.more)
        }
        Err(e) => {
            // A full disk, mostly; the next round tries again.
            tracing::warn!(event = "sweep_failed", shard = %shard, error = %e);
            Ok(false)
        }
    }
}
