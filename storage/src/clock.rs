//! The clock of a partition: which events it has seen.
//!
//! Counters are partition-wide, so per actor the set of counters seen says exactly what a replica
//! holds. It is kept as a base (everything up to it was seen) and the runs above it. An actor's own
//! entry never has runs: it issues its counters one after the other.
//!
//! It may forget that it saw an event far above the base ([`RUNS_MAX`]), never the other way round:
//! forgetting costs a transfer, inventing would lose data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Actor, Dot};
use crate::vector::VersionVector;

/// Most runs kept above the base of one actor; the highest are forgotten first.
pub const RUNS_MAX: usize = 1024;

/// The counters of one actor that were seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawSeen")]
pub struct Seen {
    base: u64,
    /// Inclusive runs above the base, ascending, with gaps between them and after the base.
    runs: Vec<(u64, u64)>,
}

/// [`Seen`] as it comes from elsewhere, not checked yet.
#[derive(Deserialize)]
#[serde(rename = "Seen")]
struct RawSeen {
    base: u64,
    runs: Vec<(u64, u64)>,
}

/// Runs that are no runs: out of order, touching each other or the base, or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the counters of an actor are not in their one form")]
pub struct BadSeen;

impl TryFrom<RawSeen> for Seen {
    type Error = BadSeen;

    fn try_from(raw: RawSeen) -> Result<Self, BadSeen> {
        Self::from_parts(raw.base, raw.runs).ok_or(BadSeen)
    }
}

impl Seen {
    /// Puts the parts together; `None` unless the runs ascend, with gaps between them and after the
    /// base, and are at most [`RUNS_MAX`].
    pub fn from_parts(base: u64, runs: Vec<(u64, u64)>) -> Option<Self> {
        let mut last = base;
        for (from, to) in &runs {
            if last.checked_add(1)? >= *from || from > to {
                return None;
            }
            last = *to;
        }
        (runs.len() <= RUNS_MAX).then_some(Self { base, runs })
    }

    /// Everything up to and including `base`.
    pub fn up_to(base: u64) -> Self {
        Self { base, runs: Vec::new() }
    }

    /// Every counter up to this one was seen.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Inclusive runs of counters seen above the base, ascending.
    pub fn runs(&self) -> &[(u64, u64)] {
        &self.runs
    }

    /// Highest counter seen.
    pub fn highest(&self) -> u64 {
        self.runs.last().map_or(self.base, |run| run.1)
    }

    /// Whether `counter` was seen.
    pub fn contains(&self, counter: u64) -> bool {
        self.run_end(counter).is_some()
    }

    /// The end of the run of seen counters that `counter` is in; `None` when it was not seen.
    pub(crate) fn run_end(&self, counter: u64) -> Option<u64> {
        if counter <= self.base {
            return Some(self.base);
        }
        let at = self.runs.partition_point(|run| run.1 < counter);
        self.runs.get(at).filter(|run| run.0 <= counter).map(|run| run.1)
    }

    /// Whether everything seen there was seen here.
    pub fn descends(&self, other: &Self) -> bool {
        let holds = |(from, to): (u64, u64)| {
            let at = self.runs.partition_point(|run| run.1 < from);
            to <= self.base
                || self
                    .runs
                    .get(at)
                    .is_some_and(|run| run.0 <= from.max(self.base + 1) && to <= run.1)
        };
        other.base <= self.base && other.runs.iter().all(|run| holds(*run))
    }

    /// The counters up to `to` that were not seen, as inclusive runs, ascending.
    pub fn gaps(&self, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let starts = std::iter::once(self.base).chain(self.runs.iter().map(|run| run.1));
        let ends = self.runs.iter().map(|run| run.0 - 1).chain([u64::MAX]);
        let gaps = starts.zip(ends).map(move |(seen, end)| (seen.saturating_add(1), end.min(to)));
        gaps.filter(|(from, to)| from <= to)
    }

    /// Adds everything seen there; gives back the highest counter that is new here.
    pub fn merge(&mut self, other: &Self) -> Option<u64> {
        if self.descends(other) {
            return None;
        }
        let mut runs: Vec<(u64, u64)> = Vec::with_capacity(self.runs.len() + other.runs.len() + 2);
        runs.extend(&self.runs);
        runs.extend(&other.runs);
        runs.extend(
            [self.base, other.base].iter().filter(|base| **base > 0).map(|base| (1, *base)),
        );
        runs.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(runs.len());
        for (from, to) in runs {
            match joined.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        let mut merged = Self::default();
        if let Some(first) = joined.first().filter(|first| first.0 == 1) {
            merged.base = first.1;
            joined.remove(0);
        }
        joined.truncate(RUNS_MAX);
        merged.runs = joined;
        let new = self.gaps(merged.highest()).filter_map(|(from, to)| merged.last_within(from, to));
        let new = new.max();
        *self = merged;
        new
    }

    /// The highest counter seen of these.
    pub(crate) fn last_within(&self, from: u64, to: u64) -> Option<u64> {
        let below = self.runs.iter().rev().find(|run| run.0 <= to).map(|run| run.1.min(to));
        below.or_else(|| (self.base > 0).then_some(self.base.min(to))).filter(|last| *last >= from)
    }

    /// Adds `counter`; whether it was new (and is not forgotten at once, see [`RUNS_MAX`]).
    pub fn insert(&mut self, counter: u64) -> bool {
        if counter == 0 || self.contains(counter) {
            return false;
        }
        let at = self.runs.partition_point(|run| run.1 < counter);
        let joins_left = at > 0 && self.runs[at - 1].1 + 1 == counter;
        let joins_right = self.runs.get(at).is_some_and(|run| run.0 == counter.wrapping_add(1));
        match (joins_left, joins_right) {
            (true, true) => {
                self.runs[at - 1].1 = self.runs[at].1;
                self.runs.remove(at);
            }
            (true, false) => self.runs[at - 1].1 = counter,
            (false, true) => self.runs[at].0 = counter,
            (false, false) => self.runs.insert(at, (counter, counter)),
        }
        if let Some(first) = self.runs.first()
            && first.0 == self.base + 1
        {
            self.base = first.1;
            self.runs.remove(0);
        }
        if self.runs.len() > RUNS_MAX {
            self.runs.truncate(RUNS_MAX);
            return self.contains(counter);
        }
        true
    }

    /// Shape: base u64 | number of runs u32 | runs (u64, u64) | crc32c u32, big-endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(16 + self.runs.len() * 16);
        row.extend_from_slice(&self.base.to_be_bytes());
        let runs = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        row.extend_from_slice(&runs.to_be_bytes());
        for (from, to) in &self.runs {
            row.extend_from_slice(&from.to_be_bytes());
            row.extend_from_slice(&to.to_be_bytes());
        }
        let sum = crc32c::crc32c(&row);
        row.extend_from_slice(&sum.to_be_bytes());
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let (body, sum) = row.split_last_chunk::<4>()?;
        if crc32c::crc32c(body).to_be_bytes() != *sum {
            return None;
        }
        let (base, rest) = body.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (pairs, tail) = rest.as_chunks::<16>();
        if !tail.is_empty() || usize::try_from(u32::from_be_bytes(*count)).ok()? != pairs.len() {
            return None;
        }
        let runs = pairs
            .iter()
            .map(|pair| {
                let (from, to) = pair.split_first_chunk::<8>()?;
                Some((u64::from_be_bytes(*from), u64::from_be_bytes(to.try_into().ok()?)))
            })
            .collect::<Option<_>>()?;
        Self::from_parts(u64::from_be_bytes(*base), runs)
    }
}

/// What a partition has seen, per actor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    seen: BTreeMap<Actor, Seen>,
}

impl Clock {
    /// What was seen of `actor`.
    pub fn get(&self, actor: &Actor) -> Option<&Seen> {
        self.seen.get(actor)
    }

    /// Whether the event `dot` was seen.
    pub fn contains(&self, dot: &Dot) -> bool {
        self.seen.get(&dot.actor).is_some_and(|seen| seen.contains(dot.counter))
    }

    /// All actors, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&Actor, &Seen)> {
        self.seen.iter()
    }

    /// Adds one event; whether it was new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        self.seen.entry(dot.actor).or_default().insert(dot.counter)
    }

    /// Adds everything seen there.
    pub fn merge(&mut self, other: &Self) {
        for (actor, seen) in other.seen.iter().filter(|(_, seen)| seen.highest() > 0) {
            self.seen.entry(*actor).or_default().merge(seen);
        }
    }

    /// Per actor the counter up to which everything was seen.
    pub fn bases(&self) -> VersionVector {
        self.seen.iter().map(|(actor, seen)| (*actor, seen.base())).collect()
    }

    /// Counter up to which all events of `actor` were seen.
    pub fn base(&self, actor: &Actor) -> u64 {
        self.seen.get(actor).map_or(0, Seen::base)
    }

    /// Highest counter of `actor` that was seen.
    pub fn highest(&self, actor: &Actor) -> u64 {
        self.seen.get(actor).map_or(0, Seen::highest)
    }

    /// Whether everything up to `bases` was seen.
    pub fn covers(&self, bases: &VersionVector) -> bool {
        bases.iter().all(|(actor, counter)| self.base(&actor) >= counter)
    }

    /// Whether everything seen there was seen here.
    pub fn descends(&self, other: &Self) -> bool {
        other.seen.iter().all(|(actor, theirs)| match self.seen.get(actor) {
            Some(ours) => ours.descends(theirs),
            None => theirs.highest() == 0,
        })
    }

    /// How many of the events seen here were not seen there.
    pub fn missing_dots(&self, theirs: &Self) -> u64 {
        let mut missing = 0_u64;
        let unseen = Seen::default();
        for (actor, ours) in &self.seen {
            let theirs = theirs.get(actor).unwrap_or(&unseen);
            let ours_runs = std::iter::once((1, ours.base)).chain(ours.runs.iter().copied());
            for (from, to) in ours_runs.filter(|(from, to)| from <= to) {
                let gaps = theirs.gaps(to).filter(|gap| gap.1 >= from);
                let lens = gaps.map(|gap| gap.1 - gap.0.max(from) + 1);
                missing = lens.fold(missing, u64::saturating_add);
            }
        }
        missing
    }

    /// A hash of what was seen: equal clocks have equal digests, on every machine.
    pub fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        for (actor, seen) in self.seen.iter().filter(|(_, seen)| seen.highest() > 0) {
            bytes.extend_from_slice(&actor.to_bytes());
            bytes.extend_from_slice(&seen.encode());
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    pub(crate) fn set(&mut self, actor: Actor, seen: Seen) {
        self.seen.insert(actor, seen);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn seen_is_the_set_it_was_given(counters in prop::collection::vec(1_u64..80, 0..120)) {
            let mut model = BTreeSet::new();
            let mut seen = Seen::default();
            for counter in counters {
                prop_assert_eq!(seen.insert(counter), model.insert(counter));
            }
            for counter in 1..90 {
                prop_assert_eq!(seen.contains(counter), model.contains(&counter));
            }
            prop_assert!((1..=seen.base()).all(|counter| model.contains(&counter)));
            prop_assert!(!model.contains(&(seen.base() + 1)));
            prop_assert!(seen.runs().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            prop_assert_eq!(seen.highest(), model.last().copied().unwrap_or(0));
            prop_assert_eq!(Seen::decode(&seen.encode()), Some(seen));
        }
    }

    fn seen_of(counters: &BTreeSet<u64>) -> Seen {
        let mut seen = Seen::default();
        for counter in counters {
            seen.insert(*counter);
        }
        seen
    }

    proptest! {
        #[test]
        fn sets_of_counters_behave_as_sets(
            ours in prop::collection::btree_set(1_u64..40, 0..30),
            theirs in prop::collection::btree_set(1_u64..40, 0..30),
        ) {
            let (x, y) = (seen_of(&ours), seen_of(&theirs));
            prop_assert_eq!(x.descends(&y), theirs.is_subset(&ours));
            let mut joined = x.clone();
            let new = joined.merge(&y);
            prop_assert_eq!(&joined, &seen_of(&ours.union(&theirs).copied().collect()));
            prop_assert_eq!(new, theirs.difference(&ours).max().copied());
            let gaps: BTreeSet<u64> = x.gaps(45).flat_map(|(from, to)| from..=to).collect();
            prop_assert_eq!(gaps, (1..=45).filter(|c| !ours.contains(c)).collect::<BTreeSet<_>>());
            let actor = Actor { node: crate::ids::NodeId([1; 16]), incarnation: 2 };
            let clock = |seen: &Seen| Clock { seen: [(actor, seen.clone())].into() };
            let missing = clock(&x).missing_dots(&clock(&y));
            prop_assert_eq!(missing, ours.difference(&theirs).count() as u64);
            prop_assert_eq!(clock(&x).digest() == clock(&y).digest(), ours == theirs);
            let bytes = postcard::to_stdvec(&clock(&x)).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Clock>(&bytes).unwrap(), clock(&x));
        }
    }

    #[test]
    fn runs_that_are_none_are_refused() {
        for (base, runs) in [
            (5_u64, vec![(6_u64, 7_u64)]),
            (5, vec![(3, 9)]),
            (0, vec![(3, 2)]),
            (0, vec![(2, 3), (4, 5)]),
        ] {
            let bytes = postcard::to_stdvec(&(base, &runs)).unwrap();
            assert!(postcard::from_bytes::<Seen>(&bytes).is_err(), "{base} {runs:?}");
        }
        assert!(Seen::from_parts(u64::MAX, Vec::new()).is_some());
        assert!(Seen::from_parts(u64::MAX, vec![(1, 1)]).is_none());
    }

    #[test]
    fn runs_are_bounded_and_only_forget() {
        let mut seen = Seen::default();
        for step in 1..=(RUNS_MAX as u64 + 500) {
            seen.insert(step * 2);
        }
        assert_eq!(seen.runs().len(), RUNS_MAX);
        assert!(seen.contains(2) && !seen.contains(3));
        assert!(!seen.contains((RUNS_MAX as u64 + 500) * 2));
    }
}
