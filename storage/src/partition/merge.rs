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
//!
//! Refuses: to take an event for processed because an object names it. What it replaced may be gone
//! from that object; whoever still holds it would hold it with a clock that says it is dead.

use std::collections::BTreeMap;

use crate::dvvset::Entry;
use crate::ids::{Actor, Dot};
use crate::object::{Object, Value};
use crate::replica::{Era, Evidence};

/// What a peer sent.
pub(crate) struct Theirs<'t> {
    pub(crate) object: &'t Object,
    /// Events of the key that the object reflects, with all that they replaced.
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

    /// The events that have been processed once the object is merged: those it is told with. Of others that it names the
    /// contexts may be stripped: who lacks them learns what they replaced from a delta of their own, or in a walk, and must
    /// not take them for processed before.
    pub(crate) fn events(&self) -> impl Iterator<Item = Dot> + '_ {
        // No event has these numbers; a peer may say anything.
        self.dots.iter().copied().filter(|dot| (1..u64::MAX).contains(&dot.counter))
    }

    fn is_dead(&self, dot: Dot, known: u64) -> bool {
        let by_clock = matches!(self.evidence, Evidence::Both(clock) if clock.contains(&dot));
        dot.counter <= known || by_clock
    }

    /// Whether an event that this side has processed, and whose value it does not hold, is dead here.
    fn is_dead_here(&self, dot: &Dot) -> bool {
        match self.evidence {
            Evidence::Own | Evidence::Both(_) => true,
            Evidence::Beyond(known) => known.contains(dot),
            Evidence::Held(_) | Evidence::Neither => false,
        }
    }

    /// Whether nothing of the object may be merged: its era is over, and it holds what was lost here, or has died since. Even
    /// its contexts would say that it is dead.
    pub(crate) fn is_late(
        &self,
        ours: &Object,
        era: &Era,
        processed: &dyn Fn(&Dot) -> bool,
    ) -> bool {
        matches!(self.evidence, Evidence::Held(held) if held != era)
            && self.object.live_dots().any(|dot| processed(&dot) && ours.value_at(&dot).is_none())
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
        for (counter, value) in their_values {
            let dot = Dot { actor, counter: *counter };
            let live_here = our_values.iter().any(|(ours, _)| ours == counter);
            let dead = *counter <= our_n || (processed(&dot) && theirs.is_dead_here(&dot));
            if !live_here && !dead {
                taken.push(dot);
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
