//! The ractor shell of the batcher.

use super::core::{Batcher, Input, Output, Returns, Ticket};
use super::{BATCH_OPS_MAX, EXPIRE_PER_TICK_MAX};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use weald_storage::{Partition, Space, Write, WriteError, WriteOp, Written};
use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use weald_supervision::{Address, Event, Record, Scope};

/// How often keys past their time to live are looked for, and the state of the disk.
const TICK: Duration = Duration::from_secs(1);

/// A write on its way, with the memory it was granted.
#[derive(Debug)]
pub struct Pending {
    /// What to do.
    pub op: WriteOp,
    /// Its share of [`super::WAITING_KIB_MAX`]; none for the actor's own writes.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What became of a [`Pending`] write.
#[derive(Debug)]
pub enum Outcome {
    /// The writer thread has answered.
    Answered(Result<Written, WriteError>),
    /// It never reached the writer thread: certainly not done.
    Returned(Pending),
}

/// The way back to the caller of a write.
#[derive(Debug)]
pub struct Answer(Option<oneshot::Sender<Outcome>>);

impl Answer {
    /// An answer that is waited for.
    #[must_use]
    pub fn to(sender: oneshot::Sender<Outcome>) -> Self {
        Self(Some(sender))
    }

    /// An answer that nobody waits for.
    #[must_use]
    pub fn nobody() -> Self {
        Self(None)
    }

    fn give(self, outcome: Outcome) {
        if let Some(sender) = self.0 {
            // The caller may have gone at its deadline; the write stands all the same.
            drop(sender.send(outcome));
        }
    }
}

impl Returns<Pending> for Answer {
    fn returned(self, content: Pending) {
        self.give(Outcome::Returned(content));
    }
}

/// A write that goes back to its caller if the mailbox dies.
pub type WriteTicket = Ticket<Pending, Answer>;

/// Messages of the store actor.
#[derive(Debug)]
pub enum Msg {
    /// Do these, in order.
    Write(Vec<WriteTicket>),
    /// The writer thread has finished a batch.
    Finished {
        /// Its number.
        batch: u64,
    },
    /// Look for keys past their time to live, and at the disk.
    Tick,
}

impl Message for Msg {}

/// The actor. Restart type `Permanent`, under the partition's `rest_for_one` supervisor.
#[derive(Debug)]
pub struct StoreActor;

/// What the actor is started with; the partition outlives it.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// The partition it writes.
    pub partition: Arc<Partition>,
    /// Its own stable address, which the writer thread answers to.
    pub address: Address<Msg>,
    /// Numbers batches across restarts.
    pub batches: Arc<AtomicU64>,
    /// Where a full disk is recorded.
    pub scope: Scope,
    /// Unix milliseconds.
    pub wall_ms: fn() -> u64,
}

/// The actor's state.
#[derive(Debug)]
pub struct State {
    args: Arguments,
    full: bool,
    batcher: Batcher<WriteTicket>,
}

impl Actor for StoreActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        // After a failed sync nobody knows what the disk holds. No restart of this actor can help: failing here uses up the
        // restarts of every supervisor above, the process ends, and the next boot checks the data and begins a new life.
        if let Some(why) = args.partition.stats().stopped {
            return Err(
                format!("partition {} writes no more: {why}", args.partition.index()).into()
            );
        }
        // A generation is 2^32 batches wide, so numbers of two actors never meet.
        let generation = args.batches.fetch_add(1, Ordering::Relaxed);
        let batcher = Batcher::new(generation << 32, BATCH_OPS_MAX);
        myself.send_interval(TICK, || Msg::Tick);
        Ok(State { args, full: false, batcher })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let input = match message {
            Msg::Write(writes) => Input::Writes(writes),
            Msg::Finished { batch } => Input::Finished { batch },
            Msg::Tick => {
                state.watch_space()?;
                Input::Writes(state.expired())
            }
        };
        if let Some(Output::Submit { batch, writes }) = state.batcher.handle(input) {
            state.submit(batch, writes);
        }
        Ok(())
    }
}

impl State {
    /// Records when the partition runs out of space and when it has some again.
    ///
    /// # Errors
    /// The partition has stopped writing for good.
    fn watch_space(&mut self) -> Result<(), ActorProcessingErr> {
        let stats = self.args.partition.stats();
        if let Some(why) = stats.stopped {
            return Err(format!("partition {} writes no more: {why}", stats.partition).into());
        }
        if stats.full == self.full {
            return Ok(());
        }
        self.full = stats.full;
        let (event, what) = if stats.full {
            (Event::StorageFull, "is out of space: writes are refused, reads go on")
        } else {
            (Event::StorageRecovered, "has space again: writes are accepted")
        };
        let text = format!(
            "partition {} {what} ({} of at most {} bytes used)",
            stats.partition, stats.used_bytes, stats.map_bytes_max
        );
        let path = format!("node/storage/partition-{}/store", stats.partition);
        self.args.scope.emit(Record::note(event, &path, &text));
        Ok(())
    }

    /// Writes that delete what has outlived its time. A record that cannot be read must not stop the partition from
    /// writing, so it is told and left where it is.
    fn expired(&self) -> Vec<WriteTicket> {
        if self.batcher.waiting_len() >= BATCH_OPS_MAX {
            return Vec::new();
        }
        let now = (self.args.wall_ms)();
        let mut writes = Vec::new();
        for space in [Space::Durable, Space::Memory] {
            match self.args.partition.expire_due(space, now, EXPIRE_PER_TICK_MAX) {
                Ok(due) => writes.extend(due.into_iter().map(|(table, key, read)| {
                    let op = WriteOp::Expire { table, key, read };
                    Ticket::new(Pending { op, permit: None }, Answer::nobody())
                })),
                Err(e) => tracing::error!(
                    event = "expiry_failed",
                    partition = self.args.partition.index(),
                    error = %e,
                    "keys past their time to live cannot be read"
                ),
            }
        }
        writes
    }

    fn submit(&self, batch: u64, writes: Vec<WriteTicket>) {
        let writes = writes
            .into_iter()
            .filter_map(Ticket::take)
            .map(|(Pending { op, permit }, answer)| Write {
                op,
                reply: Box::new(move |result| {
                    drop(permit);
                    answer.give(Outcome::Answered(result));
                }),
            })
            .collect();
        let address = self.args.address.clone();
        self.args.partition.submit(
            writes,
            Box::new(move |_report| {
                // When the actor is down its successor starts with an empty hand and needs no news of this batch.
                drop(address.cast(Msg::Finished { batch }));
            }),
        );
    }
}
