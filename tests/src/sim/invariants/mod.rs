//! What must hold, one file each: pure checks over a history and over what the nodes held.
//!
//! Each file says the property in a sentence, and its tests plant a violation and see it found. The words: a value is
//! *replaced* when a write had observed it, see [`crate::sim::history`]; an event is *lost* when all nodes that had it lost
//! their data, which no promise covers.

pub mod p01_no_lost_ack;
pub mod p02_no_phantom;
pub mod p03_convergence;
pub mod p04_merge_laws;
pub mod p05_supersession;
pub mod p06_deletes_stay;
pub mod p07_dot_unique;
pub mod p08_sessions;
pub mod p09_monotone_repair;
pub mod p10_bounded_siblings;

use crate::sim::history::{Dump, History, Violation};

/// What must hold at any moment, faults or not.
///
/// # Errors
/// The first violation found.
pub fn always(history: &History, dumps: &[Dump]) -> Result<(), Violation> {
    p02_no_phantom::check(history, dumps)?;
    p04_merge_laws::check(dumps)?;
    p05_supersession::check(history)?;
    p06_deletes_stay::check(history, dumps)?;
    p07_dot_unique::check(history, dumps)?;
    p08_sessions::check(history, dumps)?;
    p09_monotone_repair::check(history)?;
    p10_bounded_siblings::check(history, dumps)
}

/// What must hold when all faults have ended and the cluster came to rest.
///
/// # Errors
/// The first violation found.
pub fn at_rest(history: &History, dumps: &[Dump]) -> Result<(), Violation> {
    p01_no_lost_ack::check(history, dumps)?;
    always(history, dumps)?;
    p03_convergence::check(dumps)
}

/// Small histories by hand.
#[cfg(test)]
pub(crate) mod planted {
    use std::collections::{BTreeMap, BTreeSet};

    use weald_storage::{Actor, Clock, Dot, Entry, Hlc, NodeId, Object, TreeNode, Value};

    use crate::sim::history::{Dump, History, KeyAt, Outcome, Place, PlaceDump, Read, Seen, Wrote};

    pub(crate) const PLACE: Place = Place(0);
    pub(crate) const KEY: KeyAt = KeyAt { place: PLACE, number: 0 };

    pub(crate) fn actor(node: u8) -> Actor {
        Actor { node: NodeId([node; 16]), incarnation: 1 }
    }

    pub(crate) fn dot(node: u8, counter: u64) -> Dot {
        Dot { actor: actor(node), counter }
    }

    /// A put with number `id` that had seen `observed` and left only itself.
    pub(crate) fn put(id: u64, dot: Dot, observed: &[Dot]) -> Wrote {
        Wrote {
            id,
            value: Some(id),
            session: Some(1),
            guaranteed: true,
            at_ms: id,
            node: 0,
            key: KEY,
            outcome: Outcome::Ok,
            dot: Some(dot),
            context: None,
            observed: observed.iter().copied().collect::<BTreeSet<_>>(),
            over: BTreeSet::new(),
            before: observed.to_vec(),
            after: vec![dot],
        }
    }

    pub(crate) fn delete(id: u64, dot: Dot, observed: &[Dot]) -> Wrote {
        Wrote { value: None, ..put(id, dot, observed) }
    }

    pub(crate) fn history(writes: impl IntoIterator<Item = Wrote>) -> History {
        let mut history = History::default();
        writes.into_iter().for_each(|write| history.wrote(write));
        history
    }

    pub(crate) fn clock(dots: &[Dot]) -> Clock {
        let mut clock = Clock::default();
        for dot in dots {
            clock.insert(*dot);
        }
        clock
    }

    pub(crate) fn value(id: Option<u64>) -> Value {
        let stamp = Hlc::new(1, 0);
        Value { stamp, expires_ms: None, payload: id.map(|id| id.to_be_bytes().to_vec()) }
    }

    /// An object with these values, newest first per actor.
    pub(crate) fn object(values: &[(Dot, Option<u64>)]) -> Object {
        let mut entries: BTreeMap<Actor, Vec<(u64, Value)>> = BTreeMap::new();
        for (dot, id) in values {
            entries.entry(dot.actor).or_default().push((dot.counter, value(*id)));
        }
        let entry = |(actor, values): (Actor, Vec<(u64, Value)>)| {
            (actor, Entry::from_parts(values[0].0, values).unwrap())
        };
        Object::from_entries(entries.into_iter().map(entry).collect()).unwrap()
    }

    /// A node that holds `values` of the key and has processed them and `processed`.
    pub(crate) fn dump(node: u8, values: &[(Dot, Option<u64>)], processed: &[Dot]) -> Dump {
        let live: Vec<Dot> = values.iter().map(|(dot, _)| *dot).collect();
        let objects = if values.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([(KEY, object(values))])
        };
        let place = PlaceDump {
            actor: actor(node),
            clock: clock(&[live.as_slice(), processed].concat()),
            objects,
            root: TreeNode::default(),
            swept: weald_storage::VersionVector::new(),
        };
        Dump { node: usize::from(node), at_ms: 100, places: BTreeMap::from([(PLACE, place)]) }
    }

    pub(crate) fn read(step: u64, values: &[(Dot, Option<u64>)], processed: &[Dot]) -> Read {
        let live: Vec<Dot> = values.iter().map(|(dot, _)| *dot).collect();
        Read {
            session: 1,
            at_ms: step,
            node: 0,
            key: KEY,
            guaranteed: true,
            live: values.iter().map(|(dot, value)| Seen { dot: *dot, value: *value }).collect(),
            clock: clock(&[live.as_slice(), processed].concat()),
            step,
        }
    }
}
