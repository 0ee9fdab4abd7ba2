//! P1, no lost acknowledged write: once the cluster is at rest, each acknowledged write is present at every node, or a write
//! that had observed it has been processed there. If that one was lost, the next one that had observed it in turn will do:
//! its context covers both.
//!
//! Deletes are left out: their tombstones are reaped. What they did is P6.

use weald_storage::Dot;

use crate::sim::history::{Dump, History, Outcome, Violation, violation};

const NAME: &str = "P1 no lost acknowledged write";

/// Checks the property on a cluster at rest.
///
/// # Errors
/// The first write that is missing somewhere.
pub fn check(history: &History, dumps: &[Dump]) -> Result<(), Violation> {
    let acked = history.writes.iter().filter(|w| w.outcome == Outcome::Ok && !w.is_delete());
    for write in acked {
        // Acknowledged writes that had nothing to do issue no dot: repairs of what was repaired meanwhile.
        let Some(dot) = write.dot else { continue };
        let place = write.key.place;
        if history.may_be_lost(place, dot) {
            continue;
        }
        for dump in dumps {
            let Some(held) = dump.places.get(&place) else { continue };
            let present = held.live(write.key).iter().any(|seen| seen.dot == dot);
            let processed = |dot: Dot| held.clock.contains(&dot);
            let is_lost = |dot: Dot| history.may_be_lost(place, dot) && !processed(dot);
            if !present && !history.leads(place, dot, processed, is_lost) {
                let what = format!(
                    "write {} of {:?}, {dot} by node {} at {} ms, is not at node {} (processed there: {})",
                    write.id,
                    write.key,
                    write.node,
                    write.at_ms,
                    dump.node,
                    processed(dot)
                );
                return Err(violation(NAME, what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::planted::*;

    #[test]
    fn replaced_and_present_writes_are_fine_and_a_missing_one_is_found() {
        let (a1, a2, b1) = (dot(1, 1), dot(1, 2), dot(2, 1));
        let history = history([put(1, a1, &[]), put(2, a2, &[a1]), put(3, b1, &[])]);
        let whole = dump(1, &[(a2, Some(2)), (b1, Some(3))], &[a1]);
        assert_eq!(check(&history, &[whole.clone(), whole.clone()]), Ok(()));
        let without = dump(2, &[(a2, Some(2))], &[a1, b1]);
        assert!(check(&history, &[whole, without]).unwrap_err().what.contains("write 3"));
        // Gone with its replacement: nobody has processed the write that replaced it.
        let both_gone = dump(1, &[(b1, Some(3))], &[a1]);
        assert!(check(&history, &[both_gone]).unwrap_err().what.contains("write 1"));
    }

    /// b1 replaced a1, b2 replaced b1, and only b2 got through.
    #[test]
    fn only_what_was_lost_may_be_left_out_between_a_write_and_what_replaced_it() {
        let (a1, b1, b2) = (dot(1, 1), dot(2, 1), dot(2, 2));
        for (lost, allowed) in [(vec![], false), (vec![b1], true), (vec![b2], false)] {
            let mut history = history([put(1, a1, &[]), put(2, b1, &[a1]), put(3, b2, &[b1])]);
            history.lost.extend(lost.iter().map(|dot| (PLACE, *dot)));
            let found = check(&history, &[dump(1, &[(b2, Some(3))], &[a1])]);
            assert_eq!(found.is_ok(), allowed, "{lost:?}: {found:?}");
        }
    }

    #[test]
    fn writes_that_failed_or_went_down_with_all_their_copies_may_be_missing() {
        let (a1, b1) = (dot(1, 1), dot(2, 1));
        let failed = crate::sim::history::Wrote { outcome: Outcome::Fail, ..put(1, a1, &[]) };
        let mut history = history([failed, put(2, b1, &[])]);
        let empty = [dump(1, &[], &[])];
        assert!(check(&history, &empty).unwrap_err().what.contains("write 2"));
        history.lost.insert((PLACE, b1));
        assert_eq!(check(&history, &empty), Ok(()));
    }
}
