//! The places of a node, and merging into them under the eyes of the history.

use std::collections::BTreeMap;

use weald_exchange::core::{MergeFailure, Shard, Stores};
use weald_storage::{
    Bucket, Clock, Delta, Dot, Evidence, Key, Object, Replica, Replicated, TableName, WriteError,
    WriteOp,
};

use super::history::{History, KeyAt, Merged, Place};
use super::process::Identity;
use super::sometimes::Sometimes;

/// Partitions of every node.
pub const PARTITIONS: u16 = 2;

/// What is done to replicas is noted here.
#[derive(Debug)]
pub struct Notes<'a> {
    /// What happened.
    pub history: &'a mut History,
    /// What has been gone through.
    pub sometimes: &'a mut Sometimes,
    /// Virtual time.
    pub now_ms: u64,
    /// What the node takes for the time.
    pub wall_ms: u64,
    /// The node, by its slot.
    pub node: usize,
}

/// All places of a node.
#[derive(Debug, Clone)]
pub struct Replicas {
    all: BTreeMap<Place, Replica>,
    /// Keys whose rows were lost on purpose: they may come back.
    pub damaged: Vec<KeyAt>,
}

/// The places of every node.
pub fn places() -> impl Iterator<Item = Place> {
    (0..PARTITIONS * 2).map(Place)
}

/// The table of all keys.
#[must_use]
pub fn table() -> TableName {
    TableName::parse("sim").expect("a plain name")
}

/// The bytes of a key.
#[must_use]
pub fn key(at: KeyAt) -> Key {
    Key::new(&at.number.to_be_bytes()).expect("two bytes")
}

/// The key of these bytes.
fn key_at(place: Place, key: &Key) -> KeyAt {
    let number = key.as_bytes().try_into().map_or(u16::MAX, u16::from_be_bytes);
    KeyAt { place, number }
}

impl Replicas {
    /// Empty ones.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        let all = places().map(|place| (place, Replica::new(identity.actor(place)))).collect();
        Self { all, damaged: Vec::new() }
    }

    /// What is there after a restart: the durable places as they were, the others empty.
    #[must_use]
    pub fn restarted(mut self, identity: &Identity) -> Self {
        for (place, replica) in &mut self.all {
            let actor = identity.actor(*place);
            if place.is_memory() {
                *replica = Replica::new(actor);
            } else if replica.actor() != actor {
                replica.renew(actor.incarnation);
            }
        }
        self
    }

    /// Goes on under new incarnations.
    pub fn renew(&mut self, identity: &Identity) {
        for (place, replica) in &mut self.all {
            replica.renew(identity.actor(*place).incarnation);
        }
    }

    /// A place.
    #[must_use]
    pub fn of(&self, place: Place) -> &Replica {
        &self.all[&place]
    }

    /// What a node's scrub does when it comes to the buckets of rows that were lost: their sums no longer tell of these rows.
    pub fn scrub(&mut self) {
        for at in self.damaged.clone() {
            let bucket = Bucket::of(&table(), &key(at));
            if !self.of(at.place).adds_up(bucket) {
                self.of_mut(at.place).repair_tree(bucket);
            }
        }
    }

    /// These buckets of a place were compared with every member.
    pub fn compared(&mut self, place: Place, buckets: &[Bucket]) {
        self.of_mut(place).compared(buckets);
        let is_done = |at: &KeyAt| buckets.contains(&Bucket::of(&table(), &key(*at)));
        self.damaged.retain(|at| at.place != place || !is_done(at));
    }

    /// A place, to change it.
    pub fn of_mut(&mut self, place: Place) -> &mut Replica {
        self.all.get_mut(&place).expect("all places are there")
    }

    /// What was processed in a place.
    #[must_use]
    pub fn clock(&self, place: Place) -> Clock {
        self.of(place).clock().expect("a replica in memory can be read")
    }

    /// The object of a key.
    #[must_use]
    pub fn object(&self, at: KeyAt) -> Object {
        let found = self.of(at.place).object(&table(), &key(at));
        found.expect("a replica in memory can be read").unwrap_or_default()
    }

    /// All objects of a place.
    #[must_use]
    pub fn objects(&self, place: Place) -> BTreeMap<KeyAt, Object> {
        let objects = self.of(place).objects();
        objects.map(|(_, key, object)| (key_at(place, key), object.clone())).collect()
    }

    /// Merges objects of a peer. Whether each brought events that were new here.
    pub fn merge(
        &mut self,
        place: Place,
        items: Vec<(Delta, Evidence)>,
        notes: &mut Notes<'_>,
    ) -> Vec<Result<bool, MergeFailure>> {
        items
            .into_iter()
            .map(|(delta, evidence)| self.merge_one(place, delta, evidence, notes))
            .collect()
    }

    fn merge_one(
        &mut self,
        place: Place,
        delta: Delta,
        evidence: Evidence,
        notes: &mut Notes<'_>,
    ) -> Result<bool, MergeFailure> {
        let at = key_at(place, &delta.key);
        let (is_held, is_beyond) =
            (matches!(evidence, Evidence::Held(_)), matches!(evidence, Evidence::Beyond(_)));
        let (clock_before, before) = (self.clock(place), self.object(at));
        let Delta { table, key, object, dots } = delta;
        let op = WriteOp::Merge { table, key, object, dots, evidence };
        let outcome = self.of_mut(place).apply(&[op], notes.wall_ms).remove(0);
        let written = outcome.map_err(|e| merge_failure(&e))?;
        if written.seq.is_none() {
            return Ok(written.fresh);
        }
        let (clock_after, after) = (self.clock(place), self.object(at));
        let gone = |x: &Object, y: &Object| -> Vec<Dot> {
            x.live_dots().filter(|dot| y.value_at(dot).is_none()).collect()
        };
        let dropped = gone(&before, &after);
        let revived = gone(&after, &before).into_iter().filter(|dot| clock_before.contains(dot));
        // A tombstone that a restored node still has does no harm, see P6.
        let is_dead = |dot: &Dot| {
            notes.history.is_replaced(place, *dot, &clock_after)
                && notes.history.write_of(place, *dot).is_some_and(|write| !write.is_delete())
        };
        let revived: Vec<Dot> = if is_held {
            // What was lost here may come back, not what was replaced.
            revived.filter(is_dead).collect()
        } else if is_beyond || self.damaged.contains(&at) {
            Vec::new()
        } else {
            revived.collect()
        };
        let clock_shrank = !clock_after.descends(&clock_before);
        if after.live_len() > before.live_len() && before.live_len() > 0 {
            notes.sometimes.hit("sibling_merge");
        }
        if clock_shrank || !dropped.is_empty() || !revived.is_empty() {
            let (node, at_ms) = (notes.node, notes.now_ms);
            notes.history.merges.push(Merged {
                node,
                at_ms,
                key: at,
                dropped,
                revived,
                clock_shrank,
            });
        }
        Ok(written.fresh)
    }
}

fn merge_failure(error: &WriteError) -> MergeFailure {
    match error {
        WriteError::OwnEventUnknown { actor, .. } => {
            MergeFailure::OwnEventUnknown { highest: actor.incarnation }
        }
        other => MergeFailure::Other(other.to_string()),
    }
}

impl Stores for Replicas {
    fn partitions(&self) -> u16 {
        PARTITIONS
    }

    fn replica(&self, shard: Shard) -> &dyn Replicated {
        self.of(Place(shard.number()))
    }
}
