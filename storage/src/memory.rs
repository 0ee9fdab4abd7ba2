//! The in-memory tables of a partition: the same objects, tree, change log and clock as on disk, in
//! persistent maps.
//!
//! The writer thread works on a copy that shares structure with the published state and publishes
//! it once per batch, so a reader holds a consistent snapshot for as long as it likes, without
//! locks. Nothing here outlives the process: the actor of these tables has an incarnation of its
//! own, new at each boot, so that a dot that died with a process is never used again.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::clock::{Clock, Seen};
use crate::context::Context;
use crate::digest::{BUCKETS_PER_BRANCH, Bucket, EntryDigest, TreeNode, TreePath};
use crate::error::{ReadError, WriteError};
use crate::hlc::HlcClock;
use crate::ids::{Actor, Dot};
use crate::key::{Key, TableName};
use crate::object::Object;
use crate::partition::Space;
use crate::partition::batch::{Gathered, Loaded, Outcomes, Rows, apply};
use crate::partition::changes::{Change, Changes};
use crate::partition::events::{Event, Events, Found};
use crate::partition::ops::{Counters, Processed, Rules, Target, WriteOp, is_due};
use crate::partition::sweep::{self, SweepPlan, SweepReport, Sweeping};
use crate::partition::tree::{BucketEntry, BucketPage, Leaves, bucket_bounds, children_of, sum_of};
use crate::replica::BucketContent;
use crate::vector::VersionVector;

/// Table and key, which sort as the rows on disk do.
pub(crate) type MemoryKey = (TableName, Key);

/// A state of the in-memory tables; cloning is cheap and shares everything.
#[derive(Debug, Clone)]
pub(crate) struct MemoryState {
    objects: OrdMap<MemoryKey, Arc<Object>>,
    buckets: OrdMap<[u8; 16], MemoryKey>,
    expiry: OrdMap<(u64, [u8; 16]), MemoryKey>,
    leaves: OrdMap<Bucket, TreeNode>,
    root: TreeNode,
    log: imbl::Vector<Change>,
    /// Which key each event was about, and when it was processed.
    dots: OrdMap<Dot, (u64, MemoryKey)>,
    swept: VersionVector,
    /// Buckets in which absence is no evidence, see [`crate::partition::damage`].
    damaged: OrdSet<Bucket>,
    /// Of every actor but the current one.
    clock: Clock,
    counter: u64,
    last_seq: u64,
    hlc: HlcClock,
}

impl Default for MemoryState {
    fn default() -> Self {
        Self {
            objects: OrdMap::new(),
            buckets: OrdMap::new(),
            expiry: OrdMap::new(),
            leaves: OrdMap::new(),
            root: TreeNode::default(),
            log: imbl::Vector::new(),
            dots: OrdMap::new(),
            swept: VersionVector::new(),
            damaged: OrdSet::new(),
            clock: Clock::default(),
            counter: 0,
            last_seq: 0,
            hlc: HlcClock::default(),
        }
    }
}

struct MemoryRows {
    state: MemoryState,
}

impl Rows for MemoryRows {
    type Error = Infallible;

    fn space(&self) -> Space {
        Space::Memory
    }

    fn load(&mut self, target: &Target<'_>) -> Result<Loaded, Infallible> {
        let found = self.state.get(target.table, target.key);
        Ok(found.map_or(Loaded::Absent, |object| Loaded::Object(Object::clone(object))))
    }

    fn store(&mut self, target: &Target<'_>, object: Object) -> Result<(), Infallible> {
        let key = (target.table.clone(), target.key.clone());
        self.state.objects.insert(key, Arc::new(object));
        Ok(())
    }

    fn remove(&mut self, target: &Target<'_>) -> Result<(), Infallible> {
        self.state.objects.remove(&(target.table.clone(), target.key.clone()));
        self.state.buckets.remove(&target.short_hash());
        Ok(())
    }

    fn index(&mut self, target: &Target<'_>) -> Result<bool, Infallible> {
        let key = (target.table.clone(), target.key.clone());
        Ok(self.state.buckets.insert(target.short_hash(), key).is_some())
    }

    fn is_indexed(&self, target: &Target<'_>) -> Result<bool, Infallible> {
        Ok(self.state.buckets.contains_key(&target.short_hash()))
    }

    fn note_event(&mut self, dot: Dot, target: &Target<'_>, now_ms: u64) -> Result<(), Infallible> {
        let key = (target.table.clone(), target.key.clone());
        self.state.dots.entry(dot).or_insert((now_ms, key));
        Ok(())
    }

    fn forget_event(&mut self, dot: Dot) -> Result<(), Infallible> {
        self.state.dots.remove(&dot);
        Ok(())
    }

    fn next_event(&self, from: Dot) -> Result<Option<(Dot, Option<Event>)>, Infallible> {
        Ok(self.state.event_from(from))
    }

    fn move_expiry(
        &mut self,
        target: &Target<'_>,
        from_ms: Option<u64>,
        to_ms: Option<u64>,
    ) -> Result<(), Infallible> {
        if let Some(ms) = from_ms {
            self.state.expiry.remove(&(ms, target.short_hash()));
        }
        if let Some(ms) = to_ms {
            let key = (target.table.clone(), target.key.clone());
            self.state.expiry.insert((ms, target.short_hash()), key);
        }
        Ok(())
    }
}

impl MemoryState {
    /// The state after a batch; `self` is not touched.
    pub(crate) fn write(
        &self,
        rules: &Rules<'_>,
        ops: &[(usize, &WriteOp)],
        changes_retained: u64,
    ) -> (Self, Outcomes) {
        let counters = Counters {
            counter: self.counter,
            hlc: self.hlc.clone(),
            clamped: 0,
            processed: Processed::new(&self.clock),
        };
        let mut gathered = Gathered::new(counters, self.last_seq);
        let mut rows = MemoryRows { state: self.clone() };
        let outcomes = match apply(&mut rows, rules, ops, &mut gathered) {
            Ok(outcomes) => outcomes,
            Err(never) => match never {},
        };
        let mut state = rows.state;
        for (bucket, delta) in gathered.tree.leaves() {
            let leaf = state.leaves.get(&bucket).copied().unwrap_or_default();
            // Sums that cannot hold what is taken away are left: an exchange finds them unsound.
            state.leaves.insert(bucket, leaf.apply(delta).unwrap_or(leaf));
            state.root = state.root.apply(delta).unwrap_or(state.root);
        }
        for bucket in gathered.rebuild {
            state.rebuild(bucket);
            state.damaged.insert(bucket);
        }
        state.swept.merge(&gathered.untold);
        for (actor, seen) in gathered.counters.processed.touched {
            state.clock.set(actor, seen);
        }
        state.counter = gathered.counters.counter;
        state.hlc = gathered.counters.hlc;
        state.last_seq = gathered.last_seq;
        state.log.extend(gathered.log);
        while state.log.len() as u64 > changes_retained {
            state.log.pop_front();
        }
        (state, outcomes)
    }

    pub(crate) fn get(&self, table: &TableName, key: &Key) -> Option<&Arc<Object>> {
        // The map wants an owned pair; both parts are shared, so this copies two pointers.
        self.objects.get(&(table.clone(), key.clone()))
    }

    /// Objects from `from` (inclusive) on, in the order of table and key.
    pub(crate) fn range(
        &self,
        from: MemoryKey,
    ) -> impl Iterator<Item = (&MemoryKey, &Arc<Object>)> {
        self.objects.range(from..)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&TableName, &Key, &Object)> {
        self.objects.iter().map(|((table, key), object)| (table, key, &**object))
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(crate) fn changes(&self, after: u64, max: usize) -> Changes {
        let first = self.last_seq + 1 - self.log.len() as u64;
        let skip = usize::try_from(after.saturating_add(1).saturating_sub(first));
        let events = self.log.iter().skip(skip.unwrap_or(usize::MAX)).take(max).cloned().collect();
        Changes::new(events, first, self.last_seq, after)
    }

    pub(crate) fn root(&self) -> TreeNode {
        self.root
    }

    pub(crate) fn leaves(&self, branch: u8) -> Leaves {
        let first = u16::from(branch) * BUCKETS_PER_BRANCH;
        let mut leaves = Leaves::default();
        for (leaf, number) in leaves.iter_mut().zip(first..) {
            let bucket = Bucket::new(number);
            *leaf = bucket.and_then(|bucket| self.leaves.get(&bucket)).copied().unwrap_or_default();
        }
        leaves
    }

    /// The sums below a node of the tree.
    pub(crate) fn children(&self, node: TreePath) -> Vec<TreeNode> {
        let leaves = |branch| Ok::<_, Infallible>(self.leaves(branch));
        match children_of(node, leaves) {
            Ok(children) => children,
            Err(never) => match never {},
        }
    }

    /// The objects of a bucket, all of them.
    pub(crate) fn bucket(&self, bucket: Bucket) -> BucketContent {
        let mut content = self.content(bucket);
        content.sound &= !self.damaged.contains(&bucket);
        content
    }

    /// Whether the objects of a bucket add up.
    pub(crate) fn adds_up(&self, bucket: Bucket) -> bool {
        self.content(bucket).sound
    }

    fn content(&self, bucket: Bucket) -> BucketContent {
        let (first, last) = bucket_bounds(bucket);
        let mut content = BucketContent { entries: Vec::new(), sound: true };
        for (_, at) in self.buckets.range(first..=last) {
            let Some(object) = self.objects.get(at) else {
                content.sound = false;
                continue;
            };
            if let Some(digest) = EntryDigest::of(&at.0, &at.1, object) {
                content.entries.push(BucketEntry {
                    table: at.0.clone(),
                    key: at.1.clone(),
                    digest,
                });
            }
        }
        let leaf = self.leaves.get(&bucket).copied().unwrap_or_default();
        content.sound &= sum_of(&content.entries) == leaf;
        content
    }

    /// Recomputes the sum of a bucket from its objects.
    fn rebuild(&mut self, bucket: Bucket) {
        let sum = sum_of(&self.content(bucket).entries);
        let leaf = self.leaves.insert(bucket, sum).unwrap_or_default();
        self.root = TreeNode {
            count: self.root.count.wrapping_sub(leaf.count).wrapping_add(sum.count),
            digest: self.root.digest.wrapping_sub(leaf.digest).wrapping_add(sum.digest),
        };
    }

    /// Drops what the index by bucket knows of lost objects, rebuilds the sum and marks the bucket.
    pub(crate) fn repair_tree(&mut self, bucket: Bucket) {
        let (first, last) = bucket_bounds(bucket);
        let lost =
            self.buckets.range(first..=last).filter(|(_, at)| !self.objects.contains_key(*at));
        for hash in lost.map(|(hash, _)| *hash).collect::<Vec<_>>() {
            self.buckets.remove(&hash);
        }
        self.rebuild(bucket);
        self.damaged.insert(bucket);
    }

    /// Buckets that are marked.
    pub(crate) fn damaged(&self) -> Vec<Bucket> {
        self.damaged.iter().copied().collect()
    }

    /// The state after these buckets were compared with every member.
    pub(crate) fn compared(&self, buckets: &BTreeSet<Bucket>) -> Self {
        let mut state = self.clone();
        for bucket in buckets {
            state.damaged.remove(bucket);
        }
        state
    }

    /// The state after a sweep.
    pub(crate) fn sweep(&self, own: Actor, plan: &SweepPlan) -> (Self, SweepReport) {
        let mut rows = MemoryRows { state: self.clone() };
        let mut sweeping = Sweeping::new(self.clock(own), self.swept.clone());
        match sweep::sweep(&mut rows, plan, &mut sweeping) {
            Ok(()) => {}
            Err(never) => match never {},
        }
        let mut state = Self { swept: sweeping.swept, ..rows.state };
        for dot in sweeping.lost {
            state.clock.insert(dot);
        }
        (state, sweeping.report)
    }

    /// The state after a peer's clock was adopted.
    pub(crate) fn adopt(
        &self,
        own: Actor,
        clock: &Clock,
        swept: &VersionVector,
    ) -> Result<Self, WriteError> {
        let mut state = self.clone();
        sweep::adopt(&mut state.clock, &mut state.swept, own, self.counter, clock, swept)?;
        Ok(state)
    }

    /// The state in which `old`, whose dots were issued until now, issues no more.
    pub(crate) fn renew(&self, old: Actor) -> Self {
        let mut state = self.clone();
        state.clock = self.clock(old);
        state.counter = 0;
        state
    }

    /// Loses an object; nothing else notices.
    pub(crate) fn lose(&mut self, table: &TableName, key: &Key) {
        self.objects.remove(&(table.clone(), key.clone()));
    }

    pub(crate) fn swept(&self) -> &VersionVector {
        &self.swept
    }

    /// Number of events in the index.
    pub(crate) fn events_len(&self) -> usize {
        self.dots.len()
    }

    fn event_from(&self, from: Dot) -> Option<(Dot, Option<Event>)> {
        let (dot, (at_ms, at)) = self.dots.range(from..).next()?;
        let event = Event { at_ms: *at_ms, table: at.0.clone(), key: at.1.clone() };
        Some((*dot, Some(event)))
    }

    pub(crate) fn bucket_entries(
        &self,
        first: [u8; 16],
        last: [u8; 16],
        after: Option<[u8; 16]>,
        max: usize,
    ) -> BucketPage {
        let mut page = BucketPage { entries: Vec::new(), next: None };
        for (hash, at) in self.buckets.range(after.unwrap_or(first)..=last) {
            if after == Some(*hash) {
                continue;
            }
            if page.entries.len() == max {
                return page;
            }
            let object = self.objects.get(at);
            let digest = object.and_then(|object| EntryDigest::of(&at.0, &at.1, object));
            if let Some(digest) = digest {
                page.entries.push(BucketEntry { table: at.0.clone(), key: at.1.clone(), digest });
                page.next = Some(*hash);
            }
        }
        page.next = None;
        page
    }

    pub(crate) fn expire_due(
        &self,
        actor: Actor,
        now_ms: u64,
        max: usize,
    ) -> Vec<(TableName, Key, Context)> {
        let due = self.expiry.range(..=(now_ms, [0xff; 16]));
        let due = due.filter_map(|((at_ms, _), at)| {
            let object = self.objects.get(at)?;
            let due = is_due(*at_ms, object.refs(), actor, now_ms);
            due.then(|| (at.0.clone(), at.1.clone(), Context::of(&at.0, &at.1, object)))
        });
        due.take(max).collect()
    }

    pub(crate) fn clock(&self, own: Actor) -> Clock {
        let mut clock = self.clock.clone();
        if self.counter > 0 {
            clock.set(own, Seen::up_to(self.counter));
        }
        clock
    }
}

impl Events for MemoryState {
    fn next_event(&self, from: Dot) -> Result<Option<(Dot, Option<Event>)>, ReadError> {
        Ok(self.event_from(from))
    }

    fn find(&self, table: &TableName, key: &Key) -> Result<Found, ReadError> {
        let target = Target::new(table, key);
        Ok(match self.get(table, key) {
            Some(object) => Found::Object(Object::clone(object)),
            None if self.buckets.contains_key(&target.short_hash())
                || self.damaged.contains(&Bucket::of_hash(&target.hash)) =>
            {
                Found::Damaged
            }
            None => Found::Absent,
        })
    }
}
