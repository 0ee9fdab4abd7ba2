//! The head of a durable partition: counters and the root of the hash tree, in one sealed row.
//!
//! It is written by every transaction, so it shares one page with the identity row; the root of
//! the tree is in it and not in a page of its own. The number of the transaction that wrote it is
//! inside: a meta page that was set back to an older state does not match it.

use heed::RoTxn;

use crate::digest::TreeNode;
use crate::error::ReadError;
use crate::hlc::Hlc;
use crate::lmdb::Lmdb;

/// Row of the head in database `meta`.
pub(crate) const HEAD_ROW: &[u8] = b"head";

const BODY_BYTES: usize = 5 * 8 + TreeNode::LEN;

/// Counters of a durable partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Last counter issued by the current actor.
    pub(crate) counter: u64,
    /// Lowest number in the change log; one above the last when the log is empty.
    pub(crate) first_seq: u64,
    /// Last number in the change log.
    pub(crate) last_seq: u64,
    /// Greatest stamp issued or accepted.
    pub(crate) stamp: Hlc,
    /// The LMDB transaction that wrote this row.
    pub(crate) txn: u64,
    /// Root of the hash tree; its count is the number of objects.
    pub(crate) root: TreeNode,
}

impl Head {
    pub(crate) const NEW: Self = Self {
        counter: 0,
        first_seq: 1,
        last_seq: 0,
        stamp: Hlc::ZERO,
        txn: 0,
        root: TreeNode { count: 0, digest: 0 },
    };

    /// Shape: counter | first seq | last seq | stamp | transaction (u64 each) | root (24) |
    /// crc32c u32, big-endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(BODY_BYTES + 4);
        let numbers = [self.counter, self.first_seq, self.last_seq, self.stamp.as_u64(), self.txn];
        for number in numbers {
            row.extend_from_slice(&number.to_be_bytes());
        }
        row.extend_from_slice(&self.root.to_bytes());
        let sum = crc32c::crc32c(&row);
        row.extend_from_slice(&sum.to_be_bytes());
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let (body, sum) = row.split_last_chunk::<4>()?;
        if body.len() != BODY_BYTES || crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
            return None;
        }
        let (numbers, root) = body.split_at(40);
        let number = |index: usize| {
            let at = index * 8;
            numbers.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
        };
        Some(Self {
            counter: number(0)?,
            first_seq: number(1)?,
            last_seq: number(2)?,
            stamp: Hlc::from_u64(number(3)?),
            txn: number(4)?,
            root: TreeNode::from_bytes(root)?,
        })
    }
}

/// Reads the head as `txn` sees it.
pub(crate) fn read(lmdb: &Lmdb, txn: &RoTxn<'_>) -> Result<Head, ReadError> {
    match lmdb.dbs.meta.get(txn, HEAD_ROW)? {
        None => Ok(Head::NEW),
        Some(row) => Head::decode(row).ok_or_else(|| ReadError::Corrupt("head row".into())),
    }
}
