//! P6, deletes stay deleted: who has processed a write never again holds a value that the write had observed.
//!
//! Stronger than the property in its usual words, which waits for convergence, and holds for replacements as well, and for
//! nodes that were restored, wiped or are new. Tombstones do not count: one that a restored node still has is reaped there.

use crate::sim::history::{Dump, History, Violation, violation};

const NAME: &str = "P6 deletes stay deleted";

/// Checks what nodes hold, and what reads returned.
///
/// # Errors
/// The first value that is back.
pub fn check(history: &History, dumps: &[Dump]) -> Result<(), Violation> {
    for dump in dumps {
        for (place, held) in &dump.places {
            for (key, object) in &held.objects {
                let values = object.live().filter(|(_, value)| !value.is_tombstone());
                for dot in values.map(|(dot, _)| dot) {
                    if history.is_replaced(*place, dot, &held.clock) {
                        let killers: Vec<_> = history
                            .killers(*place, dot)
                            .map(|w| (w.id, w.dot, w.at_ms, w.node))
                            .collect();
                        let what = format!(
                            "{dot} of {key:?} is live at node {} at {} ms, replaced by one of {killers:?} (write, dot, ms, node): it holds {object:?} and has swept {:?}",
                            dump.node, dump.at_ms, held.swept
                        );
                        return Err(violation(NAME, what));
                    }
                }
            }
        }
    }
    for read in &history.reads {
        for seen in read.live.iter().filter(|seen| seen.value.is_some()) {
            if history.is_replaced(read.key.place, seen.dot, &read.clock) {
                let what = format!(
                    "node {} answered {} of {:?} at {} ms, which it knows to be replaced",
                    read.node, seen.dot, read.key, read.at_ms
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
    fn deleted_value_that_is_back_is_found() {
        let (a1, b1) = (dot(1, 1), dot(2, 1));
        let mut history = history([put(1, a1, &[]), delete(2, b1, &[a1])]);
        // Before the delete has arrived, with the tombstone, and after it was reaped.
        for fine in
            [dump(1, &[(a1, Some(1))], &[]), dump(1, &[(b1, None)], &[a1]), dump(1, &[], &[a1, b1])]
        {
            assert_eq!(check(&history, &[fine]), Ok(()));
        }
        let back = dump(1, &[(a1, Some(1))], &[b1]);
        assert!(check(&history, &[back]).unwrap_err().what.contains("is live at node 1"));
        history.reads.push(read(3, &[(a1, Some(1))], &[]));
        assert_eq!(check(&history, &[]), Ok(()));
        history.reads.push(read(4, &[(a1, Some(1))], &[b1]));
        assert!(check(&history, &[]).unwrap_err().what.contains("answered"));
        // The disk of the only one that knew what the delete had seen has lost it.
        history.untold.insert((PLACE, b1));
        let back = dump(1, &[(a1, Some(1))], &[b1]);
        assert_eq!(check(&history, &[back]), Ok(()));
    }
}
