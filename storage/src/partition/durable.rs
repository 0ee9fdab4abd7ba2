//! One batch of writes in one LMDB transaction.

use std::collections::BTreeMap;
use std::ops::Bound;

use heed::{PutFlags, RwTxn};

use crate::clock::{Clock, Seen};
use crate::codec::{decode_record, encode_record};
use crate::hlc::{HlcClock, SKEW_MAX_MS};
use crate::identity::{EnvIdentity, IDENTITY_ROW};
use crate::ids::Actor;
use crate::lmdb::Lmdb;
use crate::object::Object;
use crate::partition::Space;
use crate::partition::batch::{Gathered, Loaded, Outcomes, Rows, apply};
use crate::partition::changes;
use crate::partition::expiry::index_key;
use crate::partition::head::{HEAD_ROW, Head};
use crate::partition::ops::{Counters, Rules, Target, WriteOp};
use crate::partition::tree;

/// What the writer knows of its environment between batches: exactly what is committed.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) head: Head,
    /// Clock of every actor but the current one, whose entry is the head's counter.
    pub(crate) clock: Clock,
}

/// Limits a batch works under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Changes kept in the log.
    pub(crate) changes_retained: u64,
    /// Space is short: take two changes off the log for each that is added, so that deletes always
    /// leave more room than they take.
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

    fn index(&mut self, target: &Target<'_>) -> heed::Result<()> {
        self.lmdb.dbs.buckets.put(&mut self.txn, &target.short_hash(), &target.row)
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
    };
    let mut gathered = Gathered::new(counters, before.head.last_seq);
    let mut rows = DurableRows { lmdb, txn: lmdb.write()?, record: Vec::new() };
    let outcomes = apply(&mut rows, rules, ops, &mut gathered)?;
    let mut txn = rows.txn;
    if gathered.log.is_empty() {
        // Everything was refused or had no effect: there is nothing to commit.
        let used_bytes = lmdb.used_bytes(&txn)?;
        txn.abort();
        return Ok(Done { outcomes, committed: before.clone(), used_bytes, clamped: 0 });
    }
    let mut head = before.head;
    let mut rebuild = tree::add(lmdb, &mut txn, &gathered.tree, &mut head.root)?;
    rebuild.append(&mut gathered.rebuild);
    for bucket in rebuild {
        tracing::error!(event = "tree_rebuilt", bucket = bucket.number(), "rebuilding a bucket");
        tree::rebuild(lmdb, &mut txn, bucket, &mut head.root)?;
    }
    head.counter = gathered.counters.counter;
    head.stamp = gathered.counters.hlc.last();
    head.last_seq = gathered.last_seq;
    append_log(lmdb, &mut txn, &gathered)?;
    trim_log(lmdb, &mut txn, &mut head, gathered.log.len() as u64, limits)?;
    let clock = note_merged(lmdb, &mut txn, before, rules.actor, &gathered)?;
    seal(lmdb, &mut txn, &mut head)?;
    let used_bytes = lmdb.used_bytes(&txn)?;
    txn.commit().map_err(|error| TxnError { error, committing: true })?;
    let committed = Committed { head, clock };
    Ok(Done { outcomes, committed, used_bytes, clamped: gathered.counters.clamped })
}

fn append_log(lmdb: &Lmdb, txn: &mut RwTxn<'_>, gathered: &Gathered) -> heed::Result<()> {
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
        if limits.shrink_log { (head.first_seq + 2 * added - 1).min(head.last_seq) } else { 0 };
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

fn note_merged(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    before: &Committed,
    own: Actor,
    gathered: &Gathered,
) -> heed::Result<Clock> {
    let mut touched: BTreeMap<Actor, Seen> = BTreeMap::new();
    for dot in gathered.merged.iter().filter(|dot| dot.actor != own) {
        let known = || before.clock.get(&dot.actor).cloned().unwrap_or_default();
        touched.entry(dot.actor).or_insert_with(known).insert(dot.counter);
    }
    let mut clock = before.clock.clone();
    for (actor, seen) in touched {
        lmdb.dbs.clock.put(txn, &actor.to_bytes(), &seen.encode())?;
        clock.set(actor, seen);
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

/// Rebuilds one bucket of the hash tree in a transaction of its own.
pub(crate) fn rebuild_bucket(
    lmdb: &Lmdb,
    before: &Committed,
    bucket: crate::digest::Bucket,
) -> Result<Committed, TxnError> {
    let mut after = before.clone();
    let mut txn = lmdb.write()?;
    tree::rebuild(lmdb, &mut txn, bucket, &mut after.head.root)?;
    seal(lmdb, &mut txn, &mut after.head)?;
    txn.commit().map_err(|error| TxnError { error, committing: true })?;
    Ok(after)
}
