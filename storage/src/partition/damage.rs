//! Buckets in which objects were lost, or may have been.
//!
//! A rebuilt bucket adds up again, so nothing but a mark tells that objects are lacking there. As long
//! as a bucket is marked, what it lacks is no evidence that anybody deleted it. The mark goes once an
//! exchange has compared the bucket with every member: what any of them still held is back then.
//!
//! Guarantees: a mark is committed together with the rebuild it is for. A row of marks that is damaged
//! marks all buckets.
//!
//! # Shape
//! Row `damaged` of database `meta`: one bit for each bucket, the lowest first | crc32c u32. There is
//! none while nothing is marked.

use std::collections::BTreeSet;

use heed::{RoTxn, RwTxn};

use crate::codec::RecordView;
use crate::digest::Bucket;
use crate::key::{Key, KeyHash, TableName, parse_row};
use crate::lmdb::Lmdb;

pub(crate) const DAMAGED_ROW: &[u8] = b"damaged";
const BITS_BYTES: usize = 4096 / 8;

/// Marked buckets.
pub(crate) type Damaged = BTreeSet<Bucket>;

fn encode(damaged: &Damaged) -> Vec<u8> {
    let mut row = vec![0; BITS_BYTES];
    for bucket in damaged {
        row[usize::from(bucket.number() / 8)] |= 1 << (bucket.number() % 8);
    }
    let sum = crc32c::crc32c(&row);
    row.extend_from_slice(&sum.to_be_bytes());
    row
}

pub(crate) fn decode(row: &[u8]) -> Option<Damaged> {
    let (bits, sum) = row.split_last_chunk::<4>()?;
    if bits.len() != BITS_BYTES || crc32c::crc32c(bits).to_be_bytes() != *sum {
        return None;
    }
    let is_set = |bucket: &Bucket| {
        bits[usize::from(bucket.number() / 8)] & (1 << (bucket.number() % 8)) != 0
    };
    Some(Bucket::all().filter(is_set).collect())
}

/// Reads the marks.
pub(crate) fn read(lmdb: &Lmdb, txn: &RoTxn<'_>) -> heed::Result<Damaged> {
    let row = lmdb.dbs.meta.get(txn, DAMAGED_ROW)?;
    Ok(row.map_or_else(Damaged::new, |row| decode(row).unwrap_or_else(|| Bucket::all().collect())))
}

/// Writes the marks.
pub(crate) fn write(lmdb: &Lmdb, txn: &mut RwTxn<'_>, damaged: &Damaged) -> heed::Result<()> {
    if damaged.is_empty() {
        return lmdb.dbs.meta.delete(txn, DAMAGED_ROW).map(|_was_there| ());
    }
    lmdb.dbs.meta.put(txn, DAMAGED_ROW, &encode(damaged))
}

/// Removes the records of `buckets` that cannot be read; how many. Reads every object.
pub(crate) fn remove_unreadable(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    buckets: &Damaged,
) -> heed::Result<u64> {
    let mut unreadable = Vec::new();
    for object in lmdb.dbs.objects.iter(txn)? {
        let (row, record) = object?;
        if RecordView::open(row, record).is_err()
            && let Some(hash) = hash_of(row)
            && bucket_of(hash).is_some_and(|bucket| buckets.contains(&bucket))
        {
            unreadable.push((row.to_vec(), hash));
        }
    }
    for (row, hash) in &unreadable {
        tracing::error!(
            event = "record_given_up",
            row = %row.escape_ascii(),
            "a damaged record was removed: no member holds anything of its key"
        );
        lmdb.dbs.objects.delete(txn, row)?;
        lmdb.dbs.buckets.delete(txn, hash)?;
    }
    Ok(unreadable.len() as u64)
}

/// The hash of a row's key, of which the record need not be read.
fn hash_of(row: &[u8]) -> Option<[u8; 16]> {
    let parsed = parse_row(row).ok()?;
    if parsed.truncated {
        return row.last_chunk().copied();
    }
    let (table, key) = (TableName::parse(parsed.table).ok()?, Key::new(parsed.key).ok()?);
    Some(KeyHash::of(&table, &key).prefix())
}

fn bucket_of(hash: [u8; 16]) -> Option<Bucket> {
    Bucket::new(u16::from_be_bytes([hash[0], hash[1]]) >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::row_key;

    #[test]
    fn marks_round_trip_and_damage_marks_all() {
        let of = |numbers: &[u16]| -> Damaged {
            numbers.iter().filter_map(|number| Bucket::new(*number)).collect()
        };
        for numbers in [&[][..], &[0], &[7, 8, 4095], &[4094]] {
            let row = encode(&of(numbers));
            assert_eq!(decode(&row), Some(of(numbers)));
            for bit in (0..row.len() * 8).step_by(11) {
                let mut broken = row.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&broken), None, "bit {bit}");
            }
        }
        assert_eq!(decode(&[]), None);
    }

    #[test]
    fn bucket_is_known_from_the_row_alone() {
        let table = TableName::parse("t").unwrap();
        for len in [1, 100, 508, 509, 3000] {
            let key = Key::new(&vec![b'k'; len]).unwrap();
            let hash = hash_of(&row_key(&table, &key)).unwrap();
            assert_eq!(bucket_of(hash), Some(Bucket::of(&table, &key)), "{len}");
        }
    }
}
