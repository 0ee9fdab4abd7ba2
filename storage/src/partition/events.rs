//! The index of events: which key an event was about.
//!
//! Guarantees: every event in the clock is in the index, or it is swept (see
//! [`crate::partition::sweep`]); a delta claims an event only if the object in it, read on the same
//! snapshot, reflects it and still tells all that it replaced: it is in the clock and above what was
//! swept of its actor. A key whose record is damaged or lost is skipped: its events are not claimed,
//! so a peer takes them from somebody else. There may be rows of events that are not in the clock: an
//! object names them, and is to be looked at again once they have been processed.
//!
//! # Shape
//! Database `dots`: actor 20 ‖ counter u64 → ms u64 (when it was processed here) ‖ row of the object
//! ‖ [whole key, when the row is truncated] ‖ crc32c u32 over the key and all before. The key is
//! there because the record that holds it may be gone. Database `swept`: actor → counter u64 ‖
//! crc32c u32 over both.

use std::collections::BTreeMap;

use heed::RoTxn;

use crate::clock::{Clock, Seen};
use crate::codec::decode_record;
use crate::digest::Bucket;
use crate::error::ReadError;
use crate::ids::{Actor, Dot, NodeId};
use crate::key::{Key, ROW_BYTES_MAX, RowKey, TableName, parse_row, row_key};
use crate::lmdb::Lmdb;
use crate::object::Object;
use crate::partition::damage;
use crate::partition::ops::Target;
use crate::replica::{Delta, Deltas, Missing};
use crate::vector::VersionVector;

/// Below every event.
pub(crate) const FIRST: Dot =
    Dot { actor: Actor { node: NodeId([0; 16]), incarnation: 0 }, counter: 0 };

/// Bytes a delta is taken for, besides its values. // guess: key, dot and frame
const DELTA_BYTES: usize = 128;
/// Bytes an event or an entry is taken for.
const DOT_BYTES: usize = 32;

/// A row of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// When it was processed here, by the wall clock.
    pub(crate) at_ms: u64,
    pub(crate) table: TableName,
    pub(crate) key: Key,
}

/// An object, looked up.
#[derive(Debug)]
pub(crate) enum Found {
    /// Never there, or removed.
    Absent,
    Object(Object),
    /// Damaged, or lost: an index knows of it and it is not there, or its bucket is marked.
    Damaged,
}

/// A snapshot of the index and the objects of one space.
pub(crate) trait Events {
    /// The first event at or after `from`; without content when its row is damaged.
    fn next_event(&self, from: Dot) -> Result<Option<(Dot, Option<Event>)>, ReadError>;
    /// The object of a key.
    fn find(&self, table: &TableName, key: &Key) -> Result<Found, ReadError>;
}

/// The event after `dot`.
pub(crate) fn after(dot: Dot) -> Dot {
    // Counters are below the maximum by far; staying there only ends the actor's events.
    Dot { actor: dot.actor, counter: dot.counter.saturating_add(1) }
}

/// Above all events of `actor`.
pub(crate) fn past(actor: Actor) -> Dot {
    Dot { actor, counter: u64::MAX }
}

/// What a replica can tell, on the snapshot of its events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'k> {
    /// What was processed.
    pub(crate) clock: &'k Clock,
    /// Up to where keys and contexts may be forgotten.
    pub(crate) swept: &'k VersionVector,
}

impl Known<'_> {
    /// Whether the object of this event's key still tells all that it replaced.
    fn can_tell(&self, dot: &Dot) -> bool {
        !self.swept.covers(dot) && self.clock.contains(dot)
    }
}

/// Deltas on their way, one for each key.
struct Gather<'e> {
    events: &'e dyn Events,
    known: Known<'e>,
    /// Place of the delta of a key; `None` when it cannot be read.
    places: BTreeMap<(TableName, Key), Option<usize>>,
    out: Deltas,
    bytes: usize,
}

impl<'e> Gather<'e> {
    fn new(events: &'e dyn Events, known: Known<'e>) -> Self {
        Self { events, known, places: BTreeMap::new(), out: Deltas::default(), bytes: 0 }
    }

    /// Adds an event; whether it can be told and its object could be read.
    fn add(&mut self, dot: Dot, event: Option<Event>) -> Result<bool, ReadError> {
        self.out.last = Some(dot);
        if !self.known.can_tell(&dot) {
            return Ok(false);
        }
        let Some(Event { table, key, .. }) = event else { return Ok(false) };
        let at = (table, key);
        let place = match self.places.get(&at) {
            Some(place) => *place,
            None => {
                let object = match self.events.find(&at.0, &at.1)? {
                    Found::Absent => Some(Object::new()),
                    Found::Object(object) => Some(object),
                    Found::Damaged => None,
                };
                let place = object.map(|object| {
                    let (table, key) = at.clone();
                    self.bytes += DELTA_BYTES + key.as_bytes().len() + bytes_of(&object);
                    self.out.deltas.push(Delta { table, key, object, dots: Vec::new() });
                    self.out.deltas.len() - 1
                });
                self.places.insert(at, place);
                place
            }
        };
        let Some(delta) = place.and_then(|place| self.out.deltas.get_mut(place)) else {
            return Ok(false);
        };
        delta.dots.push(dot);
        self.bytes += DOT_BYTES;
        Ok(true)
    }
}

fn bytes_of(object: &Object) -> usize {
    let values = object.values().map(|value| value.payload.as_ref().map_or(0, Vec::len));
    values.sum::<usize>() + (object.entries().len() + object.live_len()) * DOT_BYTES
}

/// See [`crate::Replicated::deltas_after`].
pub(crate) fn deltas_after(
    events: &dyn Events,
    known: Known<'_>,
    actor: Actor,
    counter: u64,
    bytes_max: usize,
) -> Result<Deltas, ReadError> {
    let mut gather = Gather::new(events, known);
    let mut at = after(Dot { actor, counter });
    while let Some((dot, event)) = events.next_event(at)? {
        if dot.actor != actor {
            break;
        }
        if gather.out.last.is_some() && gather.bytes >= bytes_max {
            gather.out.more = true;
            break;
        }
        gather.add(dot, event)?;
        at = after(dot);
    }
    Ok(gather.out)
}

/// See [`crate::Replicated::deltas_of`].
pub(crate) fn deltas_of(
    events: &dyn Events,
    known: Known<'_>,
    dots: &[Dot],
) -> Result<(Vec<Delta>, Vec<Dot>), ReadError> {
    let mut gather = Gather::new(events, known);
    let mut unknown = Vec::new();
    let mut sorted = dots.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    for dot in sorted {
        let found = events.next_event(dot)?.filter(|(found, _)| *found == dot);
        let event = found.and_then(|(_, event)| event);
        if !gather.add(dot, event)? {
            unknown.push(dot);
        }
    }
    Ok((gather.out.deltas, unknown))
}

/// See [`crate::Replicated::missing`].
pub(crate) fn missing(
    events: &dyn Events,
    known: Known<'_>,
    theirs: &Clock,
    start: Option<Dot>,
    bytes_max: usize,
) -> Result<Missing, ReadError> {
    let mut swept = known.swept.iter();
    let mut needs_walk = swept.any(|(actor, swept)| lacks(known.clock, theirs, &actor, swept));
    let mut gather = Gather::new(events, known);
    let mut at = start.map_or(FIRST, after);
    while let Some((dot, event)) = events.next_event(at)? {
        let seen = theirs.get(&dot.actor).and_then(|seen| seen.run_end(dot.counter));
        if let Some(end) = seen {
            at = after(Dot { actor: dot.actor, counter: end });
            continue;
        }
        if gather.out.last.is_some() && gather.bytes >= bytes_max {
            gather.out.more = true;
            break;
        }
        let is_told = gather.add(dot, event)?;
        needs_walk |= !is_told && known.clock.contains(&dot);
        at = after(dot);
    }
    Ok(Missing { found: gather.out, needs_walk })
}

/// Whether an event of `actor` up to `swept` was processed here and not there. Those that nobody has
/// any more (their node was lost before it could tell anybody) are not waited for.
fn lacks(ours: &Clock, theirs: &Clock, actor: &Actor, swept: u64) -> bool {
    let unseen = Seen::default();
    let (ours, theirs) = (ours.get(actor).unwrap_or(&unseen), theirs.get(actor).unwrap_or(&unseen));
    theirs.base() < swept
        && theirs.gaps(swept).any(|(from, to)| ours.last_within(from, to).is_some())
}

const DOT_ROW_BYTES: usize = Actor::LEN + 8;

/// Key of a row of `dots`.
pub(crate) fn dot_row(dot: Dot) -> [u8; DOT_ROW_BYTES] {
    let mut row = [0; DOT_ROW_BYTES];
    row[..Actor::LEN].copy_from_slice(&dot.actor.to_bytes());
    row[Actor::LEN..].copy_from_slice(&dot.counter.to_be_bytes());
    row
}

pub(crate) fn encode_event(dot: Dot, at_ms: u64, row: &RowKey, key: &Key, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&at_ms.to_be_bytes());
    out.extend_from_slice(row);
    if row.is_truncated() {
        out.extend_from_slice(key.as_bytes());
    }
    let sum = checksum(&dot_row(dot), out);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// Reads a row of `dots`; the event is absent when the row is damaged.
pub(crate) fn decode_event(row: &[u8], value: &[u8]) -> Option<(Dot, Option<Event>)> {
    let (actor, counter) = row.split_first_chunk::<{ Actor::LEN }>()?;
    let counter = u64::from_be_bytes(counter.try_into().ok()?);
    let dot = Dot { actor: Actor::from_bytes(*actor), counter };
    Some((dot, decode_value(row, value)))
}

fn decode_value(row: &[u8], value: &[u8]) -> Option<Event> {
    let (body, sum) = value.split_last_chunk::<4>()?;
    if checksum(row, body) != u32::from_be_bytes(*sum) {
        return None;
    }
    let (at_ms, place) = body.split_first_chunk::<8>()?;
    let (place, whole) = place.split_at(place.len().min(ROW_BYTES_MAX));
    let parsed = parse_row(place).ok()?;
    let table = TableName::parse(parsed.table).ok()?;
    let key = Key::new(if parsed.truncated { whole } else { parsed.key }).ok()?;
    Some(Event { at_ms: u64::from_be_bytes(*at_ms), table, key })
}

/// Value of a row of `swept`.
pub(crate) fn encode_swept(actor: &Actor, counter: u64) -> [u8; 12] {
    let mut value = [0; 12];
    value[..8].copy_from_slice(&counter.to_be_bytes());
    let sum = checksum(&actor.to_bytes(), &value[..8]);
    value[8..].copy_from_slice(&sum.to_be_bytes());
    value
}

pub(crate) fn decode_swept(row: &[u8], value: &[u8]) -> Option<(Actor, u64)> {
    let (counter, sum) = value.split_first_chunk::<8>()?;
    let actor = Actor::from_bytes(row.try_into().ok()?);
    let sound = checksum(row, counter).to_be_bytes() == *sum;
    sound.then_some((actor, u64::from_be_bytes(*counter)))
}

fn checksum(row: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(row), value)
}

/// The events of an environment, as `txn` sees them.
pub(crate) struct DurableEvents<'l> {
    pub(crate) lmdb: &'l Lmdb,
    pub(crate) txn: &'l RoTxn<'l>,
}

impl Events for DurableEvents<'_> {
    fn next_event(&self, from: Dot) -> Result<Option<(Dot, Option<Event>)>, ReadError> {
        Ok(next_event(self.lmdb, self.txn, from)?)
    }

    fn find(&self, table: &TableName, key: &Key) -> Result<Found, ReadError> {
        let row = row_key(table, key);
        let Some(record) = self.lmdb.dbs.objects.get(self.txn, &row)? else {
            let target = Target::new(table, key);
            let lost = self.lmdb.dbs.buckets.get(self.txn, &target.short_hash())?.is_some()
                || damage::read(self.lmdb, self.txn)?.contains(&Bucket::of_hash(&target.hash));
            return Ok(if lost { Found::Damaged } else { Found::Absent });
        };
        Ok(match decode_record(&row, record) {
            Ok(record) if record.key.as_ref().is_none_or(|stored| stored == key) => {
                Found::Object(record.object)
            }
            _ => Found::Damaged,
        })
    }
}

/// The first event at or after `from`.
pub(crate) fn next_event(
    lmdb: &Lmdb,
    txn: &RoTxn<'_>,
    from: Dot,
) -> heed::Result<Option<(Dot, Option<Event>)>> {
    let found = lmdb.dbs.dots.get_greater_than_or_equal_to(txn, &dot_row(from))?;
    // A key of a wrong length ends the index here; the check at boot reports it.
    Ok(found.and_then(|(row, value)| decode_event(row, value)))
}

/// Reads the swept vector.
pub(crate) fn read_swept(lmdb: &Lmdb, txn: &RoTxn<'_>) -> Result<VersionVector, ReadError> {
    let mut swept = VersionVector::new();
    for row in lmdb.dbs.swept.iter(txn)? {
        let (actor, value) = row?;
        let (actor, counter) =
            decode_swept(actor, value).ok_or_else(|| ReadError::Corrupt("swept row".into()))?;
        swept.raise(actor, counter);
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_notice_damage() {
        let dot = Dot { actor: Actor { node: NodeId([3; 16]), incarnation: 9 }, counter: 12 };
        let table = TableName::parse("t").unwrap();
        for key in [b"key".to_vec(), vec![7; 3000]] {
            let key = Key::new(&key).unwrap();
            let mut value = Vec::new();
            encode_event(dot, 77, &row_key(&table, &key), &key, &mut value);
            let event = Event { at_ms: 77, table: table.clone(), key };
            assert_eq!(decode_event(&dot_row(dot), &value), Some((dot, Some(event))));
            assert_eq!(decode_event(&dot_row(after(dot)), &value), Some((after(dot), None)));
            for bit in (0..value.len() * 8).step_by(7) {
                value[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode_event(&dot_row(dot), &value), Some((dot, None)), "bit {bit}");
                value[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let swept = encode_swept(&dot.actor, 5);
        let row = dot.actor.to_bytes();
        assert_eq!(decode_swept(&row, &swept), Some((dot.actor, 5)));
        assert_eq!(decode_swept(&row, &encode_swept(&dot.actor, 6).map(|b| b ^ 1)), None);
    }
}
