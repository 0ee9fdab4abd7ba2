//! What the actors are given by the node.

use std::sync::Arc;

use futures::future::BoxFuture;
use weald_peers::{ClusterWatch, Network};
use weald_storage::{
    Bucket, Clock, Delta, Evidence, NodeId, Partition, PartitionSpace, Replicated, Space, Stable,
    SweepReport, VersionVector, Watch, WriteError,
};

use crate::core::{MergeFailure, Shard, Stores};

/// Merges objects of peers. Implemented on the handle of the store.
pub trait Sink: Send + Sync + 'static {
    /// Merges objects into one space of one partition; for each, whether it brought something new. All of one call are
    /// handed on before it returns, so that calls take effect in their order.
    fn merge(
        &self,
        partition: u16,
        space: Space,
        items: Vec<(Delta, Evidence)>,
    ) -> BoxFuture<'static, Vec<Result<bool, MergeFailure>>>;
}

/// The lives of this node.
pub trait Lives: Send + Sync + 'static {
    /// A peer knows events of this node that it does not know itself: it goes on under an incarnation above `highest`.
    /// Called on a blocking thread.
    fn renew(&self, highest: u32);
}

/// What goes through the writers of the store besides objects. All methods block.
pub trait Upkeep: Send + Sync + 'static {
    /// Takes over a clock after a walk.
    ///
    /// # Errors
    /// See [`WriteError`].
    fn adopt(
        &self,
        shard: Shard,
        clock: &Clock,
        swept: &VersionVector,
        watch: Arc<Watch>,
    ) -> Result<(), WriteError>;
    /// Takes the marks of damage off buckets that were compared with every member.
    ///
    /// # Errors
    /// See [`WriteError`].
    fn compared(&self, shard: Shard, buckets: &[Bucket]) -> Result<(), WriteError>;
    /// Forgets what is stable.
    ///
    /// # Errors
    /// See [`WriteError`].
    fn sweep(
        &self,
        shard: Shard,
        stable: &Stable,
        now_ms: u64,
        min_age_ms: u64,
        events_max: usize,
    ) -> Result<SweepReport, WriteError>;
}

/// The partitions of a store as replicas.
#[derive(Debug, Clone)]
pub struct Partitions {
    spaces: Vec<PartitionSpace>,
}

impl Partitions {
    /// All spaces of these partitions, which are in order and complete.
    pub fn new<'a>(partitions: impl IntoIterator<Item = &'a Arc<Partition>>) -> Self {
        let both = |partition: &Arc<Partition>| {
            [Space::Durable, Space::Memory].map(|space| partition.space(space))
        };
        Self { spaces: partitions.into_iter().flat_map(both).collect() }
    }

    fn of(&self, shard: Shard) -> &PartitionSpace {
        &self.spaces[usize::from(shard.number())]
    }
}

impl Stores for Partitions {
    fn partitions(&self) -> u16 {
        u16::try_from(self.spaces.len() / 2).expect("partitions are numbered by u16")
    }

    fn replica(&self, shard: Shard) -> &dyn Replicated {
        self.of(shard)
    }
}

impl Upkeep for Partitions {
    fn adopt(
        &self,
        shard: Shard,
        clock: &Clock,
        swept: &VersionVector,
        watch: Arc<Watch>,
    ) -> Result<(), WriteError> {
        self.of(shard).partition().adopt(shard.space, clock, swept, Some(watch))
    }

    fn compared(&self, shard: Shard, buckets: &[Bucket]) -> Result<(), WriteError> {
        self.of(shard).partition().compared(shard.space, buckets)
    }

    fn sweep(
        &self,
        shard: Shard,
        stable: &Stable,
        now_ms: u64,
        min_age_ms: u64,
        events_max: usize,
    ) -> Result<SweepReport, WriteError> {
        self.of(shard).partition().sweep(shard.space, stable, now_ms, min_age_ms, events_max)
    }
}

/// What the actors are given.
#[derive(Clone)]
pub struct Deps {
    /// This node.
    pub own: NodeId,
    /// Its replicas; [`Partitions`] for a real store.
    pub stores: Arc<dyn Stores>,
    /// Likewise.
    pub upkeep: Arc<dyn Upkeep>,
    /// Where objects are merged.
    pub sink: Arc<dyn Sink>,
    /// Who begins new lives.
    pub lives: Arc<dyn Lives>,
    /// The way to peers.
    pub network: Arc<dyn Network>,
    /// Who they are.
    pub cluster: ClusterWatch,
    /// Unix milliseconds.
    pub wall_ms: fn() -> u64,
    /// Seed of everything random, and of the numbers of sessions: another one for each start of the process.
    pub seed: u64,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps")
            .field("own", &self.own)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
