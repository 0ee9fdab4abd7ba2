//! Dotted version vector set: the values of one key that no known write has replaced, and the
//! writes known about.
//!
//! Guarantees: merging is commutative, associative and idempotent; a value disappears only when a
//! write whose context covered it is merged (no lost sibling), and always then (no false
//! conflict). A set has one form: equal knowledge is an equal value.
//! Refuses: values without a dot ("anonymous" values break associativity: resolving siblings
//! issues a new dot), and dots of one actor that do not grow.
//!
//! Per actor an [`Entry`] is a half-open range `(floor, n]`: of the dots of that actor *on this
//! key*, those up to `floor` are known and replaced, those in the range are known and live. Dots
//! are numbered per partition, so within a key they grow but are not contiguous; therefore each
//! value carries its counter. Everything at or below the oldest live dot minus one is replaced
//! (contexts are downward closed), hence `floor` follows from the values and is not stored: two
//! replicas cannot disagree about it.
//!
//! Source: Almeida, Baquero et al., "Scalable and Accurate Causality Tracking for Eventually
//! Consistent Stores" (DAIS 2014), with counters carried per value.

use std::cmp::Ordering;

use crate::ids::{Actor, Dot};
use crate::vector::VersionVector;

/// What is known of one actor on one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry<V> {
    n: u64,
    /// Newest first; counters fall strictly, and none exceeds `n`.
    values: Vec<(u64, V)>,
}

impl<V> Entry<V> {
    /// Builds an entry; `None` unless `n` is at least 1 and the counters of the values, newest
    /// first, fall strictly within `1..=n`.
    #[must_use]
    pub fn from_parts(n: u64, values: Vec<(u64, V)>) -> Option<Self> {
        let falling = values.windows(2).all(|pair| pair[0].0 > pair[1].0);
        let bounded = values.first().is_none_or(|(counter, _)| *counter <= n)
            && values.last().is_none_or(|(counter, _)| *counter > 0);
        (n > 0 && falling && bounded).then_some(Self { n, values })
    }

    /// Highest counter of the actor known on this key.
    #[must_use]
    pub const fn n(&self) -> u64 {
        self.n
    }

    /// Counter up to which the dots of the actor on this key are replaced.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.values.last().map_or(self.n, |(counter, _)| counter - 1)
    }

    /// The live values with their counters, newest first.
    #[must_use]
    pub fn values(&self) -> &[(u64, V)] {
        &self.values
    }

    /// Joins `(floor, n)` pointwise; true when that changed this entry. The values are those above
    /// the joint floor of the side with the larger `n`: it knows every dot that the other knows.
    fn join(&mut self, other: Self) -> bool {
        let floor = self.floor().max(other.floor());
        let grown = other.n > self.n;
        if grown {
            *self = other;
        }
        let before = self.values.len();
        self.values.retain(|(counter, _)| *counter > floor);
        grown || self.values.len() != before
    }

    fn same_clock(&self, other: &Self) -> bool {
        self.n == other.n
            && self.values.len() == other.values.len()
            && self.values.iter().zip(&other.values).all(|(x, y)| x.0 == y.0)
    }
}

/// The set of live values of one key; see the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dvvset<V> {
    /// Sorted by actor, unique.
    entries: Vec<(Actor, Entry<V>)>,
}

impl<V> Default for Dvvset<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Dvvset<V> {
    /// The state of a key that was never written.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Builds a set from entries in strictly ascending order of actors; `None` otherwise.
    #[must_use]
    pub fn from_entries(entries: Vec<(Actor, Entry<V>)>) -> Option<Self> {
        let ascending = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        ascending.then_some(Self { entries })
    }

    /// True when nothing is known, not even replaced writes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known per actor, in the order of the actors.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&Actor, &Entry<V>)> + Clone {
        self.entries.iter().map(|(actor, entry)| (actor, entry))
    }

    /// What is known of `actor`.
    #[must_use]
    pub fn entry(&self, actor: &Actor) -> Option<&Entry<V>> {
        let at = self.entries.binary_search_by(|(a, _)| a.cmp(actor)).ok()?;
        Some(&self.entries[at].1)
    }

    /// The writes known: what a client must hand back to replace the values it read.
    #[must_use]
    pub fn join(&self) -> VersionVector {
        self.entries.iter().map(|(actor, entry)| (*actor, entry.n)).collect()
    }

    /// The live values with their dots: by actor, newest first within an actor.
    pub fn live(&self) -> impl Iterator<Item = (Dot, &V)> + Clone {
        self.entries.iter().flat_map(|(actor, entry)| {
            entry.values.iter().map(|(counter, v)| (Dot { actor: *actor, counter: *counter }, v))
        })
    }

    /// The live values, in the order of [`Self::live`].
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.live().map(|(_, v)| v)
    }

    /// The dots of the live values, in the order of [`Self::live`].
    pub fn live_dots(&self) -> impl Iterator<Item = Dot> + Clone {
        self.live().map(|(dot, _)| dot)
    }

    /// Number of live values.
    #[must_use]
    pub fn live_len(&self) -> usize {
        self.entries.iter().map(|(_, entry)| entry.values.len()).sum()
    }

    /// Takes over the knowledge of `context`: drops the values it covers. True when this changed
    /// anything.
    pub fn discard(&mut self, context: &VersionVector) -> bool {
        let known = context.iter().map(|(actor, n)| (actor, Entry { n, values: Vec::new() }));
        self.merge_in(Self { entries: known.collect() })
    }

    /// Writes `value` under a new dot, replacing exactly what `context` covers.
    ///
    /// # Panics
    /// The counter of `dot` does not exceed what this set or `context` knows of its actor: the dot
    /// was used before, or the context is forged (callers check contexts that come from outside).
    pub fn write(&mut self, context: &VersionVector, dot: Dot, value: V) {
        let known = self.entry(&dot.actor).map_or(0, Entry::n).max(context.get(&dot.actor));
        assert!(dot.counter > known, "dot {dot} is not new: {known} is known");
        self.discard(context);
        match self.entries.binary_search_by(|(a, _)| a.cmp(&dot.actor)) {
            Ok(at) => {
                let entry = &mut self.entries[at].1;
                entry.n = dot.counter;
                entry.values.insert(0, (dot.counter, value));
            }
            Err(at) => {
                let entry = Entry { n: dot.counter, values: vec![(dot.counter, value)] };
                self.entries.insert(at, (dot.actor, entry));
            }
        }
    }

    /// Merges what a peer knows; true when that changed this set.
    pub fn merge_in(&mut self, other: Self) -> bool {
        let mut changed = false;
        let mut merged = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        let mut ours = std::mem::take(&mut self.entries).into_iter().peekable();
        for (actor, theirs) in other.entries {
            while let Some(before) = ours.next_if(|(a, _)| *a < actor) {
                merged.push(before);
            }
            match ours.next_if(|(a, _)| *a == actor) {
                Some((_, mut entry)) => {
                    changed |= entry.join(theirs);
                    merged.push((actor, entry));
                }
                None => {
                    changed = true;
                    merged.push((actor, theirs));
                }
            }
        }
        merged.extend(ours);
        self.entries = merged;
        changed
    }

    /// The merge of two sets.
    #[must_use]
    pub fn sync(&self, other: &Self) -> Self
    where
        V: Clone,
    {
        let mut merged = self.clone();
        merged.merge_in(other.clone());
        merged
    }

    /// True when `other` knows every write known here, and more. Values do not matter.
    #[must_use]
    pub fn less(&self, other: &Self) -> bool {
        self.compare_joins(other) == Some(Ordering::Less)
    }

    /// True when both know the same writes and hold the same dots live. The values themselves do
    /// not matter: a dot names one value.
    #[must_use]
    pub fn equal(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self
                .entries
                .iter()
                .zip(&other.entries)
                .all(|(x, y)| x.0 == y.0 && x.1.same_clock(&y.1))
    }

    /// True when everything known here is covered by `context`.
    #[must_use]
    pub fn covered_by(&self, context: &VersionVector) -> bool {
        self.entries.iter().all(|(actor, entry)| context.get(actor) >= entry.n)
    }

    /// True when everything `context` covers is known here.
    #[must_use]
    pub fn descends(&self, context: &VersionVector) -> bool {
        context.iter().all(|(actor, n)| self.entry(&actor).is_some_and(|entry| entry.n >= n))
    }

    /// Applies `f` to every value; the clocks stay.
    #[must_use]
    pub fn map<W>(self, mut f: impl FnMut(V) -> W) -> Dvvset<W> {
        let map_entry = |(actor, entry): (Actor, Entry<V>)| {
            let values = entry.values.into_iter().map(|(counter, v)| (counter, f(v))).collect();
            (actor, Entry { n: entry.n, values })
        };
        Dvvset { entries: self.entries.into_iter().map(map_entry).collect() }
    }

    /// The dots that are live in both sets but with different values. Never happens unless a dot
    /// was used twice or a store is damaged; callers report it as corruption.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> Vec<Dot>
    where
        V: PartialEq,
    {
        self.live()
            .filter(|(dot, v)| other.value_at(dot).is_some_and(|theirs| theirs != *v))
            .map(|(dot, _)| dot)
            .collect()
    }

    /// The live value named by `dot`.
    #[must_use]
    pub fn value_at(&self, dot: &Dot) -> Option<&V> {
        let values = &self.entry(&dot.actor)?.values;
        values.iter().find(|(counter, _)| *counter == dot.counter).map(|(_, v)| v)
    }

    /// Partial order of the joins, without building them.
    fn compare_joins(&self, other: &Self) -> Option<Ordering> {
        let covered = |x: &Self, y: &Self| {
            x.entries.iter().all(|(actor, e)| y.entry(actor).is_some_and(|o| o.n >= e.n))
        };
        match (covered(self, other), covered(other, self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn actor(n: u8) -> Actor {
        Actor { node: NodeId([n; 16]), incarnation: 1 }
    }

    fn entry(n: u64, counters: &[u64]) -> Option<Entry<()>> {
        Entry::from_parts(n, counters.iter().map(|counter| (*counter, ())).collect())
    }

    #[test]
    fn entry_of_broken_parts_is_refused() {
        for (n, counters) in [(1, &[][..]), (1, &[1]), (9, &[7, 3]), (u64::MAX, &[u64::MAX, 1])] {
            assert!(entry(n, counters).is_some(), "{n} {counters:?}");
        }
        for (n, counters) in [
            (0, &[][..]),
            (3, &[4]),
            (3, &[0]),
            (3, &[2, 0]),
            (3, &[2, 2]),
            (3, &[1, 2]),
            (9, &[7, 3, 5]),
        ] {
            assert!(entry(n, counters).is_none(), "{n} {counters:?}");
        }
    }

    #[test]
    fn floor_follows_from_the_values() {
        for (n, counters, floor) in [(5, &[][..], 5), (5, &[5], 4), (5, &[4], 3), (9, &[7, 3], 2)] {
            assert_eq!(entry(n, counters).unwrap().floor(), floor, "{n} {counters:?}");
        }
    }

    #[test]
    fn set_of_unsorted_actors_is_refused() {
        let set = |actors: &[u8]| {
            Dvvset::from_entries(
                actors.iter().map(|n| (actor(*n), entry(1, &[1]).unwrap())).collect(),
            )
        };
        assert!(set(&[]).is_some_and(|set| set.is_empty()));
        assert!(set(&[1, 2]).is_some());
        assert!(set(&[2, 1]).is_none() && set(&[1, 1]).is_none() && set(&[1, 3, 2]).is_none());
    }

    /// Not reachable without damage; then the two must still not pass for the same.
    #[test]
    fn equal_compares_every_live_dot() {
        let set = |counters: &[u64]| {
            Dvvset::from_entries(vec![(actor(1), entry(9, counters).unwrap())]).unwrap()
        };
        assert!(set(&[9, 3]).equal(&set(&[9, 3])));
        assert!(!set(&[9, 3]).equal(&set(&[9, 5])));
    }

    #[test]
    fn write_under_a_used_dot_panics_and_changes_nothing() {
        let dot = |counter| Dot { actor: actor(1), counter };
        let mut set = Dvvset::new();
        set.write(&VersionVector::new(), dot(5), ());
        let before = set.clone();
        let forged = VersionVector::from_iter([(actor(1), 9)]);
        for (context, counter) in
            [(&VersionVector::new(), 5), (&VersionVector::new(), 4), (&forged, 9)]
        {
            let written = std::panic::AssertUnwindSafe(|| set.write(context, dot(counter), ()));
            assert!(std::panic::catch_unwind(written).is_err(), "{counter}");
            assert_eq!(set, before);
        }
        set.write(&forged, dot(10), ());
        assert_eq!(set.live_dots().collect::<Vec<_>>(), [dot(10)]);
    }
}
