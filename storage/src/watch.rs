//! Watching what others bring while two trees are compared.
//!
//! After a walk a node takes over the peer's clock, and with it that all is dead which the peer had processed and did not
//! hold. That is true of what was here when a bucket was compared. It is not of what somebody else brings afterwards, say a
//! third node that was restored from a backup: a value that the peer knows to be dead would stay here, with a clock that
//! says that it is alive.
//!
//! Nor is it true when a value comes back that was dropped during the walk on the word of the peer, and that a fourth node,
//! which knows as little of its death as this one, still holds.
//!
//! Guarantees: a watch is disturbed when a value was merged since it began whose event the peer had processed, unless the peer
//! itself was seen to hold it. What is merged before it begins is visible to whoever reads the space afterwards. An [`Era`]
//! is over as soon as what ended it is visible.
//! Refuses: to say what disturbed it. The next walk finds that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::clock::Clock;
use crate::ids::Dot;
use crate::replica::Era;

/// What a walk needs to know of the merges of others. Ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    theirs: Arc<Clock>,
    seen: Mutex<SeenSince>,
}

#[derive(Debug, Default)]
struct SeenSince {
    /// Values that the peer holds, of the batch at hand.
    confirmed: BTreeSet<Dot>,
    disturbed: bool,
}

impl Watch {
    fn new(theirs: Arc<Clock>) -> Self {
        Self { theirs, seen: Mutex::default() }
    }

    /// The peer holds these values: whoever brings them does no harm. To be called before they are merged.
    pub fn confirm(&self, live: impl IntoIterator<Item = Dot>) {
        let live = live.into_iter().filter(|dot| self.theirs.contains(dot));
        self.seen().confirmed.extend(live);
    }

    /// What was confirmed so far has been merged, and may be forgotten.
    pub fn begin_batch(&self) {
        self.seen().confirmed.clear();
    }

    /// Whether somebody else brought what the peer may know to be dead.
    pub fn is_disturbed(&self) -> bool {
        self.seen().disturbed
    }

    /// A merge has taken this value.
    pub(crate) fn took(&self, dot: &Dot) {
        if self.theirs.contains(dot) {
            let mut seen = self.seen();
            seen.disturbed |= !seen.confirmed.contains(dot);
        }
    }

    fn seen(&self) -> MutexGuard<'_, SeenSince> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watches of one space, and its era.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watches(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    all: Vec<Weak<Watch>>,
    era: Era,
}

impl Watches {
    /// Begins to watch what `theirs` tells of.
    pub(crate) fn begin(&self, theirs: &Arc<Clock>) -> Arc<Watch> {
        let mut state = self.lock();
        state.all.retain(|watch| watch.strong_count() > 0);
        let watch = Arc::new(Watch::new(Arc::clone(theirs)));
        state.all.push(Arc::downgrade(&watch));
        watch
    }

    /// The era that goes on.
    pub(crate) fn era(&self) -> Era {
        self.lock().era.clone()
    }

    /// Something was forgotten, or taken over with a clock, and everybody sees it.
    pub(crate) fn forgot(&self) {
        self.lock().era = Era::default();
    }

    /// Keeps new watches waiting, for as long as a batch takes to be merged and visible.
    pub(crate) fn hold(&self) -> Held<'_> {
        let guard = self.lock();
        let watches = guard.all.iter().filter_map(Weak::upgrade).collect();
        let era = guard.era.clone();
        Held { _guard: guard, watches, era }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watches there are while a batch is merged, and the era.
#[derive(Debug)]
pub(crate) struct Held<'w> {
    _guard: MutexGuard<'w, State>,
    watches: Vec<Arc<Watch>>,
    era: Era,
}

impl Held<'_> {
    pub(crate) fn took(&self, taken: &[Dot]) {
        for watch in &self.watches {
            taken.iter().for_each(|dot| watch.took(dot));
        }
    }

    pub(crate) const fn era(&self) -> &Era {
        &self.era
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Actor, NodeId};

    fn dot(counter: u64) -> Dot {
        Dot { actor: Actor { node: NodeId([1; 16]), incarnation: 2 }, counter }
    }

    fn clock(counters: impl IntoIterator<Item = u64>) -> Clock {
        let mut clock = Clock::default();
        counters.into_iter().for_each(|counter| _ = clock.insert(dot(counter)));
        clock
    }

    #[test]
    fn only_values_that_the_peer_has_processed_and_was_not_seen_to_hold_disturb() {
        let theirs = Arc::new(clock(1..=5));
        // The peer holds 3 and 4; 6 is news to it. What this side had processed does not count: it may have been dropped.
        for (taken, disturbs) in [(1, true), (2, true), (3, false), (4, true), (6, false)] {
            let watches = Watches::default();
            let (watch, other) = (watches.begin(&theirs), watches.begin(&theirs));
            watch.confirm([dot(4)]);
            watch.begin_batch();
            watch.confirm([dot(3), dot(6)]);
            watches.hold().took(&[dot(taken)]);
            assert_eq!(watch.is_disturbed(), disturbs, "{taken}");
            assert_eq!(other.is_disturbed(), (1..=5).contains(&taken), "{taken}");
        }
    }

    #[test]
    fn watch_ends_when_it_is_dropped() {
        let (watches, theirs) = (Watches::default(), Arc::new(clock([1])));
        drop(watches.begin(&theirs));
        let _second = watches.begin(&theirs);
        assert_eq!(watches.lock().all.len(), 1);
        assert_eq!(watches.hold().watches.len(), 1);
    }

    #[test]
    fn era_ends_when_something_is_forgotten() {
        let (watches, others) = (Watches::default(), Watches::default());
        let era = watches.era();
        assert!(era == watches.era() && era == *watches.hold().era() && era != others.era());
        watches.forgot();
        assert!(era != watches.era() && watches.era() == *watches.hold().era());
    }
}
