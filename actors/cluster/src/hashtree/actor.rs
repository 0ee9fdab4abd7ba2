//! The ractor shell: ticks, scrubs on a blocking thread, reports.

use super::core::Schedule;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weald_storage::{Bucket, Partition, ReadError, ScrubReport, Space};
use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
use weald_supervision::{Address, Event, Record, Scope};

/// What scrubs of this partition have seen since the process started.
#[derive(Debug, Default)]
pub struct ScrubTotals {
    /// Buckets verified.
    pub buckets: AtomicU64,
    /// Objects whose digest was computed anew.
    pub objects: AtomicU64,
    /// Buckets that did not match their objects and were rebuilt.
    pub mismatches: AtomicU64,
    /// Damaged records met, each time they were met.
    pub corrupt: AtomicU64,
}

/// Result of a scrub asked for by [`Msg::Scrub`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubResult {
    /// Objects looked at.
    pub objects: u64,
    /// Buckets that did not match and were rebuilt.
    pub mismatches: u64,
}

/// Messages of the hashtree actor.
#[derive(Debug)]
pub enum Msg {
    /// Verify the buckets that have come due.
    Tick,
    /// Verify all buckets now.
    Scrub(RpcReplyPort<Result<ScrubResult, String>>),
}

impl Message for Msg {}

/// The actor. Restart type `Permanent`, after `store` under the partition's `rest_for_one` supervisor.
#[derive(Debug)]
pub struct HashtreeActor;

/// What the actor is started with.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// The partition it verifies.
    pub partition: Arc<Partition>,
    /// Its index.
    pub index: u16,
    /// `aae.hashtree_timer`.
    pub timer: Duration,
    /// `aae.hashtree_ttl`.
    pub ttl: Duration,
    /// Counters for the node's status.
    pub totals: Arc<ScrubTotals>,
    /// Where findings are recorded.
    pub scope: Scope,
    /// Unix milliseconds.
    pub wall_ms: fn() -> u64,
}

/// The actor's state.
#[derive(Debug)]
pub struct State {
    args: Arguments,
    schedule: Schedule,
}

impl Actor for HashtreeActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let ttl_ms = u64::try_from(args.ttl.as_millis()).unwrap_or(u64::MAX);
        let mut schedule = Schedule::new(ttl_ms);
        schedule.due((args.wall_ms)());
        myself.send_interval(args.timer, || Msg::Tick);
        Ok(State { args, schedule })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Tick => {
                let due = state.schedule.due((state.args.wall_ms)());
                if !due.is_empty() {
                    scrub(&state.args, due).await?;
                }
            }
            Msg::Scrub(reply) => {
                let result = scrub(&state.args, (0..super::core::BUCKETS).collect()).await;
                // The asker may be gone.
                drop(reply.send(result.map_err(|e| e.to_string())));
            }
        }
        Ok(())
    }
}

/// Verifies buckets on a blocking thread and rebuilds those that do not match.
async fn scrub(args: &Arguments, buckets: Vec<u16>) -> Result<ScrubResult, ActorProcessingErr> {
    let partition = Arc::clone(&args.partition);
    let buckets_count = buckets.len() as u64;
    let report = tokio::task::spawn_blocking(move || scrub_now(&partition, buckets)).await??;
    args.totals.buckets.fetch_add(buckets_count, Ordering::Relaxed);
    args.totals.objects.fetch_add(report.checked, Ordering::Relaxed);
    args.totals.corrupt.fetch_add(report.corrupt, Ordering::Relaxed);
    let mismatches = report.mismatches.len() as u64;
    args.totals.mismatches.fetch_add(mismatches, Ordering::Relaxed);
    if mismatches > 0 {
        let text = format!(
            "hash tree: {mismatches} buckets did not match their objects, {} damaged records",
            report.corrupt
        );
        tracing::error!(event = "hashtree_mismatch", partition = args.index, mismatches, "{text}");
        let path = format!("node/storage/partition-{}/hashtree", args.index);
        args.scope.emit(Record::note(Event::HashtreeMismatch, &path, &text));
    }
    Ok(ScrubResult { objects: report.checked, mismatches })
}

fn scrub_now(partition: &Partition, buckets: Vec<u16>) -> Result<ScrubReport, ReadError> {
    let mut total = ScrubReport::default();
    for bucket in buckets.into_iter().filter_map(Bucket::new) {
        for space in [Space::Durable, Space::Memory] {
            let report = partition.scrub(space, bucket..=bucket)?;
            total.checked += report.checked;
            total.corrupt += report.corrupt;
            total.mismatches.extend(report.mismatches);
        }
    }
    // A rebuild cannot mend a damaged record, so such a bucket is found again in the next round, and told again.
    for bucket in &total.mismatches {
        if let Err(e) = partition.repair_tree(*bucket) {
            tracing::error!(event = "hashtree_repair_failed", partition = partition.index(), error = %e);
        }
    }
    Ok(total)
}

/// The stable address of a partition's hashtree actor.
#[must_use]
pub fn address(index: u16) -> Address<Msg> {
    Address::new(&format!("storage/partition-{index}/hashtree"))
}
