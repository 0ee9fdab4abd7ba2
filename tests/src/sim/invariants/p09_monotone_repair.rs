//! P9, repair is monotone: a merge never takes away a value that no write had observed, never brings back one that its node
//! had processed and let go, and never shortens a clock. Tombstones go by themselves. An exchange between equals costs one message each way.

use crate::sim::history::{History, Violation, violation};

const NAME: &str = "P9 monotone repair";

/// Most frames of an exchange that finds nothing to do.
const FRAMES_MAX_EQUAL: u64 = 3;

/// Checks all merges, and all exchanges between equals.
///
/// # Errors
/// The first step back, or the first exchange that was too long.
pub fn check(history: &History) -> Result<(), Violation> {
    for merge in &history.merges {
        let says = |what: String| {
            let (node, at_ms, key) = (merge.node, merge.at_ms, merge.key);
            Err(violation(NAME, format!("a merge at node {node} at {at_ms} ms {what} of {key:?}")))
        };
        for dropped in &merge.dropped {
            let place = merge.key.place;
            // A tombstone may be gone at the peer: reaped, since everybody had it.
            let is_tombstone = history.write_of(place, *dropped).is_some_and(|w| w.is_delete());
            let is_excused = is_tombstone || history.may_be_lost(place, *dropped);
            if !is_excused && history.killers(place, *dropped).next().is_none() {
                return says(format!("dropped {dropped}, which nobody had observed,"));
            }
        }
        if let Some(revived) = merge.revived.first() {
            return says(format!("brought back {revived}"));
        }
        if merge.clock_shrank {
            return says("shortened the clock".to_owned());
        }
    }
    for exchange in &history.equal_exchanges {
        if exchange.frames > FRAMES_MAX_EQUAL {
            return Err(violation(NAME, format!("nothing to do took {exchange:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::history::{EqualExchange, Merged};
    use crate::sim::invariants::planted::*;

    #[test]
    fn steps_back_and_long_exchanges_are_found() {
        let (a1, b1) = (dot(1, 1), dot(2, 1));
        let nothing = Merged {
            node: 1,
            at_ms: 1,
            key: KEY,
            dropped: vec![],
            revived: vec![],
            clock_shrank: false,
        };
        let of = |merge: Merged| {
            let mut history = history([put(1, a1, &[]), put(2, b1, &[a1])]);
            history.merges.push(merge);
            check(&history)
        };
        assert_eq!(of(Merged { dropped: vec![a1], ..nothing.clone() }), Ok(()));
        assert!(of(Merged { dropped: vec![b1], ..nothing.clone() }).is_err());
        assert!(of(Merged { revived: vec![a1], ..nothing.clone() }).is_err());
        assert!(of(Merged { clock_shrank: true, ..nothing }).is_err());
        let mut history = history([]);
        history.equal_exchanges.push(EqualExchange { node: 0, frames: 2, bytes: 100 });
        assert_eq!(check(&history), Ok(()));
        history.equal_exchanges.push(EqualExchange { node: 0, frames: 8, bytes: 900 });
        assert!(check(&history).is_err());
    }
}
