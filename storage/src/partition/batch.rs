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
use crate::partition::ops::{Applied, Counters, Rules, Target, WriteOp, Written, expires_all_ms};

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
    /// Adds the row of a new object to the index by bucket.
    fn index(&mut self, target: &Target<'_>) -> Result<(), Self::Error>;
    /// Moves the row of an object in the index by expiry.
    fn move_expiry(
        &mut self,
        target: &Target<'_>,
        from_ms: Option<u64>,
        to_ms: Option<u64>,
    ) -> Result<(), Self::Error>;
}

/// Everything a batch gathers besides rows.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) counters: Counters,
    pub(crate) last_seq: u64,
    pub(crate) tree: TreeDelta,
    pub(crate) log: Vec<LogEntry>,
    /// Dots of others that were merged.
    pub(crate) merged: Vec<Dot>,
    /// Buckets whose sums cannot be trusted, since a damaged record was replaced.
    pub(crate) rebuild: Vec<Bucket>,
}

impl Gathered {
    pub(crate) fn new(counters: Counters, last_seq: u64) -> Self {
        Self {
            counters,
            last_seq,
            tree: TreeDelta::new(),
            log: Vec::new(),
            merged: Vec::new(),
            rebuild: Vec::new(),
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
    gathered: &mut Gathered,
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
    gathered: &mut Gathered,
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
    let known = existed && corrupt.is_none();
    let before = known.then(|| (EntryDigest::of(table, key, &object), expires_all_ms(&object)));
    let mut changed = false;
    for (place, op) in group {
        // Only a peer's object may take the place of a damaged record: anything else would
        // silently drop what was there.
        let refused = corrupt.as_deref().filter(|_| !matches!(op, WriteOp::Merge { .. }));
        let applied = match refused {
            Some(why) => Err(WriteError::Corrupt(why.into())),
            None => rules.apply(op, &target, &mut object, &mut gathered.counters),
        };
        let outcome = applied.map(|applied| {
            if applied.is_some() {
                changed = true;
                corrupt = None;
            }
            note(rows.space(), &target, &object, applied.as_ref(), op, gathered)
        });
        outcomes.insert(*place, outcome);
    }
    if !changed {
        return Ok(());
    }
    let bucket = Bucket::of_hash(&target.hash);
    let after = EntryDigest::of(table, key, &object);
    let expires_ms = expires_all_ms(&object);
    if existed && !known {
        gathered.rebuild.push(bucket);
    } else {
        gathered.tree.record(bucket, before.map(|(digest, _)| digest), Some(after));
    }
    if !existed {
        rows.index(&target)?;
    }
    let expired_ms = before.and_then(|(_, at)| at);
    if expired_ms != expires_ms {
        rows.move_expiry(&target, expired_ms, expires_ms)?;
    }
    rows.store(&target, object)
}

/// Writes the outcome of one operation into the log.
fn note(
    space: Space,
    target: &Target<'_>,
    object: &Object,
    applied: Option<&Applied>,
    op: &WriteOp,
    gathered: &mut Gathered,
) -> Written {
    let context = Context::new(target.table, target.key, object.join());
    let Some(applied) = applied else {
        return Written { context, dot: None, seq: None, space, fresh: false };
    };
    gathered.last_seq += 1;
    gathered.log.push(LogEntry {
        seq: gathered.last_seq,
        kind: applied.kind,
        dot: applied.dot,
        table: target.table.clone(),
        key: target.key.clone(),
    });
    if let WriteOp::Merge { object: theirs, .. } = op {
        // The newest event of each actor was processed, also when it is not live any more.
        let newest =
            theirs.entries().map(|(actor, entry)| Dot { actor: *actor, counter: entry.n() });
        gathered.merged.extend(newest.chain(theirs.live_dots()));
    }
    Written {
        context,
        dot: applied.own.then_some(applied.dot),
        seq: Some(gathered.last_seq),
        space,
        fresh: true,
    }
}
