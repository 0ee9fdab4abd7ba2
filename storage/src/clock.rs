//! The clock of a partition: which events it has seen.
//!
//! Counters are partition-wide, so per actor the set of counters seen says exactly what a replica
//! holds. It is kept as a base (everything up to it was seen) and the runs above it. An actor's own
//! entry never has runs: it issues its counters one after the other.
//!
//! It may forget that it saw an event far above the base ([`RUNS_MAX`]), never the other way round:
//! forgetting costs a transfer, inventing would lose data.

use std::collections::BTreeMap;

use crate::ids::{Actor, Dot};

/// Most runs kept above the base of one actor; the highest are forgotten first.
pub const RUNS_MAX: usize = 1024;

/// The counters of one actor that were seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    base: u64,
    /// Inclusive runs above the base, ascending, with gaps between them and after the base.
    runs: Vec<(u64, u64)>,
}

impl Seen {
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
        counter <= self.base
            || self
                .runs
                .binary_search_by(|run| {
                    if run.1 < counter {
                        std::cmp::Ordering::Less
                    } else if run.0 > counter {
                        std::cmp::Ordering::Greater
                    } else {
                        std::cmp::Ordering::Equal
                    }
                })
                .is_ok()
    }

    /// Adds `counter`; whether it was new.
    pub fn insert(&mut self, counter: u64) -> bool {
        if counter == 0 || self.contains(counter) {
            return false;
        }
        let at = self.runs.partition_point(|run| run.1 < counter);
        let joins_left = at > 0 && self.runs[at - 1].1 + 1 == counter;
        let joins_right = self.runs.get(at).is_some_and(|run| run.0 == counter + 1);
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
        self.runs.truncate(RUNS_MAX);
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
        Some(Self { base: u64::from_be_bytes(*base), runs })
    }
}

/// What a partition has seen, per actor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
