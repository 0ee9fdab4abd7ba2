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
use crate::partition::events::{self, Known};
use crate::partition::ops::{Rules, WriteOp, Written};
use crate::partition::sweep::{Stable, SweepPlan, SweepReport};
use crate::replica::{BucketContent, Delta, Deltas, Era, Missing, Replicated};
use crate::resolve::Resolvers;
use crate::table::Tables;
use crate::vector::VersionVector;
use crate::watch::{Watch, Watches};

/// Changes kept in the log of a replica. // guess: simulations do not read it
const CHANGES_RETAINED: u64 = 64;

/// See the module.
#[derive(Debug, Clone)]
pub struct Replica {
    actor: Actor,
    state: MemoryState,
    tables: Arc<Tables>,
    resolvers: Arc<Resolvers>,
    watches: Watches,
}

impl Replica {
    /// An empty replica whose dots `actor` issues.
    pub fn new(actor: Actor) -> Self {
        let (tables, resolvers) = (Arc::new(Tables::new()), Arc::new(Resolvers::default()));
        let (state, watches) = (MemoryState::default(), Watches::default());
        Self { actor, state, tables, resolvers, watches }
    }

    /// Applies a batch; the outcomes are in the order of `ops`.
    pub fn apply(&mut self, ops: &[WriteOp], now_ms: u64) -> Vec<Result<Written, WriteError>> {
        let watches = self.watches.hold();
        let rules = Rules {
            actor: self.actor,
            now_ms,
            tables: &self.tables,
            resolvers: &self.resolvers,
            watches: &watches,
        };
        let ops: Vec<(usize, &WriteOp)> = ops.iter().enumerate().collect();
        let (state, outcomes) = self.state.write(&rules, &ops, CHANGES_RETAINED);
        self.state = state;
        outcomes.into_values().collect()
    }

    /// As [`crate::Partition::sweep`].
    pub fn sweep(
        &mut self,
        stable: &Stable,
        now_ms: u64,
        min_age_ms: u64,
        events_max: usize,
    ) -> SweepReport {
        let plan = SweepPlan { stable: stable.clone(), now_ms, min_age_ms, events_max };
        let (state, report) = self.state.sweep(self.actor, &plan);
        self.state = state;
        if report.has_forgotten() {
            self.watches.forgot();
        }
        report
    }

    /// As [`crate::Partition::adopt`].
    ///
    /// # Errors
    /// [`WriteError::OwnEventUnknown`], [`WriteError::Disturbed`].
    pub fn adopt(
        &mut self,
        clock: &Clock,
        swept: &VersionVector,
        watch: Option<&Watch>,
    ) -> Result<(), WriteError> {
        if watch.is_some_and(Watch::is_disturbed) {
            return Err(WriteError::Disturbed);
        }
        self.state = self.state.adopt(self.actor, clock, swept)?;
        self.watches.forgot();
        Ok(())
    }

    /// Goes on under a new incarnation, as [`crate::Store::renew_incarnation`] makes a store do.
    pub fn renew(&mut self, incarnation: u32) {
        self.state = self.state.renew(self.actor);
        self.actor.incarnation = incarnation;
    }

    /// Loses the row of a key, as a disk does; nothing else notices.
    pub fn damage_drop_row(&mut self, table: &TableName, key: &Key) {
        self.state.lose(table, key);
    }

    /// Whether a scrub would find nothing wrong with a bucket.
    pub fn adds_up(&self, bucket: Bucket) -> bool {
        self.state.adds_up(bucket)
    }

    /// Recomputes the sum of a bucket, as [`crate::Partition::repair_tree`].
    pub fn repair_tree(&mut self, bucket: Bucket) {
        self.state.repair_tree(bucket);
    }

    /// As [`crate::Partition::compared`].
    pub fn compared(&mut self, buckets: &[Bucket]) {
        self.state = self.state.compared(&buckets.iter().copied().collect());
    }

    fn known<'k>(&'k self, clock: &'k Clock) -> Known<'k> {
        Known { clock, swept: self.state.swept() }
    }

    /// Number of events whose keys are known.
    pub fn events_len(&self) -> usize {
        self.state.events_len()
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

    fn watch(&self, theirs: &Arc<Clock>) -> Result<Arc<Watch>, ReadError> {
        Ok(self.watches.begin(theirs))
    }

    fn era(&self) -> Era {
        self.watches.era()
    }

    fn swept(&self) -> Result<VersionVector, ReadError> {
        Ok(self.state.swept().clone())
    }

    fn deltas_after(
        &self,
        actor: &Actor,
        after: u64,
        bytes_max: usize,
    ) -> Result<Deltas, ReadError> {
        let clock = self.state.clock(self.actor);
        events::deltas_after(&self.state, self.known(&clock), *actor, after, bytes_max)
    }

    fn deltas_of(&self, dots: &[Dot]) -> Result<(Vec<Delta>, Vec<Dot>), ReadError> {
        let clock = self.state.clock(self.actor);
        events::deltas_of(&self.state, self.known(&clock), dots)
    }

    fn missing(
        &self,
        theirs: &Clock,
        after: Option<Dot>,
        bytes_max: usize,
    ) -> Result<Missing, ReadError> {
        let clock = self.state.clock(self.actor);
        events::missing(&self.state, self.known(&clock), theirs, after, bytes_max)
    }

    fn tree_root(&self) -> Result<TreeNode, ReadError> {
        Ok(self.state.root())
    }

    fn tree_children(&self, path: TreePath) -> Result<Vec<TreeNode>, ReadError> {
        Ok(self.state.children(path))
    }

    fn bucket(&self, bucket: Bucket) -> Result<BucketContent, ReadError> {
        Ok(self.state.bucket(bucket))
    }

    fn damaged(&self) -> Result<Vec<Bucket>, ReadError> {
        Ok(self.state.damaged())
    }

    fn object(&self, table: &TableName, key: &Key) -> Result<Option<Object>, ReadError> {
        Ok(self.state.get(table, key).map(|object| Object::clone(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    #[test]
    fn sweep_does_not_wait_for_a_clock_that_was_set_back() {
        let mut replica = Replica::new(Actor { node: NodeId([1; 16]), incarnation: 2 });
        let (table, key) = (TableName::parse("t").unwrap(), Key::new(b"k").unwrap());
        let delete = WriteOp::Delete { table, key, context: None };
        assert!(replica.apply(&[delete], 10_000_000)[0].is_ok());
        let stable = replica.clock().unwrap().bases().into();
        // Neither young events by either clock, nor old ones by the new clock.
        assert_eq!(replica.sweep(&stable, 10_000_500, 1_000, 9).swept, 0);
        assert_eq!(replica.sweep(&stable, 9_999_500, 1_000, 9).swept, 0);
        assert_eq!(replica.sweep(&stable, 6_400_000, 1_000, 9).reaped, 1);
    }

    /// A value is replaced, everybody has the replacement and forgets its context. Then one goes back to a backup with the
    /// value, and hears of a newer event of the key. It must not take the replacement for processed: it still holds what was
    /// replaced, and with equal clocks that would pass for a value that the others have lost.
    #[test]
    fn newer_event_of_a_stripped_object_does_not_hide_what_was_missed() {
        let actor = |n| Actor { node: NodeId([n; 16]), incarnation: 2 };
        let (table, key) = (TableName::parse("t").unwrap(), Key::new(b"k").unwrap());
        let put = |value: &[u8], context| WriteOp::Put {
            table: table.clone(),
            key: key.clone(),
            value: value.to_vec(),
            context,
            ttl: None,
        };
        let send = |from: &Replica, after: u64, to: &mut Replica| {
            for delta in from.deltas_after(&from.actor(), after, usize::MAX).unwrap().deltas {
                let Delta { table, key, object, dots } = delta;
                let evidence = crate::replica::Evidence::Own;
                let merge = WriteOp::Merge { table, key, object, dots, evidence };
                assert!(to.apply(&[merge], 1)[0].is_ok());
            }
        };
        let (mut a, mut b, mut c) =
            (Replica::new(actor(1)), Replica::new(actor(2)), Replica::new(actor(3)));
        a.apply(&[put(b"old", None)], 1);
        send(&a, 0, &mut b);
        send(&a, 0, &mut c);
        let mut restored = c.clone();
        b.apply(&[put(b"new", None)], 1);
        send(&b, 0, &mut c);
        let stable = c.clock().unwrap().bases().into();
        assert_eq!(b.sweep(&stable, 2, 0, 9).stripped, 1);
        let sibling = crate::Context::new(&table, &key, VersionVector::new());
        b.apply(&[put(b"newer", Some(sibling))], 1);
        send(&b, 1, &mut restored);
        let replacement = Dot { actor: actor(2), counter: 1 };
        let held = restored.object(&table, &key).unwrap().unwrap();
        let is_dead = held.value_at(&Dot { actor: actor(1), counter: 1 }).is_none();
        assert!(is_dead || !restored.clock().unwrap().contains(&replacement));
        assert!(b.missing(&restored.clock().unwrap(), None, 1).unwrap().needs_walk);
    }
}
