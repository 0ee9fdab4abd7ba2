//! P3, convergence: once the cluster is at rest, all nodes have processed the same events, hold the same objects byte for
//! byte, and their trees have equal roots.

use std::collections::BTreeSet;

use weald_storage::{Object, encode_object};

use crate::sim::history::{Dump, PlaceDump, Violation, seen, violation};

const NAME: &str = "P3 convergence";

/// Checks that all dumps are equal.
///
/// # Errors
/// The first difference from the first dump.
pub fn check(dumps: &[Dump]) -> Result<(), Violation> {
    let Some((first, others)) = dumps.split_first() else { return Ok(()) };
    for other in others {
        let places: BTreeSet<_> = first.places.keys().chain(other.places.keys()).collect();
        for place in places {
            let difference = match (first.places.get(place), other.places.get(place)) {
                (Some(x), Some(y)) => difference(x, y),
                _ => Some("one of them does not have the place".to_owned()),
            };
            if let Some(difference) = difference {
                let what =
                    format!("nodes {} and {} in {place:?}: {difference}", first.node, other.node);
                return Err(violation(NAME, what));
            }
        }
    }
    Ok(())
}

/// What differs between two nodes in one place.
fn difference(x: &PlaceDump, y: &PlaceDump) -> Option<String> {
    let keys: BTreeSet<_> = x.objects.keys().chain(y.objects.keys()).collect();
    for key in keys {
        let (ours, theirs) = (x.live(*key), y.live(*key));
        if ours != theirs {
            return Some(format!("{key:?} is {ours:?} and {theirs:?}"));
        }
    }
    if x.clock != y.clock {
        return Some(format!("clocks {:?} and {:?}", x.clock, y.clock));
    }
    if x.root != y.root {
        return Some(format!("roots {:?} and {:?} of equal objects", x.root, y.root));
    }
    let bytes = |object: Option<&Object>| {
        let mut bytes = Vec::new();
        if let Some(object) = object {
            encode_object(object, &mut bytes);
        }
        bytes
    };
    let keys = x.objects.keys().chain(y.objects.keys());
    let mut unequal = keys.filter(|key| bytes(x.objects.get(key)) != bytes(y.objects.get(key)));
    unequal.next().map(|key| {
        let (ours, theirs) = (x.objects.get(key), y.objects.get(key));
        let live = ours.map(seen);
        format!("{key:?} holds {live:?} on both, in other bytes: {ours:?} and {theirs:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::planted::*;
    use weald_storage::TreeNode;

    #[test]
    fn differences_in_values_clocks_bytes_and_roots_are_found() {
        let (a1, a2, b1) = (dot(1, 1), dot(1, 2), dot(2, 1));
        let one = dump(1, &[(a1, Some(1)), (b1, Some(2))], &[]);
        assert_eq!(check(&[one.clone(), one.clone(), one.clone()]), Ok(()));
        let against = |other: Dump| check(&[one.clone(), one.clone(), other]).unwrap_err().what;
        assert!(against(dump(2, &[(a1, Some(1))], &[b1])).contains(" is "));
        assert!(against(dump(2, &[(a1, Some(1)), (b1, Some(2))], &[a2])).contains("clocks"));
        let mut root = dump(2, &[(a1, Some(1)), (b1, Some(2))], &[]);
        root.places.get_mut(&PLACE).unwrap().root = TreeNode { count: 7, ..TreeNode::default() };
        assert!(against(root).contains("roots"));
        let mut stale = dump(2, &[(a1, Some(1)), (b1, Some(2))], &[]);
        let held = stale.places.get_mut(&PLACE).unwrap();
        let wider = weald_storage::Entry::from_parts(5, vec![(1, value(Some(1)))]).unwrap();
        let other = object(&[(b1, Some(2))]);
        let entries = std::iter::once((actor(1), wider))
            .chain(other.entries().map(|(a, e)| (*a, e.clone())))
            .collect();
        held.objects.insert(KEY, Object::from_entries(entries).unwrap());
        assert!(against(stale).contains("other bytes"));
    }
}
