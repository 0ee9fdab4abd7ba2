//! Sets of dots as runs of counters.
//!
//! Guarantees: runs are ascending, disjoint and never adjacent, whatever came in; every operation costs by runs, not by
//! dots, so a peer that names 2^64 events in one run costs no more than one that names a single one.
//! Refuses: to bound itself. [`DotSet::runs_len`] is for whoever keeps one.

use std::collections::BTreeMap;

use weald_peers::Dots;
use weald_storage::{Actor, Clock};

type Runs = Vec<(u64, u64)>;

/// A set of dots of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DotSet {
    by_actor: BTreeMap<Actor, Runs>,
}

impl DotSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { by_actor: BTreeMap::new() }
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_actor.is_empty()
    }

    /// How many runs it is kept in.
    #[must_use]
    pub fn runs_len(&self) -> usize {
        self.by_actor.values().map(Vec::len).sum()
    }

    /// How many dots there are, saturating.
    #[must_use]
    pub fn count(&self) -> u64 {
        let runs = self.by_actor.values().flatten();
        runs.fold(0, |sum, (from, to)| sum.saturating_add((to - from).saturating_add(1)))
    }

    /// Adds dots in any order; runs that are none (counter 0, upside down) are left out.
    pub fn extend(&mut self, dots: &Dots) {
        for (actor, runs) in &dots.0 {
            let mut valid = runs.iter().filter(|run| is_run(**run)).peekable();
            if valid.peek().is_some() {
                let own = self.by_actor.entry(*actor).or_default();
                valid.for_each(|run| insert(own, *run));
            }
        }
    }

    /// Adds a set.
    pub fn union(&mut self, other: &Self) {
        for (actor, runs) in &other.by_actor {
            let own = self.by_actor.entry(*actor).or_default();
            runs.iter().for_each(|run| insert(own, *run));
        }
    }

    /// Takes dots away; whether there were any of them.
    pub fn remove(&mut self, dots: &Dots) -> bool {
        let mut removed = false;
        for (actor, runs) in &dots.0 {
            let Some(own) = self.by_actor.get_mut(actor) else { continue };
            for run in runs.iter().filter(|run| is_run(**run)) {
                removed |= cut(own, *run);
            }
            if own.is_empty() {
                self.by_actor.remove(actor);
            }
        }
        removed
    }

    /// What is in both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut both = Self::new();
        for (actor, runs) in &other.by_actor {
            let Some(own) = self.by_actor.get(actor) else { continue };
            let mut common = Runs::new();
            for (from, to) in runs {
                let first = own.partition_point(|run| run.1 < *from);
                let overlapping = own[first..].iter().take_while(|run| run.0 <= *to);
                common.extend(overlapping.map(|run| (run.0.max(*from), run.1.min(*to))));
            }
            if !common.is_empty() {
                both.by_actor.insert(*actor, common);
            }
        }
        both
    }

    /// The lowest dots, at most `count_max` of them.
    #[must_use]
    pub fn first(&self, count_max: u64) -> Self {
        let (mut part, mut room) = (Self::new(), count_max);
        for (actor, runs) in &self.by_actor {
            for (from, to) in runs {
                if room == 0 {
                    return part;
                }
                let end = (*to).min(from.saturating_add(room - 1));
                part.by_actor.entry(*actor).or_default().push((*from, end));
                room -= end - from + 1;
            }
        }
        part
    }

    /// As it travels.
    #[must_use]
    pub fn to_dots(&self) -> Dots {
        Dots(self.by_actor.iter().map(|(actor, runs)| (*actor, runs.clone())).collect())
    }
}

impl From<&Dots> for DotSet {
    fn from(dots: &Dots) -> Self {
        let mut set = Self::new();
        set.extend(dots);
        set
    }
}

/// Those of `dots` that `clock` does not contain.
#[must_use]
pub fn missing(dots: &Dots, clock: &Clock) -> Dots {
    let mut set = DotSet::from(dots);
    let seen = |actor: &Actor| {
        let seen = clock.get(actor)?;
        let base = (seen.base() > 0).then_some((1, seen.base()));
        Some((*actor, base.into_iter().chain(seen.runs().iter().copied()).collect()))
    };
    let known = Dots(set.by_actor.keys().filter_map(seen).collect());
    set.remove(&known);
    set.to_dots()
}

/// Those of `dots` that are not in `without`.
#[must_use]
pub fn difference(dots: &Dots, without: &Dots) -> Dots {
    let mut set = DotSet::from(dots);
    set.remove(without);
    set.to_dots()
}

const fn is_run((from, to): (u64, u64)) -> bool {
    from > 0 && from <= to
}

fn insert(runs: &mut Runs, (from, to): (u64, u64)) {
    let first = runs.partition_point(|run| run.1.saturating_add(1) < from);
    let end = runs.partition_point(|run| run.0 <= to.saturating_add(1));
    if first < end {
        let joined = (from.min(runs[first].0), to.max(runs[end - 1].1));
        runs.splice(first..end, [joined]);
    } else {
        runs.insert(first, (from, to));
    }
}

fn cut(runs: &mut Runs, (from, to): (u64, u64)) -> bool {
    let first = runs.partition_point(|run| run.1 < from);
    let end = runs.partition_point(|run| run.0 <= to);
    if first >= end {
        return false;
    }
    let left = (runs[first].0 < from).then(|| (runs[first].0, from - 1));
    let right = (runs[end - 1].1 > to).then(|| (to + 1, runs[end - 1].1));
    runs.splice(first..end, left.into_iter().chain(right));
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use weald_storage::{Dot, NodeId};

    use super::*;

    fn dots(of: &BTreeSet<(u8, u64)>) -> Dots {
        let actor = |n| Actor { node: NodeId([n; 16]), incarnation: 1 };
        of.iter().map(|(n, counter)| Dot { actor: actor(*n), counter: *counter }).collect()
    }

    fn raw() -> impl Strategy<Value = BTreeSet<(u8, u64)>> {
        prop::collection::btree_set((0_u8..3, 1_u64..40), 0..60)
    }

    proptest! {
        #[test]
        fn dot_set_is_the_set_it_was_given(a in raw(), b in raw(), max in 0_usize..50) {
            let (set_a, set_b) = (DotSet::from(&dots(&a)), DotSet::from(&dots(&b)));
            prop_assert_eq!(set_a.to_dots(), dots(&a));
            prop_assert_eq!(set_a.count(), a.len() as u64);
            let both: BTreeSet<_> = a.intersection(&b).copied().collect();
            prop_assert_eq!(set_a.intersect(&set_b).to_dots(), dots(&both));
            let rest: BTreeSet<_> = a.difference(&b).copied().collect();
            prop_assert_eq!(difference(&dots(&a), &dots(&b)), dots(&rest));
            let mut union = set_a.clone();
            union.union(&set_b);
            prop_assert_eq!(union.to_dots(), dots(&a.union(&b).copied().collect()));
            let first: BTreeSet<_> = a.iter().copied().take(max).collect();
            prop_assert_eq!(set_a.first(max as u64).to_dots(), dots(&first));
        }

        #[test]
        fn dot_set_missing_is_what_the_clock_lacks(a in raw(), b in raw()) {
            let mut clock = Clock::default();
            for dot in dots(&b).iter() {
                clock.insert(dot);
            }
            let rest: BTreeSet<_> = a.difference(&b).copied().collect();
            prop_assert_eq!(missing(&dots(&a), &clock), dots(&rest));
        }
    }

    #[test]
    fn dot_set_takes_what_a_peer_sends_without_trust() {
        let actor = Actor { node: NodeId([1; 16]), incarnation: 1 };
        let wild = Dots(vec![
            (actor, vec![(9, 3), (0, 4), (5, u64::MAX), (2, 3)]),
            (actor, vec![(4, 4), (u64::MAX, u64::MAX)]),
        ]);
        let mut set = DotSet::from(&wild);
        assert_eq!(set.to_dots(), Dots(vec![(actor, vec![(2, u64::MAX)])]));
        assert_eq!(set.count(), u64::MAX - 1);
        assert!(set.remove(&Dots(vec![(actor, vec![(3, u64::MAX)])])));
        assert!(!set.remove(&Dots(vec![(actor, vec![(3, 2), (7, 9)])])));
        assert_eq!(set.first(9).to_dots(), Dots(vec![(actor, vec![(2, 2)])]));
        let none = DotSet::from(&Dots(vec![(actor, vec![(9, 3)])]));
        assert!(none.is_empty() && none == DotSet::new());
    }
}
