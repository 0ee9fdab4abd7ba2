//! Watching what others bring while two trees are compared.
//!
//! After a walk a node takes over the peer's clock, and with it that all is dead which the peer had processed and did not
//! hold. That is true of what was here when a bucket was compared. It is not of what somebody else brings afterwards, say a
//! third node that was restored from a backup: a value that the peer knows to be dead would stay here, with a clock that
//! says that it is alive.
//!
//! Guarantees: a watch is disturbed when a value was merged since it began whose event the peer had processed and this side
//! had not, unless the peer itself was seen to hold it. What is merged before it begins is visible to whoever reads the
//! space afterwards.
//! Refuses: to say what disturbed it. The next walk finds that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::clock::Clock;
use crate::ids::Dot;

/// What a walk needs to know of the merges of others. Ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    theirs: Arc<Clock>,
    mine: Clock,
    seen: Mutex<SeenSince>,
}

#[derive(Debug, Default)]
struct SeenSince {
    /// Values that the peer holds, of the batch at hand.
    confirmed: BTreeSet<Dot>,
    disturbed: bool,
}

impl Watch {
    fn new(theirs: Arc<Clock>, mine: Clock) -> Self {
        Self { theirs, mine, seen: Mutex::default() }
    }

    /// The peer holds these values: whoever brings them does no harm. To be called before they are merged.
    pub fn confirm(&self, live: impl IntoIterator<Item = Dot>) {
        let live = live.into_iter().filter(|dot| self.is_open(dot));
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
        if self.is_open(dot) {
            let mut seen = self.seen();
            seen.disturbed |= !seen.confirmed.contains(dot);
        }
    }

    /// Whether only the peer's clock tells of an event.
    fn is_open(&self, dot: &Dot) -> bool {
        self.theirs.contains(dot) && !self.mine.contains(dot)
    }

    fn seen(&self) -> MutexGuard<'_, SeenSince> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watches of one space.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watches(Arc<Mutex<Vec<Weak<Watch>>>>);

impl Watches {
    /// Begins to watch what `theirs` tells of and this side has not processed. `processed` reads that, while nothing is
    /// merged.
    pub(crate) fn begin<E>(
        &self,
        theirs: &Arc<Clock>,
        processed: impl FnOnce() -> Result<Clock, E>,
    ) -> Result<Arc<Watch>, E> {
        let mut all = self.lock();
        all.retain(|watch| watch.strong_count() > 0);
        let watch = Arc::new(Watch::new(Arc::clone(theirs), processed()?));
        all.push(Arc::downgrade(&watch));
        Ok(watch)
    }

    /// Keeps new watches waiting, for as long as a batch takes to be merged and visible.
    pub(crate) fn hold(&self) -> Held<'_> {
        let guard = self.lock();
        let watches = guard.iter().filter_map(Weak::upgrade).collect();
        Held { _guard: guard, watches }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Watch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watches there are while a batch is merged.
#[derive(Debug)]
pub(crate) struct Held<'w> {
    _guard: MutexGuard<'w, Vec<Weak<Watch>>>,
    watches: Vec<Arc<Watch>>,
}

impl Held<'_> {
    pub(crate) fn took(&self, taken: &[Dot]) {
        for watch in &self.watches {
            taken.iter().for_each(|dot| watch.took(dot));
        }
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
    fn only_values_that_the_peer_alone_has_processed_and_was_not_seen_to_hold_disturb() {
        let theirs = Arc::new(clock(1..=5));
        // This side has processed the first event; the peer holds 3 and 4; 6 is news to both.
        for (taken, disturbs) in [(1, false), (2, true), (3, false), (4, true), (6, false)] {
            let watches = Watches::default();
            let begin = || watches.begin(&theirs, || Ok::<_, ()>(clock([1]))).unwrap();
            let (watch, other) = (begin(), begin());
            watch.confirm([dot(4)]);
            watch.begin_batch();
            watch.confirm([dot(3), dot(6)]);
            watches.hold().took(&[dot(taken)]);
            assert_eq!(watch.is_disturbed(), disturbs, "{taken}");
            assert_eq!(other.is_disturbed(), (2..=5).contains(&taken), "{taken}");
        }
    }

    #[test]
    fn watch_ends_when_it_is_dropped() {
        let (watches, theirs) = (Watches::default(), Arc::new(clock([1])));
        let begin = || watches.begin(&theirs, || Ok::<_, ()>(Clock::default())).unwrap();
        drop(begin());
        let _second = begin();
        assert_eq!(watches.lock().len(), 1);
        assert_eq!(watches.hold().watches.len(), 1);
    }
}
