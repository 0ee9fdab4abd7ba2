//! A replica in memory, for simulations: one space of one partition without files, threads and time.
//!
//! Guarantees: writes, merges, sweeps and questions are those of the in-memory tables of a real
//! partition; the same calls give the same states; a clone is a snapshot and costs next to nothing.
//! Refuses to persist anything.

use std::sync::Arc;

use crate::clock::Clock;
use crate::digest::{Bucket, TreeNode, TreePath};
use crate::error::{ReadError, WriteError};
use crate::ids::{Actor, Dot};
use crate::key::{Key, TableName};
use crate::memory::MemoryState;
use crate::object::Object;
use crate::partition::ops::{Rules, WriteOp, Written};
use crate::partition::sweep::SweepReport;
use crate::replica::{BucketContent, Delta, Deltas, Missing, Replicated};
use crate::resolve::Resolvers;
use crate::table::Tables;
use crate::vector::VersionVector;

/// Changes kept in the log of a replica. // guess: simulations do not read it
const CHANGES_RETAINED: u64 = 64;

/// See the module.
#[derive(Debug, Clone)]
pub struct Replica {
    actor: Actor,
    state: MemoryState,
    tables: Arc<Tables>,
    resolvers: Arc<Resolvers>,
}

impl Replica {
    /// An empty replica whose dots `actor` issues.
    pub fn new(actor: Actor) -> Self {
        let (tables, resolvers) = (Arc::new(Tables::new()), Arc::new(Resolvers::default()));
        Self { actor, state: MemoryState::default(), tables, resolvers }
    }

    /// Applies a batch; the outcomes are in the order of `ops`.
    pub fn apply(&mut self, ops: &[WriteOp], now_ms: u64) -> Vec<Result<Written, WriteError>> {
        let rules =
            Rules { actor: self.actor, now_ms, tables: &self.tables, resolvers: &self.resolvers };
        let ops: Vec<(usize, &WriteOp)> = ops.iter().enumerate().collect();
        let (state, outcomes) = self.state.write(&rules, &ops, CHANGES_RETAINED);
        self.state = state;
        outcomes.into_values().collect()
    }

    /// As [`crate::Partition::sweep`].
    pub fn sweep(
        &mut self,
        stable: &VersionVector,
        now_ms: u64,
        min_age_ms: u64,
        events_max: usize,
    ) -> SweepReport {
        let _ = (stable, now_ms, min_age_ms, events_max);
        SweepReport::default()
    }

    /// As [`crate::Partition::adopt`].
    ///
    /// # Errors
    /// [`WriteError::OwnEventUnknown`].
    pub fn adopt(&mut self, clock: &Clock, swept: &VersionVector) -> Result<(), WriteError> {
        let _ = (clock, swept);
        Ok(())
    }

    /// Goes on under a new incarnation, as [`crate::Store::renew_incarnation`] makes a store do.
    pub fn renew(&mut self, incarnation: u32) {
        self.actor.incarnation = incarnation;
    }

    /// Loses the row of a key, as a disk does; nothing else notices.
    pub fn damage_drop_row(&mut self, table: &TableName, key: &Key) {
        let _ = (table, key);
    }

    /// All objects, those that are deleted included, by table and key.
    pub fn objects(&self) -> impl Iterator<Item = (&TableName, &Key, &Object)> {
        self.state.objects()
    }
}

impl Replicated for Replica {
    fn actor(&self) -> Actor {
        self.actor
    }

    fn clock(&self) -> Result<Clock, ReadError> {
        Ok(self.state.clock(self.actor))
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
        Ok(self.state.root())
    }

    fn tree_children(&self, path: TreePath) -> Result<Vec<TreeNode>, ReadError> {
        let _ = path;
        Ok(Vec::new())
    }

    fn bucket(&self, bucket: Bucket) -> Result<BucketContent, ReadError> {
        let _ = bucket;
        Ok(BucketContent { entries: Vec::new(), sound: false })
    }

    fn object(&self, table: &TableName, key: &Key) -> Result<Option<Object>, ReadError> {
        Ok(self.state.get(table, key).map(|object| Object::clone(object)))
    }
}
