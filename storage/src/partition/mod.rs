//! A partition: one LMDB environment, one set of in-memory tables, one writer thread.
//!
//! Guarantees
//! - one writer: every write goes through the thread of the partition; a batch is one commit, and
//!   its replies are called after the commit is as durable as the configuration says;
//! - every batch gets all its replies, also when the writer panics, the disk is full or the store
//!   is closing;
//! - readers take snapshots and never wait for the writer, except for the moment it needs to make
//!   the memory map larger.
//!
//! Refuses to reason about other nodes: what comes from peers is merged, nothing is sent.
//!
//! # Shape
//! Databases of the environment in `<dir>/partition-<i>/`, integers big-endian:
//!
//! | database  | key                          | value                                            |
//! |-----------|------------------------------|--------------------------------------------------|
//! | `meta`    | `identity`, `head`, `damaged` | see `identity`, [`head`], [`damage`]            |
//! | `objects` | row of the object            | record (see [`crate::codec`])                    |
//! | `tree`    | branch u8, `pending`         | its 16 leaves, 24 bytes each (see [`tree`])      |
//! | `buckets` | first 16 bytes of key's hash | row of the object                                |
//! | `changes` | sequence number u64          | kind, dot, row of the object (see [`changes`])   |
//! | `expiry`  | ms u64, 16 bytes of hash     | row of the object                                |
//! | `clock`   | actor                        | counters seen (see [`crate::clock`])             |
//! | `dots`    | actor, counter u64           | ms u64, row of the object (see [`events`])       |
//! | `swept`   | actor                        | counter u64 up to which `dots` was swept         |
//!
//! The first 12 bits of the key's hash are its bucket. `buckets` changes only when an object
//! appears, so overwriting one dirties its own page, the head, the pending changes of the tree and
//! the end of the log.

pub(crate) mod batch;
pub(crate) mod changes;
pub(crate) mod damage;
pub(crate) mod durable;
pub(crate) mod events;
pub(crate) mod expiry;
pub(crate) mod head;
pub(crate) mod merge;
pub(crate) mod ops;
pub(crate) mod read;
pub(crate) mod replicated;
pub(crate) mod scan;
pub(crate) mod space;
pub(crate) mod sweep;
pub(crate) mod tree;
pub(crate) mod writer;

use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard};
use heed::RoTxn;

use crate::clock::{Clock, Seen};
use crate::digest::Bucket;
use crate::error::{CloseError, ReadError, WriteError};
use crate::identity::EnvIdentity;
use crate::ids::Actor;
use crate::key::{Key, TableName, parse_row, table_range};
use crate::lmdb::Lmdb;
use crate::memory::MemoryState;
use crate::object::Object;
use crate::partition::durable::Committed;
use crate::partition::ops::{WriteOp, Written};
use crate::partition::space::{Gauges, PartitionStats};
use crate::partition::writer::{Batch, Command, Writer};
use crate::resolve::Resolvers;
use crate::store::StoreConfig;
use crate::table::Tables;
use crate::watch::Watches;

/// Batches that wait for the writer of a partition. // guess: the store actor keeps one in flight
const QUEUE_LEN: usize = 8;

/// Which part of a partition: each has its own dots, hash tree, change log and clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The durable tables.
    Durable,
    /// The in-memory tables.
    Memory,
}

/// Called with the outcome of one write, on the writer thread: it must not block.
pub type Reply = Box<dyn FnOnce(Result<Written, WriteError>) + Send>;

/// Called once all replies of a batch were called, on the writer thread: it must not block.
pub type Completion = Box<dyn FnOnce(BatchReport) + Send>;

/// Called after each commit that changed something, be it only what was processed: partition, space,
/// last number in its change log. On the writer thread: it must not block.
pub type CommitHook = dyn Fn(u16, Space, u64) + Send + Sync;

/// A write with the place for its outcome.
pub struct Write {
    /// What to do.
    pub op: WriteOp,
    /// Called exactly once.
    pub reply: Reply,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write").field("op", &self.op).finish_non_exhaustive()
    }
}

/// How a batch went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchReport {
    /// Writes in the batch.
    pub writes: usize,
    /// Of these, refused or failed.
    pub failed: usize,
    /// Time from the batch's turn to its last reply, in microseconds.
    pub took_us: u64,
}

/// What all partitions of a store share.
pub(crate) struct Shared {
    pub(crate) config: StoreConfig,
    pub(crate) tables: Tables,
    pub(crate) resolvers: Resolvers,
    pub(crate) hook: ArcSwapOption<Box<CommitHook>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// One partition of a store.
pub struct Partition {
    index: u16,
    dir: PathBuf,
    identity: EnvIdentity,
    /// Incarnation of the durable tables; renewed while running by `Store::renew_incarnation`.
    incarnation: AtomicU32,
    /// That of the memory tables.
    memory_incarnation: AtomicU32,
    /// `None` once closed. The write side is taken to grow the map and to close.
    env: ShardedLock<Option<Lmdb>>,
    memory: ArcSwap<MemoryState>,
    /// By space.
    watches: [Watches; 2],
    pub(crate) shared: Arc<Shared>,
    pub(crate) gauges: Gauges,
    last_seq: [AtomicU64; 2],
    queue: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Partition {
    /// Starts the writer of an environment whose identity is settled.
    pub(crate) fn start(
        dir: &Path,
        lmdb: Lmdb,
        committed: Committed,
        identity: EnvIdentity,
        shared: Arc<Shared>,
    ) -> std::io::Result<Arc<Self>> {
        let (queue, commands) = sync_channel(QUEUE_LEN);
        let index = identity.partition;
        let partition = Arc::new(Self {
            index,
            dir: dir.to_owned(),
            identity,
            incarnation: AtomicU32::new(identity.incarnation),
            memory_incarnation: AtomicU32::new(identity.memory_incarnation),
            gauges: Gauges::of(&lmdb, &committed),
            env: ShardedLock::new(Some(lmdb)),
            memory: ArcSwap::from_pointee(MemoryState::default()),
            watches: Default::default(),
            shared,
            last_seq: [AtomicU64::new(committed.head.last_seq), AtomicU64::new(0)],
            queue,
            thread: Mutex::new(None),
        });
        let writer = Writer::new(Arc::clone(&partition), committed);
        let thread = std::thread::Builder::new()
            .name(format!("weald-store-{index}"))
            .spawn(move || writer.run(&commands))?;
        *partition.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(partition)
    }

    /// Its number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The actor that issues the dots of `space`. The two spaces have different incarnations: that
    /// of the durable tables lasts as long as the data is known to be complete, that of the memory
    /// tables is new at each boot.
    pub fn actor(&self, space: Space) -> Actor {
        let incarnation = match space {
            Space::Durable => self.incarnation.load(Ordering::Acquire),
            Space::Memory => self.memory_incarnation.load(Ordering::Acquire),
        };
        Actor { node: self.identity.node, incarnation }
    }

    pub(crate) fn watches(&self, space: Space) -> &Watches {
        &self.watches[space as usize]
    }

    /// Hands a batch to the writer. `done` is called after the last reply.
    ///
    /// # Limits
    /// At most 8 batches wait; with more it blocks until the writer has taken one. The caller is
    /// meant to keep one batch in flight and to collect the next meanwhile.
    pub fn submit(&self, batch: Vec<Write>, done: Completion) {
        // A batch that cannot be queued answers for itself when it is dropped.
        drop(self.queue.send(Command::Batch(Batch::new(batch, done))));
    }

    /// Writes one operation and waits for its outcome.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&self, op: WriteOp) -> Result<Written, WriteError> {
        let (tx, rx) = sync_channel(1);
        let reply: Reply = Box::new(move |outcome| {
            // The receiver is waiting below; it cannot be gone.
            drop(tx.send(outcome));
        });
        self.submit(vec![Write { op, reply }], Box::new(|_report| {}));
        rx.recv().unwrap_or(Err(WriteError::Closed))
    }

    /// Last number in the change log of `space`. Never waits.
    pub fn last_seq(&self, space: Space) -> u64 {
        self.last_seq[space as usize].load(Ordering::Acquire)
    }

    /// What `space` has seen, per actor.
    ///
    /// # Errors
    /// A row is damaged, LMDB gave an error, or the store is closed.
    pub fn clock(&self, space: Space) -> Result<Clock, ReadError> {
        let own = self.actor(space);
        if space == Space::Memory {
            return Ok(self.memory().clock(own));
        }
        self.with_snapshot(|lmdb, txn| Ok(read_committed(lmdb, txn)?.whole_clock(own)))
    }

    /// Rebuilds the index rows and the sum of `bucket` from the objects, in the writer, and marks it:
    /// what it lacks is no evidence until [`Self::compared`]. Reads every object of the partition, so it
    /// is for repair only. Nothing to do for memory tables.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn repair_tree(&self, bucket: Bucket) -> Result<(), WriteError> {
        self.ask(|reply| Command::RepairTree(bucket, reply))
    }

    /// Takes the marks of damage off buckets: they were compared with every member, and what any of
    /// them held was taken. Records there that still cannot be read are removed, since nobody else
    /// holds anything of their keys.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn compared(&self, space: Space, buckets: &[Bucket]) -> Result<(), WriteError> {
        let buckets = buckets.iter().copied().collect();
        self.ask(|reply| Command::Compared(space, buckets, reply))
    }

    /// The object of a key as it is stored, siblings and tombstones included; for replication.
    ///
    /// # Errors
    /// The record is damaged, LMDB gave an error, or the store is closed.
    pub fn object(&self, table: &TableName, key: &Key) -> Result<Option<Object>, ReadError> {
        self.read_object(self.space_of(table), table, key)
    }

    /// Figures at this moment.
    pub fn stats(&self) -> PartitionStats {
        let gauges = &self.gauges;
        let of = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        PartitionStats {
            partition: self.index,
            rows: of(&gauges.rows),
            memory_rows: of(&gauges.memory_rows),
            used_bytes: of(&gauges.used_bytes),
            map_bytes: of(&gauges.map_bytes),
            map_bytes_max: self.shared.config.map_size_max,
            last_seq: self.last_seq(Space::Durable),
            memory_last_seq: self.last_seq(Space::Memory),
            commits: of(&gauges.commits),
            writes: of(&gauges.writes),
            last_commit_us: of(&gauges.last_commit_us),
            last_batch: of(&gauges.last_batch),
            resizes: of(&gauges.resizes),
            clock_skews: of(&gauges.clock_skews),
            full: gauges.full.load(Ordering::Relaxed),
            stopped: gauges.stopped().map(|why| why.to_string()),
        }
    }

    /// Notes the tables that have rows here, by looking at one row of each.
    pub(crate) fn find_tables(&self) -> Result<(), ReadError> {
        self.with_snapshot(|lmdb, txn| {
            // Below every row: a table's name never begins with this byte.
            let mut from = vec![0];
            loop {
                let range = (Bound::Included(from.as_slice()), Bound::Unbounded);
                let Some(row) = lmdb.dbs.objects.range(txn, &range)?.next() else { return Ok(()) };
                let parsed = parse_row(row?.0).ok().map(|row| TableName::parse(row.table));
                let Some(Ok(table)) = parsed else {
                    return Err(ReadError::Corrupt("a row that belongs to no table".into()));
                };
                self.shared.tables.seen(&table);
                from = table_range(&table).1;
            }
        })
    }

    /// Begins new lives: one in the durable tables, one in the memory tables.
    pub(crate) fn renew(&self, durable: u32, memory: u32) -> Result<(), WriteError> {
        self.ask(|reply| Command::Renew { durable, memory, reply })
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(SyncSender<Result<T, WriteError>>) -> Command,
    ) -> Result<T, WriteError> {
        let (tx, rx) = sync_channel(1);
        if self.queue.send(command(tx)).is_err() {
            return Err(WriteError::Closed);
        }
        rx.recv().unwrap_or(Err(WriteError::Closed))
    }

    /// Lets the writer finish what is queued, ends it, syncs and closes the environment.
    pub(crate) fn close(&self) -> Result<(), CloseError> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // An error means that the writer has ended already.
            drop(self.queue.send(Command::Stop));
            // A store may be dropped by a reply, on the writer thread itself, which ends next.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!(event = "store_writer_died", partition = self.index);
            }
        }
        let lmdb = self.env.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(lmdb) = lmdb else { return Ok(()) };
        let stopped = self.gauges.stopped();
        let synced = if stopped.is_none() { lmdb.sync() } else { Ok(()) };
        lmdb.close();
        match stopped {
            Some(why) => Err(CloseError::Stopped { partition: self.index, why }),
            None => synced.map_err(|source| CloseError::Sync { partition: self.index, source }),
        }
    }

    pub(crate) fn memory(&self) -> Arc<MemoryState> {
        self.memory.load_full()
    }

    /// Keeps the environment open, and its map where it is, until the guard is dropped.
    pub(crate) fn pin(&self) -> ShardedLockReadGuard<'_, Option<Lmdb>> {
        self.env.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `read` with a snapshot of the environment.
    pub(crate) fn with_snapshot<T>(
        &self,
        read: impl FnOnce(&Lmdb, &RoTxn<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let env = self.pin();
        let lmdb = env.as_ref().ok_or(ReadError::Closed)?;
        let txn = lmdb.read()?;
        read(lmdb, &txn)
    }
}

/// Reads the head and the clock as `txn` sees them.
pub(crate) fn read_committed(lmdb: &Lmdb, txn: &RoTxn<'_>) -> Result<Committed, ReadError> {
    let head = head::read(lmdb, txn)?;
    let mut clock = Clock::default();
    for row in lmdb.dbs.clock.iter(txn)? {
        let (actor, seen) = row?;
        let corrupt = || ReadError::Corrupt("clock row".into());
        let actor = actor.try_into().map(Actor::from_bytes).map_err(|_length| corrupt())?;
        clock.set(actor, Seen::decode(seen).ok_or_else(corrupt)?);
    }
    let (swept, damaged) = (events::read_swept(lmdb, txn)?, damage::read(lmdb, txn)?);
    Ok(Committed { head, clock, swept, damaged })
}
