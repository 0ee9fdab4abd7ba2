//! The rows of one node, in the order of their changes.
//!
//! What it guarantees: a row has one version, that of its last change, on every node that holds it; what has changed since a
//! version is found without looking at the rest; a row that is gone is kept as a marker for a bounded time only.
//!
//! # Shape
//! Versions count changes of one node within one incarnation of it. `floor` is the version up to which markers may have been
//! forgotten: whoever has less than that cannot be told what is gone, and gets everything.

use std::collections::{BTreeMap, VecDeque};

use super::row::{Change, Row, Value};

/// Most rows that are gone and still remembered. // guess: beyond it peers that lack them get everything
pub(crate) const MARKERS_MAX: usize = 65_536;
/// Bytes of a row in a frame beside its URI, about.
const ROW_BYTES: usize = 40;

/// A row as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The version of its last change.
    pub version: u64,
    /// The row.
    pub row: Row,
    /// Its value.
    pub value: Value,
}

/// Rows that have changed since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Since which version; 0: these are the first of all rows, and others that the receiver holds are gone.
    pub base: u64,
    /// Up to which version.
    pub version: u64,
    /// The rows, by version.
    pub rows: Vec<Versioned>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    value: Value,
    version: u64,
    digest: u64,
}

/// The rows of one node.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    incarnation: u64,
    version: u64,
    floor: u64,
    rows: BTreeMap<Row, Entry>,
    order: BTreeMap<u64, Row>,
    /// When which rows have gone, oldest first. Some have changed again since.
    markers: VecDeque<(u64, u64)>,
    live_count: usize,
    digest: u64,
}

impl Ledger {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            version: 0,
            floor: 0,
            rows: BTreeMap::new(),
            order: BTreeMap::new(),
            markers: VecDeque::new(),
            live_count: 0,
            digest: 0,
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Rows that are not gone.
    pub(crate) fn live_count(&self) -> usize {
        self.live_count
    }

    /// Rows that are gone and remembered.
    pub(crate) fn markers_count(&self) -> usize {
        self.rows.len() - self.live_count
    }

    /// Changes a row under a new version, unless it is so already. Whether it was not.
    pub(crate) fn change(&mut self, row: &Row, value: Value, now_ms: u64) -> bool {
        let value = if value.is_gone() { Value::GONE } else { value };
        let before = self.rows.get(row).map_or(Value::GONE, |entry| entry.value);
        if before == value {
            return false;
        }
        self.put(row.clone(), value, self.version + 1, now_ms);
        true
    }

    /// Takes over rows of the node's own ledger, in the order of their versions; gives back what is different now. Those that
    /// are not newer than what is here are passed over.
    pub(crate) fn take(&mut self, part: Part, now_ms: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        for Versioned { version, row, value } in part.rows {
            if version <= self.version {
                continue;
            }
            let before = self.rows.get(&row).map_or(Value::GONE, |entry| entry.value);
            if before != value {
                changes.push((row.clone(), value));
            }
            self.put(row, value, version, now_ms);
        }
        self.version = self.version.max(part.version);
        changes
    }

    /// What has changed since `from`: a part that takes about `bytes_max`, and at least one row if there is one. From the
    /// beginning when what is gone since is not known any more. Whoever is in the middle of everything has `begun` when the
    /// ledger had that version: it was not sent what was gone by then.
    pub(crate) fn since(&self, from: u64, begun: u64, bytes_max: usize) -> Part {
        let is_known = from.max(begun) >= self.floor && from <= self.version;
        let base = if is_known { from } else { 0 };
        let mut part = Part { base, version: self.version, rows: Vec::new() };
        let mut bytes = 0;
        for (version, row) in self.order.range(base + 1..) {
            let Some(entry) = self.rows.get(row) else { continue };
            // Who begins from nothing has nothing that could be gone.
            if base == 0 && entry.value.is_gone() {
                continue;
            }
            bytes += row.uri.len() + ROW_BYTES;
            if bytes > bytes_max && !part.rows.is_empty() {
                part.version = part.rows.last().map_or(base, |last| last.version);
                break;
            }
            let row = row.clone();
            part.rows.push(Versioned { version: *version, row, value: entry.value });
        }
        part
    }

    /// Becomes what was gathered from the beginning; gives back what is different now.
    pub(crate) fn become_gathered(&mut self, mut gathered: Self) -> Vec<Change> {
        gathered.forget_markers();
        let mut changes = Vec::new();
        for (row, _) in self.live() {
            if !gathered.rows.contains_key(row) {
                changes.push((row.clone(), Value::GONE));
            }
        }
        for (row, entry) in &gathered.rows {
            if self.rows.get(row).is_none_or(|before| before.value != entry.value) {
                changes.push((row.clone(), entry.value));
            }
        }
        *self = gathered;
        changes
    }

    /// The same rows as changes of a new incarnation.
    pub(crate) fn renew(&mut self, incarnation: u64) {
        let mut renewed = Self::new(incarnation);
        for (row, entry) in std::mem::take(&mut self.rows) {
            if !entry.value.is_gone() {
                renewed.put(row, entry.value, renewed.version + 1, 0);
            }
        }
        *self = renewed;
    }

    /// Forgets rows that were gone by `before_ms`.
    pub(crate) fn forget(&mut self, before_ms: u64) {
        while self.markers.front().is_some_and(|(at_ms, _)| *at_ms <= before_ms) {
            self.forget_oldest();
        }
    }

    /// Whether counts and digests are those of the rows. Looks at all of them.
    pub(crate) fn is_sound(&self) -> bool {
        let digest =
            self.rows.iter().fold(0u64, |sum, (row, e)| sum.wrapping_add(row.digest(&e.value)));
        let live = self.rows.values().filter(|entry| !entry.value.is_gone()).count();
        let is_ordered =
            self.rows.iter().all(|(row, entry)| self.order.get(&entry.version) == Some(row));
        digest == self.digest
            && live == self.live_count
            && is_ordered
            && self.order.len() == self.rows.len()
            && self.order.last_key_value().is_none_or(|(last, _)| *last <= self.version)
    }

    /// All rows that are not gone.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&Row, &Value)> {
        let live = self.rows.iter().filter(|(_, entry)| !entry.value.is_gone());
        live.map(|(row, entry)| (row, &entry.value))
    }

    fn put(&mut self, row: Row, value: Value, version: u64, now_ms: u64) {
        let digest = row.digest(&value);
        self.digest = self.digest.wrapping_add(digest);
        self.live_count += usize::from(!value.is_gone());
        self.version = self.version.max(version);
        self.order.insert(version, row.clone());
        if let Some(before) = self.rows.insert(row, Entry { value, version, digest }) {
            self.digest = self.digest.wrapping_sub(before.digest);
            self.live_count -= usize::from(!before.value.is_gone());
            self.order.remove(&before.version);
        }
        if value.is_gone() {
            self.markers.push_back((now_ms, version));
            if self.markers.len() > MARKERS_MAX {
                self.forget_oldest();
            }
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, version)) = self.markers.pop_front() else { return };
        // It may have come back, or changed again, under a newer version.
        let Some(row) = self.order.get(&version) else { return };
        if self.rows.get(row).is_some_and(|entry| entry.value.is_gone()) {
            self.rows.remove(row);
            self.order.remove(&version);
            self.floor = self.floor.max(version);
        }
    }

    fn forget_markers(&mut self) {
        while !self.markers.is_empty() {
            self.forget_oldest();
        }
        // What went before it was gathered was never told here.
        self.floor = self.version;
    }
}
