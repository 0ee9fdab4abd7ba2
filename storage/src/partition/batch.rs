//! One batch of writes, applied in one go to one space (durable or memory).
//!
//! Guarantees: a refused write changes nothing and does not disturb the others; writes of one key
//! keep their order; each object is read and written once per batch; the object, its index rows,
//! the hash tree, the change log, the clock and the counters change together or not at all (the
//! space commits them together).
//!
//! Between keys the batch is reordered by key, so that neighbours meet on the same pages.

use std::collections::BTreeMap;

use crate::context::Context;
use crate::digest::{Bucket, EntryDigest, TreeDelta};
use crate::error::WriteError;
use crate::ids::Dot;
use crate::object::Object;
use crate::partition::Space;
use crate::partition::changes::LogEntry;
use crate::partition::events::Event;
use crate::partition::ops::{
    Applied, ChangeKind, Counters, Rules, Target, WriteOp, Written, expires_all_ms,
};
use crate::replica::Evidence;
use crate::vector::VersionVector;

/// What a space found in the row of an object.
pub(crate) enum Loaded {
    Absent,
    Object(Object),
    /// The record is damaged.
    Corrupt(String),
}

/// Where the rows of a batch go. Errors are those of the store and fail the whole batch.
pub(crate) trait Rows {
    type Error;

    fn space(&self) -> Space;
    fn load(&mut self, target: &Target<'_>) -> Result<Loaded, Self::Error>;
    fn store(&mut self, target: &Target<'_>, object: Object) -> Result<(), Self::Error>;
    /// Removes an object and its row in the index by bucket.
    fn remove(&mut self, target: &Target<'_>) -> Result<(), Self::Error>;
    /// Adds the row of a new object to the index by bucket; whether it was there already, so that
    /// the object was lost.
    fn index(&mut self, target: &Target<'_>) -> Result<bool, Self::Error>;
    /// Whether the index by bucket knows of an object.
    fn is_indexed(&self, target: &Target<'_>) -> Result<bool, Self::Error>;
    /// Moves the row of an object in the index by expiry.
    fn move_expiry(
        &mut self,
        target: &Target<'_>,
        from_ms: Option<u64>,
        to_ms: Option<u64>,
    ) -> Result<(), Self::Error>;
    /// Notes in the index of events which key `dot` was about, unless it is there.
    fn note_event(&mut self, dot: Dot, target: &Target<'_>, now_ms: u64)
    -> Result<(), Self::Error>;
    /// Removes an event from the index.
    fn forget_event(&mut self, dot: Dot) -> Result<(), Self::Error>;
    /// The first event at or after `from`; without content when its row is damaged.
    fn next_event(&self, from: Dot) -> Result<Option<(Dot, Option<Event>)>, Self::Error>;
}

/// Everything a batch gathers besides rows.
#[derive(Debug)]
pub(crate) struct Gathered<'c> {
    pub(crate) counters: Counters<'c>,
    pub(crate) last_seq: u64,
    pub(crate) tree: TreeDelta,
    pub(crate) log: Vec<LogEntry>,
    /// Whether anything is to be committed.
    pub(crate) dirty: bool,
    /// Buckets whose sums cannot be trusted, since a damaged or lost record was replaced.
    pub(crate) rebuild: Vec<Bucket>,
    /// Events that cannot be told any more: contexts went with the record that was replaced.
    pub(crate) untold: VersionVector,
}

impl<'c> Gathered<'c> {
    pub(crate) fn new(counters: Counters<'c>, last_seq: u64) -> Self {
        Self {
            counters,
            last_seq,
            tree: TreeDelta::new(),
            log: Vec::new(),
            dirty: false,
            rebuild: Vec::new(),
            untold: VersionVector::new(),
        }
    }
}

/// Outcome of each operation, by its place in the batch.
pub(crate) type Outcomes = BTreeMap<usize, Result<Written, WriteError>>;

/// Applies `ops` (with their places) to `rows`.
pub(crate) fn apply<R: Rows>(
    rows: &mut R,
    rules: &Rules<'_>,
    ops: &[(usize, &WriteOp)],
    gathered: &mut Gathered<'_>,
) -> Result<Outcomes, R::Error> {
    let mut order: Vec<&(usize, &WriteOp)> = ops.iter().collect();
    // Stable: the writes of one key keep their order.
    order.sort_by(|left, right| left.1.target().cmp(&right.1.target()));
    let mut outcomes = Outcomes::new();
    for group in order.chunk_by(|left, right| left.1.target() == right.1.target()) {
        apply_group(rows, rules, group, gathered, &mut outcomes)?;
    }
    Ok(outcomes)
}

fn apply_group<R: Rows>(
    rows: &mut R,
    rules: &Rules<'_>,
    group: &[&(usize, &WriteOp)],
    gathered: &mut Gathered<'_>,
    outcomes: &mut Outcomes,
) -> Result<(), R::Error> {
    let Some((_, first)) = group.first() else { return Ok(()) };
    let (table, key) = first.target();
    let target = Target::new(table, key);
    let (mut object, existed, mut corrupt) = match rows.load(&target)? {
        Loaded::Absent => (Object::new(), false, None),
        Loaded::Object(object) => (object, true, None),
        Loaded::Corrupt(why) => (Object::new(), true, Some(why)),
    };
    let merges = group.iter().any(|(_, op)| matches!(op, WriteOp::Merge { .. }));
    let lost = !existed && merges && rows.is_indexed(&target)?;
    let known = existed && corrupt.is_none();
    let digest_before = if known { EntryDigest::of(table, key, &object) } else { None };
    let expires_before = if known { expires_all_ms(&object) } else { None };
    let (mut stored, mut reindex) = (false, false);
    for (place, op) in group {
        let applied = match corrupt.as_deref() {
            Some(why) => repair(rules, op, &target, &mut object, &mut gathered.counters, why),
            None if lost => {
                rules.apply(&unjudged(op), &target, &mut object, &mut gathered.counters)
            }
            None => rules.apply(op, &target, &mut object, &mut gathered.counters),
        };
        if let Ok(Some(applied)) = &applied {
            stored = true;
            corrupt = None;
            // Every object that is not settled has an event in the index, so that a sweep meets it.
            reindex |= !applied.own && applied.events.is_empty();
            let own = applied.own.then_some(applied.dot);
            for dot in own.into_iter().chain(applied.events.iter().copied()) {
                rows.note_event(dot, &target, rules.now_ms)?;
            }
        }
        let outcome =
            applied.map(|applied| note(rows.space(), &target, &object, applied.as_ref(), gathered));
        outcomes.insert(*place, outcome);
    }
    if !stored {
        return Ok(());
    }
    gathered.dirty = true;
    if reindex {
        for (actor, entry) in object.entries() {
            rows.note_event(Dot { actor: *actor, counter: entry.n() }, &target, rules.now_ms)?;
        }
    }
    let bucket = Bucket::of_hash(&target.hash);
    let was_lost = !existed && rows.index(&target)?;
    if was_lost || (existed && !known) {
        gathered.rebuild.push(bucket);
        gathered.untold.merge(&object.join());
    } else {
        let digest = EntryDigest::of(table, key, &object);
        gathered.tree.record(bucket, digest_before, digest);
    }
    let expires_ms = expires_all_ms(&object);
    if expires_before != expires_ms {
        rows.move_expiry(&target, expires_before, expires_ms)?;
    }
    rows.store(&target, object)
}

/// Applies `op` to a damaged record. Only a peer's object may take its place: anything else would
/// silently drop what was there. Nothing is known of what it held, so nothing is taken for dead.
fn repair(
    rules: &Rules<'_>,
    op: &WriteOp,
    target: &Target<'_>,
    object: &mut Object,
    counters: &mut Counters<'_>,
    why: &str,
) -> Result<Option<Applied>, WriteError> {
    let WriteOp::Merge { object: theirs, .. } = op else {
        return Err(WriteError::Corrupt(why.into()));
    };
    let applied = rules.apply(&unjudged(op), target, object, counters)?;
    // Values that were not taken are left to somebody who knows more.
    if applied.is_some() || theirs.is_empty() || theirs.live_len() > 0 {
        return Ok(applied.map(|applied| Applied { changed: true, ..applied }));
    }
    // It brings no value and no new event, but tells that nothing is left of the key.
    object.clone_from(theirs);
    let newest = theirs.entries().map(|(actor, entry)| (entry.n(), *actor)).max();
    Ok(newest.map(|(counter, actor)| Applied {
        kind: ChangeKind::Merge,
        dot: Dot { actor, counter },
        own: false,
        changed: true,
        events: Vec::new(),
    }))
}

/// A merge for a record that is damaged or lost. Nothing is known of what it held: that it is not there is no evidence.
fn unjudged(op: &WriteOp) -> WriteOp {
    let mut op = op.clone();
    if let WriteOp::Merge { evidence: evidence @ (Evidence::Own | Evidence::Both(_)), .. } = &mut op
    {
        *evidence = Evidence::Neither;
    }
    op
}

/// Writes the outcome of one operation into the log.
fn note(
    space: Space,
    target: &Target<'_>,
    object: &Object,
    applied: Option<&Applied>,
    gathered: &mut Gathered<'_>,
) -> Written {
    let context = Context::new(target.table, target.key, object.join());
    let Some(applied) = applied else {
        return Written { context, dot: None, seq: None, space, fresh: false };
    };
    let mut seq = None;
    if applied.changed {
        gathered.last_seq += 1;
        seq = Some(gathered.last_seq);
        gathered.log.push(LogEntry {
            seq: gathered.last_seq,
            kind: applied.kind,
            dot: applied.dot,
            table: target.table.clone(),
            key: target.key.clone(),
        });
    }
    Written { context, dot: applied.own.then_some(applied.dot), seq, space, fresh: true }
}
