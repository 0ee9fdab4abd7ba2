//! Hash tree over the objects of a partition, kept by addition.
//!
//! Guarantees: nodes with equal trees hold equal objects up to collisions; the tree of a set of
//! objects does not depend on the order in which they came; updating it needs no sibling.
//! Refuses: to look at contexts, stamps, expiries or payloads. A dot names one value, so equal dots
//! mean equal values; hashing local facts would make equal replicas look different for ever.
//!
//! # Shape
//! Root, 256 branches, 4,096 leaves (16 per branch). The leaf of a key is given by the first 12
//! bits of its [`KeyHash`]. A node is the number of its objects and the wrapping sum of their
//! digests. A key without a row, and one with tombstones only, contributes nothing.

use std::collections::BTreeMap;

use crate::codec::RecordView;
use crate::ids::Dot;
use crate::key::{Key, KeyHash, TableName};
use crate::object::Object;

/// Number of leaves.
pub const BUCKETS: u16 = 4096;
/// Number of branches under the root.
pub const BRANCHES: u16 = 256;
/// Number of leaves under a branch.
pub const BUCKETS_PER_BRANCH: u16 = BUCKETS / BRANCHES;

/// Digest of one object: the first 16 bytes, big-endian, of blake3 over
/// `table ‖ 0 ‖ key length (4) ‖ key ‖ live dots (4) ‖ { actor (20) ‖ counter (8) }`, integers
/// big-endian, the dots by actor and newest first within an actor.
///
/// Contexts do not count: they are stripped when every member knows them, and not everywhere at the
/// same time. Nor do objects with tombstones only: these are removed in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryDigest(pub u128);

impl EntryDigest {
    /// Digest of an object; `None` when it does not count, since no live value but tombstones is
    /// there.
    #[must_use]
    pub fn of(table: &TableName, key: &Key, object: &Object) -> Option<Self> {
        (!object.is_deleted()).then(|| Self::of_dots(table, key, object.live_dots()))
    }

    /// Digest of a record, without building its object.
    #[must_use]
    pub fn of_view(table: &TableName, key: &Key, view: &RecordView<'_>) -> Option<Self> {
        let counts = view.values().any(|value| value.payload.is_some());
        counts.then(|| Self::of_dots(table, key, view.values().map(|value| value.dot)))
    }

    /// Digest of an object with these live dots.
    #[must_use]
    pub fn of_dots(table: &TableName, key: &Key, dots: impl Iterator<Item = Dot> + Clone) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(table.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(&len_bytes(key.as_bytes().len()));
        hasher.update(key.as_bytes());
        hasher.update(&len_bytes(dots.clone().count()));
        for dot in dots {
            hasher.update(&dot.actor.to_bytes());
            hasher.update(&dot.counter.to_be_bytes());
        }
        Self::finish(&hasher)
    }

    fn finish(hasher: &blake3::Hasher) -> Self {
        let hash: [u8; 32] = hasher.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        Self(u128::from_be_bytes(first))
    }
}

fn len_bytes(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("lengths are bounded far below 4 GiB").to_be_bytes()
}

/// A leaf of the tree, below 4,096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// The bucket with this number; `None` from 4,096 on.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < BUCKETS { Some(Self(number)) } else { None }
    }

    /// The bucket of a key.
    #[must_use]
    pub fn of(table: &TableName, key: &Key) -> Self {
        Self::of_hash(&KeyHash::of(table, key))
    }

    /// The bucket of a key, by its hash.
    #[must_use]
    pub fn of_hash(hash: &KeyHash) -> Self {
        Self(u16::from_be_bytes(hash.prefix()) >> 4)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The branch above it: the first 8 of its 12 bits.
    #[must_use]
    pub const fn branch(self) -> u8 {
        let [branch, _] = (self.0 << 4).to_be_bytes();
        branch
    }

    /// Every bucket, ascending.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..BUCKETS).map(Self)
    }
}

/// Place of a node in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TreePath {
    /// All objects of the partition.
    Root,
    /// One of the 256 nodes under the root.
    Branch(u8),
    /// One of the 16 leaves under a branch.
    Leaf(Bucket),
}

impl TreePath {
    /// Length of the byte form.
    pub const LEN: usize = 3;

    /// The node above.
    #[must_use]
    pub const fn parent(self) -> Option<Self> {
        match self {
            Self::Root => None,
            Self::Branch(_) => Some(Self::Root),
            Self::Leaf(bucket) => Some(Self::Branch(bucket.branch())),
        }
    }

    /// The nodes below, ascending; none for a leaf.
    pub fn children(self) -> impl Iterator<Item = Self> {
        let (branches, leaves) = match self {
            Self::Root => (Some(0..=u8::MAX), None),
            Self::Branch(branch) => {
                let first = u16::from(branch) * BUCKETS_PER_BRANCH;
                (None, Some(first..first + BUCKETS_PER_BRANCH))
            }
            Self::Leaf(_) => (None, None),
        };
        let leaves = leaves.into_iter().flatten().map(|number| Self::Leaf(Bucket(number)));
        branches.into_iter().flatten().map(Self::Branch).chain(leaves)
    }

    /// The byte form: level (0, 1 or 2), then the number within the level, big-endian. Sorts by
    /// level, then number.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let (level, number) = match self {
            Self::Root => (0, 0),
            Self::Branch(branch) => (1, branch as u16),
            Self::Leaf(bucket) => (2, bucket.0),
        };
        let [high, low] = number.to_be_bytes();
        [level, high, low]
    }

    /// Reads the byte form; `None` when no node has it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let &[level, high, low] = bytes else {
            return None;
        };
        match (level, u16::from_be_bytes([high, low])) {
            (0, 0) => Some(Self::Root),
            (1, number) => u8::try_from(number).ok().map(Self::Branch),
            (2, number) => Bucket::new(number).map(Self::Leaf),
            _ => None,
        }
    }
}

/// A change of one node: wrapping, so that changes add up in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeDelta {
    /// Objects gained (or lost, when negative).
    pub count: i64,
    /// What is added to the digest, modulo 2^128.
    pub digest: u128,
}

impl NodeDelta {
    /// Adds `other`.
    pub const fn add(&mut self, other: Self) {
        self.count += other.count;
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// True when nothing changes.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.count == 0 && self.digest == 0
    }
}

/// A node of the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeNode {
    /// Number of objects under it.
    pub count: u64,
    /// Sum of their digests, modulo 2^128.
    pub digest: u128,
}

/// The tree cannot have held what a change takes away: it is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hash tree is damaged: a node of {count} objects was to change by {change}")]
pub struct TreeDamaged {
    /// Objects under the node before the change.
    pub count: u64,
    /// The change.
    pub change: i64,
}

impl TreeNode {
    /// Length of the byte form.
    pub const LEN: usize = 24;

    /// The node after a change.
    ///
    /// # Errors
    /// More objects were to be taken away than there are, or the last one left a digest behind.
    pub fn apply(self, delta: NodeDelta) -> Result<Self, TreeDamaged> {
        let damaged = TreeDamaged { count: self.count, change: delta.count };
        let count = self.count.checked_add_signed(delta.count).ok_or(damaged)?;
        let digest = self.digest.wrapping_add(delta.digest);
        if count == 0 && digest != 0 {
            return Err(damaged);
        }
        Ok(Self { count, digest })
    }

    /// The byte form: count, then digest, big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.count.to_be_bytes());
        bytes[8..].copy_from_slice(&self.digest.to_be_bytes());
        bytes
    }

    /// Reads the byte form; `None` when the length is wrong.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, digest) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            count: u64::from_be_bytes(*count),
            digest: u128::from_be_bytes(digest.try_into().ok()?),
        })
    }

    /// The node above these.
    #[must_use]
    pub fn sum(nodes: impl IntoIterator<Item = Self>) -> Self {
        nodes.into_iter().fold(Self::default(), |sum, node| Self {
            count: sum.count.wrapping_add(node.count),
            digest: sum.digest.wrapping_add(node.digest),
        })
    }
}

/// The changes that a batch of writes makes to the tree, each touched node once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeDelta {
    leaves: BTreeMap<Bucket, NodeDelta>,
}

impl TreeDelta {
    /// No change.
    #[must_use]
    pub const fn new() -> Self {
        Self { leaves: BTreeMap::new() }
    }

    /// Notes that the object of a key in `bucket` went from `old` to `new`; `None` is "no row".
    pub fn record(&mut self, bucket: Bucket, old: Option<EntryDigest>, new: Option<EntryDigest>) {
        let digest_of = |digest: Option<EntryDigest>| digest.map_or(0, |digest| digest.0);
        self.leaves.entry(bucket).or_default().add(NodeDelta {
            count: i64::from(new.is_some()) - i64::from(old.is_some()),
            digest: digest_of(new).wrapping_sub(digest_of(old)),
        });
    }

    /// True when no node changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.values().all(NodeDelta::is_zero)
    }

    /// The changes of the leaves, ascending; those that cancelled out are left out.
    pub fn leaves(&self) -> impl Iterator<Item = (Bucket, NodeDelta)> + '_ {
        let changed = self.leaves.iter().filter(|(_, delta)| !delta.is_zero());
        changed.map(|(bucket, delta)| (*bucket, *delta))
    }

    /// The changes of all nodes: root, branches, leaves, each level ascending.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<TreePath, NodeDelta> {
        let mut nodes: BTreeMap<TreePath, NodeDelta> = BTreeMap::new();
        for (bucket, delta) in self.leaves() {
            let mut path = Some(TreePath::Leaf(bucket));
            while let Some(at) = path {
                nodes.entry(at).or_default().add(delta);
                path = at.parent();
            }
        }
        nodes
    }

    /// Forgets all changes.
    pub fn clear(&mut self) {
        self.leaves.clear();
    }
}
