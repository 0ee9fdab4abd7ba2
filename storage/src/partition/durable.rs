//! One batch of writes in one LMDB transaction.

use std::ops::Bound;

use heed::{PutFlags, RwTxn};

use crate::clock::{Clock, Seen};
use crate::codec::{decode_record, encode_record};
use crate::hlc::{HlcClock, SKEW_MAX_MS};
use crate::identity::{EnvIdentity, IDENTITY_ROW};
use crate::ids::{Actor, Dot};
use crate::lmdb::Lmdb;
use crate::object::Object;
use crate::partition::Space;
use crate::partition::batch::{Gathered, Loaded, Outcomes, Rows, apply};
use crate::partition::changes;
use crate::partition::damage::{self, Damaged};
use crate::partition::events::{self, Event};
use crate::partition::expiry::index_key;
use crate::partition::head::{HEAD_ROW, Head};
use crate::partition::ops::{Counters, Processed, Rules, Target, WriteOp};
use crate::partition::sweep::{self, SweepPlan, SweepReport, Sweeping};
use crate::partition::tree;
use crate::vector::VersionVector;

/// What the writer knows of its environment between batches: exactly what is committed.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) head: Head,
    /// Clock of every actor but the current one, whose entry is the head's counter.
    pub(crate) clock: Clock,
    /// Up to which counter of each actor the index of events was swept.
    pub(crate) swept: VersionVector,
    /// Buckets in which absence is no evidence.
    pub(crate) damaged: Damaged,
}

impl Committed {
    /// The clock, with the current actor's own entry.
    pub(crate) fn whole_clock(&self, own: Actor) -> Clock {
        let mut clock = self.clock.clone();
        if self.head.counter > 0 {
            clock.set(own, Seen::up_to(self.head.counter));
        }
        clock
    }
}

/// Limits a batch works under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Changes kept in the log.
    pub(crate) changes_retained: u64,
    /// Space is short: take three changes off the log for each that is added, so that deletes
    /// (which add a row to the index of events, too) always leave more room than they take.
    pub(crate) shrink_log: bool,
}

/// A failed transaction.
pub(crate) struct TxnError {
    pub(crate) error: heed::Error,
    /// Whether the commit itself failed.
    pub(crate) committing: bool,
}

impl From<heed::Error> for TxnError {
    fn from(error: heed::Error) -> Self {
        Self { error, committing: false }
    }
}

/// A committed batch.
pub(crate) struct Done {
    pub(crate) outcomes: Outcomes,
    pub(crate) committed: Committed,
    pub(crate) used_bytes: u64,
    pub(crate) clamped: u64,
}

struct DurableRows<'l> {
    lmdb: &'l Lmdb,
    txn: RwTxn<'l>,
    record: Vec<u8>,
}

impl Rows for DurableRows<'_> {
    type Error = heed::Error;

    fn space(&self) -> Space {
        Space::Durable
    }

    fn load(&mut self, target: &Target<'_>) -> heed::Result<Loaded> {
        let Some(bytes) = self.lmdb.dbs.objects.get(&self.txn, &target.row)? else {
            return Ok(Loaded::Absent);
        };
        Ok(match decode_record(&target.row, bytes) {
            Err(error) => Loaded::Corrupt(error.to_string()),
            Ok(record) if record.key.as_ref().is_some_and(|key| key != target.key) => {
                Loaded::Corrupt("the row holds another key".to_owned())
            }
            Ok(record) => Loaded::Object(record.object),
        })
    }

    fn store(&mut self, target: &Target<'_>, object: Object) -> heed::Result<()> {
        self.record.clear();
        encode_record(&target.row, target.key, &object, &mut self.record);
        self.lmdb.dbs.objects.put(&mut self.txn, &target.row, &self.record)
    }

    fn remove(&mut self, target: &Target<'_>) -> heed::Result<()> {
        self.lmdb.dbs.objects.delete(&mut self.txn, &target.row)?;
        self.lmdb.dbs.buckets.delete(&mut self.txn, &target.short_hash())?;
        Ok(())
    }

    fn index(&mut self, target: &Target<'_>) -> heed::Result<bool> {
        let buckets = self.lmdb.dbs.buckets;
        let hash = target.short_hash();
        let there = buckets.get_or_put(&mut self.txn, &hash, &target.row)?;
        Ok(there.is_some())
    }

    fn is_indexed(&self, target: &Target<'_>) -> heed::Result<bool> {
        Ok(self.lmdb.dbs.buckets.get(&self.txn, &target.short_hash())?.is_some())
    }

    fn note_event(&mut self, dot: Dot, target: &Target<'_>, now_ms: u64) -> heed::Result<()> {
        events::encode_event(dot, now_ms, &target.row, target.key, &mut self.record);
        let dots = self.lmdb.dbs.dots;
        dots.get_or_put(&mut self.txn, &events::dot_row(dot), &self.record)?;
        Ok(())
    }

    fn forget_event(&mut self, dot: Dot) -> heed::Result<()> {
        self.lmdb.dbs.dots.delete(&mut self.txn, &events::dot_row(dot))?;
        Ok(())
    }

    fn next_event(&self, from: Dot) -> heed::Result<Option<(Dot, Option<Event>)>> {
        events::next_event(self.lmdb, &self.txn, from)
    }

    fn move_expiry(
        &mut self,
        target: &Target<'_>,
        from_ms: Option<u64>,
        to_ms: Option<u64>,
    ) -> heed::Result<()> {
        let expiry = self.lmdb.dbs.expiry;
        if let Some(ms) = from_ms {
            expiry.delete(&mut self.txn, &index_key(ms, target.short_hash()))?;
        }
        if let Some(ms) = to_ms {
            expiry.put(&mut self.txn, &index_key(ms, target.short_hash()), &target.row)?;
        }
        Ok(())
    }
}

/// Applies and commits `ops`. On an error nothing was changed.
pub(crate) fn commit(
    lmdb: &Lmdb,
    before: &Committed,
    rules: &Rules<'_>,
    ops: &[(usize, &WriteOp)],
    limits: Limits,
) -> Result<Done, TxnError> {
    let counters = Counters {
        counter: before.head.counter,
        hlc: HlcClock::resume(before.head.stamp, SKEW_MAX_MS),
        clamped: 0,
        processed: Processed::new(&before.clock),
    };
    let mut gathered = Gathered::new(counters, before.head.last_seq);
    let mut rows = DurableRows { lmdb, txn: lmdb.write()?, record: Vec::new() };
    let outcomes = apply(&mut rows, rules, ops, &mut gathered)?;
    let mut txn = rows.txn;
    if !gathered.dirty {
        // Everything was refused or had no effect: there is nothing to commit.
        let used_bytes = lmdb.used_bytes(&txn)?;
        txn.abort();
        return Ok(Done { outcomes, committed: before.clone(), used_bytes, clamped: 0 });
    }
    let mut head = before.head;
    let mut rebuild = tree::add(lmdb, &mut txn, &gathered.tree, &mut head.root)?;
    rebuild.append(&mut gathered.rebuild);
    let (mut damaged, mut swept) = (before.damaged.clone(), before.swept.clone());
    for bucket in rebuild {
        tracing::error!(event = "tree_rebuilt", bucket = bucket.number(), "rebuilding a bucket");
        tree::rebuild(lmdb, &mut txn, bucket, &mut head.root)?;
        damaged.insert(bucket);
    }
    if damaged != before.damaged {
        damage::write(lmdb, &mut txn, &damaged)?;
    }
    swept.merge(&gathered.untold);
    put_swept(lmdb, &mut txn, before, &swept)?;
    head.counter = gathered.counters.counter;
    head.stamp = gathered.counters.hlc.last();
    head.last_seq = gathered.last_seq;
    append_log(lmdb, &mut txn, &gathered)?;
    trim_log(lmdb, &mut txn, &mut head, gathered.log.len() as u64, limits)?;
    let clock = note_processed(lmdb, &mut txn, before, &gathered)?;
    seal(lmdb, &mut txn, &mut head)?;
    let used_bytes = lmdb.used_bytes(&txn)?;
    txn.commit().map_err(|error| TxnError { error, committing: true })?;
    let committed = Committed { head, clock, swept, damaged };
    Ok(Done { outcomes, committed, used_bytes, clamped: gathered.counters.clamped })
}

fn append_log(lmdb: &Lmdb, txn: &mut RwTxn<'_>, gathered: &Gathered<'_>) -> heed::Result<()> {
    let mut row = Vec::new();
    for entry in &gathered.log {
        changes::encode(entry, &mut row);
        lmdb.dbs.changes.put_with_flags(txn, PutFlags::APPEND, &entry.seq.to_be_bytes(), &row)?;
    }
    Ok(())
}

fn trim_log(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    head: &mut Head,
    added: u64,
    limits: Limits,
) -> heed::Result<()> {
    // What is beyond the limit goes a little faster than the log grows, never all at once: a
    // lowered limit must not make one batch slow.
    let excess = head.last_seq.saturating_sub(limits.changes_retained);
    let ordinary = excess.min(head.first_seq + 2 * added + 64 - 1);
    let shrunk =
        if limits.shrink_log { (head.first_seq + 3 * added - 1).min(head.last_seq) } else { 0 };
    let last = ordinary.max(shrunk);
    if last < head.first_seq {
        return Ok(());
    }
    let (from, to) = (head.first_seq.to_be_bytes(), last.to_be_bytes());
    let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    lmdb.dbs.changes.delete_range(txn, &range)?;
    head.first_seq = last + 1;
    Ok(())
}

fn note_processed(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    before: &Committed,
    gathered: &Gathered<'_>,
) -> heed::Result<Clock> {
    let mut clock = before.clock.clone();
    for (actor, seen) in &gathered.counters.processed.touched {
        lmdb.dbs.clock.put(txn, &actor.to_bytes(), &seen.encode())?;
        clock.set(*actor, seen.clone());
    }
    Ok(clock)
}

fn seal(lmdb: &Lmdb, txn: &mut RwTxn<'_>, head: &mut Head) -> heed::Result<()> {
    head.txn = txn.id() as u64;
    lmdb.dbs.meta.put(txn, HEAD_ROW, &head.encode())
}

/// Writes `identity` and, when it starts a new life of this node, closes the entry of the old one
/// in the clock and begins its counter anew. Synced when it returns.
pub(crate) fn adopt(
    lmdb: &Lmdb,
    before: &Committed,
    old: Option<Actor>,
    identity: &EnvIdentity,
) -> Result<Committed, TxnError> {
    let mut after = before.clone();
    let mut txn = lmdb.write()?;
    let actor = Actor { node: identity.node, incarnation: identity.incarnation };
    if let Some(old) = old.filter(|old| *old != actor) {
        if after.head.counter > 0 {
            let seen = Seen::up_to(after.head.counter);
            lmdb.dbs.clock.put(&mut txn, &old.to_bytes(), &seen.encode())?;
            after.clock.set(old, seen);
        }
        after.head.counter = 0;
    }
    lmdb.dbs.meta.put(&mut txn, IDENTITY_ROW, &identity.encode())?;
    seal(lmdb, &mut txn, &mut after.head)?;
    txn.commit().map_err(|error| TxnError { error, committing: true })?;
    lmdb.sync().map_err(|error| TxnError { error, committing: true })?;
    Ok(after)
}

/// Rebuilds one bucket of the hash tree in a transaction of its own, and marks it.
pub(crate) fn rebuild_bucket(
    lmdb: &Lmdb,
    before: &Committed,
    bucket: crate::digest::Bucket,
) -> Result<Committed, TxnError> {
    let mut after = before.clone();
    let mut txn = lmdb.write()?;
    tree::rebuild(lmdb, &mut txn, bucket, &mut after.head.root)?;
    after.damaged.insert(bucket);
    damage::write(lmdb, &mut txn, &after.damaged)?;
    seal(lmdb, &mut txn, &mut after.head)?;
    txn.commit().map_err(|error| TxnError { error, committing: true })?;
    Ok(after)
}

/// Takes the marks off `buckets`, which were compared with every member, and removes what still cannot
/// be read there.
pub(crate) fn compared(
    lmdb: &Lmdb,
    before: &Committed,
    buckets: &Damaged,
) -> Result<Committed, TxnError> {
    let mut after = before.clone();
    let mut txn = lmdb.write()?;
    damage::remove_unreadable(lmdb, &mut txn, buckets)?;
    after.damaged.retain(|bucket| !buckets.contains(bucket));
    damage::write(lmdb, &mut txn, &after.damaged)?;
    seal(lmdb, &mut txn, &mut after.head)?;
    txn.commit().map_err(|error| TxnError { error, committing: true })?;
    Ok(after)
}

/// Most entries that one sweep takes off a change log that is too long. // guess: some pages
const TRIM_MAX: u64 = 8_192;

/// Sweeps the environment in a transaction of its own, and takes off the change log what is beyond
/// `changes_retained`.
pub(crate) fn sweep(
    lmdb: &Lmdb,
    before: &Committed,
    own: Actor,
    plan: &SweepPlan,
    changes_retained: u64,
) -> Result<(Committed, SweepReport, u64), TxnError> {
    let mut after = before.clone();
    let mut rows = DurableRows { lmdb, txn: lmdb.write()?, record: Vec::new() };
    let mut sweeping = Sweeping::new(before.whole_clock(own), before.swept.clone());
    sweep::sweep(&mut rows, plan, &mut sweeping)?;
    let (mut txn, mut report) = (rows.txn, sweeping.report);
    after.swept = sweeping.swept;
    let limits = Limits { changes_retained, shrink_log: false };
    trim_log(lmdb, &mut txn, &mut after.head, TRIM_MAX / 2, limits)?;
    report.more |= after.head.last_seq.saturating_sub(changes_retained) >= after.head.first_seq;
    let idle = report.swept == 0 && report.lost == 0;
    if idle && after.head.first_seq == before.head.first_seq {
        let used_bytes = lmdb.used_bytes(&txn)?;
        txn.abort();
        return Ok((after, report, used_bytes));
    }
    for dot in &sweeping.lost {
        after.clock.insert(*dot);
        let seen = after.clock.get(&dot.actor).cloned().unwrap_or_default();
        lmdb.dbs.clock.put(&mut txn, &dot.actor.to_bytes(), &seen.encode())?;
    }
    put_swept(lmdb, &mut txn, before, &after.swept)?;
    seal(lmdb, &mut txn, &mut after.head)?;
    let used_bytes = lmdb.used_bytes(&txn)?;
    txn.commit().map_err(|error| TxnError { error, committing: true })?;
    Ok((after, report, used_bytes))
}

fn put_swept(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    before: &Committed,
    swept: &VersionVector,
) -> heed::Result<()> {
    for (actor, counter) in swept.iter().filter(|(actor, n)| before.swept.get(actor) != *n) {
        let value = events::encode_swept(&actor, counter);
        lmdb.dbs.swept.put(txn, &actor.to_bytes(), &value)?;
    }
    Ok(())
}

/// Commits a clock and a swept vector that were joined with those of a peer; `changed` are the
/// actors of which something is new.
pub(crate) fn join(
    lmdb: &Lmdb,
    before: &Committed,
    clock: Clock,
    swept: VersionVector,
    changed: &[Actor],
) -> Result<Committed, TxnError> {
    let mut txn = lmdb.write()?;
    for (actor, seen) in changed.iter().filter_map(|actor| Some((actor, clock.get(actor)?))) {
        lmdb.dbs.clock.put(&mut txn, &actor.to_bytes(), &seen.encode())?;
    }
    put_swept(lmdb, &mut txn, before, &swept)?;
    let mut after = Committed { head: before.head, clock, swept, damaged: before.damaged.clone() };
    seal(lmdb, &mut txn, &mut after.head)?;
    txn.commit().map_err(|error| TxnError { error, committing: true })?;
    Ok(after)
}
