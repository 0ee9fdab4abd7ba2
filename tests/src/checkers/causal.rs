//! Causal consistency of registers, by its bad patterns.
//!
//! # Source
//! Bouajjani, Enea, Guerraoui, Hamza: On Verifying Causal Consistency (POPL 2017). With unique values, a history is causally
//! consistent exactly when the causal order CO (program order and writes-into, closed) shows none of: a cycle, a read of what
//! nobody wrote, an initial read after a write (`WriteCOInitRead`), a read of what was overwritten in its past
//! (`WriteCORead`). Convergence (one order of all writes) adds: no cycle of CO and the conflict order CF.
//!
//! DEVIATES: a read may return several values (siblings). It then reads from each, and what it does not return must not lie
//! between one that it returns and itself. The conflict order is for tables with one value.
//!
//! # Limits
//! Time O(operations × edges / 64), memory operations² / 8 bytes: 20,000 operations take 50 MB. No deletions.

use super::history::{Entry, Outcome};
use std::collections::BTreeMap;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// An operation is in its own past. The index of one on the cycle.
    Cycle(usize),
    /// A read of a value that nobody wrote.
    ThinAir(usize),
    /// A read of nothing, although a write of the key is in its past: (write, read).
    InitRead(usize, usize),
    /// A read of a value that was overwritten in its past: (overwriting write, read).
    Overwritten(usize, usize),
    /// No single order of the writes explains what was read. The index of one on the cycle.
    CyclicConflict(usize),
}

/// What is expected of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Causal consistency; siblings allowed.
    Causal,
    /// And one order of all writes of a key on which all sides agree.
    Convergent,
}

/// Rows of bits.
#[derive(Debug)]
struct Past {
    words: usize,
    bits: Vec<u64>,
}

impl Past {
    fn new(operations: usize) -> Self {
        let words = operations.div_ceil(64);
        Self { words, bits: vec![0; words * operations] }
    }

    fn has(&self, of: usize, operation: usize) -> bool {
        self.bits[of * self.words + operation / 64] >> (operation % 64) & 1 == 1
    }

    fn add(&mut self, of: usize, operation: usize) {
        self.bits[of * self.words + operation / 64] |= 1 << (operation % 64);
        for word in 0..self.words {
            self.bits[of * self.words + word] |= self.bits[operation * self.words + word];
        }
    }
}

/// Judges a history. Indices in the result are those of `history`.
#[must_use]
pub fn check(history: &[Entry], model: Model) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    let mut writer: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (index, entry) in history.iter().enumerate().filter(|(_, e)| e.is_write()) {
        writer.extend(entry.value.iter().map(|v| ((entry.key.as_str(), v.as_str()), index)));
    }
    let edges = edges(history, &writer, &mut patterns);
    let order = match sorted(&edges) {
        Ok(order) => order,
        Err(on_cycle) => {
            patterns.push(Pattern::Cycle(on_cycle));
            return patterns;
        }
    };
    let mut past = Past::new(history.len());
    for &operation in &order {
        for &before in &edges[operation] {
            past.add(operation, before);
        }
    }
    bad_reads(history, &writer, &past, &mut patterns);
    if model == Model::Convergent
        && let Err(on_cycle) = sorted(&with_conflicts(history, &writer, &past))
    {
        patterns.push(Pattern::CyclicConflict(on_cycle));
    }
    patterns
}

/// For each operation, those directly before it: program order and writes-into.
fn edges(
    history: &[Entry],
    writer: &BTreeMap<(&str, &str), usize>,
    patterns: &mut Vec<Pattern>,
) -> Vec<Vec<usize>> {
    let mut edges = vec![Vec::new(); history.len()];
    let mut by_time: Vec<usize> = (0..history.len()).collect();
    by_time.sort_by_key(|&index| history[index].ts);
    let mut last: BTreeMap<u64, usize> = BTreeMap::new();
    for index in by_time {
        let entry = &history[index];
        if !entry.is_read() && !entry.is_write() {
            continue;
        }
        if let Some(&before) = last.get(&entry.session) {
            edges[index].push(before);
        }
        // A write without an answer may happen late: what follows it in its session does not stand upon it.
        if entry.outcome == Outcome::Ok {
            last.insert(entry.session, index);
        }
        if entry.is_read() {
            for value in &entry.value {
                match writer.get(&(entry.key.as_str(), value.as_str())) {
                    Some(&write) => edges[index].push(write),
                    None => patterns.push(Pattern::ThinAir(index)),
                }
            }
        }
    }
    edges
}

/// An order in which each operation comes after those before it; or one that is on a cycle.
fn sorted(edges: &[Vec<usize>]) -> Result<Vec<usize>, usize> {
    let mut after = vec![Vec::new(); edges.len()];
    let mut waits: Vec<usize> = edges.iter().map(Vec::len).collect();
    for (operation, before) in edges.iter().enumerate() {
        for &before in before {
            after[before].push(operation);
        }
    }
    let mut ready: Vec<usize> = (0..edges.len()).filter(|&o| waits[o] == 0).collect();
    let mut order = Vec::with_capacity(edges.len());
    while let Some(operation) = ready.pop() {
        order.push(operation);
        for &next in &after[operation] {
            waits[next] -= 1;
            if waits[next] == 0 {
                ready.push(next);
            }
        }
    }
    match waits.iter().position(|&left| left > 0) {
        None => Ok(order),
        Some(stuck) => Err(stuck),
    }
}

fn writes_of<'a>(history: &'a [Entry], key: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_one = move |e: &Entry| e.is_write() && e.key == key;
    history.iter().enumerate().filter(move |(_, e)| is_one(e)).map(|(index, _)| index)
}

fn bad_reads(
    history: &[Entry],
    writer: &BTreeMap<(&str, &str), usize>,
    past: &Past,
    patterns: &mut Vec<Pattern>,
) {
    let mut writes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for entry in history {
        writes.entry(&entry.key).or_insert_with(|| writes_of(history, &entry.key).collect());
    }
    for (index, read) in history.iter().enumerate().filter(|(_, e)| e.is_read()) {
        let sources: Vec<usize> = read
            .value
            .iter()
            .filter_map(|v| writer.get(&(read.key.as_str(), v.as_str())).copied())
            .collect();
        let in_past = writes[read.key.as_str()].iter().copied().filter(|&w| past.has(index, w));
        for write in in_past {
            let returned_later =
                sources.iter().any(|&source| source == write || past.has(source, write));
            if returned_later {
                continue;
            }
            if read.value.is_empty() {
                patterns.push(Pattern::InitRead(write, index));
            } else if sources.iter().any(|&source| past.has(write, source)) {
                patterns.push(Pattern::Overwritten(write, index));
            }
        }
    }
}

/// The edges of CO, reduced to what matters, and those of the conflict order: who reads one write with another in its past
/// has seen the other first.
fn with_conflicts(
    history: &[Entry],
    writer: &BTreeMap<(&str, &str), usize>,
    past: &Past,
) -> Vec<Vec<usize>> {
    let mut unused = Vec::new();
    let mut edges = edges(history, writer, &mut unused);
    for (index, read) in history.iter().enumerate().filter(|(_, e)| e.is_read()) {
        let [value] = read.value.as_slice() else { continue };
        let Some(&source) = writer.get(&(read.key.as_str(), value.as_str())) else { continue };
        let seen = writes_of(history, &read.key).filter(|&w| w != source && past.has(index, w));
        edges[source].extend(seen);
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::super::history::build::{get, numbered, put};
    use super::*;

    fn found(entries: Vec<Entry>, model: Model) -> Vec<Pattern> {
        check(&numbered(entries), model)
    }

    #[test]
    fn causal_history_is_good_in_both_models() {
        let history = vec![
            put(1, "x", "1", &[]),
            get(2, "x", &["1"]),
            put(2, "y", "1", &[]),
            get(3, "y", &["1"]),
            get(3, "x", &["1"]),
            get(4, "x", &[]),
        ];
        assert_eq!(found(history.clone(), Model::Causal), []);
        assert_eq!(found(history, Model::Convergent), []);
    }

    #[test]
    fn effect_without_its_cause() {
        let history = vec![
            put(1, "x", "1", &[]),
            get(2, "x", &["1"]),
            put(2, "y", "1", &[]),
            get(3, "y", &["1"]),
            get(3, "x", &[]),
        ];
        assert_eq!(found(history, Model::Causal), [Pattern::InitRead(0, 4)]);
    }

    #[test]
    fn overwritten_value_read_later() {
        let history = vec![
            put(1, "x", "1", &[]),
            put(1, "x", "2", &[]),
            get(2, "x", &["2"]),
            get(2, "x", &["1"]),
        ];
        assert_eq!(found(history, Model::Causal), [Pattern::Overwritten(1, 3)]);
    }

    #[test]
    fn siblings_are_fine_and_a_lost_one_between_is_not() {
        let both = vec![put(1, "x", "1", &[]), put(2, "x", "2", &[]), get(3, "x", &["1", "2"])];
        assert_eq!(found(both, Model::Causal), []);
        let mixed = vec![
            put(1, "x", "1", &[]),
            put(1, "x", "2", &[]),
            put(2, "x", "3", &[]),
            get(3, "x", &["2", "3"]),
            get(3, "x", &["1", "3"]),
        ];
        assert_eq!(found(mixed, Model::Causal), [Pattern::Overwritten(1, 4)]);
    }

    #[test]
    fn value_from_nowhere_and_a_future_read() {
        assert_eq!(found(vec![get(1, "x", &["9"])], Model::Causal), [Pattern::ThinAir(0)]);
        let circle = vec![
            get(1, "x", &["1"]),
            put(1, "y", "1", &[]),
            get(2, "y", &["1"]),
            put(2, "x", "1", &[]),
        ];
        assert!(matches!(found(circle, Model::Causal)[..], [Pattern::Cycle(_)]));
    }

    #[test]
    fn sides_that_never_agree_are_causal_but_do_not_converge() {
        let history = vec![
            put(1, "x", "1", &[]),
            put(2, "x", "2", &[]),
            get(1, "x", &["2"]),
            get(2, "x", &["1"]),
        ];
        assert_eq!(found(history.clone(), Model::Causal), []);
        assert!(matches!(found(history, Model::Convergent)[..], [Pattern::CyclicConflict(_)]));
    }
}
