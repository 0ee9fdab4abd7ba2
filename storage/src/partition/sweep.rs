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
//! Values that expired are not removed here: an expiry writes a tombstone, and that is removed.
//! Otherwise replicas with equal clocks would have different trees.

use std::collections::BTreeSet;

use crate::clock::Clock;
use crate::error::WriteError;
use crate::ids::{Actor, Dot};
use crate::partition::batch::{Loaded, Rows};
use crate::partition::events::{self, Event, after, past};
use crate::partition::merge::strip;
use crate::partition::ops::Target;
use crate::vector::VersionVector;

/// The events that every member has processed, by the clocks of all of them.
///
/// Of an actor that may still write, these are the events up to the least base. Of one that never
/// writes again (it is not `current`: its node was evicted, or goes on under another incarnation)
/// events may be lost for good, and their numbers stay open; so when all clocks agree about such an
/// actor, all of its events that are left are stable.
pub fn stable(clocks: &[&Clock], current: &BTreeSet<Actor>) -> VersionVector {
    let Some((first, rest)) = clocks.split_first() else { return VersionVector::new() };
    let stable = first.iter().map(|(actor, seen)| {
        let agreed = rest.iter().all(|clock| clock.get(actor) == Some(seen));
        if agreed && !current.contains(actor) {
            return (*actor, seen.highest());
        }
        let least = rest.iter().map(|clock| clock.base(actor)).min().unwrap_or(u64::MAX);
        (*actor, least.min(seen.base()))
    });
    stable.collect()
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
    /// Whether there is more to do at once.
    pub more: bool,
}

/// What a sweep is asked to do.
#[derive(Debug, Clone)]
pub(crate) struct SweepPlan {
    pub(crate) stable: VersionVector,
    pub(crate) now_ms: u64,
    pub(crate) min_age_ms: u64,
    pub(crate) events_max: usize,
}

/// What came of an event.
enum Verdict {
    Forget,
    /// Leave this event, and so all later ones of its actor.
    Stop,
}

/// Sweeps `rows`. `clock` is that of the space, its own actor included.
pub(crate) fn sweep<R: Rows>(
    rows: &mut R,
    plan: &SweepPlan,
    clock: &Clock,
    swept: &mut VersionVector,
) -> Result<SweepReport, R::Error> {
    let mut report = SweepReport::default();
    let mut at = events::FIRST;
    while let Some((dot, event)) = rows.next_event(at)? {
        if !plan.stable.covers(&dot) {
            at = past(dot.actor);
            continue;
        }
        if report.swept >= plan.events_max as u64 {
            report.more = true;
            break;
        }
        let verdict = match event {
            // Its key is not known any more, so it cannot be served either.
            None => Verdict::Forget,
            Some(event) => sweep_event(rows, plan, clock, swept, dot, &event, &mut report)?,
        };
        match verdict {
            Verdict::Stop => at = past(dot.actor),
            Verdict::Forget => {
                rows.forget_event(dot)?;
                swept.raise(dot.actor, dot.counter);
                report.swept += 1;
                at = after(dot);
            }
        }
    }
    Ok(report)
}

fn sweep_event<R: Rows>(
    rows: &mut R,
    plan: &SweepPlan,
    clock: &Clock,
    swept: &VersionVector,
    dot: Dot,
    event: &Event,
    report: &mut SweepReport,
) -> Result<Verdict, R::Error> {
    // Either way: after a clock was set back, what is of the future must not wait for it to come.
    if event.at_ms.abs_diff(plan.now_ms) < plan.min_age_ms {
        return Ok(Verdict::Stop);
    }
    let target = Target::new(&event.table, &event.key);
    let object = match rows.load(&target)? {
        Loaded::Object(object) => object,
        // A record that is damaged or lost waits for its repair.
        Loaded::Corrupt(_) => return Ok(Verdict::Stop),
        Loaded::Absent if rows.is_indexed(&target)? => return Ok(Verdict::Stop),
        Loaded::Absent => return Ok(Verdict::Forget),
    };
    let is_swept =
        |actor: &Actor, n: u64| n <= swept.get(actor) || (*actor == dot.actor && n <= dot.counter);
    let is_stable = |dot: &Dot| plan.stable.covers(dot) && clock.contains(dot);
    let mut settled = true;
    for (actor, entry) in object.entries() {
        let n = entry.n();
        let newest = Dot { actor: *actor, counter: n };
        if is_swept(actor, n) && is_stable(&newest) {
            continue;
        }
        settled = false;
        // Swept but not stable: a clock was adopted. The sweep comes by again for it.
        if is_swept(actor, n) && clock.contains(&newest) && newest != dot {
            rows.note_event(newest, &target, event.at_ms)?;
        }
    }
    if !settled {
        return Ok(Verdict::Forget);
    }
    match strip(&object) {
        None => {
            rows.remove(&target)?;
            report.reaped += 1;
        }
        Some(stripped) if stripped != object => {
            rows.store(&target, stripped)?;
            report.stripped += 1;
        }
        Some(_) => {}
    }
    Ok(Verdict::Forget)
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
