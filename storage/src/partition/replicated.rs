//! One space of one partition, as replication sees it.

use std::sync::Arc;

use crate::clock::Clock;
use crate::digest::{Bucket, TreeNode, TreePath};
use crate::error::{ReadError, WriteError};
use crate::ids::{Actor, Dot};
use crate::key::{Key, TableName};
use crate::object::Object;
use crate::partition::events::{self, DurableEvents, Events, Known};
use crate::partition::sweep::{Stable, SweepPlan, SweepReport};
use crate::partition::tree::bucket_content;
use crate::partition::writer::{Adopted, Command};
use crate::partition::{Partition, Space, read_committed};
use crate::replica::{BucketContent, Delta, Deltas, Era, Missing, Replicated};
use crate::vector::VersionVector;
use crate::watch::Watch;

/// One space of one partition.
#[derive(Debug, Clone)]
pub struct PartitionSpace {
    partition: Arc<Partition>,
    space: Space,
}

impl PartitionSpace {
    /// The space `space` of `partition`.
    pub fn new(partition: Arc<Partition>, space: Space) -> Self {
        Self { partition, space }
    }

    /// The partition.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The space.
    pub fn space(&self) -> Space {
        self.space
    }

    /// Asks the index of events, on one snapshot.
    fn ask<T>(
        &self,
        question: impl FnOnce(&dyn Events, Known<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let own = self.actor();
        if self.space == Space::Memory {
            let memory = self.partition.memory();
            let clock = memory.clock(own);
            return question(&*memory, Known { clock: &clock, swept: memory.swept() });
        }
        self.partition.with_snapshot(|lmdb, txn| {
            let committed = read_committed(lmdb, txn)?;
            let clock = committed.whole_clock(own);
            let known = Known { clock: &clock, swept: &committed.swept };
            question(&DurableEvents { lmdb, txn }, known)
        })
    }
}

impl Partition {
    /// One space, as replication sees it.
    pub fn space(self: &Arc<Self>, space: Space) -> PartitionSpace {
        PartitionSpace::new(Arc::clone(self), space)
    }

    /// The space that `table` is in: where its merges go. What a peer sends for the other space (the
    /// declaration of the table has not arrived yet) must not be merged.
    pub fn space_of(&self, table: &TableName) -> Space {
        match self.shared.tables.kind(table) {
            crate::table::TableKind::Durable => Space::Durable,
            crate::table::TableKind::Memory => Space::Memory,
        }
    }

    /// Forgets what every member has processed: of the events up to `stable` that were processed here
    /// at least `min_age_ms` ago the keys, and of their objects tombstones and contexts. At most
    /// `events_max` events a call. Also takes off the change log what is beyond `changes_retained`.
    /// Goes through the writer and waits for it.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn sweep(
        &self,
        space: Space,
        stable: &Stable,
        now_ms: u64,
        min_age_ms: u64,
        events_max: usize,
    ) -> Result<SweepReport, WriteError> {
        let plan = SweepPlan { stable: stable.clone(), now_ms, min_age_ms, events_max };
        self.ask(|reply| Command::Sweep(space, plan, reply))
    }

    /// Takes over a peer's clock, as it was before a walk of its whole tree began: all of its events
    /// have been processed here, too. `swept` is what the peer had swept. Events that are new here in
    /// this way cannot be served to others: see [`Replicated::swept`]. `watch` is what was watched
    /// while the trees were compared.
    ///
    /// # Errors
    /// [`WriteError::OwnEventUnknown`] when the peer knows events of the current actor that are not
    /// here; [`WriteError::Disturbed`]; else see [`WriteError`].
    pub fn adopt(
        &self,
        space: Space,
        clock: &Clock,
        swept: &VersionVector,
        watch: Option<Arc<Watch>>,
    ) -> Result<(), WriteError> {
        let adopted = Adopted { clock: clock.clone(), swept: swept.clone(), watch };
        self.ask(|reply| Command::Adopt(space, adopted, reply))
    }
}

impl Replicated for PartitionSpace {
    fn actor(&self) -> Actor {
        self.partition.actor(self.space)
    }

    fn clock(&self) -> Result<Clock, ReadError> {
        self.partition.clock(self.space)
    }

    fn watch(&self, theirs: &Arc<Clock>) -> Result<Arc<Watch>, ReadError> {
        Ok(self.partition.watches(self.space).begin(theirs))
    }

    fn era(&self) -> Era {
        self.partition.watches(self.space).era()
    }

    fn swept(&self) -> Result<VersionVector, ReadError> {
        match self.space {
            Space::Memory => Ok(self.partition.memory().swept().clone()),
            Space::Durable => self.partition.with_snapshot(events::read_swept),
        }
    }

    fn deltas_after(
        &self,
        actor: &Actor,
        after: u64,
        bytes_max: usize,
    ) -> Result<Deltas, ReadError> {
        self.ask(|events, known| events::deltas_after(events, known, *actor, after, bytes_max))
    }

    fn deltas_of(&self, dots: &[Dot]) -> Result<(Vec<Delta>, Vec<Dot>), ReadError> {
        self.ask(|events, known| events::deltas_of(events, known, dots))
    }

    fn missing(
        &self,
        theirs: &Clock,
        after: Option<Dot>,
        bytes_max: usize,
    ) -> Result<Missing, ReadError> {
        self.ask(|events, known| events::missing(events, known, theirs, after, bytes_max))
    }

    fn tree_root(&self) -> Result<TreeNode, ReadError> {
        self.partition.tree_root(self.space)
    }

    fn tree_children(&self, path: TreePath) -> Result<Vec<TreeNode>, ReadError> {
        self.partition.tree_children(self.space, path)
    }

    fn bucket(&self, bucket: Bucket) -> Result<BucketContent, ReadError> {
        match self.space {
            Space::Memory => Ok(self.partition.memory().bucket(bucket)),
            Space::Durable => {
                self.partition.with_snapshot(|lmdb, txn| bucket_content(lmdb, txn, bucket))
            }
        }
    }

    fn damaged(&self) -> Result<Vec<Bucket>, ReadError> {
        match self.space {
            Space::Memory => Ok(self.partition.memory().damaged()),
            Space::Durable => self.partition.with_snapshot(|lmdb, txn| {
                Ok(crate::partition::damage::read(lmdb, txn)?.into_iter().collect())
            }),
        }
    }

    fn object(&self, table: &TableName, key: &Key) -> Result<Option<Object>, ReadError> {
        self.partition.read_object(self.space, table, key)
    }
}
