//! Session guarantees of keys with siblings.
//!
//! # Source
//! Terry et al. 1994, by values instead of version vectors. Each write says which values it was told to replace, so the
//! values of a key form a graph. A read *covers* a write when it returns its value, or one that replaced it, directly or not.
//!
//! - read your writes: a read covers what its session wrote before;
//! - monotonic reads: a read covers what its session read before;
//! - monotonic writes: who covers a write covers what the same session wrote to the key before it;
//! - writes follow reads: who covers a write covers what its session had read of the key before it.
//!
//! A write without a context replaces what the node held, which by the guarantees includes what its session had seen: it is
//! taken at that. A read that returns nothing covers what some deletion of the key replaced.
//!
//! # Limits
//! A write without a context may replace values that its session never saw. Where others write the same key, their values
//! look lost then: give contexts.
//!
//! Tables that keep siblings only: last-writer-wins drops concurrent values, which looks like a loss here.

use super::history::{Entry, Op, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// A session does not see its own write.
    ReadYourWrites,
    /// A session sees an older state than before.
    MonotonicReads,
    /// Writes of one session are seen in another order.
    MonotonicWrites,
    /// A write is seen without what its session had read before it.
    WritesFollowReads,
    /// A value was read that nobody wrote, or whose write was refused.
    Phantom,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub guarantee: Guarantee,
    /// The key.
    pub key: String,
    /// The session of the read.
    pub session: u64,
    /// When the read began, microseconds.
    pub ts: u64,
    /// The value that should have been seen.
    pub missing: String,
    /// What was read.
    pub read: Vec<String>,
}

/// A write of a key and what it stands upon.
#[derive(Debug, Default, Clone)]
struct Write {
    /// Values replaced, directly.
    replaces: BTreeSet<String>,
    /// Values that its session had written, and read, of the key before.
    own_before: BTreeSet<String>,
    read_before: BTreeSet<String>,
}

/// Name of the `n`th deletion of a key: no value looks like it.
fn tombstone(n: usize) -> String {
    format!("\u{0}deletion {n}")
}

#[derive(Debug, Default)]
struct Key {
    writes: BTreeMap<String, Write>,
    tombstones: Vec<(String, u64)>,
}

/// What a session has seen of a key.
#[derive(Debug, Default, Clone)]
struct Seen {
    wrote: BTreeSet<String>,
    read: BTreeSet<String>,
}

impl Key {
    /// The values, and all that they replaced.
    fn covered<'a>(&'a self, values: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut covered = BTreeSet::new();
        let mut todo: Vec<&str> = values.collect();
        while let Some(value) = todo.pop() {
            if covered.insert(value)
                && let Some(write) = self.writes.get(value)
            {
                todo.extend(write.replaces.iter().map(String::as_str));
            }
        }
        covered
    }

    /// What a read of `values` that ended at `end` covers.
    fn read<'a>(&'a self, values: &'a [String], end: u64) -> BTreeSet<&'a str> {
        let deleted = self
            .tombstones
            .iter()
            .filter(|(_, since)| *since <= end)
            .map(|(name, _)| name.as_str());
        // A deletion leaves no trace in what is read: it may have happened.
        self.covered(values.iter().map(String::as_str).chain(deleted))
    }
}

/// Judges a history. Operations of one session must be in order, and one at a time.
#[must_use]
pub fn check(history: &[Entry]) -> Vec<Violation> {
    let keys = graph(history);
    let mut seen: BTreeMap<(u64, &str), Seen> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in in_order(history) {
        let Some(key) = keys.get(entry.key.as_str()) else { continue };
        let state = seen.entry((entry.session, entry.key.as_str())).or_default();
        if entry.op == Op::Put && entry.outcome == Outcome::Ok {
            state.wrote.extend(entry.value.iter().cloned());
        }
        if !entry.is_read() {
            continue;
        }
        let mut found = |guarantee, missing: &str| {
            violations.push(Violation {
                guarantee,
                key: entry.key.clone(),
                session: entry.session,
                ts: entry.ts,
                missing: missing.to_owned(),
                read: entry.value.clone(),
            });
        };
        for value in entry.value.iter().filter(|v| !key.writes.contains_key(*v)) {
            found(Guarantee::Phantom, value);
        }
        let covered = key.read(&entry.value, entry.end());
        let missing = |wanted: &BTreeSet<String>| {
            wanted.iter().filter(|v| !covered.contains(v.as_str())).cloned().collect::<Vec<_>>()
        };
        missing(&state.wrote).iter().for_each(|v| found(Guarantee::ReadYourWrites, v));
        missing(&state.read).iter().for_each(|v| found(Guarantee::MonotonicReads, v));
        // What stands upon what: for the values read and for all that they replaced.
        let visible = key.covered(entry.value.iter().map(String::as_str));
        let (mut own, mut read) = (BTreeSet::new(), BTreeSet::new());
        for write in visible.iter().filter_map(|value| key.writes.get(*value)) {
            own.extend(write.own_before.iter().cloned());
            read.extend(write.read_before.iter().cloned());
        }
        missing(&own).iter().for_each(|v| found(Guarantee::MonotonicWrites, v));
        missing(&read).iter().for_each(|v| found(Guarantee::WritesFollowReads, v));
        state.read.extend(entry.value.iter().cloned());
    }
    violations
}

/// Acknowledged values that the last read of their key neither returned nor covers. The last read of each key should be one
/// of a replica that has everything.
#[must_use]
pub fn lost(history: &[Entry]) -> Vec<(String, String)> {
    let keys = graph(history);
    let mut last: BTreeMap<&str, &Entry> = BTreeMap::new();
    last.extend(in_order(history).iter().filter(|e| e.is_read()).map(|e| (e.key.as_str(), *e)));
    let mut lost = Vec::new();
    for entry in history.iter().filter(|e| e.op == Op::Put && e.outcome == Outcome::Ok) {
        let (Some(key), Some(read)) = (keys.get(&*entry.key), last.get(&*entry.key)) else {
            continue;
        };
        let covered = key.read(&read.value, read.end());
        let missing = entry.value.iter().filter(|v| !covered.contains(v.as_str()));
        lost.extend(missing.map(|v| (entry.key.clone(), v.clone())));
    }
    lost
}

fn in_order(history: &[Entry]) -> Vec<&Entry> {
    let mut order: Vec<_> = history.iter().collect();
    order.sort_by_key(|entry| entry.ts);
    order
}

fn graph(history: &[Entry]) -> BTreeMap<&str, Key> {
    let mut keys: BTreeMap<&str, Key> = BTreeMap::new();
    let mut seen: BTreeMap<(u64, &str), Seen> = BTreeMap::new();
    for entry in in_order(history) {
        let key = keys.entry(entry.key.as_str()).or_default();
        let state = seen.entry((entry.session, entry.key.as_str())).or_default();
        if entry.is_read() {
            state.read.extend(entry.value.iter().cloned());
        }
        if !entry.is_write() {
            continue;
        }
        let all_seen = || state.wrote.union(&state.read).cloned().collect();
        let replaces = entry.ctx.as_ref().map_or_else(all_seen, |c| c.iter().cloned().collect());
        let write =
            Write { replaces, own_before: state.wrote.clone(), read_before: state.read.clone() };
        let names = if entry.op == Op::Delete {
            let name = tombstone(key.tombstones.len());
            key.tombstones.push((name.clone(), entry.ts));
            vec![name]
        } else {
            entry.value.clone()
        };
        for name in names {
            key.writes.insert(name.clone(), write.clone());
            // What has no answer is not relied upon: it may never have happened.
            if entry.outcome == Outcome::Ok && entry.op == Op::Put {
                state.wrote.insert(name);
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::history::build::{delete, get, numbered, put, with};
    use super::*;

    fn found(entries: Vec<Entry>) -> Vec<(Guarantee, String)> {
        check(&numbered(entries)).into_iter().map(|v| (v.guarantee, v.missing)).collect()
    }

    #[test]
    fn honest_history_has_no_violation() {
        let history = vec![
            put(1, "k", "a", &[]),
            get(1, "k", &["a"]),
            put(2, "k", "b", &[]),
            get(2, "k", &["a", "b"]),
            put(2, "k", "c", &["a", "b"]),
            get(1, "k", &["c"]),
            delete(1, "k", &["c"]),
            get(1, "k", &[]),
            get(2, "k", &[]),
        ];
        assert_eq!(found(history), []);
    }

    #[test]
    fn own_write_not_seen() {
        let history = vec![put(1, "k", "a", &[]), get(1, "k", &[])];
        assert_eq!(found(history), [(Guarantee::ReadYourWrites, "a".to_owned())]);
        let other = vec![put(2, "k", "b", &[]), put(1, "k", "a", &[]), get(1, "k", &["b"])];
        assert_eq!(found(other), [(Guarantee::ReadYourWrites, "a".to_owned())]);
        // Without an answer it may be missing.
        let unknown = with(put(1, "k", "a", &[]), Outcome::Info);
        assert_eq!(found(vec![unknown, get(1, "k", &[])]), []);
    }

    #[test]
    fn older_state_read_later() {
        let history = vec![
            put(1, "k", "a", &[]),
            put(1, "k", "b", &["a"]),
            get(2, "k", &["b"]),
            get(2, "k", &["a"]),
        ];
        assert_eq!(found(history), [(Guarantee::MonotonicReads, "b".to_owned())]);
    }

    #[test]
    fn later_write_without_the_earlier_one() {
        // The second write was made with an old context: both must be there.
        let history = vec![put(1, "k", "a", &[]), put(1, "k", "b", &[]), get(2, "k", &["b"])];
        assert_eq!(found(history), [(Guarantee::MonotonicWrites, "a".to_owned())]);
        let both = vec![put(1, "k", "a", &[]), put(1, "k", "b", &[]), get(2, "k", &["a", "b"])];
        assert_eq!(found(both), []);
    }

    #[test]
    fn write_without_what_was_read_before_it() {
        let history = vec![
            put(1, "k", "a", &[]),
            get(2, "k", &["a"]),
            put(2, "k", "b", &[]),
            get(3, "k", &["b"]),
        ];
        assert_eq!(found(history), [(Guarantee::WritesFollowReads, "a".to_owned())]);
    }

    #[test]
    fn acknowledged_value_that_no_last_read_covers_is_lost() {
        let history = |read: &[&str]| {
            numbered(vec![
                put(1, "k", "a", &[]),
                put(2, "k", "b", &[]),
                put(2, "k", "c", &["b"]),
                get(3, "k", read),
            ])
        };
        assert_eq!(lost(&history(&["a", "c"])), []);
        assert_eq!(lost(&history(&["c"])), [("k".to_owned(), "a".to_owned())]);
        assert_eq!(lost(&history(&["a", "b"])), [("k".to_owned(), "c".to_owned())]);
    }

    #[test]
    fn deleted_value_that_comes_back_and_value_from_nowhere() {
        let back = vec![
            put(1, "k", "a", &[]),
            put(1, "k", "b", &["a"]),
            get(1, "k", &["b"]),
            get(1, "k", &["a"]),
        ];
        let broken = found(back);
        assert!(broken.contains(&(Guarantee::MonotonicReads, "b".to_owned())), "{broken:?}");
        let refused = with(put(1, "k", "a", &[]), Outcome::Fail);
        let phantom = vec![refused, put(1, "k", "c", &[]), get(2, "k", &["a", "c"])];
        assert_eq!(found(phantom), [(Guarantee::Phantom, "a".to_owned())]);
    }
}
