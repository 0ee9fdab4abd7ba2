//! Writes: what may be asked, and what each does to one object.
//!
//! Everything here is pure: an operation and the object it meets go in, the changed object comes
//! out or the operation is refused. A refused operation changes nothing and uses up no dot.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Clock, Seen};
use crate::context::Context;
use crate::error::WriteError;
use crate::hlc::{Hlc, HlcClock, Observed};
use crate::ids::{Actor, Dot};
use crate::key::{Key, KeyHash, RowKey, TableName, row_key};
use crate::object::{Object, Value, ValueRef};
use crate::partition::Space;
use crate::partition::merge::{Theirs, merge};
use crate::replica::Evidence;
use crate::resolve::Resolvers;
use crate::table::{TableSpec, Tables, is_system};
use crate::vector::VersionVector;
use crate::watch::Held;

/// Largest value, in bytes. // guess: larger things belong in files; a batch must fit in memory
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One write.
#[derive(Debug, Clone)]
pub enum WriteOp {
    /// Writes a value. Without a context it replaces whatever is there; with a context that is
    /// older than what is there, the newer values stay as siblings.
    Put {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// The value.
        value: Vec<u8>,
        /// What the writer had read.
        context: Option<Context>,
        /// How long the value lives; `None` takes the table's default.
        ttl: Option<Duration>,
    },
    /// Writes a value if nothing has changed since it was read (on this replica): the context covers
    /// all that is there, and something is.
    PutIf {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// The value.
        value: Vec<u8>,
        /// What must still be there; `None`: the key must be absent.
        expected: Option<Context>,
        /// How long the value lives; `None` takes the table's default.
        ttl: Option<Duration>,
    },
    /// Deletes the values the context covers (without one, all that are there). Leaves a tombstone,
    /// also when the key was never here: a peer may have it.
    Delete {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// What the writer had read.
        context: Option<Context>,
    },
    /// Merges an object of a peer. Changes nothing when it brings nothing new: no value, no end of a
    /// value, no event that was not processed.
    Merge {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// The peer's object.
        object: Object,
        /// Events of this key that the object reflects: they have been processed afterwards.
        dots: Vec<Dot>,
        /// What is taken for dead.
        evidence: Evidence,
    },
    /// Writes the resolution of the siblings that a reader saw, under the context it read and under
    /// a new dot; values that came since stay. Changes nothing when there is nothing to resolve.
    Repair {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// What the reader had read.
        read: Context,
    },
    /// Deletes the key if all that `read` covers has expired and nothing else is there; otherwise
    /// changes nothing. For the first minute only the node that wrote the newest value does so.
    Expire {
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
        /// What was found due, from [`crate::Partition::expire_due`].
        read: Context,
    },
}

impl WriteOp {
    /// Table and key.
    pub fn target(&self) -> (&TableName, &Key) {
        match self {
            Self::Put { table, key, .. }
            | Self::PutIf { table, key, .. }
            | Self::Delete { table, key, .. }
            | Self::Merge { table, key, .. }
            | Self::Repair { table, key, .. }
            | Self::Expire { table, key, .. } => (table, key),
        }
    }

    /// Whether the operation is let through when space is short.
    pub(crate) fn gives_space(&self) -> bool {
        matches!(self, Self::Delete { .. } | Self::Expire { .. })
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } | Self::PutIf { value, .. } => value.len(),
            Self::Merge { object, .. } => object
                .values()
                .filter_map(|value| value.payload.as_ref())
                .map(Vec::len)
                .max()
                .unwrap_or(0),
            Self::Delete { .. } | Self::Repair { .. } | Self::Expire { .. } => 0,
        }
    }
}

/// What an event did, as the change log tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A value was written here.
    Put,
    /// A tombstone was written here, by a delete or an expiry.
    Delete,
    /// An object of a peer was merged. The change's dot is the newest of the dots it brought.
    Merge,
    /// Siblings were resolved here.
    Repair,
}

/// The outcome of a write that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Context of the object after the write.
    pub context: Context,
    /// The dot issued for it; `None` when the write issued none (a merge, or nothing to do).
    pub dot: Option<Dot>,
    /// Its number in the partition's change log; `None` when nothing changed.
    pub seq: Option<u64>,
    /// Which change log: that of the durable or that of the memory tables.
    pub space: Space,
    /// Whether it brought events this replica had not processed, or changed the values.
    pub fresh: bool,
}

/// A key with everything derived from it once.
pub(crate) struct Target<'a> {
    pub(crate) table: &'a TableName,
    pub(crate) key: &'a Key,
    pub(crate) hash: KeyHash,
    pub(crate) row: RowKey,
}

impl<'a> Target<'a> {
    pub(crate) fn new(table: &'a TableName, key: &'a Key) -> Self {
        Self { table, key, hash: KeyHash::of(table, key), row: row_key(table, key) }
    }

    /// First 16 bytes of the key's hash: its place in the indexes by hash.
    pub(crate) fn short_hash(&self) -> [u8; 16] {
        self.hash.prefix()
    }
}

/// What an operation needs besides its object.
pub(crate) struct Rules<'a> {
    pub(crate) actor: Actor,
    pub(crate) now_ms: u64,
    pub(crate) tables: &'a Tables,
    pub(crate) resolvers: &'a Resolvers,
    pub(crate) watches: &'a Held<'a>,
}

/// What an applied operation did.
pub(crate) struct Applied {
    pub(crate) kind: ChangeKind,
    /// The dot issued, which is the newest dot merged for a merge.
    pub(crate) dot: Dot,
    pub(crate) own: bool,
    /// Whether the values changed; if not, only what was processed did.
    pub(crate) changed: bool,
    /// Events of others that had not been processed before.
    pub(crate) events: Vec<Dot>,
}

/// The counters an operation moves; kept by the caller, rolled back with the batch.
#[derive(Debug, Clone)]
pub(crate) struct Counters<'c> {
    /// Last counter issued.
    pub(crate) counter: u64,
    pub(crate) hlc: HlcClock,
    /// Stamps of peers that were too far ahead.
    pub(crate) clamped: u64,
    pub(crate) processed: Processed<'c>,
}

/// Events of others that were processed: those before the batch, and in it.
#[derive(Debug, Clone)]
pub(crate) struct Processed<'c> {
    before: &'c Clock,
    /// Actors of which something is new.
    pub(crate) touched: BTreeMap<Actor, Seen>,
}

impl<'c> Processed<'c> {
    pub(crate) fn new(before: &'c Clock) -> Self {
        Self { before, touched: BTreeMap::new() }
    }

    fn contains(&self, dot: &Dot) -> bool {
        let seen = self.touched.get(&dot.actor).or_else(|| self.before.get(&dot.actor));
        seen.is_some_and(|seen| seen.contains(dot.counter))
    }

    /// Adds an event; whether it was new.
    fn insert(&mut self, dot: Dot) -> bool {
        if self.contains(&dot) {
            return false;
        }
        let known = || self.before.get(&dot.actor).cloned().unwrap_or_default();
        self.touched.entry(dot.actor).or_insert_with(known).insert(dot.counter)
    }
}

impl Rules<'_> {
    /// Applies `op` to `object`; `Ok(None)` when there was nothing to do.
    pub(crate) fn apply(
        &self,
        op: &WriteOp,
        target: &Target<'_>,
        object: &mut Object,
        counters: &mut Counters<'_>,
    ) -> Result<Option<Applied>, WriteError> {
        let spec = self.spec(target.table)?;
        let bytes = op.value_bytes();
        if bytes > VALUE_BYTES_MAX {
            return Err(WriteError::ValueTooLarge { bytes, bytes_max: VALUE_BYTES_MAX });
        }
        match op {
            WriteOp::Put { value, context, ttl, .. } => {
                let context = self.context(target, context.as_ref(), object, counters)?;
                let value = self.value(value, ttl.or(spec.ttl_default), counters);
                Ok(Some(self.event(object, &context, value, ChangeKind::Put, counters)))
            }
            WriteOp::PutIf { value, expected, ttl, .. } => {
                self.expect(target, &spec, expected.as_ref(), object, counters)?;
                let value = self.value(value, ttl.or(spec.ttl_default), counters);
                let mut context = object.join();
                if let Some(expected) = expected {
                    context.merge(expected.vector());
                }
                Ok(Some(self.event(object, &context, value, ChangeKind::Put, counters)))
            }
            WriteOp::Delete { context, .. } => {
                let context = self.context(target, context.as_ref(), object, counters)?;
                let tombstone = Value::tombstone(counters.hlc.tick(self.now_ms));
                Ok(Some(self.event(object, &context, tombstone, ChangeKind::Delete, counters)))
            }
            WriteOp::Merge { object: theirs, dots, evidence, .. } => {
                self.merge(object, &Theirs { object: theirs, dots, evidence }, counters)
            }
            WriteOp::Repair { read, .. } => {
                self.check(target, read, counters)?;
                let seen = object.refs().filter(|value| read.vector().covers(&value.dot));
                let resolved = self.resolvers.resolve_refs(
                    &spec.resolver,
                    target.table,
                    target.key,
                    seen,
                    self.now_ms,
                );
                if let Some(failure) = resolved.failure {
                    return Err(failure.into());
                }
                let Some(value) = resolved.repair else { return Ok(None) };
                Ok(Some(self.event(object, read.vector(), value, ChangeKind::Repair, counters)))
            }
            WriteOp::Expire { read, .. } => {
                self.check(target, read, counters)?;
                let due = expires_all_ms(object)
                    .is_some_and(|at| is_due(at, object.refs(), self.actor, self.now_ms));
                if !due || !object.live_dots().all(|dot| read.vector().covers(&dot)) {
                    return Ok(None);
                }
                // The tombstone takes the stamp of what expired, not the time of the sweep: a value
                // written elsewhere before the sweep must still win.
                let stamp = object.stamp_max().unwrap_or(Hlc::ZERO);
                let tombstone = Value::tombstone(stamp);
                Ok(Some(self.event(object, read.vector(), tombstone, ChangeKind::Delete, counters)))
            }
        }
    }

    fn spec(&self, table: &TableName) -> Result<TableSpec, WriteError> {
        self.tables.with(table, |known| match known {
            Some(known) => Ok(known.spec.clone()),
            None if is_system(table) => Err(WriteError::ReservedTable(table.clone())),
            None => Ok(TableSpec::UNDECLARED),
        })
    }

    fn value(&self, bytes: &[u8], ttl: Option<Duration>, counters: &mut Counters<'_>) -> Value {
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        Value {
            stamp: counters.hlc.tick(self.now_ms),
            expires_ms: ttl_ms.map(|ttl_ms| self.now_ms.saturating_add(ttl_ms)),
            payload: Some(bytes.to_vec()),
        }
    }

    fn event(
        &self,
        object: &mut Object,
        context: &VersionVector,
        value: Value,
        kind: ChangeKind,
        counters: &mut Counters<'_>,
    ) -> Applied {
        counters.counter += 1;
        let dot = Dot { actor: self.actor, counter: counters.counter };
        object.write(context, dot, value);
        Applied { kind, dot, own: true, changed: true, events: Vec::new() }
    }

    /// The context to write under: the one given, checked, or all that is there.
    fn context(
        &self,
        target: &Target<'_>,
        given: Option<&Context>,
        object: &Object,
        counters: &Counters<'_>,
    ) -> Result<VersionVector, WriteError> {
        let Some(given) = given else { return Ok(object.join()) };
        self.check(target, given, counters)?;
        Ok(given.vector().clone())
    }

    fn check(
        &self,
        target: &Target<'_>,
        context: &Context,
        counters: &Counters<'_>,
    ) -> Result<(), WriteError> {
        if !context.belongs_to(target.table, target.key) {
            return Err(WriteError::ForeignContext);
        }
        // Only the current life can be checked: what an earlier one issued may be known to others
        // alone, if its disk was lost.
        let (counter, known) = (context.vector().get(&self.actor), counters.counter);
        if counter > known {
            return Err(WriteError::ForgedContext { actor: self.actor, counter, known });
        }
        Ok(())
    }

    fn expect(
        &self,
        target: &Target<'_>,
        spec: &TableSpec,
        expected: Option<&Context>,
        object: &Object,
        counters: &Counters<'_>,
    ) -> Result<(), WriteError> {
        let holds = match expected {
            Some(context) => {
                self.check(target, context, counters)?;
                // Not the whole contexts: what every member has processed is stripped in between.
                let expects_nothing = context.vector().is_empty();
                (object.live_len() > 0 || expects_nothing)
                    && object.live_dots().all(|dot| context.vector().covers(&dot))
            }
            None => !object.refs().any(|value| value.visible(self.now_ms).is_some()),
        };
        if holds {
            return Ok(());
        }
        let resolved =
            self.resolvers.resolve(&spec.resolver, target.table, target.key, object, self.now_ms);
        Err(WriteError::Conflict {
            values: resolved.values.into_iter().filter_map(|value| value.payload).collect(),
            context: Context::new(target.table, target.key, object.join()),
        })
    }

    fn merge(
        &self,
        object: &mut Object,
        theirs: &Theirs<'_>,
        counters: &mut Counters<'_>,
    ) -> Result<Option<Applied>, WriteError> {
        let known = theirs.known();
        // Earlier incarnations are not checked: what a past life told others may well be known to
        // them only, and it is welcome back. No new dot of that life will ever be issued.
        let own = known.get(&self.actor).copied().unwrap_or(0);
        let own = match theirs.evidence {
            Evidence::Both(clock) => own.max(clock.highest(&self.actor)),
            Evidence::Own | Evidence::Held(_) | Evidence::Beyond(_) | Evidence::Neither => own,
        };
        if own > counters.counter {
            let (actor, counter, known) = (self.actor, own, counters.counter);
            return Err(WriteError::OwnEventUnknown { actor, counter, known });
        }
        for dot in object.clashes(theirs.object) {
            tracing::error!(event = "dot_clash", %dot, "one dot names two values: a store was damaged");
        }
        let (processed, counter) = (&counters.processed, counters.counter);
        let is_processed = |dot: &Dot| {
            (dot.actor == self.actor && dot.counter <= counter) || processed.contains(dot)
        };
        if theirs.is_late(object, self.watches.era(), &is_processed) {
            return Ok(None);
        }
        let merged = merge(object, theirs, &is_processed);
        let mut events: Vec<Dot> = theirs.events().filter(|dot| dot.actor != self.actor).collect();
        events.retain(|dot| counters.processed.insert(*dot));
        let changed = !merged.taken.is_empty() || !merged.dropped.is_empty();
        if !changed && events.is_empty() {
            return Ok(None);
        }
        *object = merged.object;
        self.watches.took(&merged.taken);
        self.observe(theirs.object, counters);
        let newest = known.iter().map(|(actor, n)| Dot { actor: *actor, counter: *n });
        let newest = newest.chain(merged.dropped).max_by_key(|dot| (dot.counter, dot.actor));
        let Some(dot) = newest else { return Ok(None) };
        Ok(Some(Applied { kind: ChangeKind::Merge, dot, own: false, changed, events }))
    }

    /// Takes note of the stamps of a peer.
    fn observe(&self, theirs: &Object, counters: &mut Counters<'_>) {
        if let Some(stamp) = theirs.stamp_max()
            && let Observed::Clamped { ahead_ms } = counters.hlc.observe(stamp, self.now_ms)
        {
            counters.clamped += 1;
            tracing::debug!(
                event = "clock_skew",
                ahead_ms,
                "a peer's stamp is ahead of this clock"
            );
        }
    }
}

/// How long the expiry of a value is left to the node that wrote it. // guess: longer than a restart
pub(crate) const EXPIRY_GRACE_MS: u64 = 60_000;

/// Whether a key whose values have all expired at `at_ms` is to be deleted by `actor`: it is due,
/// and it is ours or was left alone for long. Otherwise every node would write its own tombstone.
pub(crate) fn is_due<'v>(
    at_ms: u64,
    values: impl Iterator<Item = ValueRef<'v>>,
    actor: Actor,
    now_ms: u64,
) -> bool {
    if at_ms > now_ms {
        return false;
    }
    let newest = values.max_by_key(|value| (value.stamp, value.dot));
    let is_ours = newest.is_none_or(|value| value.dot.actor.node == actor.node);
    is_ours || at_ms.saturating_add(EXPIRY_GRACE_MS) <= now_ms
}

/// When the last of the live values has expired, in unix ms; `None` when one never does or when
/// there is none but tombstones. Only then may the key be expired as a whole.
pub(crate) fn expires_all_ms(object: &Object) -> Option<u64> {
    let mut last = None;
    for value in object.values().filter(|value| !value.is_tombstone()) {
        last = last.max(Some(value.expires_ms?));
    }
    last
}
