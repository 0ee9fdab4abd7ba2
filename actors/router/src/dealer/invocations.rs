//! The invocations that one session works on, as their callee.
//!
//! Guarantees: ids are those of the session, one after the other from 1; whoever takes an id under the lock around this and
//! queues the message before letting go keeps them in order on the wire. An answer finds its caller at most once to the end.
//! Refuses: to know how a caller is reached.

use std::collections::BTreeMap;

use weald_wamp::{RegistrationId, RequestId};

/// What comes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<C> {
    /// It is for this caller.
    To(C),
    /// Nobody waits for it any more: a race that is nobody's fault.
    Discard,
    /// There was never such an invocation: the callee breaks the protocol.
    NeverAsked,
}

#[derive(Debug)]
struct Invocation<C> {
    caller: C,
    registration: RegistrationId,
}

/// The invocations of one session.
#[derive(Debug)]
pub struct Invocations<C> {
    open: BTreeMap<RequestId, Invocation<C>>,
    last: u64,
    is_closed: bool,
}

impl<C> Default for Invocations<C> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), last: 0, is_closed: false }
    }
}

impl<C: Clone> Invocations<C> {
    /// Opens an invocation. None when the session is gone.
    pub fn begin(&mut self, registration: RegistrationId, caller: C) -> Option<RequestId> {
        if self.is_closed {
            return None;
        }
        let next = RequestId::new(self.last + 1).unwrap_or(RequestId::FIRST);
        self.last = next.get();
        self.open.insert(next, Invocation { caller, registration });
        Some(next)
    }

    /// Whether it is being worked on.
    #[must_use]
    pub fn is_open(&self, invocation: RequestId) -> bool {
        self.open.contains_key(&invocation)
    }

    /// How many are open for a registration.
    #[must_use]
    pub fn count(&self, registration: RegistrationId) -> usize {
        self.open.values().filter(|open| open.registration == registration).count()
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The callee answers; `is_last` unless more is to come.
    pub fn answer(&mut self, invocation: RequestId, is_last: bool) -> Answer<C> {
        if let Some(open) = self.open.get(&invocation) {
            let caller = open.caller.clone();
            if is_last {
                self.open.remove(&invocation);
            }
            return Answer::To(caller);
        }
        if invocation.get() <= self.last { Answer::Discard } else { Answer::NeverAsked }
    }

    /// Takes back the newest one, which was not sent: its id is the next one's.
    pub fn undo(&mut self, invocation: RequestId) {
        if self.open.remove(&invocation).is_some() && self.last == invocation.get() {
            self.last -= 1;
        }
    }

    /// The registration of one that is open.
    #[must_use]
    pub fn registration(&self, invocation: RequestId) -> Option<RegistrationId> {
        self.open.get(&invocation).map(|open| open.registration)
    }

    /// Nobody waits for its answers any more. False when it was over already.
    pub fn abandon(&mut self, invocation: RequestId) -> bool {
        self.open.remove(&invocation).is_some()
    }

    /// The session is gone: who waits in vain. Nothing can be opened from now on.
    pub fn close(&mut self) -> Vec<C> {
        self.is_closed = true;
        std::mem::take(&mut self.open).into_values().map(|open| open.caller).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(n: u64) -> RegistrationId {
        RegistrationId::new(n).unwrap()
    }

    #[test]
    fn ids_are_sequential_from_one() {
        let mut invocations = Invocations::default();
        let ids: Vec<u64> =
            (0..3).map(|n| invocations.begin(registration(9), n).unwrap().get()).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(
            (invocations.count(registration(9)), invocations.count(registration(8))),
            (3, 0)
        );
    }

    #[test]
    fn answers_reach_the_caller_until_the_last_one() {
        let mut invocations = Invocations::default();
        let id = invocations.begin(registration(9), "caller").unwrap();
        assert_eq!(invocations.answer(id, false), Answer::To("caller"));
        assert_eq!(invocations.answer(id, true), Answer::To("caller"));
        assert_eq!(invocations.answer(id, true), Answer::Discard);
        let never = RequestId::new(2).unwrap();
        assert_eq!(invocations.answer(never, true), Answer::NeverAsked);
    }

    #[test]
    fn id_of_one_that_was_not_sent_is_the_next_ones() {
        let mut invocations = Invocations::default();
        let first = invocations.begin(registration(9), 1).unwrap();
        invocations.undo(first);
        assert_eq!(invocations.answer(first, true), Answer::NeverAsked);
        assert_eq!(invocations.begin(registration(9), 2), Some(first));
    }

    #[test]
    fn closed_session_names_its_callers_and_takes_no_more() {
        let mut invocations = Invocations::default();
        let first = invocations.begin(registration(9), 1).unwrap();
        invocations.begin(registration(9), 2).unwrap();
        assert!(invocations.abandon(first));
        assert!(!invocations.abandon(first));
        assert_eq!(invocations.close(), vec![2]);
        assert_eq!(invocations.begin(registration(9), 3), None);
    }
}
