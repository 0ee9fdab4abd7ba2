//! The hash tree of a partition: questions, verification and repair.
//!
//! On disk a row of database `tree` holds the 16 leaves of one branch (key: the branch, one byte);
//! the root is in the head row. The branches are sums of their rows and are not stored: a write
//! dirties one tree page per touched branch and nothing above it.
//!
//! Each call answers on one snapshot. Two calls may see two snapshots; an exchange tolerates that,
//! since what it ships is merged.

use std::ops::{Bound, RangeInclusive};

use heed::{RoTxn, RwTxn};

use crate::codec::RecordView;
use crate::digest::{
    BRANCHES, BUCKETS_PER_BRANCH, Bucket, EntryDigest, NodeDelta, TreeDelta, TreeNode, TreePath,
};
use crate::error::ReadError;
use crate::key::{Key, KeyHash, TableName, parse_row};
use crate::lmdb::Lmdb;
use crate::partition::{Partition, Space, head};

const LEAVES: usize = BUCKETS_PER_BRANCH as usize;

/// The leaves of one branch.
pub(crate) type Leaves = [TreeNode; LEAVES];

/// An object in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketEntry {
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Key,
    /// Digest of the object.
    pub digest: EntryDigest,
}

/// A page of a bucket, ascending by the hash of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPage {
    /// The objects.
    pub entries: Vec<BucketEntry>,
    /// What to pass as `after` for the next page; `None` at the end.
    pub next: Option<[u8; 16]>,
}

/// Outcome of a scrub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Objects whose digest was recomputed.
    pub checked: u64,
    /// Buckets whose sum differs from their objects, or that hold a damaged object.
    pub mismatches: Vec<Bucket>,
    /// Damaged records met.
    pub corrupt: u64,
}

/// Place of a bucket within its branch.
pub(crate) fn leaf_index(bucket: Bucket) -> usize {
    usize::from(bucket.number() % BUCKETS_PER_BRANCH)
}

pub(crate) fn encode_leaves(leaves: &Leaves) -> Vec<u8> {
    leaves.iter().flat_map(|leaf| leaf.to_bytes()).collect()
}

pub(crate) fn decode_leaves(row: &[u8]) -> Option<Leaves> {
    let mut leaves = Leaves::default();
    if row.len() != LEAVES * TreeNode::LEN {
        return None;
    }
    for (leaf, bytes) in leaves.iter_mut().zip(row.chunks_exact(TreeNode::LEN)) {
        *leaf = TreeNode::from_bytes(bytes)?;
    }
    Some(leaves)
}

/// Reads the leaves of a branch; a row that is not there is sixteen empty leaves, and so is one of
/// a wrong length, which a scrub then finds.
fn read_leaves(lmdb: &Lmdb, txn: &RoTxn<'_>, branch: u8) -> heed::Result<Leaves> {
    let row = lmdb.dbs.tree.get(txn, &[branch])?;
    Ok(row.and_then(decode_leaves).unwrap_or_default())
}

/// Adds `delta` to the rows of the tree and to `root`. Buckets whose sum cannot have held what is
/// taken away are left as they are and given back: they must be rebuilt.
pub(crate) fn add(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    delta: &TreeDelta,
    root: &mut TreeNode,
) -> heed::Result<Vec<Bucket>> {
    let mut damaged = Vec::new();
    let changes: Vec<(Bucket, NodeDelta)> = delta.leaves().collect();
    for group in changes.chunk_by(|left, right| left.0.branch() == right.0.branch()) {
        let branch = group[0].0.branch();
        let mut leaves = read_leaves(lmdb, txn, branch)?;
        for (bucket, change) in group {
            let leaf = &mut leaves[leaf_index(*bucket)];
            match (leaf.apply(*change), root.apply(*change)) {
                (Ok(new_leaf), Ok(new_root)) => (*leaf, *root) = (new_leaf, new_root),
                _ => damaged.push(*bucket),
            }
        }
        lmdb.dbs.tree.put(txn, &[branch], &encode_leaves(&leaves))?;
    }
    Ok(damaged)
}

/// Recomputes a bucket from the objects of the partition: its index rows and its sum; and the root
/// from all leaves. Reads every object, so it is for repair only.
pub(crate) fn rebuild(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    bucket: Bucket,
    root: &mut TreeNode,
) -> heed::Result<()> {
    let mut sum = TreeNode::default();
    let mut rows: Vec<([u8; 16], Vec<u8>)> = Vec::new();
    for object in lmdb.dbs.objects.iter(txn)? {
        let (row, record) = object?;
        let Some((hash, digest)) = hash_and_digest(row, record) else { continue };
        if Bucket::of_hash(&hash) == bucket {
            sum = TreeNode::sum([sum, TreeNode { count: 1, digest: digest.0 }]);
            rows.push((hash.prefix(), row.to_vec()));
        }
    }
    let (from, to) = bucket_bounds(bucket);
    let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    lmdb.dbs.buckets.delete_range(txn, &range)?;
    for (hash, row) in rows {
        lmdb.dbs.buckets.put(txn, &hash, &row)?;
    }
    let mut leaves = read_leaves(lmdb, txn, bucket.branch())?;
    leaves[leaf_index(bucket)] = sum;
    lmdb.dbs.tree.put(txn, &[bucket.branch()], &encode_leaves(&leaves))?;
    let mut total = TreeNode::default();
    for row in lmdb.dbs.tree.iter(txn)? {
        let leaves = decode_leaves(row?.1).unwrap_or_default();
        total = TreeNode::sum(leaves.into_iter().chain([total]));
    }
    *root = total;
    Ok(())
}

/// First and last hash prefix of a bucket.
fn bucket_bounds(bucket: Bucket) -> ([u8; 16], [u8; 16]) {
    let first = bucket.number() << 4;
    let (mut from, mut to) = ([0; 16], [0xff; 16]);
    from[..2].copy_from_slice(&first.to_be_bytes());
    to[..2].copy_from_slice(&(first | 0xf).to_be_bytes());
    (from, to)
}

/// Table and key of an object from its row and record.
pub(crate) fn target_of(row: &[u8], view: &RecordView<'_>) -> Option<(TableName, Key)> {
    let parsed = parse_row(row).ok()?;
    let table = TableName::parse(parsed.table).ok()?;
    let key = if parsed.truncated { view.key()? } else { parsed.key };
    Some((table, Key::new(key).ok()?))
}

fn hash_and_digest(row: &[u8], record: &[u8]) -> Option<(KeyHash, EntryDigest)> {
    let view = RecordView::open(row, record).ok()?;
    let (table, key) = target_of(row, &view)?;
    Some((KeyHash::of(&table, &key), EntryDigest::of_view(&table, &key, &view)))
}

impl Partition {
    /// Root of the hash tree; its count is the number of objects, tombstones included.
    ///
    /// # Errors
    /// The head row is damaged or the store is closed.
    pub fn tree_root(&self, space: Space) -> Result<TreeNode, ReadError> {
        match space {
            Space::Memory => Ok(self.memory().root()),
            Space::Durable => self.with_snapshot(|lmdb, txn| Ok(head::read(lmdb, txn)?.root)),
        }
    }

    /// The nodes under `node`, ascending: 256 under the root, 16 under a branch, none under a leaf.
    ///
    /// # Errors
    /// LMDB gave an error or the store is closed.
    pub fn tree_children(&self, space: Space, node: TreePath) -> Result<Vec<TreeNode>, ReadError> {
        let memory = self.memory();
        if space == Space::Memory {
            return Ok(children_of(node, |branch| Ok(memory.leaves(branch)))?);
        }
        self.with_snapshot(|lmdb, txn| {
            Ok(children_of(node, |branch| read_leaves(lmdb, txn, branch))?)
        })
    }

    /// The objects of `bucket` after the hash `after`, at most `max`.
    ///
    /// # Errors
    /// A record is damaged, LMDB gave an error, or the store is closed.
    pub fn bucket_entries(
        &self,
        space: Space,
        bucket: Bucket,
        after: Option<[u8; 16]>,
        max: usize,
    ) -> Result<BucketPage, ReadError> {
        let (first, last) = bucket_bounds(bucket);
        if space == Space::Memory {
            return Ok(self.memory().bucket_entries(first, last, after, max));
        }
        self.with_snapshot(|lmdb, txn| {
            let from = after.as_ref().map_or(Bound::Included(&first[..]), |after| {
                Bound::Excluded(&after[..])
            });
            let mut page = BucketPage { entries: Vec::new(), next: None };
            for row in lmdb.dbs.buckets.range(txn, &(from, Bound::Included(&last[..])))? {
                let (hash, row) = row?;
                if page.entries.len() == max {
                    return Ok(page);
                }
                let corrupt = || ReadError::Corrupt(row.escape_ascii().to_string().into());
                let record = lmdb.dbs.objects.get(txn, row)?.ok_or_else(corrupt)?;
                let view = RecordView::open(row, record).map_err(|_damaged| corrupt())?;
                let (table, key) = target_of(row, &view).ok_or_else(corrupt)?;
                let digest = EntryDigest::of_view(&table, &key, &view);
                page.next = hash.try_into().ok();
                page.entries.push(BucketEntry { table, key, digest });
            }
            page.next = None;
            Ok(page)
        })
    }

    /// Recomputes the sums of `buckets` from their objects, on one snapshot.
    ///
    /// # Errors
    /// LMDB gave an error or the store is closed. Damaged records are counted, not an error.
    pub fn scrub(
        &self,
        space: Space,
        buckets: RangeInclusive<Bucket>,
    ) -> Result<ScrubReport, ReadError> {
        let range = buckets.start().number()..=buckets.end().number();
        let buckets = range.filter_map(Bucket::new);
        let mut report = ScrubReport::default();
        if space == Space::Memory {
            let memory = self.memory();
            for bucket in buckets {
                let (first, last) = bucket_bounds(bucket);
                let page = memory.bucket_entries(first, last, None, usize::MAX);
                report.checked += page.entries.len() as u64;
                let nodes = page.entries.iter();
                let sum = nodes.map(|entry| TreeNode { count: 1, digest: entry.digest.0 });
                if TreeNode::sum(sum) != memory.leaves(bucket.branch())[leaf_index(bucket)] {
                    report.mismatches.push(bucket);
                }
            }
            return Ok(report);
        }
        self.with_snapshot(|lmdb, txn| {
            for bucket in buckets {
                scrub_bucket(lmdb, txn, bucket, &mut report)?;
            }
            Ok(report)
        })
    }
}

fn scrub_bucket(
    lmdb: &Lmdb,
    txn: &RoTxn<'_>,
    bucket: Bucket,
    report: &mut ScrubReport,
) -> Result<(), ReadError> {
    let (first, last) = bucket_bounds(bucket);
    let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
    let mut sum = TreeNode::default();
    let mut sound = true;
    for entry in lmdb.dbs.buckets.range(txn, &range)? {
        let (hash, row) = entry?;
        report.checked += 1;
        let record = lmdb.dbs.objects.get(txn, row)?;
        match record.and_then(|record| hash_and_digest(row, record)) {
            Some((found, digest)) => {
                sound &= found.prefix::<16>() == *hash;
                sum = TreeNode::sum([sum, TreeNode { count: 1, digest: digest.0 }]);
            }
            None => {
                report.corrupt += 1;
                sound = false;
            }
        }
    }
    if !sound || sum != read_leaves(lmdb, txn, bucket.branch())?[leaf_index(bucket)] {
        report.mismatches.push(bucket);
    }
    Ok(())
}

fn children_of(
    node: TreePath,
    leaves: impl Fn(u8) -> heed::Result<Leaves>,
) -> heed::Result<Vec<TreeNode>> {
    match node {
        TreePath::Root => {
            let branches = (0..BRANCHES).filter_map(|branch| u8::try_from(branch).ok());
            branches.map(|branch| leaves(branch).map(TreeNode::sum)).collect()
        }
        TreePath::Branch(branch) => Ok(leaves(branch)?.to_vec()),
        TreePath::Leaf(_) => Ok(Vec::new()),
    }
}
