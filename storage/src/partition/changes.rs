//! The change log: which key changed, in the order of the commits.
//!
//! Guarantees: sequence numbers rise by one; an entry is there exactly when its change is
//! committed; a reader that comes back with the last number it saw misses nothing, or is told that
//! what it missed was dropped ([`Changes::truncated`]).
//!
//! It does not hold values: a reader fetches the object, which may be newer than the change.

use std::ops::Bound;

use heed::RoTxn;

use crate::codec::RecordView;
use crate::error::ReadError;
use crate::ids::{Actor, Dot};
use crate::key::{Key, TableName, parse_row, row_key};
use crate::lmdb::Lmdb;
use crate::partition::ops::ChangeKind;
use crate::partition::{Partition, Space};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number in the log.
    pub seq: u64,
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Key,
    /// The event.
    pub dot: Dot,
    /// What it did.
    pub kind: ChangeKind,
}

/// The same, on its way into the log.
pub(crate) type LogEntry = Change;

/// A stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The changes after the number asked for, ascending, at most as many as asked for.
    pub events: Vec<Change>,
    /// Lowest number still in the log (one above the last when the log is empty).
    pub first_retained: u64,
    /// Highest number given out.
    pub last_seq: u64,
    after: u64,
}

impl Changes {
    pub(crate) fn new(events: Vec<Change>, first_retained: u64, last_seq: u64, after: u64) -> Self {
        Self { events, first_retained, last_seq, after }
    }

    /// Whether changes between the number asked for and the first event were dropped: the reader
    /// must start over from the objects.
    pub fn truncated(&self) -> bool {
        self.after.saturating_add(1) < self.first_retained
    }
}

const KINDS: [ChangeKind; 4] =
    [ChangeKind::Put, ChangeKind::Delete, ChangeKind::Merge, ChangeKind::Repair];

/// Shape: kind u8 | actor 20 | counter u64 | object row | crc32c u32 (over the sequence number and
/// all before), big-endian.
pub(crate) fn encode(change: &LogEntry, out: &mut Vec<u8>) {
    out.clear();
    let kind = KINDS.iter().position(|kind| *kind == change.kind).unwrap_or(0);
    out.push(u8::try_from(kind).unwrap_or(0));
    out.extend_from_slice(&change.dot.actor.to_bytes());
    out.extend_from_slice(&change.dot.counter.to_be_bytes());
    out.extend_from_slice(&row_key(&change.table, &change.key));
    let sum = checksum(change.seq, out);
    out.extend_from_slice(&sum.to_be_bytes());
}

fn checksum(seq: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&seq.to_be_bytes()), body)
}

/// A decoded row of the log.
pub(crate) struct LogRow<'a> {
    pub(crate) kind: ChangeKind,
    pub(crate) dot: Dot,
    /// Row of the object.
    pub(crate) row: &'a [u8],
}

pub(crate) fn decode(seq: u64, bytes: &[u8]) -> Option<LogRow<'_>> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if checksum(seq, body) != u32::from_be_bytes(*sum) {
        return None;
    }
    let (kind, rest) = body.split_first()?;
    let (actor, rest) = rest.split_first_chunk::<20>()?;
    let (counter, row) = rest.split_first_chunk::<8>()?;
    Some(LogRow {
        kind: *KINDS.get(usize::from(*kind))?,
        dot: Dot { actor: Actor::from_bytes(*actor), counter: u64::from_be_bytes(*counter) },
        row,
    })
}

/// Table and key of the object in `row`; looks into the object when the row is truncated.
pub(crate) fn key_of_row(
    lmdb: &Lmdb,
    txn: &RoTxn<'_>,
    row: &[u8],
) -> Result<(TableName, Key), ReadError> {
    let corrupt = |what: &str| ReadError::Corrupt(format!("{what} {}", row.escape_ascii()).into());
    let parsed = parse_row(row).map_err(|_not_a_row| corrupt("not an object row:"))?;
    let table = TableName::parse(parsed.table).map_err(|_name| corrupt("bad table in row"))?;
    let key = if parsed.truncated {
        let record = lmdb.dbs.objects.get(txn, row)?.ok_or_else(|| corrupt("no object in row"))?;
        let view =
            RecordView::open(row, record).map_err(|_damaged| corrupt("damaged record in"))?;
        Key::new(view.key().unwrap_or(&[]))
    } else {
        Key::new(parsed.key)
    };
    Ok((table, key.map_err(|_length| corrupt("bad key in row"))?))
}

impl Partition {
    /// The changes of `space` after number `after`, at most `max`.
    ///
    /// # Errors
    /// The log is damaged or the store is closed.
    pub fn changes(&self, space: Space, after: u64, max: usize) -> Result<Changes, ReadError> {
        if space == Space::Memory {
            return Ok(self.memory().changes(after, max));
        }
        self.with_snapshot(|lmdb, txn| {
            let head = crate::partition::head::read(lmdb, txn)?;
            let mut events = Vec::new();
            let from = after.saturating_add(1).max(head.first_seq).to_be_bytes();
            let range = (Bound::Included(&from[..]), Bound::Unbounded);
            for row in lmdb.dbs.changes.range(txn, &range)?.take(max) {
                let (seq, bytes) = row?;
                let corrupt = || ReadError::Corrupt("change log".into());
                let seq = seq.try_into().map(u64::from_be_bytes).map_err(|_length| corrupt())?;
                let entry = decode(seq, bytes).ok_or_else(corrupt)?;
                let (table, key) = key_of_row(lmdb, txn, entry.row)?;
                events.push(Change { seq, table, key, dot: entry.dot, kind: entry.kind });
            }
            Ok(Changes::new(events, head.first_seq, head.last_seq, after))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    #[test]
    fn log_rows_round_trip_and_notice_damage_and_a_wrong_place() {
        let change = Change {
            seq: 77,
            table: TableName::parse("t").unwrap(),
            key: Key::new(b"key").unwrap(),
            dot: Dot { actor: Actor { node: NodeId([3; 16]), incarnation: 9 }, counter: 12 },
            kind: ChangeKind::Repair,
        };
        let mut row = Vec::new();
        encode(&change, &mut row);
        let back = decode(77, &row).unwrap();
        assert_eq!((back.kind, back.dot), (change.kind, change.dot));
        assert_eq!(back.row, row_key(&change.table, &change.key).as_bytes());
        assert!(decode(78, &row).is_none());
        for bit in 0..row.len() * 8 {
            row[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(77, &row).is_none());
            row[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
