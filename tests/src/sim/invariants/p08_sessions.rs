//! P8, session guarantees, per session and key, for operations that bring their token:
//!
//! - read your writes and monotonic reads: what a session has written or read before is there, or was replaced by a write
//!   that the answering node has processed, or by one that the answer shows: an object may bring a value before its event
//!   counts as processed. A write over a key that its node knew to be deleted replaced what the delete did;
//! - monotonic writes and writes follow reads: who has processed a later write of a session has also processed its earlier
//!   writes and what it had read before, or holds an object that covers them. Left out are events that some node has swept:
//!   every member had processed them then, and one that was restored or is new since gets them in a walk.

use std::collections::{BTreeMap, BTreeSet};

use weald_storage::Dot;

use crate::sim::history::{Dump, History, KeyAt, PlaceDump, Read, Violation, violation};

const NAME: &str = "P8 session guarantees";

type Known = BTreeMap<(u32, KeyAt), BTreeSet<Dot>>;

/// One thing that a session did.
enum Step<'a> {
    Read(&'a Read),
    Write(&'a crate::sim::history::Wrote),
}

/// Checks all sessions on what they read and on what nodes hold.
///
/// # Errors
/// The first guarantee broken.
pub fn check(history: &History, dumps: &[Dump]) -> Result<(), Violation> {
    let mut steps: BTreeMap<u64, Step<'_>> =
        history.reads.iter().map(|read| (read.step, Step::Read(read))).collect();
    for write in &history.writes {
        let step = history.steps.get(&write.id).copied().unwrap_or_default();
        steps.insert(step, Step::Write(write));
    }
    let mut known = Known::new();
    for step in steps.values() {
        match step {
            Step::Read(read) => of_read(history, read, &mut known)?,
            Step::Write(write) => {
                let (Some(session), Some(dot)) = (write.session, write.dot) else { continue };
                let before = known.entry((session, write.key)).or_default();
                for dump in dumps.iter().filter(|_| write.guaranteed) {
                    if let Some(held) = dump.places.get(&write.key.place) {
                        of_write(history, write.key, dot, before, held)
                            .map_err(|dot| not_followed(write.id, dot, dump))?;
                    }
                }
                before.insert(dot);
            }
        }
    }
    Ok(())
}

fn of_read(history: &History, read: &Read, known: &mut Known) -> Result<(), Violation> {
    let place = read.key.place;
    let before = known.entry((read.session, read.key)).or_default();
    if read.guaranteed {
        let is_shown = |dot: Dot| read.live.iter().any(|seen| seen.dot == dot);
        for dot in before.iter() {
            let there = is_shown(*dot)
                || history.is_outdated(place, *dot, |killer| {
                    read.clock.contains(&killer) || is_shown(killer)
                })
                || history.may_be_lost(place, *dot)
                // A tombstone may be reaped; that it has done its work is P6.
                || (read.clock.contains(dot)
                    && history.write_of(place, *dot).is_some_and(|w| w.is_delete()));
            if !there {
                let what = format!(
                    "session {} read {:?} of {:?} at node {} at {} ms, without {dot} that it knew",
                    read.session, read.live, read.key, read.node, read.at_ms
                );
                return Err(violation(NAME, what));
            }
        }
    }
    before.extend(read.live.iter().map(|seen| seen.dot));
    Ok(())
}

/// The dot that the node should have processed.
fn of_write(
    history: &History,
    key: KeyAt,
    write: Dot,
    before: &BTreeSet<Dot>,
    held: &PlaceDump,
) -> Result<(), Dot> {
    if !held.clock.contains(&write) {
        return Ok(());
    }
    for dot in before {
        let followed = held.clock.contains(dot)
            || held.objects.get(&key).is_some_and(|object| object.join().covers(dot))
            || history.is_superseded(key.place, *dot, &held.clock)
            || history.may_be_lost(key.place, *dot)
            // The context that named it may have been stripped, and whoever came later learns of it in a walk.
            || history.is_forgotten(key.place, *dot);
        if !followed {
            return Err(*dot);
        }
    }
    Ok(())
}

fn not_followed(write: u64, dot: Dot, dump: &Dump) -> Violation {
    let what = format!(
        "node {} has processed write {write} at {} ms, but not {dot} that its session knew",
        dump.node, dump.at_ms
    );
    violation(NAME, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::planted::*;

    /// Each case: a read after a put of a1 and a read that returned b1; what it returned, what its node had processed.
    #[test]
    fn reads_that_miss_what_the_session_knew_are_found() {
        let (a1, b1, c1) = (dot(1, 1), dot(2, 1), dot(3, 1));
        let of = |values: &[(Dot, Option<u64>)], processed: &[Dot], guaranteed| {
            let other = crate::sim::history::Wrote { session: Some(2), ..put(2, b1, &[]) };
            let replace = crate::sim::history::Wrote { session: Some(3), ..put(3, c1, &[a1, b1]) };
            let mut history = history([put(1, a1, &[]), other, replace]);
            let step = history.next_step();
            history.reads.push(read(step, &[(a1, Some(1)), (b1, Some(2))], &[]));
            let step = history.next_step();
            history.reads.push(Read { guaranteed, ..read(step, values, processed) });
            check(&history, &[])
        };
        assert_eq!(of(&[(a1, Some(1)), (b1, Some(2))], &[], true), Ok(()));
        assert_eq!(of(&[(c1, Some(3))], &[a1, b1], true), Ok(()));
        assert_eq!(of(&[], &[], false), Ok(()));
        assert!(of(&[(b1, Some(2))], &[], true).unwrap_err().what.contains("that it knew"));
        assert!(of(&[(a1, Some(1))], &[], true).is_err());
        assert!(of(&[(a1, Some(1))], &[b1], true).is_err());
    }

    /// b1 deleted a1 and was reaped; c1 was written where b1 had been processed, or not.
    #[test]
    fn write_over_a_delete_that_was_reaped_is_later_than_what_was_deleted() {
        let (a1, b1, c1) = (dot(1, 1), dot(2, 1), dot(3, 1));
        let by = |session, write| crate::sim::history::Wrote { session: Some(session), ..write };
        for (over, allowed) in [(vec![b1], true), (vec![], false)] {
            let last =
                crate::sim::history::Wrote { over: over.into_iter().collect(), ..put(3, c1, &[]) };
            let mut history = history([put(1, a1, &[]), by(2, delete(2, b1, &[a1])), by(3, last)]);
            let step = history.next_step();
            history.reads.push(read(step, &[(c1, Some(3))], &[]));
            assert_eq!(check(&history, &[]).is_ok(), allowed);
        }
    }

    /// b1 replaced a1, c1 replaced b1. The node has processed neither.
    #[test]
    fn value_may_be_replaced_by_one_that_the_answer_shows() {
        let (a1, b1, c1, d1) = (dot(1, 1), dot(2, 1), dot(3, 1), dot(4, 1));
        let by = |session, write| crate::sim::history::Wrote { session: Some(session), ..write };
        for (shown, allowed) in [(b1, true), (c1, true), (d1, false)] {
            let mut history = history([
                put(1, a1, &[]),
                by(2, put(2, b1, &[a1])),
                by(3, put(3, c1, &[b1])),
                by(4, put(4, d1, &[])),
            ]);
            let step = history.next_step();
            history.reads.push(Read { clock: clock(&[]), ..read(step, &[(shown, Some(9))], &[]) });
            assert_eq!(check(&history, &[]).is_ok(), allowed, "{shown}");
        }
    }

    #[test]
    fn write_seen_without_what_went_before_is_found() {
        let (a1, b1) = (dot(1, 1), dot(2, 1));
        let history = history([put(1, a1, &[]), put(2, b1, &[])]);
        let of = |held: Dump| check(&history, &[held]);
        assert_eq!(of(dump(1, &[(a1, Some(1)), (b1, Some(2))], &[])), Ok(()));
        assert_eq!(of(dump(1, &[(a1, Some(1))], &[])), Ok(()));
        assert!(of(dump(1, &[(b1, Some(2))], &[])).unwrap_err().what.contains("write 2"));
    }

    #[test]
    fn only_what_was_swept_may_be_learned_later() {
        let (a1, a2, b1) = (dot(1, 1), dot(1, 2), dot(2, 1));
        for (swept, allowed) in [(0, false), (1, false), (2, true)] {
            let mut history = history([put(1, a1, &[]), put(2, a2, &[a1]), put(3, b1, &[])]);
            history.swept(PLACE, &weald_storage::VersionVector::from(vec![(actor(1), swept)]));
            let held = dump(1, &[(b1, Some(3))], &[]);
            assert_eq!(check(&history, &[held]).is_ok(), allowed, "{swept}");
        }
    }
}
