//! P4, merge laws: joining objects is commutative, associative and idempotent, never drops a value that the other side does
//! not cover, and never forgets a context. Checked on the objects that nodes hold in the middle of faults.

use std::collections::BTreeSet;

use weald_storage::{Dot, Object};

use crate::sim::history::{Dump, KeyAt, Violation, violation};

/// What is tested: the join of two objects.
pub type Join<'f> = &'f dyn Fn(&Object, &Object) -> Object;

const NAME: &str = "P4 merge laws";

/// Checks the laws on the objects of each key at three nodes at a time.
///
/// # Errors
/// The first law broken.
pub fn check(dumps: &[Dump]) -> Result<(), Violation> {
    for window in dumps.windows(3.min(dumps.len().max(1))) {
        let places = window.iter().flat_map(|dump| dump.places.values());
        let keys: BTreeSet<KeyAt> = places.flat_map(|p| p.objects.keys().copied()).collect();
        for key in keys {
            let held = |at: usize| {
                let place = window[at % window.len()].places.get(&key.place);
                place.and_then(|p| p.objects.get(&key)).cloned().unwrap_or_default()
            };
            laws(&held(0), &held(1), &held(2), &Object::sync)
                .map_err(|what| violation(NAME, format!("{key:?}: {what}")))?;
        }
    }
    Ok(())
}

/// The laws of `join` on three objects.
///
/// # Errors
/// Which one is broken.
pub fn laws(x: &Object, y: &Object, z: &Object, join: Join<'_>) -> Result<(), String> {
    let says = |holds: bool, law: &str| {
        if holds { Ok(()) } else { Err(format!("{law} does not hold for {x:?}, {y:?}, {z:?}")) }
    };
    let (xy, yx) = (join(x, y), join(y, x));
    says(xy.equal(&yx), "commutativity")?;
    says(join(&xy, z).equal(&join(x, &join(y, z))), "associativity")?;
    says(join(x, x).equal(x) && join(&xy, y).equal(&xy), "idempotence")?;
    let uncovered = |from: &Object, by: &Object| -> BTreeSet<Dot> {
        let context = by.join();
        from.live_dots().filter(|dot| !context.covers(dot) || by.value_at(dot).is_some()).collect()
    };
    let expected: BTreeSet<Dot> = uncovered(x, y).union(&uncovered(y, x)).copied().collect();
    says(xy.live_dots().collect::<BTreeSet<_>>() == expected, "survival of what is not covered")?;
    says(xy.descends(&x.join()) && xy.descends(&y.join()), "growth of the context")
    // Agreement with the order of objects is the store's own test: contexts that were stripped hide a part of the order.
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::planted::*;

    #[test]
    fn joins_that_forget_prefer_a_side_or_revive_are_found() {
        let x = object(&[(dot(1, 2), Some(2)), (dot(1, 1), Some(1))]);
        let y = object(&[(dot(1, 2), Some(2)), (dot(2, 1), Some(3))]);
        let z = object(&[(dot(3, 1), None)]);
        assert_eq!(laws(&x, &y, &z, &Object::sync), Ok(()));
        let broken: [(&str, Join<'_>); 3] = [
            ("commutativity", &|x, _| x.clone()),
            ("associativity", &|x, y| {
                if x.live_len() == y.live_len() { x.clone() } else { Object::default() }
            }),
            ("survival", &|x, y| {
                let all = x.sync(y);
                let first = all.live().next().map(|(dot, _)| dot);
                let kept: Vec<_> = all.live_dots().filter(|d| Some(*d) == first).collect();
                let mut less = all.clone();
                if kept.len() < all.live_len() {
                    less.discard(&all.join());
                }
                less
            }),
        ];
        for (law, join) in broken {
            let mut hits = Vec::new();
            for (x, y, z) in [(&x, &y, &z), (&y, &z, &x), (&z, &x, &y), (&x, &x, &x), (&z, &z, &z)]
            {
                hits.extend(laws(x, y, z, join).err());
            }
            assert!(!hits.is_empty(), "{law}");
        }
        assert!(laws(&x, &y, &z, &|x, _| x.clone()).unwrap_err().starts_with("commutativity"));
    }

    #[test]
    fn objects_of_nodes_are_compared_by_key() {
        let nodes = [1, 2, 3].map(|n| dump(n, &[(dot(n, 1), Some(u64::from(n)))], &[]));
        assert_eq!(check(&nodes), Ok(()));
        assert_eq!((check(&nodes[..2]), check(&[])), (Ok(()), Ok(())));
    }
}
