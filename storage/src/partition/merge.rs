//! Merging a peer's object into ours.
//!
//! Guarantees: an event that a side has processed and whose value it does not hold stays dead, as
//! far as the evidence goes; the order of merges does not matter; an object never forgets which
//! events of its key it reflects (that is for [`crate::partition::sweep`]).
//!
//! The contexts in an object only speak of events that some write knew of. What a side has
//! processed is in its clock, which says more: an object is read as *filled* with it. So contexts
//! may be stripped, and objects removed, once every member has processed them, and late duplicates
//! still do not bring anything back.

use std::collections::BTreeMap;

use crate::dvvset::Entry;
use crate::ids::{Actor, Dot};
use crate::object::{Object, Value};
use crate::replica::Evidence;

/// What a peer sent.
pub(crate) struct Theirs<'t> {
    pub(crate) object: &'t Object,
    /// Events of the key that the object reflects, besides those it names itself.
    pub(crate) dots: &'t [Dot],
    pub(crate) evidence: &'t Evidence,
}

/// The merge of two objects.
pub(crate) struct Merged {
    /// The values of both that are not dead, and the contexts of both.
    pub(crate) object: Object,
    /// Values that are new here.
    pub(crate) taken: Vec<Dot>,
    /// Values that were here and are dead.
    pub(crate) dropped: Vec<Dot>,
}

impl Theirs<'_> {
    /// Highest event of each actor that the peer's object reflects.
    pub(crate) fn known(&self) -> BTreeMap<Actor, u64> {
        let entries = self.object.entries().map(|(actor, entry)| (*actor, entry.n()));
        let dots = self.dots.iter().map(|dot| (dot.actor, dot.counter));
        let mut known = BTreeMap::new();
        for (actor, counter) in entries.chain(dots).filter(|(_, n)| (1..u64::MAX).contains(n)) {
            let highest = known.entry(actor).or_insert(counter);
            *highest = counter.max(*highest);
        }
        known
    }

    /// All events that have been processed once the object is merged: those it is told with, and those whose values are
    /// gone. Of a value that it was not told with, the contexts may be stripped: who lacks it learns of what it replaced
    /// from a delta of its own, or in a walk, and must not take it for processed before.
    pub(crate) fn events(&self) -> impl Iterator<Item = Dot> + '_ {
        let whole = self.is_whole();
        let gone = self.object.entries().filter(move |(_, entry)| {
            whole || entry.values().first().is_none_or(|(newest, _)| *newest < entry.n())
        });
        let gone = gone.map(|(actor, entry)| Dot { actor: *actor, counter: entry.n() });
        let live = self.object.live_dots().filter(move |_| whole);
        let all = gone.chain(live).chain(self.dots.iter().copied());
        // No event has these numbers; a peer may say anything.
        all.filter(|dot| (1..u64::MAX).contains(&dot.counter))
    }

    /// Whether the object stands for all that it names: in a walk, and when it is told without events.
    fn is_whole(&self) -> bool {
        self.dots.is_empty() || !matches!(self.evidence, Evidence::Own)
    }

    fn is_told(&self, dot: &Dot) -> bool {
        self.dots.contains(dot)
    }

    /// Of the values of `actor` that are new here, the lowest that is left out: it was not told, and no newer one of the
    /// actor is taken.
    fn left_out(&self, actor: Actor, new: &[u64]) -> Option<u64> {
        if self.is_whole() {
            return None;
        }
        let told = |counter: &&u64| self.is_told(&Dot { actor, counter: **counter });
        let newest_told = new.iter().filter(told).max().copied().unwrap_or(0);
        new.iter().filter(|counter| **counter > newest_told).min().copied()
    }

    fn is_dead(&self, dot: Dot, known: u64) -> bool {
        let by_clock = matches!(self.evidence, Evidence::Both(clock) if clock.contains(&dot));
        dot.counter <= known || by_clock || self.is_told(&dot)
    }
}

/// Merges `theirs` into `ours`; `processed` tells which events this side has processed.
pub(crate) fn merge(
    ours: &Object,
    theirs: &Theirs<'_>,
    processed: &dyn Fn(&Dot) -> bool,
) -> Merged {
    let known = theirs.known();
    let mut actors: Vec<Actor> =
        ours.entries().map(|(actor, _)| *actor).chain(known.keys().copied()).collect();
    actors.sort_unstable();
    actors.dedup();
    let (mut taken, mut dropped, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for actor in actors {
        let (our_entry, their_entry) = (ours.entry(&actor), theirs.object.entry(&actor));
        let our_n = our_entry.map_or(0, Entry::n);
        let their_n = known.get(&actor).copied().unwrap_or(0);
        let our_values = our_entry.map_or(&[][..], Entry::values);
        let their_values = their_entry.map_or(&[][..], Entry::values);
        let is_new = |counter: u64| {
            let processed_here = || processed(&Dot { actor, counter });
            let live_here = our_values.iter().any(|(ours, _)| *ours == counter);
            let dead = counter <= our_n
                || (!matches!(theirs.evidence, Evidence::Neither) && processed_here());
            !live_here && !dead
        };
        let new: Vec<u64> =
            their_values.iter().map(|(counter, _)| *counter).filter(|c| is_new(*c)).collect();
        let left_out = theirs.left_out(actor, &new);
        // A value that is left out must not count as known: it comes with an event of its own.
        let their_n = left_out.map_or(their_n, |lowest| their_n.min(lowest - 1));
        let mut values: Vec<(u64, Value)> = Vec::new();
        for (counter, value) in our_values {
            let dot = Dot { actor, counter: *counter };
            let live_there = their_values.iter().any(|(theirs, _)| theirs == counter);
            if !live_there && theirs.is_dead(dot, their_n) {
                dropped.push(dot);
            } else {
                values.push((*counter, value.clone()));
            }
        }
        for (counter, value) in their_values.iter().filter(|(counter, _)| new.contains(counter)) {
            if left_out.is_none_or(|lowest| *counter < lowest) {
                taken.push(Dot { actor, counter: *counter });
                values.push((*counter, value.clone()));
            }
        }
        values.sort_unstable_by_key(|(counter, _)| std::cmp::Reverse(*counter));
        // Both sides were valid: counters are unique, and none exceeds its side's `n`.
        entries.extend(Entry::from_parts(our_n.max(their_n), values).map(|entry| (actor, entry)));
    }
    let object = Object::from_entries(entries).unwrap_or_default();
    Merged { object, taken, dropped }
}

/// `object` without contexts: what is left of each entry are its live values. `None` when no value
/// but tombstones is left.
pub(crate) fn strip(object: &Object) -> Option<Object> {
    if object.is_deleted() {
        return None;
    }
    let entries = object.entries().filter_map(|(actor, entry)| {
        let newest = entry.values().first()?.0;
        Some((*actor, Entry::from_parts(newest, entry.values().to_vec())?))
    });
    Object::from_entries(entries.collect())
}
