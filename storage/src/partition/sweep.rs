//! Forgetting what every member has processed: the keys of events, contexts and tombstones.
//!
//! An event is *stable* when every member has processed all events of its actor up to it (see
//! [`stable`]). Nobody will ask for it again, so its row in the index of events goes; what asks all the same (a new or
//! restored node) is sent to walk the trees. An object all of whose entries are stable and swept
//! keeps only its live values: what else it says is in every member's clock. If only tombstones are
//! left, it is removed.
//!
//! Contexts are kept until *all* entries are swept, not only stable: a delta that is sent without a
//! walk then always carries the contexts of the events it claims.
//!
//! An object may name events that were not processed here: it came from a node that had forgotten what
//! they replaced. It is left alone until they have been. One that nobody has and nobody can send any
//! more is *lost*: it is taken for processed, so that it does not come to life if it turns up.
//!
//! Values that expired are not removed here: an expiry writes a tombstone, and that is removed.
//! Otherwise replicas with equal clocks would have different trees.

use std::collections::BTreeSet;

use crate::clock::Clock;
use crate::dvvset::Entry;
use crate::error::WriteError;
use crate::ids::{Actor, Dot};
use crate::object::{Object, Value};
use crate::partition::batch::{Loaded, Rows};
use crate::partition::events::{self, Event, after, past};
use crate::partition::merge::strip;
use crate::partition::ops::Target;
use crate::vector::VersionVector;

/// What every member has processed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stable {
    /// Per actor the event up to which everybody has all that anybody has.
    pub upto: VersionVector,
    /// Actors of which more may come: those that write, and those about which the members do not
    /// agree. `None`: any actor.
    pub open: Option<BTreeSet<Actor>>,
}

impl Stable {
    /// Whether nothing more will come of `actor` than what every member has.
    fn is_closed(&self, actor: &Actor) -> bool {
        self.open.as_ref().is_some_and(|open| !open.contains(actor))
    }

    fn covers(&self, dot: &Dot) -> bool {
        self.upto.covers(dot) || self.is_closed(&dot.actor)
    }
}

impl From<VersionVector> for Stable {
    fn from(upto: VersionVector) -> Self {
        Self { upto, open: None }
    }
}

/// Who there is besides the members whose clocks are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Nobody.
    Nobody,
    /// Members that were away for too long: they hold nothing back, but come back with all they have.
    Fenced,
}

/// The events that every member has processed, by the clocks of all of them.
///
/// Of an actor that may still write, these are the events up to the least base. Of one that never
/// writes again (it is not `current`: its node was evicted, or goes on under another incarnation)
/// events may be lost for good, and their numbers stay open; so when all clocks agree about such an
/// actor, all of its events that are left are stable.
///
/// As long as there are `others`, what all clocks lack is not lost: such a member may have it. The
/// context of a later event may be all that tells that it is dead, so what lies beyond a gap is kept.
pub fn stable(clocks: &[&Clock], current: &BTreeSet<Actor>, others: Others) -> Stable {
    let mut stable = Stable { upto: VersionVector::new(), open: Some(current.clone()) };
    let Some((first, rest)) = clocks.split_first() else { return stable };
    let actors: BTreeSet<Actor> =
        clocks.iter().flat_map(|clock| clock.iter()).map(|(actor, _)| *actor).collect();
    for actor in actors {
        let agreed = rest.iter().all(|clock| clock.get(&actor) == first.get(&actor))
            && (others == Others::Nobody || first.base(&actor) == first.highest(&actor));
        let upto = if agreed && !current.contains(&actor) {
            first.highest(&actor)
        } else {
            stable.open.get_or_insert_default().insert(actor);
            clocks.iter().map(|clock| clock.base(&actor)).min().unwrap_or(0)
        };
        stable.upto.raise(actor, upto);
    }
    stable
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Events whose keys were forgotten.
    pub swept: u64,
    /// Objects whose contexts were stripped.
    pub stripped: u64,
    /// Objects that were removed.
    pub reaped: u64,
    /// Events that objects name and that are lost for good: they count as processed now.
    pub lost: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}

impl SweepReport {
    /// Whether more went than keys of events.
    pub(crate) const fn has_forgotten(&self) -> bool {
        self.stripped > 0 || self.reaped > 0 || self.lost > 0
    }
}

/// What a sweep is asked to do.
#[derive(Debug, Clone)]
pub(crate) struct SweepPlan {
    pub(crate) stable: Stable,
    pub(crate) now_ms: u64,
    pub(crate) min_age_ms: u64,
    pub(crate) events_max: usize,
}

/// What a sweep moves besides rows.
#[derive(Debug)]
pub(crate) struct Sweeping {
    /// The clock of the space, its own actor included.
    pub(crate) clock: Clock,
    pub(crate) swept: VersionVector,
    /// Events that were added to the clock.
    pub(crate) lost: Vec<Dot>,
    pub(crate) report: SweepReport,
}

impl Sweeping {
    pub(crate) fn new(clock: Clock, swept: VersionVector) -> Self {
        Self { clock, swept, lost: Vec::new(), report: SweepReport::default() }
    }

    /// Takes an event for processed of which nothing is known but its number.
    fn give_up(&mut self, dot: Dot) {
        self.clock.insert(dot);
        // It cannot be told to anybody; a peer gets it with the clock.
        self.swept.raise(dot.actor, dot.counter);
        self.lost.push(dot);
        self.report.lost += 1;
    }
}

/// What came of an event.
enum Verdict {
    Forget,
    /// Leave this event, and so all later ones of its actor.
    Stop,
}

/// Sweeps `rows`.
pub(crate) fn sweep<R: Rows>(
    rows: &mut R,
    plan: &SweepPlan,
    sweeping: &mut Sweeping,
) -> Result<(), R::Error> {
    let mut at = events::FIRST;
    while let Some((dot, event)) = rows.next_event(at)? {
        if !plan.stable.covers(&dot) {
            at = past(dot.actor);
            continue;
        }
        if sweeping.report.swept >= plan.events_max as u64 {
            sweeping.report.more = true;
            break;
        }
        let verdict = match event {
            // Its key is not known any more, so it cannot be served either.
            None => Verdict::Forget,
            Some(event) => sweep_event(rows, plan, sweeping, dot, &event)?,
        };
        match verdict {
            Verdict::Stop => at = past(dot.actor),
            Verdict::Forget => {
                rows.forget_event(dot)?;
                sweeping.swept.raise(dot.actor, dot.counter);
                sweeping.report.swept += 1;
                at = after(dot);
            }
        }
    }
    Ok(())
}

fn sweep_event<R: Rows>(
    rows: &mut R,
    plan: &SweepPlan,
    sweeping: &mut Sweeping,
    dot: Dot,
    event: &Event,
) -> Result<Verdict, R::Error> {
    // Either way: after a clock was set back, what is of the future must not wait for it to come.
    if event.at_ms.abs_diff(plan.now_ms) < plan.min_age_ms {
        return Ok(Verdict::Stop);
    }
    let target = Target::new(&event.table, &event.key);
    let object = match rows.load(&target)? {
        Loaded::Object(object) => object,
        // One that is damaged or lost cannot be told to anybody either. Its bucket does not add up, or is
        // marked, so nobody takes its absence for a delete; when it is repaired, its events are noted anew.
        Loaded::Corrupt(_) | Loaded::Absent => return Ok(Verdict::Forget),
    };
    for named in named(&object).filter(|named| !sweeping.clock.contains(named)).collect::<Vec<_>>()
    {
        if !plan.stable.is_closed(&named.actor) {
            return Ok(Verdict::Stop);
        }
        sweeping.give_up(named);
    }
    let mut settled = true;
    for (actor, entry) in object.entries() {
        let newest = Dot { actor: *actor, counter: entry.n() };
        let is_swept = sweeping.swept.covers(&newest)
            || (*actor == dot.actor && newest.counter <= dot.counter);
        if is_swept && plan.stable.covers(&newest) {
            continue;
        }
        settled = false;
        // Swept but not stable: a clock was adopted. The sweep comes by again for it.
        if is_swept && newest != dot {
            rows.note_event(newest, &target, event.at_ms)?;
        }
    }
    if !settled {
        return Ok(Verdict::Forget);
    }
    match strip(&object) {
        None => {
            rows.remove(&target)?;
            sweeping.report.reaped += 1;
        }
        Some(stripped) if stripped != object => {
            rows.store(&target, stripped)?;
            sweeping.report.stripped += 1;
        }
        Some(_) => {}
    }
    Ok(Verdict::Forget)
}

/// The events that an object names by itself: per actor the newest, and its live values.
fn named(object: &Object) -> impl Iterator<Item = Dot> + '_ {
    object.entries().flat_map(|(actor, entry): (&Actor, &Entry<Value>)| {
        let live = entry.values().iter().map(|(counter, _)| *counter);
        let newest = Some(entry.n()).filter(|n| live.clone().all(|live| live != *n));
        newest.into_iter().chain(live).map(|counter| Dot { actor: *actor, counter })
    })
}

/// Joins `theirs` into `clock`, which is that of the space without its own actor; gives back the
/// actors it changed.
///
/// What is new was learnt without the keys, so it cannot be served: `swept` is raised to the highest
/// new event of each actor, and a peer that lacks any of them is told to walk. It is raised to what
/// the peer has swept, too: the objects it sent may have been stripped of contexts up to there, and
/// without these they must not be sent to anybody who lacks the events.
pub(crate) fn adopt(
    clock: &mut Clock,
    swept: &mut VersionVector,
    own: Actor,
    counter: u64,
    theirs: &Clock,
    their_swept: &VersionVector,
) -> Result<Vec<Actor>, WriteError> {
    let highest = theirs.highest(&own).max(their_swept.get(&own));
    if highest > counter {
        return Err(WriteError::OwnEventUnknown { actor: own, counter: highest, known: counter });
    }
    let mut changed = Vec::new();
    for (actor, seen) in theirs.iter().filter(|(actor, _)| **actor != own) {
        let mut ours = clock.get(actor).cloned().unwrap_or_default();
        if let Some(highest) = ours.merge(seen) {
            swept.raise(*actor, highest);
            clock.set(*actor, ours);
            changed.push(*actor);
        }
    }
    swept.merge(their_swept);
    Ok(changed)
}
