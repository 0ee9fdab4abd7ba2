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
use std::collections::BTreeMap;

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

/// A set of the writes of a key, by number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Writes(Vec<u64>);

impl Writes {
    fn add(&mut self, write: usize) {
        if self.0.len() <= write / 64 {
            self.0.resize(write / 64 + 1, 0);
        }
        self.0[write / 64] |= 1 << (write % 64);
    }

    fn add_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        self.0.iter().enumerate().flat_map(move |(at, &word)| bits(word).map(move |b| at * 64 + b))
    }

    /// Those that are not in another set.
    fn without(&self, other: &Self) -> impl Iterator<Item = usize> {
        let rest = |(at, word): (usize, &u64)| word & !other.0.get(at).copied().unwrap_or_default();
        Self(self.0.iter().enumerate().map(rest).collect()).iter().collect::<Vec<_>>().into_iter()
    }
}

/// What a write stands upon, over all that it replaced, directly or not.
#[derive(Debug, Default, Clone)]
struct Write {
    /// Itself, and what it replaced.
    covers: Writes,
    /// What the sessions of these had written, and read, of the key before.
    own: Writes,
    read: Writes,
}

impl Write {
    fn add_all(&mut self, other: &Self) {
        self.covers.add_all(&other.covers);
        self.own.add_all(&other.own);
        self.read.add_all(&other.read);
    }
}

/// The writes of a key, in the order of their beginnings.
#[derive(Debug, Default)]
struct Key {
    numbers: BTreeMap<String, usize>,
    names: Vec<String>,
    writes: Vec<Write>,
    /// Deletions, and when they began.
    deletions: Vec<(usize, u64)>,
}

/// What a session has seen of a key.
#[derive(Debug, Default, Clone)]
struct Seen {
    wrote: Writes,
    read: Writes,
}

impl Key {
    fn number(&mut self, name: String) -> usize {
        let next = self.names.len();
        let number = *self.numbers.entry(name.clone()).or_insert(next);
        if number == next {
            self.names.push(name);
            self.writes.push(Write::default());
        }
        number
    }

    fn known<'a>(&'a self, values: &'a [String]) -> impl Iterator<Item = usize> + 'a {
        values.iter().filter_map(|value| self.numbers.get(value).copied())
    }

    /// What a read of `values` shows, and what it covers: a deletion leaves no trace, so it may have happened.
    fn read(&self, values: &[String], end: u64) -> (Write, Writes) {
        let mut shown = Write::default();
        self.known(values).for_each(|number| shown.add_all(&self.writes[number]));
        let mut covered = shown.covers.clone();
        for (number, _) in self.deletions.iter().filter(|(_, since)| *since <= end) {
            covered.add_all(&self.writes[*number].covers);
        }
        (shown, covered)
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
            key.known(&entry.value).for_each(|number| state.wrote.add(number));
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
        let unknown = entry.value.iter().filter(|value| !key.numbers.contains_key(*value));
        unknown.for_each(|value| found(Guarantee::Phantom, value));
        let (shown, covered) = key.read(&entry.value, entry.end());
        for (guarantee, wanted) in [
            (Guarantee::ReadYourWrites, &state.wrote),
            (Guarantee::MonotonicReads, &state.read),
            (Guarantee::MonotonicWrites, &shown.own),
            (Guarantee::WritesFollowReads, &shown.read),
        ] {
            wanted.without(&covered).for_each(|number| found(guarantee, &key.names[number]));
        }
        key.known(&entry.value).for_each(|number| state.read.add(number));
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
    let mut acked: BTreeMap<&str, Writes> = BTreeMap::new();
    for entry in history.iter().filter(|e| e.op == Op::Put && e.outcome == Outcome::Ok) {
        let Some(key) = keys.get(entry.key.as_str()) else { continue };
        let writes = acked.entry(&entry.key).or_default();
        key.known(&entry.value).for_each(|number| writes.add(number));
    }
    let mut lost = Vec::new();
    for (name, read) in last {
        let (Some(key), Some(acked)) = (keys.get(name), acked.get(name)) else { continue };
        let (_, covered) = key.read(&read.value, read.end());
        let missing = acked.without(&covered);
        lost.extend(missing.map(|number| (name.to_owned(), key.names[number].clone())));
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
    let order = in_order(history);
    // A read may begin before the write whose value it returns.
    for entry in order.iter().filter(|e| e.is_write() && e.op == Op::Put) {
        let key = keys.entry(entry.key.as_str()).or_default();
        for value in &entry.value {
            key.number(value.clone());
        }
    }
    let mut seen: BTreeMap<(u64, &str), Seen> = BTreeMap::new();
    for entry in order {
        let key = keys.entry(entry.key.as_str()).or_default();
        let state = seen.entry((entry.session, entry.key.as_str())).or_default();
        if entry.is_read() {
            key.known(&entry.value).for_each(|number| state.read.add(number));
        }
        if entry.is_write() {
            add_write(key, state, entry);
        }
    }
    keys
}

fn add_write(key: &mut Key, state: &mut Seen, entry: &Entry) {
    let mut write =
        Write { covers: Writes::default(), own: state.wrote.clone(), read: state.read.clone() };
    let replaced: Vec<usize> = match &entry.ctx {
        Some(values) => key.known(values).collect(),
        None => state.wrote.iter().chain(state.read.iter()).collect(),
    };
    replaced.into_iter().for_each(|number| write.add_all(&key.writes[number]));
    let names = if entry.op == Op::Delete {
        // No value looks like it.
        let name = format!("\u{0}deletion {}", key.deletions.len());
        let number = key.number(name.clone());
        key.deletions.push((number, entry.ts));
        vec![name]
    } else {
        entry.value.clone()
    };
    for name in names {
        let number = key.number(name);
        let mut write = write.clone();
        write.covers.add(number);
        key.writes[number] = write;
        // What has no answer is not relied upon: it may never have happened.
        if entry.outcome == Outcome::Ok && entry.op == Op::Put {
            state.wrote.add(number);
        }
    }
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
