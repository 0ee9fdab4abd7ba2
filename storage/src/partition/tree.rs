//! The hash tree of a partition: questions, verification and repair.
//!
//! On disk a row of database `tree` holds the 16 leaves of one branch (key: the branch, one byte);
//! the root is in the head row; the branches are sums of their rows and are not stored. The leaves
//! of a batch lie anywhere in the tree, so writing their rows at once would dirty a page for nearly
//! each write. Changes are therefore appended to a few rows of their own ([`Pending`]) and folded
//! into the rows of the branches when there are many. A leaf is always its row plus what is pending
//! for it, in the same snapshot: nothing is ever behind.
//!
//! Each call answers on one snapshot. Two calls may see two snapshots; an exchange tolerates that,
//! since what it ships is merged.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use heed::{RoTxn, RwTxn};

use crate::codec::RecordView;
use crate::digest::{
    BRANCHES, BUCKETS_PER_BRANCH, Bucket, EntryDigest, NodeDelta, TreeDelta, TreeNode, TreePath,
};
use crate::error::ReadError;
use crate::key::{Key, KeyHash, TableName, parse_row};
use crate::lmdb::Lmdb;
use crate::partition::expiry::index_key;
use crate::partition::ops::expires_all_ms;
use crate::partition::{Partition, Space, damage, head};
use crate::replica::BucketContent;

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
    let mut row = Vec::with_capacity(LEAVES * TreeNode::LEN);
    for leaf in leaves {
        row.extend_from_slice(&leaf.to_bytes());
    }
    row
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

/// Key of the rows of [`Pending`], followed by their number; longer than the key of a branch.
const PENDING_KEY: [u8; 7] = *b"pending";
/// Most changes that are pending before they are folded. // measured: benches/store.rs
const PENDING_MAX: usize = 512;
const PENDING_BYTES: usize = 2 + 8 + 16;
/// Changes in one row: it must fit in a page with another one, since a value of several pages needs
/// neighbouring free ones, which a full and fragmented map may not have.
const PENDING_PER_ROW: usize = 76;

/// Changes of leaves that are not yet in the rows of their branches.
#[derive(Debug, Default)]
pub(crate) struct Pending(BTreeMap<Bucket, NodeDelta>);

fn pending_key(number: u8) -> [u8; 8] {
    let mut key = [number; 8];
    key[..7].copy_from_slice(&PENDING_KEY);
    key
}

fn encode_pending(bucket: Bucket, delta: NodeDelta, row: &mut Vec<u8>) {
    row.extend_from_slice(&bucket.number().to_be_bytes());
    row.extend_from_slice(&delta.count.to_be_bytes());
    row.extend_from_slice(&delta.digest.to_be_bytes());
}

impl Pending {
    /// Whether `key` is that of a row with pending changes.
    pub(crate) fn is_key(key: &[u8]) -> bool {
        key.len() == 8 && key.starts_with(&PENDING_KEY)
    }

    fn read(lmdb: &Lmdb, txn: &RoTxn<'_>) -> heed::Result<Self> {
        let mut pending = Self::default();
        for row in lmdb.dbs.tree.prefix_iter(txn, &PENDING_KEY)? {
            // A damaged row adds what can be read of it; a scrub then finds the sums wrong.
            pending.add_row(row?.1);
        }
        Ok(pending)
    }

    /// Adds a row, whose shape is { bucket u16 | count i64 | digest u128 }, big-endian; `None` when
    /// it is damaged.
    pub(crate) fn add_row(&mut self, row: &[u8]) -> Option<()> {
        let (entries, rest) = row.as_chunks::<PENDING_BYTES>();
        for entry in entries {
            let (bucket, change) = entry.split_first_chunk::<2>()?;
            let (count, digest) = change.split_first_chunk::<8>()?;
            let delta = NodeDelta {
                count: i64::from_be_bytes(*count),
                digest: u128::from_be_bytes(digest.try_into().ok()?),
            };
            let bucket = Bucket::new(u16::from_be_bytes(*bucket))?;
            self.0.entry(bucket).or_default().add(delta);
        }
        rest.is_empty().then_some(())
    }

    /// The leaves of `branch`, whose row holds `stored`. A leaf that cannot have held what is taken
    /// away is left as it is: it is damaged, and a scrub finds it.
    pub(crate) fn apply_to(&self, branch: u8, mut stored: Leaves) -> Leaves {
        for (leaf, bucket) in stored.iter_mut().zip(buckets_of(branch)) {
            if let Some(delta) = self.0.get(&bucket) {
                *leaf = leaf.apply(*delta).unwrap_or(*leaf);
            }
        }
        stored
    }

    /// Moves everything into the rows of the branches; gives back the buckets that are damaged.
    fn fold(self, lmdb: &Lmdb, txn: &mut RwTxn<'_>) -> heed::Result<Vec<Bucket>> {
        let mut damaged = Vec::new();
        let changes: Vec<(Bucket, NodeDelta)> = self.0.into_iter().collect();
        for group in changes.chunk_by(|left, right| left.0.branch() == right.0.branch()) {
            let branch = group[0].0.branch();
            let mut leaves = stored_leaves(lmdb, txn, branch)?;
            for (bucket, change) in group {
                let leaf = &mut leaves[leaf_index(*bucket)];
                match leaf.apply(*change) {
                    Ok(changed) => *leaf = changed,
                    Err(_damaged) => damaged.push(*bucket),
                }
            }
            lmdb.dbs.tree.put(txn, &[branch], &encode_leaves(&leaves))?;
        }
        let (first, last) = (pending_key(0), pending_key(u8::MAX));
        let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
        lmdb.dbs.tree.delete_range(txn, &range)?;
        Ok(damaged)
    }
}

fn buckets_of(branch: u8) -> impl Iterator<Item = Bucket> {
    let first = u16::from(branch) * BUCKETS_PER_BRANCH;
    (first..first + BUCKETS_PER_BRANCH).filter_map(Bucket::new)
}

/// Reads the row of a branch; one that is not there is sixteen empty leaves, and so is one of a
/// wrong length, which a scrub then finds.
fn stored_leaves(lmdb: &Lmdb, txn: &RoTxn<'_>, branch: u8) -> heed::Result<Leaves> {
    let row = lmdb.dbs.tree.get(txn, &[branch])?;
    Ok(row.and_then(decode_leaves).unwrap_or_default())
}

/// Adds `delta` to the tree and to `root`. Gives back the buckets whose sum cannot have held what
/// is taken away: they must be rebuilt.
pub(crate) fn add(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    delta: &TreeDelta,
    root: &mut TreeNode,
) -> heed::Result<Vec<Bucket>> {
    let mut damaged = Vec::new();
    let changes: Vec<(Bucket, NodeDelta)> = delta.leaves().collect();
    for (bucket, change) in &changes {
        match root.apply(*change) {
            Ok(changed) => *root = changed,
            Err(_damaged) => damaged.push(*bucket),
        }
    }
    let last = lmdb.dbs.tree.rev_prefix_iter(txn, &PENDING_KEY)?.next().transpose()?;
    let (mut number, mut row) =
        last.map_or((0, Vec::new()), |(key, row)| (key.last().copied().unwrap_or(0), row.to_vec()));
    let len = usize::from(number) * PENDING_PER_ROW + row.len() / PENDING_BYTES;
    if len + changes.len() > PENDING_MAX {
        let mut pending = Pending::read(lmdb, txn)?;
        for (bucket, change) in changes {
            pending.0.entry(bucket).or_default().add(change);
        }
        damaged.append(&mut pending.fold(lmdb, txn)?);
        return Ok(damaged);
    }
    let mut changes = changes.into_iter().peekable();
    while changes.peek().is_some() {
        if row.len() >= PENDING_PER_ROW * PENDING_BYTES {
            (number, row) = (number + 1, Vec::new());
        }
        let room = PENDING_PER_ROW - row.len() / PENDING_BYTES;
        for (bucket, change) in changes.by_ref().take(room) {
            encode_pending(bucket, change, &mut row);
        }
        lmdb.dbs.tree.put(txn, &pending_key(number), &row)?;
    }
    Ok(damaged)
}

/// Recomputes a bucket from the objects of the partition: its rows in both indexes and its sum; and
/// the root from all leaves. Reads every object, so it is for repair only.
pub(crate) fn rebuild(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    bucket: Bucket,
    root: &mut TreeNode,
) -> heed::Result<()> {
    // Other buckets found damaged on the way stay as they are until they are rebuilt, too.
    drop(Pending::read(lmdb, txn)?.fold(lmdb, txn)?);
    let mut sum = TreeNode::default();
    let mut rows: Vec<([u8; 16], Vec<u8>)> = Vec::new();
    let mut expiry: Vec<([u8; 24], Vec<u8>)> = Vec::new();
    for object in lmdb.dbs.objects.iter(txn)? {
        let (row, record) = object?;
        let Some((hash, node)) = hash_and_node(row, record) else { continue };
        if Bucket::of_hash(&hash) == bucket {
            sum = TreeNode::sum([sum, node]);
            rows.push((hash.prefix(), row.to_vec()));
            let object = RecordView::open(row, record).map(|view| view.to_object());
            if let Some(ms) = object.ok().as_ref().and_then(expires_all_ms) {
                expiry.push((index_key(ms, hash.prefix()), row.to_vec()));
            }
        }
    }
    rebuild_expiry(lmdb, txn, bucket, &expiry)?;
    let (from, to) = bucket_bounds(bucket);
    let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    lmdb.dbs.buckets.delete_range(txn, &range)?;
    for (hash, row) in rows {
        lmdb.dbs.buckets.put(txn, &hash, &row)?;
    }
    let mut leaves = stored_leaves(lmdb, txn, bucket.branch())?;
    leaves[leaf_index(bucket)] = sum;
    lmdb.dbs.tree.put(txn, &[bucket.branch()], &encode_leaves(&leaves))?;
    let mut total = TreeNode::default();
    for row in lmdb.dbs.tree.iter(txn)? {
        // Nothing is pending: it was folded above.
        let leaves = decode_leaves(row?.1).unwrap_or_default();
        total = TreeNode::sum(leaves.into_iter().chain([total]));
    }
    *root = total;
    Ok(())
}

/// Puts `rows` in the place of what the index by expiry holds for `bucket`.
fn rebuild_expiry(
    lmdb: &Lmdb,
    txn: &mut RwTxn<'_>,
    bucket: Bucket,
    rows: &[([u8; 24], Vec<u8>)],
) -> heed::Result<()> {
    let (first, last) = bucket_bounds(bucket);
    let mut stale = Vec::new();
    for entry in lmdb.dbs.expiry.iter(txn)? {
        let (key, _) = entry?;
        if key.get(8..).is_some_and(|hash| (&first[..]..=&last[..]).contains(&hash)) {
            stale.push(key.to_vec());
        }
    }
    for key in stale {
        lmdb.dbs.expiry.delete(txn, &key)?;
    }
    for (key, row) in rows {
        lmdb.dbs.expiry.put(txn, key, row)?;
    }
    Ok(())
}

/// First and last hash prefix of a bucket.
pub(crate) fn bucket_bounds(bucket: Bucket) -> ([u8; 16], [u8; 16]) {
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

fn hash_and_node(row: &[u8], record: &[u8]) -> Option<(KeyHash, TreeNode)> {
    let view = RecordView::open(row, record).ok()?;
    let (table, key) = target_of(row, &view)?;
    let digest = EntryDigest::of_view(&table, &key, &view);
    Some((KeyHash::of(&table, &key), node_of(digest)))
}

/// What an object adds to its leaf.
pub(crate) fn node_of(digest: Option<EntryDigest>) -> TreeNode {
    digest.map_or_else(TreeNode::default, |digest| TreeNode { count: 1, digest: digest.0 })
}

impl Partition {
    /// Root of the hash tree; its count is the number of objects that are not deleted.
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
            return Ok(memory.children(node));
        }
        self.with_snapshot(|lmdb, txn| {
            let pending = Pending::read(lmdb, txn)?;
            children_of(node, |branch| {
                Ok(pending.apply_to(branch, stored_leaves(lmdb, txn, branch)?))
            })
        })
    }

    /// The objects of `bucket` that count in the tree, after the hash `after`, at most `max`.
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
            let from = after
                .as_ref()
                .map_or(Bound::Included(&first[..]), |after| Bound::Excluded(&after[..]));
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
                if let Some(digest) = EntryDigest::of_view(&table, &key, &view) {
                    page.next = hash.try_into().ok();
                    page.entries.push(BucketEntry { table, key, digest });
                }
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
                if !memory.adds_up(bucket) {
                    report.mismatches.push(bucket);
                }
            }
            return Ok(report);
        }
        self.with_snapshot(|lmdb, txn| {
            let pending = Pending::read(lmdb, txn)?;
            for bucket in buckets {
                scrub_bucket(lmdb, txn, &pending, bucket, &mut report)?;
            }
            Ok(report)
        })
    }
}

fn scrub_bucket(
    lmdb: &Lmdb,
    txn: &RoTxn<'_>,
    pending: &Pending,
    bucket: Bucket,
    report: &mut ScrubReport,
) -> Result<(), ReadError> {
    let (first, last) = bucket_bounds(bucket);
    let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
    let mut sum = TreeNode::default();
    let mut sound = true;
    for entry in lmdb.dbs.buckets.range(txn, &range)? {
        let (hash, row) = entry?;
        let record = lmdb.dbs.objects.get(txn, row)?;
        match record.and_then(|record| hash_and_node(row, record)) {
            Some((found, node)) => {
                report.checked += node.count;
                sound &= found.prefix::<16>() == *hash;
                sum = TreeNode::sum([sum, node]);
            }
            None => {
                report.checked += 1;
                report.corrupt += 1;
                sound = false;
            }
        }
    }
    let leaves = pending.apply_to(bucket.branch(), stored_leaves(lmdb, txn, bucket.branch())?);
    if !sound || sum != leaves[leaf_index(bucket)] {
        report.mismatches.push(bucket);
    }
    Ok(())
}

/// The objects of a bucket that count, as `txn` sees them.
pub(crate) fn bucket_content(
    lmdb: &Lmdb,
    txn: &RoTxn<'_>,
    bucket: Bucket,
) -> Result<BucketContent, ReadError> {
    let (first, last) = bucket_bounds(bucket);
    let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
    let mut content = BucketContent { entries: Vec::new(), sound: true };
    for entry in lmdb.dbs.buckets.range(txn, &range)? {
        let (hash, row) = entry?;
        let record = lmdb.dbs.objects.get(txn, row)?;
        let view = record.and_then(|record| RecordView::open(row, record).ok());
        let named = view.as_ref().and_then(|view| Some((view, target_of(row, view)?)));
        let Some((view, (table, key))) = named else {
            content.sound = false;
            continue;
        };
        content.sound &= KeyHash::of(&table, &key).prefix::<16>() == *hash;
        if let Some(digest) = EntryDigest::of_view(&table, &key, view) {
            content.entries.push(BucketEntry { table, key, digest });
        }
    }
    let pending = Pending::read(lmdb, txn)?;
    let leaves = pending.apply_to(bucket.branch(), stored_leaves(lmdb, txn, bucket.branch())?);
    content.sound &= sum_of(&content.entries) == leaves[leaf_index(bucket)];
    content.sound &= !damage::read(lmdb, txn)?.contains(&bucket);
    Ok(content)
}

/// What these objects add up to.
pub(crate) fn sum_of(entries: &[BucketEntry]) -> TreeNode {
    TreeNode::sum(entries.iter().map(|entry| node_of(Some(entry.digest))))
}

pub(crate) fn children_of<E>(
    node: TreePath,
    leaves: impl Fn(u8) -> Result<Leaves, E>,
) -> Result<Vec<TreeNode>, E> {
    match node {
        TreePath::Root => {
            let branches = (0..BRANCHES).filter_map(|branch| u8::try_from(branch).ok());
            branches.map(|branch| leaves(branch).map(TreeNode::sum)).collect()
        }
        TreePath::Branch(branch) => Ok(leaves(branch)?.to_vec()),
        TreePath::Leaf(_) => Ok(Vec::new()),
    }
}
