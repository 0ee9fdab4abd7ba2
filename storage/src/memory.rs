//! The in-memory tables of a partition: the same objects, tree, change log and clock as on disk, in
//! persistent maps.
//!
//! The writer thread works on a copy that shares structure with the published state and publishes
//! it once per batch, so a reader holds a consistent snapshot for as long as it likes, without
//! locks. Nothing here outlives the process: the actor of these tables has an incarnation of its
//! own, new at each boot, so that a dot that died with a process is never used again.

use std::convert::Infallible;
use std::sync::Arc;

use imbl::OrdMap;

use crate::clock::{Clock, Seen};
use crate::context::Context;
use crate::digest::{BUCKETS_PER_BRANCH, Bucket, EntryDigest, TreeNode};
use crate::hlc::HlcClock;
use crate::ids::Actor;
use crate::key::{Key, TableName};
use crate::object::Object;
use crate::partition::Space;
use crate::partition::batch::{Gathered, Loaded, Outcomes, Rows, apply};
use crate::partition::changes::{Change, Changes};
use crate::partition::ops::{Counters, Rules, Target, WriteOp};
use crate::partition::tree::{BucketEntry, BucketPage, Leaves};

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

    fn index(&mut self, target: &Target<'_>) -> Result<(), Infallible> {
        let key = (target.table.clone(), target.key.clone());
        self.state.buckets.insert(target.short_hash(), key);
        Ok(())
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
        let counters = Counters { counter: self.counter, hlc: self.hlc.clone(), clamped: 0 };
        let mut gathered = Gathered::new(counters, self.last_seq);
        let mut rows = MemoryRows { state: self.clone() };
        let outcomes = match apply(&mut rows, rules, ops, &mut gathered) {
            Ok(outcomes) => outcomes,
            Err(never) => match never {},
        };
        let mut state = rows.state;
        for (bucket, delta) in gathered.tree.leaves() {
            let leaf = state.leaves.get(&bucket).copied().unwrap_or_default();
            // In memory nothing can be damaged: the sums always hold what is taken away.
            state.leaves.insert(bucket, leaf.apply(delta).unwrap_or(leaf));
            state.root = state.root.apply(delta).unwrap_or(state.root);
        }
        for dot in gathered.merged.iter().filter(|dot| dot.actor != rules.actor) {
            state.clock.insert(*dot);
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

    pub(crate) fn len(&self) -> u64 {
        self.objects.len() as u64
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
            if let Some(object) = self.objects.get(at) {
                let digest = EntryDigest::of(&at.0, &at.1, object);
                page.entries.push(BucketEntry { table: at.0.clone(), key: at.1.clone(), digest });
                page.next = Some(*hash);
            }
        }
        page.next = None;
        page
    }

    pub(crate) fn expire_due(&self, now_ms: u64, max: usize) -> Vec<(TableName, Key, Context)> {
        let due = self.expiry.range(..=(now_ms, [0xff; 16])).take(max);
        due.filter_map(|(_, at)| {
            let object = self.objects.get(at)?;
            Some((at.0.clone(), at.1.clone(), Context::of(&at.0, &at.1, object)))
        })
        .collect()
    }

    pub(crate) fn clock(&self, own: Actor) -> Clock {
        let mut clock = self.clock.clone();
        if self.counter > 0 {
            clock.set(own, Seen::up_to(self.counter));
        }
        clock
    }
}
