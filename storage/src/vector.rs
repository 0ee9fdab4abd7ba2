//! Version vectors: how many writes of each actor somebody knows.
//!
//! Guarantees: entries are sorted by actor, unique and at least 1, so equal vectors are equal
//! values (a zero entry would make "descends" and "equal" disagree).
//! Refuses: gaps. A vector says "all up to n"; dots with holes belong to the partition clock.

use serde::{Deserialize, Serialize};

use crate::ids::{Actor, Dot};

/// For each known actor the counter up to which its writes are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<(Actor, u64)>", into = "Vec<(Actor, u64)>")]
pub struct VersionVector {
    entries: Vec<(Actor, u64)>,
}

impl VersionVector {
    /// The vector that knows nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Counter of `actor`; 0 when unknown.
    #[must_use]
    pub fn get(&self, actor: &Actor) -> u64 {
        match self.entries.binary_search_by(|(a, _)| a.cmp(actor)) {
            Ok(at) => self.entries[at].1,
            Err(_) => 0,
        }
    }

    /// True when the write named by `dot` is known.
    #[must_use]
    pub fn covers(&self, dot: &Dot) -> bool {
        self.get(&dot.actor) >= dot.counter
    }

    /// Raises the counter of `actor` to at least `counter`; 0 changes nothing.
    pub fn raise(&mut self, actor: Actor, counter: u64) {
        if counter == 0 {
            return;
        }
        match self.entries.binary_search_by(|(a, _)| a.cmp(&actor)) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(counter),
            Err(at) => self.entries.insert(at, (actor, counter)),
        }
    }

    /// Takes the pointwise maximum with `other`.
    pub fn merge(&mut self, other: &Self) {
        if self.entries.is_empty() {
            self.entries.clone_from(&other.entries);
            return;
        }
        self.entries.extend_from_slice(&other.entries);
        self.normalise();
    }

    /// True when everything `other` knows is known here.
    #[must_use]
    pub fn descends(&self, other: &Self) -> bool {
        other.entries.iter().all(|(actor, n)| self.get(actor) >= *n)
    }

    /// True when this knows all that `other` knows, and more.
    #[must_use]
    pub fn dominates(&self, other: &Self) -> bool {
        self != other && self.descends(other)
    }

    /// The entries in the order of the actors.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Actor, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// Number of actors known.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing is known.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends an entry that is known to sort last and to be at least 1.
    pub(crate) fn push_last(&mut self, actor: Actor, counter: u64) {
        debug_assert!(counter > 0 && self.entries.last().is_none_or(|(a, _)| *a < actor));
        self.entries.push((actor, counter));
    }

    pub(crate) fn with_capacity(len: usize) -> Self {
        Self { entries: Vec::with_capacity(len) }
    }

    fn normalise(&mut self) {
        self.entries.retain(|(_, n)| *n > 0);
        // Greatest counter first within an actor, so that `dedup` keeps it.
        self.entries.sort_unstable_by(|x, y| x.0.cmp(&y.0).then(y.1.cmp(&x.1)));
        self.entries.dedup_by(|later, kept| later.0 == kept.0);
    }
}

impl From<Vec<(Actor, u64)>> for VersionVector {
    fn from(entries: Vec<(Actor, u64)>) -> Self {
        entries.into_iter().collect()
    }
}

impl From<VersionVector> for Vec<(Actor, u64)> {
    fn from(vector: VersionVector) -> Self {
        vector.entries
    }
}

impl FromIterator<(Actor, u64)> for VersionVector {
    /// Any order; of several entries of one actor the greatest counts.
    fn from_iter<I: IntoIterator<Item = (Actor, u64)>>(entries: I) -> Self {
        let mut vector = Self { entries: entries.into_iter().collect() };
        vector.normalise();
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn actor(n: u8) -> Actor {
        Actor { node: NodeId([n; 16]), incarnation: 1 }
    }

    fn vector(entries: &[(u8, u64)]) -> VersionVector {
        entries.iter().map(|(n, counter)| (actor(*n), *counter)).collect()
    }

    #[test]
    fn collecting_sorts_drops_zeros_and_keeps_the_greatest() {
        let collected = vector(&[(3, 1), (1, 5), (2, 0), (1, 7), (1, 6)]);
        assert_eq!(collected.iter().collect::<Vec<_>>(), [(actor(1), 7), (actor(3), 1)]);
        assert_eq!(vector(&[(1, 0)]), VersionVector::new());
    }

    #[test]
    fn raising_never_lowers() {
        let mut raised = vector(&[(1, 5)]);
        for (n, counter) in [(2, 0), (3, 2), (1, 6), (1, 4), (0, 1)] {
            raised.raise(actor(n), counter);
        }
        assert_eq!(raised, vector(&[(0, 1), (1, 6), (3, 2)]));
        assert_eq!((raised.get(&actor(1)), raised.get(&actor(2)), raised.len()), (6, 0, 3));
        let covers = |counter| raised.covers(&Dot { actor: actor(1), counter });
        assert!(covers(6) && !covers(7));
    }

    #[test]
    fn descends_and_dominates() {
        for (x, y, descends, dominates) in [
            (&[][..], &[][..], true, false),
            (&[(1, 1)], &[], true, true),
            (&[], &[(1, 1)], false, false),
            (&[(1, 2), (2, 1)], &[(1, 2)], true, true),
            (&[(1, 2)], &[(1, 2)], true, false),
            (&[(1, 2), (2, 1)], &[(1, 3)], false, false),
        ] {
            let (x, y) = (vector(x), vector(y));
            assert_eq!((x.descends(&y), x.dominates(&y)), (descends, dominates), "{x:?} {y:?}");
            let mut merged = x.clone();
            merged.merge(&y);
            assert!(merged.descends(&x) && merged.descends(&y));
        }
    }
}
