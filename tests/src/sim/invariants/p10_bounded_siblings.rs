//! P10, bounded siblings: a key holds no more values than there are concurrent writers.
//!
//! A writer is an actor (what it writes blindly replaces what it holds) or a session at an actor (it uses each context once,
//! where it read it, so its next context covers its last write there).

use std::collections::BTreeSet;

use crate::sim::history::{Dump, History, KeyAt, Violation, violation};

const NAME: &str = "P10 bounded siblings";

/// Checks all that nodes hold.
///
/// # Errors
/// The first key with too many values.
pub fn check(history: &History, dumps: &[Dump]) -> Result<(), Violation> {
    for dump in dumps {
        for held in dump.places.values() {
            for (key, object) in &held.objects {
                let (siblings, writers) = (object.live_len(), writers(history, *key));
                if siblings > writers {
                    let what = format!(
                        "{key:?} has {siblings} siblings of {writers} writers at node {}",
                        dump.node
                    );
                    return Err(violation(NAME, what));
                }
            }
        }
    }
    Ok(())
}

/// Actors that wrote a key, and sessions that did with a context, by actor.
fn writers(history: &History, key: KeyAt) -> usize {
    let done = history.writes.iter().filter(|w| w.key == key);
    let (mut actors, mut sessions) = (BTreeSet::new(), BTreeSet::new());
    for write in done {
        actors.extend(write.dot.map(|dot| dot.actor));
        if write.context.is_some() {
            sessions.extend(write.dot.map(|dot| (write.session, dot.actor)));
        }
    }
    actors.len() + sessions.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::planted::*;

    #[test]
    fn more_siblings_than_writers_are_found() {
        let (a1, a2, b1) = (dot(1, 1), dot(1, 2), dot(2, 1));
        let history = history([put(1, a1, &[]), put(2, a2, &[a1]), put(3, b1, &[])]);
        let two = dump(1, &[(a2, Some(2)), (b1, Some(3))], &[]);
        assert_eq!(check(&history, &[two]), Ok(()));
        let three = dump(1, &[(a2, Some(2)), (a1, Some(1)), (b1, Some(3))], &[]);
        assert!(check(&history, &[three]).unwrap_err().what.contains("3 siblings of 2"));
    }
}
