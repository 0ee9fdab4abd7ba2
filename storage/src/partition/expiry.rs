//! The index by expiry: which keys are due.
//!
//! A key is in it when it has values, all of which expire; it is due when the last of them has
//! expired (reads treat expired values as absent long before that). Rows: `ms u64 BE ‖ first 16
//! bytes of the key's hash` → row of the object.

use std::ops::Bound;

use crate::codec::RecordView;
use crate::context::Context;
use crate::error::ReadError;
use crate::key::{Key, TableName};
use crate::partition::ops::is_due;
use crate::partition::tree::target_of;
use crate::partition::{Partition, Space};

/// Key of an index row.
pub(crate) fn index_key(ms: u64, short_hash: [u8; 16]) -> [u8; 24] {
    let mut row = [0; 24];
    row[..8].copy_from_slice(&ms.to_be_bytes());
    row[8..].copy_from_slice(&short_hash);
    row
}

impl Partition {
    /// Keys of `space` that this node is to expire at `now_ms`, the earliest first, at most `max`,
    /// each with the context to hand to `WriteOp::Expire`. Those whose newest value another node wrote
    /// are left to it for a minute.
    ///
    /// # Errors
    /// A record is damaged, LMDB gave an error, or the store is closed.
    pub fn expire_due(
        &self,
        space: Space,
        now_ms: u64,
        max: usize,
    ) -> Result<Vec<(TableName, Key, Context)>, ReadError> {
        let actor = self.actor(space);
        if space == Space::Memory {
            return Ok(self.memory().expire_due(actor, now_ms, max));
        }
        self.with_snapshot(|lmdb, txn| {
            let end = index_key(now_ms, [0xff; 16]);
            let range = (Bound::Unbounded, Bound::Included(&end[..]));
            let mut due = Vec::new();
            for entry in lmdb.dbs.expiry.range(txn, &range)? {
                if due.len() == max {
                    break;
                }
                let (at, row) = entry?;
                let corrupt = || ReadError::Corrupt(row.escape_ascii().to_string().into());
                let at_ms =
                    at.first_chunk().map(|ms| u64::from_be_bytes(*ms)).ok_or_else(corrupt)?;
                let record = lmdb.dbs.objects.get(txn, row)?.ok_or_else(corrupt)?;
                let view = RecordView::open(row, record).map_err(|_damaged| corrupt())?;
                if !is_due(at_ms, view.values(), actor, now_ms) {
                    continue;
                }
                let (table, key) = target_of(row, &view).ok_or_else(corrupt)?;
                let context = Context::new(&table, &key, view.join());
                due.push((table, key, context));
            }
            Ok(due)
        })
    }
}
