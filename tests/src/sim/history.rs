//! What clients did and saw, and what nodes held: all that the invariants are checked on.
//!
//! The simulator sees more than a client: with every write it notes which values its writer had seen ([`Wrote::observed`]).
//! A value may only ever disappear because a write had observed it, so this is the whole truth about what is lost and what
//! was replaced, independent of contexts, clocks and merges, which are what is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use weald_storage::{Actor, Clock, Dot, Object, TreeNode, VersionVector};

/// A partition and a space of it, as one number: `partition * 2`, plus 1 for the memory space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u16);

impl Place {
    /// Whether its rows are in memory only: they are gone when their node stops.
    #[must_use]
    pub const fn is_memory(self) -> bool {
        self.0 % 2 == 1
    }

    /// The partition.
    #[must_use]
    pub const fn partition(self) -> u16 {
        self.0 / 2
    }
}

/// A key, by its number within its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyAt {
    /// Where it is kept.
    pub place: Place,
    /// Its number.
    pub number: u16,
}

/// A dot within a place: counters are issued by each place on its own.
pub type DotAt = (Place, Dot);

/// How an operation ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Ok,
    /// It was certainly not done.
    Fail,
    /// Its client never heard of it again; it may have been done.
    Info,
}

/// A write.
#[derive(Debug, Clone)]
pub struct Wrote {
    /// Its number. Never used twice.
    pub id: u64,
    /// The value written, the number of a write; `None` for a delete. Repairs write the value of another write again.
    pub value: Option<u64>,
    /// The session; `None` for repairs that a node does by itself.
    pub session: Option<u32>,
    /// Whether the guarantees of the session apply: it brought its token, or stays at its node.
    pub guaranteed: bool,
    /// When it was done, in virtual ms.
    pub at_ms: u64,
    /// The node, by its slot.
    pub node: usize,
    /// The key.
    pub key: KeyAt,
    /// How it ended.
    pub outcome: Outcome,
    /// The dot issued, if it was done.
    pub dot: Option<Dot>,
    /// The context handed in; `None` replaces whatever the node holds.
    pub context: Option<VersionVector>,
    /// The dots whose values its writer had seen: those of the read, or those the node held when it replaced them blindly.
    pub observed: BTreeSet<Dot>,
    /// Deletes of the key that its node had processed when it was written there without a context. Their tombstones may have
    /// been reaped, but the writer was told that nothing is there.
    pub over: BTreeSet<Dot>,
    /// Live dots at the node before.
    pub before: Vec<Dot>,
    /// Live dots at the node after.
    pub after: Vec<Dot>,
}

/// A value as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its dot.
    pub dot: Dot,
    /// Number of the write; `None` for a tombstone.
    pub value: Option<u64>,
}

/// A read that was answered.
#[derive(Debug, Clone)]
pub struct Read {
    /// The session.
    pub session: u32,
    /// When, in virtual ms.
    pub at_ms: u64,
    /// The node, by its slot.
    pub node: usize,
    /// The key.
    pub key: KeyAt,
    /// Whether the guarantees of the session apply: it brought its token.
    pub guaranteed: bool,
    /// What was there.
    pub live: Vec<Seen>,
    /// The clock of the place when it was read.
    pub clock: Clock,
    /// Place in the order of the session's operations, see [`History::next_step`].
    pub step: u64,
}

/// What a merge did to a key beyond adding what was new.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The node, by its slot.
    pub node: usize,
    /// When, in virtual ms.
    pub at_ms: u64,
    /// The key.
    pub key: KeyAt,
    /// Dots that were live before and are no more.
    pub dropped: Vec<Dot>,
    /// Dots that are live now although the node had processed them before and did not hold them.
    pub revived: Vec<Dot>,
    /// Whether the clock lost something.
    pub clock_shrank: bool,
}

/// An exchange between two nodes that turned out to be equal.
#[derive(Debug, Clone, Copy)]
pub struct EqualExchange {
    /// The side that began it, by its slot.
    pub node: usize,
    /// Frames both ways.
    pub frames: u64,
    /// Bytes both ways.
    pub bytes: u64,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub struct History {
    /// Writes in the order in which they were done.
    pub writes: Vec<Wrote>,
    /// Order of the writes within their sessions, as [`Read::step`].
    pub steps: BTreeMap<u64, u64>,
    /// Reads.
    pub reads: Vec<Read>,
    /// Merges that did more than add.
    pub merges: Vec<Merged>,
    /// Exchanges between equals.
    pub equal_exchanges: Vec<EqualExchange>,
    /// Events that were at one node only when it lost its data. They may be gone, and then nobody may see them again.
    pub lost: BTreeSet<DotAt>,
    /// Events of a row that a disk has lost silently before anybody else had processed them: what they had replaced is known to
    /// nobody any more.
    pub untold: BTreeSet<DotAt>,
    /// Up to where nodes have swept: what lies below cannot be told event by event any more.
    forgotten: BTreeMap<Place, VersionVector>,
    step: u64,
    killers: BTreeMap<DotAt, Vec<usize>>,
    /// Writes over deletes, see [`Wrote::over`].
    later: BTreeMap<DotAt, Vec<usize>>,
    by_dot: BTreeMap<DotAt, usize>,
}

impl Wrote {
    /// Whether it left a tombstone.
    #[must_use]
    pub const fn is_delete(&self) -> bool {
        self.value.is_none()
    }
}

impl History {
    /// The next number in the order of all operations.
    pub fn next_step(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    /// Notes a write.
    pub fn wrote(&mut self, write: Wrote) {
        let at = self.writes.len();
        let step = self.next_step();
        self.steps.insert(write.id, step);
        if let Some(dot) = write.dot {
            self.by_dot.entry((write.key.place, dot)).or_insert(at);
            for killed in &write.observed {
                self.killers.entry((write.key.place, *killed)).or_default().push(at);
            }
            for deleted in &write.over {
                self.later.entry((write.key.place, *deleted)).or_default().push(at);
            }
        }
        self.writes.push(write);
    }

    /// The write that issued a dot.
    #[must_use]
    pub fn write_of(&self, place: Place, dot: Dot) -> Option<&Wrote> {
        self.by_dot.get(&(place, dot)).map(|at| &self.writes[*at])
    }

    /// Writes that had seen the value of a dot when they replaced it.
    pub fn killers(&self, place: Place, dot: Dot) -> impl Iterator<Item = &Wrote> {
        let at = self.killers.get(&(place, dot)).map_or(&[][..], Vec::as_slice);
        at.iter().map(|at| &self.writes[*at])
    }

    /// Whether who has processed `clock` has good reason not to hold `dot`: a write that it has processed had observed it.
    #[must_use]
    pub fn is_replaced(&self, place: Place, dot: Dot, clock: &Clock) -> bool {
        let is_known = |killer: &Dot| !self.untold.contains(&(place, *killer));
        let mut killers = self.killers(place, dot).filter_map(|write| write.dot).filter(is_known);
        killers.any(|killer| clock.contains(&killer))
    }

    /// As [`History::is_replaced`], by a write that was itself replaced, and so on: who has processed the last one need not
    /// have heard of those between.
    #[must_use]
    pub fn is_superseded(&self, place: Place, dot: Dot, clock: &Clock) -> bool {
        self.leads(place, dot, |killer| clock.contains(&killer), |_| true)
    }

    /// Deletes of a key among the events of `clock`.
    pub fn deletes<'h>(
        &'h self,
        key: KeyAt,
        clock: &'h Clock,
    ) -> impl Iterator<Item = Dot> + use<'h> {
        let of_key = self.writes.iter().filter(move |write| write.key == key && write.is_delete());
        of_key.filter_map(|write| write.dot).filter(|dot| clock.contains(dot))
    }

    /// Whether a chain of writes, each of which had observed the one before, leads from `dot` to one that is `reached`, by way
    /// of such as may be passed.
    pub fn leads(
        &self,
        place: Place,
        dot: Dot,
        reached: impl Fn(Dot) -> bool,
        passes: impl Fn(Dot) -> bool,
    ) -> bool {
        let next = |dot| self.killers(place, dot).filter_map(|write| write.dot).collect();
        chain(dot, next, reached, passes)
    }

    /// Whether such a chain leads from `dot` to one that is `reached`, or a write that came after a delete in it.
    pub fn is_outdated(&self, place: Place, dot: Dot, reached: impl Fn(Dot) -> bool) -> bool {
        let later = |dot| self.later.get(&(place, dot)).map_or(&[][..], Vec::as_slice);
        let next = |dot| {
            let later = later(dot).iter().map(|at| &self.writes[*at]);
            self.killers(place, dot).chain(later).filter_map(|write| write.dot).collect()
        };
        chain(dot, next, reached, |_| true)
    }

    /// A node has swept up to `swept`.
    pub fn swept(&mut self, place: Place, swept: &VersionVector) {
        self.forgotten.entry(place).or_default().merge(swept);
    }

    /// Whether some node has swept an event.
    #[must_use]
    pub fn is_forgotten(&self, place: Place, dot: Dot) -> bool {
        self.forgotten.get(&place).is_some_and(|swept| swept.covers(&dot))
    }

    /// Whether an event may be gone for ever.
    #[must_use]
    pub fn may_be_lost(&self, place: Place, dot: Dot) -> bool {
        self.lost.contains(&(place, dot))
    }
}

/// Whether one can get from `dot` to one that is `reached`.
fn chain(
    dot: Dot,
    next: impl Fn(Dot) -> Vec<Dot>,
    reached: impl Fn(Dot) -> bool,
    passes: impl Fn(Dot) -> bool,
) -> bool {
    let (mut todo, mut seen) = (vec![dot], BTreeSet::new());
    while let Some(dot) = todo.pop() {
        for next in next(dot) {
            if reached(next) {
                return true;
            }
            if passes(next) && seen.insert(next) {
                todo.push(next);
            }
        }
    }
    false
}

/// What a node held at one moment.
#[derive(Debug, Clone)]
pub struct Dump {
    /// The node, by its slot.
    pub node: usize,
    /// When, in virtual ms.
    pub at_ms: u64,
    /// Its places.
    pub places: BTreeMap<Place, PlaceDump>,
}

/// What a node held in one place.
#[derive(Debug, Clone)]
pub struct PlaceDump {
    /// Its actor.
    pub actor: Actor,
    /// What it had processed.
    pub clock: Clock,
    /// Its objects.
    pub objects: BTreeMap<KeyAt, Object>,
    /// The root of its tree.
    pub root: TreeNode,
    /// Up to where it has swept.
    pub swept: VersionVector,
}

impl PlaceDump {
    /// The values of a key.
    #[must_use]
    pub fn live(&self, key: KeyAt) -> Vec<Seen> {
        self.objects.get(&key).map(seen).unwrap_or_default()
    }
}

/// The values of an object.
#[must_use]
pub fn seen(object: &Object) -> Vec<Seen> {
    let number = |bytes: &Vec<u8>| bytes.as_slice().try_into().map_or(u64::MAX, u64::from_be_bytes);
    object
        .live()
        .map(|(dot, value)| Seen { dot, value: value.payload.as_ref().map(number) })
        .collect()
}

/// A property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which: `P1` to `P10`.
    pub property: &'static str,
    /// What was found.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: {}", self.property, self.what)
    }
}

impl std::error::Error for Violation {}

/// A violation of `property`.
#[must_use]
pub fn violation(property: &'static str, what: impl Into<String>) -> Violation {
    Violation { property, what: what.into() }
}
