//! What everybody but the store actor holds: reads on snapshots, writes through the partition's actor.

use super::WAITING_KIB_MAX;
use super::actor::{Answer, Msg, Outcome, Pending, WriteTicket};
use super::core::Ticket;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use weald_storage::{Got, Key, ReadError, Space, Store, TableName, WriteError, WriteOp, Written};
use weald_supervision::Address;

/// How long to wait before a write is offered again to a partition whose actor is down.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Why a write was not acknowledged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteFailure {
    /// The partition has answered: refused, in conflict, or without space.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Too much is waiting and the deadline came first. Nothing was done.
    #[error("too many writes are waiting in this partition; nothing was done")]
    Overloaded,
    /// The partition's actor was down until the deadline. Nothing was done.
    #[error("the partition's store actor is down; nothing was done")]
    Down,
    /// The deadline came while the write was being committed: it may or may not be there.
    #[error("the deadline came before the commit; the write may or may not have happened")]
    Unknown,
}

/// The store as its users hold it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    partitions: Vec<Arc<Lane>>,
    commits: watch::Sender<u64>,
    followers: Arc<OnceLock<Box<Follower>>>,
    wall_ms: fn() -> u64,
}

/// Told of each commit: partition and space. On the writer's thread: it must not block.
pub type Follower = dyn Fn(u16, Space) + Send + Sync;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("store", &self.store).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Lane {
    address: Address<Msg>,
    waiting: Arc<Semaphore>,
}

impl StoreHandle {
    /// A handle on an open store, with one empty address per partition for [`super::StoreActor`]s to be started under.
    pub fn new(store: Store, wall_ms: fn() -> u64) -> Self {
        let partitions = (0..store.partitions())
            .map(|i| {
                Arc::new(Lane {
                    address: Address::new(&format!("storage/partition-{i}/store")),
                    waiting: Arc::new(Semaphore::new(WAITING_KIB_MAX as usize)),
                })
            })
            .collect();
        let commits = watch::Sender::new(0_u64);
        let hook = commits.clone();
        let followers: Arc<OnceLock<Box<Follower>>> = Arc::default();
        let followed = Arc::clone(&followers);
        store.set_commit_hook(Box::new(move |partition, space, _seq| {
            hook.send_modify(|count| *count = count.wrapping_add(1));
            if let Some(follower) = followed.get() {
                follower(partition, space);
            }
        }));
        Self { shared: Arc::new(Shared { store, partitions, commits, followers, wall_ms }) }
    }

    /// Says who is told of each commit, once: who comes second is told nothing.
    pub fn follow(&self, follower: Box<Follower>) {
        self.shared.followers.set(follower).ok();
    }

    /// The store itself, for reads.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Unix milliseconds, as this node's clock has them.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        (self.shared.wall_ms)()
    }

    /// The address of a partition's actor.
    #[must_use]
    pub fn address(&self, partition: u16) -> &Address<Msg> {
        &self.shared.partitions[usize::from(partition)].address
    }

    /// Rises with every commit of any partition.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// Reads a key on a snapshot, in the caller's task. Siblings that the read resolved are repaired behind it: the
    /// resolution is written under the context that was read, so a concurrent write is never lost to it.
    ///
    /// # Errors
    /// [`ReadError`]; nothing changes.
    pub fn get(&self, table: &TableName, key: &Key) -> Result<Got, ReadError> {
        let got = self.shared.store.get(table, key, self.wall_ms())?;
        if got.needs_repair {
            self.repair(table, key, &got);
        }
        Ok(got)
    }

    /// Writes a key and waits for the commit. The write is handed to its partition before this returns, if there is room, so
    /// that writes take effect in the order of the calls; the future is for waiting.
    ///
    /// # Errors
    /// [`WriteFailure`]; each variant says whether the write happened.
    pub fn write(
        &self,
        op: WriteOp,
        deadline: Instant,
    ) -> impl Future<Output = Result<Written, WriteFailure>> + Send + use<> {
        let lane = Arc::clone(self.lane(&op));
        let first = lane.offer(op);
        async move {
            let mut receiver = match first {
                Offer::Sent(receiver) => receiver,
                Offer::Full(op) => lane.send(lane.admit(op, deadline).await?),
            };
            loop {
                let pending = match timeout_at(deadline, receiver).await {
                    Ok(Ok(Outcome::Answered(result))) => return Ok(result?),
                    Ok(Ok(Outcome::Returned(back))) => back,
                    Ok(Err(_)) | Err(_) => return Err(WriteFailure::Unknown),
                };
                if Instant::now() + RETRY_PAUSE >= deadline {
                    return Err(WriteFailure::Down);
                }
                tokio::time::sleep(RETRY_PAUSE).await;
                receiver = lane.send(pending);
            }
        }
    }

    /// Writes several keys; those of one partition travel in one message and, unless there are very many, commit in one
    /// transaction. Each result stands alone, in the order of `ops`. Handed on before this returns, as with [`Self::write`].
    pub fn write_many(
        &self,
        ops: Vec<WriteOp>,
        deadline: Instant,
    ) -> impl Future<Output = Vec<Result<Written, WriteFailure>>> + Send + use<> {
        let count = ops.len();
        let mut groups: Vec<Group> =
            self.shared.partitions.iter().map(|lane| Group::new(Arc::clone(lane))).collect();
        for (index, op) in ops.into_iter().enumerate() {
            groups[usize::from(self.partition_of(&op))].add(index, op);
        }
        groups.retain(|group| !group.is_empty());
        groups.iter_mut().for_each(Group::flush);
        async move {
            let mut results: Vec<Option<Result<Written, WriteFailure>>> =
                (0..count).map(|_| None).collect();
            let waits = groups.into_iter().map(|group| group.finish(deadline));
            for (index, result) in futures::future::join_all(waits).await.into_iter().flatten() {
                results[index] = Some(result);
            }
            results.into_iter().map(|r| r.unwrap_or(Err(WriteFailure::Down))).collect()
        }
    }

    fn lane(&self, op: &WriteOp) -> &Arc<Lane> {
        &self.shared.partitions[usize::from(self.partition_of(op))]
    }

    fn partition_of(&self, op: &WriteOp) -> u16 {
        let (table, key) = op.target();
        self.shared.store.partition_of(table, key)
    }

    /// Hands a repair to the partition if there is room; a later read finds the siblings again otherwise.
    fn repair(&self, table: &TableName, key: &Key, got: &Got) {
        let op =
            WriteOp::Repair { table: table.clone(), key: key.clone(), read: got.context.clone() };
        let lane = self.lane(&op);
        let Ok(permit) = Arc::clone(&lane.waiting).try_acquire_many_owned(cost_kib(&op)) else {
            return;
        };
        let ticket = Ticket::new(Pending { op, permit: Some(permit) }, Answer::nobody());
        drop(lane.address.cast(Msg::Write(vec![ticket])));
    }
}

/// The first try of a write.
enum Offer {
    Sent(oneshot::Receiver<Outcome>),
    Full(WriteOp),
}

impl Lane {
    /// Hands a write to the actor, if there is room for it now.
    fn offer(&self, op: WriteOp) -> Offer {
        match Arc::clone(&self.waiting).try_acquire_many_owned(cost_kib(&op)) {
            Ok(permit) => Offer::Sent(self.send(Pending { op, permit: Some(permit) })),
            Err(_full) => Offer::Full(op),
        }
    }

    /// Waits for room.
    async fn admit(&self, op: WriteOp, deadline: Instant) -> Result<Pending, WriteFailure> {
        let wait = Arc::clone(&self.waiting).acquire_many_owned(cost_kib(&op));
        match timeout_at(deadline, wait).await {
            Ok(Ok(permit)) => Ok(Pending { op, permit: Some(permit) }),
            Ok(Err(_closed)) => Err(WriteFailure::Down),
            Err(_elapsed) => Err(WriteFailure::Overloaded),
        }
    }

    /// A message refused by a dead mailbox comes back and is dropped here, which sends its ticket home through the
    /// receiver, just as when the mailbox dies later: one path for both.
    fn send(&self, pending: Pending) -> oneshot::Receiver<Outcome> {
        let (tx, rx) = oneshot::channel();
        drop(self.address.cast(Msg::Write(vec![Ticket::new(pending, Answer::to(tx))])));
        rx
    }
}

/// The writes of one batch that go to one partition.
struct Group {
    lane: Arc<Lane>,
    tickets: Vec<WriteTicket>,
    sent: Vec<(usize, oneshot::Receiver<Outcome>)>,
    full: Vec<(usize, WriteOp)>,
}

impl Group {
    fn new(lane: Arc<Lane>) -> Self {
        Self { lane, tickets: Vec::new(), sent: Vec::new(), full: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.full.is_empty()
    }

    fn add(&mut self, index: usize, op: WriteOp) {
        // Once one write of the group has to wait, those after it wait behind it.
        let room = self
            .full
            .is_empty()
            .then(|| Arc::clone(&self.lane.waiting).try_acquire_many_owned(cost_kib(&op)).ok());
        match room.flatten() {
            Some(permit) => self.push(index, Pending { op, permit: Some(permit) }),
            None => self.full.push((index, op)),
        }
    }

    fn push(&mut self, index: usize, pending: Pending) {
        let (tx, rx) = oneshot::channel();
        self.tickets.push(Ticket::new(pending, Answer::to(tx)));
        self.sent.push((index, rx));
    }

    fn flush(&mut self) {
        let tickets = std::mem::take(&mut self.tickets);
        if !tickets.is_empty() {
            drop(self.lane.address.cast(Msg::Write(tickets)));
        }
    }

    async fn finish(mut self, deadline: Instant) -> Vec<(usize, Result<Written, WriteFailure>)> {
        let mut results = Vec::with_capacity(self.sent.len() + self.full.len());
        loop {
            let mut returned = Vec::new();
            for (index, receiver) in std::mem::take(&mut self.sent) {
                match timeout_at(deadline, receiver).await {
                    Ok(Ok(Outcome::Answered(result))) => {
                        results.push((index, result.map_err(WriteFailure::from)));
                    }
                    Ok(Ok(Outcome::Returned(back))) => returned.push((index, back)),
                    Ok(Err(_)) | Err(_) => results.push((index, Err(WriteFailure::Unknown))),
                }
            }
            let retry = !returned.is_empty();
            if retry && Instant::now() + RETRY_PAUSE >= deadline {
                results.extend(returned.into_iter().map(|(i, _)| (i, Err(WriteFailure::Down))));
                results.extend(self.full.into_iter().map(|(i, _)| (i, Err(WriteFailure::Down))));
                return results;
            }
            if retry {
                tokio::time::sleep(RETRY_PAUSE).await;
                returned.into_iter().for_each(|(index, pending)| self.push(index, pending));
            }
            for (index, op) in std::mem::take(&mut self.full) {
                match self.lane.admit(op, deadline).await {
                    // Sent at once: a permit held while waiting for the next could starve two such waiters of each other.
                    Ok(pending) => {
                        self.push(index, pending);
                        self.flush();
                    }
                    Err(e) => results.push((index, Err(e))),
                }
            }
            if self.sent.is_empty() {
                return results;
            }
            self.flush();
        }
    }
}

fn cost_kib(op: &WriteOp) -> u32 {
    let value_bytes = match op {
        WriteOp::Put { value, .. } | WriteOp::PutIf { value, .. } => value.len(),
        _ => 0,
    };
    let bytes = value_bytes + op.target().1.as_bytes().len();
    u32::try_from(bytes / 1024 + 1).unwrap_or(WAITING_KIB_MAX).min(WAITING_KIB_MAX)
}
