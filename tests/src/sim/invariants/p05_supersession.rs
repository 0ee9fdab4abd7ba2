//! P5, causal supersession: a write removes exactly the values that its context covers, or all that its node holds when it
//! has none, and adds one.

use std::collections::BTreeSet;

use weald_storage::Dot;

use crate::sim::history::{History, Outcome, Violation, Wrote, violation};

const NAME: &str = "P5 causal supersession";

/// Checks every write that was done.
///
/// # Errors
/// The first write that removed too much or too little.
pub fn check(history: &History) -> Result<(), Violation> {
    history.writes.iter().try_for_each(of_write)
}

fn of_write(write: &Wrote) -> Result<(), Violation> {
    let before: BTreeSet<Dot> = write.before.iter().copied().collect();
    let after: BTreeSet<Dot> = write.after.iter().copied().collect();
    let expected: BTreeSet<Dot> = match write.dot {
        None => before.clone(),
        Some(dot) => {
            let survives = |d: &Dot| write.context.as_ref().is_some_and(|c| !c.covers(d));
            before.iter().copied().filter(survives).chain([dot]).collect()
        }
    };
    if after != expected {
        let what = format!("write {}: {before:?} became {after:?}, not {expected:?}", write.id);
        return Err(violation(NAME, what));
    }
    if write.outcome == Outcome::Fail && write.dot.is_some() {
        return Err(violation(NAME, format!("write {} failed and was done", write.id)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::planted::*;
    use weald_storage::VersionVector;

    #[test]
    fn writes_that_remove_too_much_or_too_little_are_found() {
        let (a1, a2, b1) = (dot(1, 1), dot(1, 2), dot(2, 1));
        let context = Some(VersionVector::from_iter([(actor(1), 1)]));
        let with = |after: &[Dot]| Wrote {
            context: context.clone(),
            before: vec![a1, b1],
            after: after.to_vec(),
            ..put(1, a2, &[a1])
        };
        assert_eq!(of_write(&with(&[a2, b1])), Ok(()));
        for wrong in [&[a2][..], &[a1, a2, b1], &[b1], &[a2, b1, dot(3, 1)]] {
            assert!(of_write(&with(wrong)).is_err(), "{wrong:?}");
        }
        let blind = Wrote { context: None, ..with(&[a2]) };
        assert_eq!(of_write(&blind), Ok(()));
        assert!(of_write(&Wrote { after: vec![a2, b1], ..blind }).is_err());
    }

    #[test]
    fn write_that_failed_changes_nothing() {
        let a1 = dot(1, 1);
        let failed = Wrote { outcome: Outcome::Fail, dot: None, after: vec![], ..put(1, a1, &[]) };
        assert_eq!(of_write(&failed), Ok(()));
        assert!(of_write(&Wrote { after: vec![a1], ..failed.clone() }).is_err());
        assert!(of_write(&Wrote { dot: Some(a1), after: vec![a1], ..failed }).is_err());
    }
}
