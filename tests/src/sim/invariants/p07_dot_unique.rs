//! P7, uniqueness of dots: a dot names one value of one key, at all nodes and for ever, across crashes and restores.

use std::collections::BTreeMap;

use weald_storage::Value;

use crate::sim::history::{DotAt, Dump, History, KeyAt, Violation, violation};

const NAME: &str = "P7 uniqueness of dots";

/// Checks all that was written and all that nodes hold, down to stamps.
///
/// # Errors
/// The first dot with two meanings.
pub fn check(history: &History, dumps: &[Dump]) -> Result<(), Violation> {
    let mut issued: BTreeMap<DotAt, u64> = BTreeMap::new();
    for write in &history.writes {
        let Some(dot) = write.dot else { continue };
        if let Some(before) = issued.insert((write.key.place, dot), write.id) {
            let what = format!("{dot} was issued for write {before} and for write {}", write.id);
            return Err(violation(NAME, what));
        }
    }
    let mut names: BTreeMap<DotAt, (KeyAt, &Value, usize)> = BTreeMap::new();
    for dump in dumps {
        for (place, held) in &dump.places {
            for (key, object) in &held.objects {
                for (dot, value) in object.live() {
                    let (other_key, other, node) =
                        *names.entry((*place, dot)).or_insert((*key, value, dump.node));
                    if (other_key, other) != (*key, value) {
                        let what = format!(
                            "{dot} is {value:?} of {key:?} at node {} and {other:?} of {other_key:?} at node {node}",
                            dump.node
                        );
                        return Err(violation(NAME, what));
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::history::Wrote;
    use crate::sim::invariants::planted::*;

    #[test]
    fn dot_used_twice_is_found() {
        let a1 = dot(1, 1);
        assert_eq!(check(&history([put(1, a1, &[]), put(2, dot(1, 2), &[])]), &[]), Ok(()));
        assert!(check(&history([put(1, a1, &[]), put(2, a1, &[])]), &[]).is_err());
        // The same counter in another place is another dot.
        let elsewhere = KeyAt { place: crate::sim::history::Place(1), number: 0 };
        let twice = [put(1, a1, &[]), Wrote { key: elsewhere, ..put(2, a1, &[]) }];
        assert_eq!(check(&history(twice), &[]), Ok(()));
    }

    #[test]
    fn dot_with_two_values_at_two_nodes_is_found() {
        let history = history([put(1, dot(1, 1), &[])]);
        let of = |node, id| dump(node, &[(dot(1, 1), Some(id))], &[]);
        assert_eq!(check(&history, &[of(1, 1), of(2, 1)]), Ok(()));
        assert!(check(&history, &[of(1, 1), of(2, 7)]).is_err());
    }
}
