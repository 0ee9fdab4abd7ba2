//! P2, no phantom: each value seen was written to that key under that dot, by a write that did not fail.

use crate::sim::history::{Dump, History, KeyAt, Outcome, Seen, Violation, violation};

const NAME: &str = "P2 no phantom";

/// Checks all reads, and all that the nodes hold.
///
/// # Errors
/// The first value that nobody wrote.
pub fn check(history: &History, dumps: &[Dump]) -> Result<(), Violation> {
    for read in &history.reads {
        for seen in &read.live {
            of_value(history, read.key, *seen, read.node)?;
        }
    }
    for dump in dumps {
        for held in dump.places.values() {
            for (key, object) in &held.objects {
                for seen in crate::sim::history::seen(object) {
                    of_value(history, *key, seen, dump.node)?;
                }
            }
        }
    }
    Ok(())
}

fn of_value(history: &History, key: KeyAt, seen: Seen, node: usize) -> Result<(), Violation> {
    let phantom = |why: &str| {
        let what = format!("{} = {:?} of {key:?} at node {node}: {why}", seen.dot, seen.value);
        Err(violation(NAME, what))
    };
    let Some(write) = history.write_of(key.place, seen.dot) else {
        return phantom("nobody issued it");
    };
    if write.outcome == Outcome::Fail {
        phantom("its write failed")
    } else if write.key != key {
        phantom(&format!("it was written to {:?}", write.key))
    } else if write.value != seen.value {
        phantom(&format!("{:?} was written", write.value))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::history::Wrote;
    use crate::sim::invariants::planted::*;

    #[test]
    fn values_nobody_wrote_are_found() {
        let (a1, a2, b1) = (dot(1, 1), dot(1, 2), dot(2, 1));
        let elsewhere = KeyAt { number: 9, ..KEY };
        let history = history([
            put(1, a1, &[]),
            Wrote { outcome: Outcome::Fail, ..put(2, a2, &[]) },
            Wrote { key: elsewhere, ..put(3, b1, &[]) },
        ]);
        let of = |dot, id| check(&history, &[dump(1, &[(dot, id)], &[])]);
        assert_eq!(of(a1, Some(1)), Ok(()));
        for (dot, id, why) in [
            (a1, Some(7), "Some(1) was written"),
            (a1, None, "Some(1) was written"),
            (a2, Some(2), "failed"),
            (b1, Some(3), "written to"),
            (dot(3, 1), Some(1), "nobody"),
        ] {
            let found = of(dot, id).unwrap_err();
            assert!(found.what.contains(why), "{found}");
        }
    }

    #[test]
    fn reads_are_checked_too() {
        let mut history = history([put(1, dot(1, 1), &[])]);
        history.reads.push(read(2, &[(dot(1, 1), Some(1))], &[]));
        assert_eq!(check(&history, &[]), Ok(()));
        history.reads.push(read(3, &[(dot(1, 2), Some(2))], &[]));
        assert!(check(&history, &[]).is_err());
    }
}
