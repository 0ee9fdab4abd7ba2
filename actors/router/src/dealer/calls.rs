//! The calls that one session has in flight, as their caller.
//!
//! Guarantees: a call is answered at most once to its end, whoever answers first: the callee, its death, a cancel or the
//! timeout; progressive results come before that end only, and only to a caller that asked for them.
//! Refuses: to know how a callee is reached, or what time it is.

use std::collections::{BTreeMap, BTreeSet};

use weald_storage::NodeId;
use weald_wamp::{RegistrationId, RequestId};

/// Who works on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callee<S> {
    /// A session of this node, and the invocation there.
    Local {
        /// The session.
        session: S,
        /// The invocation's id in it.
        invocation: RequestId,
    },
    /// A session of another node, which keeps what is needed to find it.
    Remote {
        /// The node.
        node: NodeId,
        /// The registration there.
        registration: RegistrationId,
    },
}

/// A call in flight. `K` is what it takes to send it to another callee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<S, K> {
    /// None while a callee is being looked for.
    pub callee: Option<Callee<S>>,
    /// Whether progressive results are passed on.
    pub receive_progress: bool,
    /// Whether further chunks of a progressive call may come.
    pub is_open: bool,
    /// Whether the callee takes part in call canceling.
    pub can_interrupt: bool,
    /// Time allowed to the next result, milliseconds.
    pub timeout_ms: Option<u64>,
    /// What to send elsewhere when the callee has no time for it.
    pub retry: Option<K>,
    pub(crate) is_killed: bool,
    pub(crate) deadline_ms: Option<u64>,
}

impl<S, K> Call<S, K> {
    /// A call that nobody works on yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            callee: None,
            receive_progress: false,
            is_open: false,
            can_interrupt: false,
            timeout_ms: None,
            retry: None,
            is_killed: false,
            deadline_ms: None,
        }
    }
}

impl<S, K> Default for Call<S, K> {
    fn default() -> Self {
        Self::new()
    }
}

/// How a call is cancelled (advanced profile, call canceling).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// The callee is not told, the caller answered at once.
    Skip,
    /// The callee is interrupted, and what it answers is the answer.
    Kill,
    /// The callee is interrupted, the caller answered at once.
    KillNoWait,
}

/// What follows from a cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled<S> {
    /// Whether the caller gets its error now; the call is over then.
    pub answers: bool,
    /// Whom to interrupt.
    pub interrupt: Option<Callee<S>>,
    /// Who works on it, interrupted or not: its later answers are of no use when the call is over.
    pub callee: Option<Callee<S>>,
}

/// The calls of one session.
#[derive(Debug)]
pub struct Calls<S, K> {
    calls: BTreeMap<RequestId, Call<S, K>>,
    deadlines: BTreeSet<(u64, RequestId)>,
}

impl<S, K> Default for Calls<S, K> {
    fn default() -> Self {
        Self { calls: BTreeMap::new(), deadlines: BTreeSet::new() }
    }
}

impl<S: Clone, K> Calls<S, K> {
    /// Calls in flight.
    #[must_use]
    pub fn count(&self) -> usize {
        self.calls.len()
    }

    /// A call in flight.
    #[must_use]
    pub fn get(&self, request: RequestId) -> Option<&Call<S, K>> {
        self.calls.get(&request)
    }

    /// Takes a new call; its time runs from now.
    pub fn begin(&mut self, request: RequestId, mut call: Call<S, K>, now_ms: u64) {
        call.deadline_ms = call.timeout_ms.map(|timeout_ms| now_ms.saturating_add(timeout_ms));
        self.deadlines.extend(call.deadline_ms.map(|deadline_ms| (deadline_ms, request)));
        self.calls.insert(request, call);
    }

    /// Says who works on a call. False when the call is over already.
    pub fn assign(&mut self, request: RequestId, callee: Callee<S>, can_interrupt: bool) -> bool {
        let Some(call) = self.calls.get_mut(&request) else { return false };
        call.callee = Some(callee);
        call.can_interrupt = can_interrupt;
        true
    }

    /// The callee keeps to the time limit by itself.
    pub fn unlimit(&mut self, request: RequestId) {
        let Some(call) = self.calls.get_mut(&request) else { return };
        call.timeout_ms = None;
        if let Some(deadline_ms) = call.deadline_ms.take() {
            self.deadlines.remove(&(deadline_ms, request));
        }
    }

    /// Another chunk of a progressive call: to whom it goes. None when there is no such call, or it takes no more.
    pub fn chunk(&mut self, request: RequestId, is_last: bool) -> Option<Callee<S>> {
        let call = self.calls.get_mut(&request).filter(|call| call.is_open)?;
        call.is_open = !is_last;
        call.callee.clone()
    }

    /// A progressive result has come. Whether the caller gets it; its time begins anew then.
    pub fn progress(&mut self, request: RequestId, now_ms: u64) -> bool {
        let Some(call) = self.calls.get_mut(&request).filter(|call| call.receive_progress) else {
            return false;
        };
        if let (Some(timeout_ms), Some(deadline_ms)) = (call.timeout_ms, call.deadline_ms) {
            let extended_ms = now_ms.saturating_add(timeout_ms);
            self.deadlines.remove(&(deadline_ms, request));
            self.deadlines.insert((extended_ms, request));
            call.deadline_ms = Some(extended_ms);
        }
        true
    }

    /// The call ends: with a result, an error, or for good. None when it was over already.
    pub fn finish(&mut self, request: RequestId) -> Option<Call<S, K>> {
        let call = self.calls.remove(&request)?;
        if let Some(deadline_ms) = call.deadline_ms {
            self.deadlines.remove(&(deadline_ms, request));
        }
        Some(call)
    }

    /// The callee did not take it: what to send elsewhere, the call waiting for another. None when the call is over, or is
    /// not to be sent elsewhere; it is in flight still in the latter case.
    pub fn retry(&mut self, request: RequestId) -> Option<K> {
        let call = self.calls.get_mut(&request).filter(|call| !call.is_killed)?;
        let retry = call.retry.take()?;
        call.callee = None;
        Some(retry)
    }

    /// Keeps what it takes to send the call elsewhere.
    pub fn keep(&mut self, request: RequestId, retry: K) {
        if let Some(call) = self.calls.get_mut(&request) {
            call.retry = Some(retry);
        }
    }

    /// The caller wants no more of it. None when there is nothing to cancel, or it was cancelled before.
    pub fn cancel(&mut self, request: RequestId, cancel: Cancel) -> Option<Cancelled<S>> {
        let call = self.calls.get_mut(&request).filter(|call| !call.is_killed)?;
        // A callee that does not know of cancelling is left alone, whatever was asked for.
        let cancel = if call.can_interrupt { cancel } else { Cancel::Skip };
        let callee = call.callee.clone();
        let interrupt = (cancel != Cancel::Skip).then(|| callee.clone()).flatten();
        let answers = cancel != Cancel::Kill;
        if answers {
            self.finish(request);
        } else {
            call.is_killed = true;
        }
        Some(Cancelled { answers, interrupt, callee })
    }

    /// The calls whose time has run out; they are over. Each as by [`Cancel::KillNoWait`].
    pub fn expire(&mut self, now_ms: u64) -> Vec<(RequestId, Cancelled<S>)> {
        let mut expired = Vec::new();
        while let Some(&(deadline_ms, request)) = self.deadlines.first() {
            if deadline_ms > now_ms {
                break;
            }
            if let Some(call) = self.finish(request) {
                // A callee that was interrupted already hears nothing more.
                let interrupt =
                    call.callee.clone().filter(|_| call.can_interrupt && !call.is_killed);
                let callee = call.callee;
                expired.push((request, Cancelled { answers: true, interrupt, callee }));
            }
        }
        expired
    }

    /// When [`Self::expire`] has something to do next, if ever.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Whether a node works on any of them.
    #[must_use]
    pub fn is_anything_at(&self, node: NodeId) -> bool {
        let works =
            |callee: &Callee<S>| matches!(callee, Callee::Remote { node: at, .. } if *at == node);
        self.calls.values().any(|call| call.callee.as_ref().is_some_and(works))
    }

    /// The calls that a node worked on which is no more; they are over.
    pub fn node_lost(&mut self, node: NodeId) -> Vec<RequestId> {
        let lost: Vec<RequestId> = self
            .calls
            .iter()
            .filter(|(_, call)| matches!(&call.callee, Some(Callee::Remote { node: at, .. }) if *at == node))
            .map(|(request, _)| *request)
            .collect();
        for request in &lost {
            self.finish(*request);
        }
        lost
    }

    /// The caller is gone: who is left working for nobody, and whether it takes an interrupt.
    pub fn drain(&mut self) -> Vec<(RequestId, Callee<S>, bool)> {
        self.deadlines.clear();
        std::mem::take(&mut self.calls)
            .into_iter()
            .filter_map(|(request, call)| {
                let tell = call.can_interrupt && !call.is_killed;
                call.callee.map(|callee| (request, callee, tell))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table = Calls<u8, ()>;

    fn request(n: u64) -> RequestId {
        RequestId::new(n).unwrap()
    }

    fn local(session: u8) -> Callee<u8> {
        Callee::Local { session, invocation: request(1) }
    }

    /// A table with one call, being worked on.
    fn one(timeout_ms: Option<u64>, can_interrupt: bool) -> Table {
        let mut calls = Table::default();
        let call = Call { timeout_ms, receive_progress: true, ..Call::new() };
        calls.begin(request(1), call, 1_000);
        assert!(calls.assign(request(1), local(7), can_interrupt));
        calls
    }

    #[test]
    fn answer_ends_a_call_once() {
        let mut calls = one(Some(50), true);
        assert!(calls.finish(request(1)).is_some());
        assert!(calls.finish(request(1)).is_none());
        assert_eq!(calls.next_deadline_ms(), None);
        assert!(!calls.progress(request(1), 1_001));
        assert!(!calls.assign(request(1), local(8), true));
    }

    #[test]
    fn cancel_does_what_its_mode_says() {
        for (mode, can_interrupt, answers, interrupts) in [
            (Cancel::Skip, true, true, false),
            (Cancel::Kill, true, false, true),
            (Cancel::KillNoWait, true, true, true),
            (Cancel::Kill, false, true, false),
            (Cancel::KillNoWait, false, true, false),
        ] {
            let mut calls = one(None, can_interrupt);
            let cancelled = calls.cancel(request(1), mode).unwrap();
            assert_eq!(cancelled.answers, answers, "{mode:?}");
            assert_eq!(cancelled.interrupt.is_some(), interrupts, "{mode:?}");
            assert_eq!(cancelled.callee, Some(local(7)));
            assert_eq!(calls.cancel(request(1), mode), None, "a second one is ignored");
            assert_eq!(calls.finish(request(1)).is_some(), !answers, "{mode:?}");
        }
    }

    #[test]
    fn time_runs_out_at_the_deadline_and_progress_extends_it() {
        let mut calls = one(Some(50), true);
        assert_eq!(calls.next_deadline_ms(), Some(1_050));
        assert!(calls.progress(request(1), 1_040));
        assert!(calls.expire(1_089).is_empty());
        let expired = calls.expire(1_090);
        assert_eq!(expired.len(), 1);
        assert_eq!(expired[0].1.interrupt, Some(local(7)));
        assert_eq!((calls.count(), calls.next_deadline_ms()), (0, None));
    }

    #[test]
    fn time_of_a_callee_that_keeps_it_itself_never_runs_out() {
        let mut calls = one(Some(50), true);
        calls.unlimit(request(1));
        assert!(calls.progress(request(1), 1_001));
        assert_eq!((calls.next_deadline_ms(), calls.expire(9_000).len()), (None, 0));
    }

    #[test]
    fn killed_call_is_interrupted_once_even_if_its_time_runs_out() {
        let mut calls = one(Some(50), true);
        calls.cancel(request(1), Cancel::Kill).unwrap();
        assert_eq!(calls.expire(2_000)[0].1.interrupt, None);
    }

    #[test]
    fn chunks_go_to_the_same_callee_until_the_last() {
        let mut calls = Table::default();
        calls.begin(request(1), Call { is_open: true, ..Call::new() }, 0);
        calls.assign(request(1), local(7), true);
        assert_eq!(calls.chunk(request(1), false), Some(local(7)));
        assert_eq!(calls.chunk(request(1), true), Some(local(7)));
        assert_eq!(calls.chunk(request(1), false), None);
    }

    #[test]
    fn lost_node_ends_its_calls_only() {
        let mut calls = one(None, true);
        let node = NodeId([1; 16]);
        calls.begin(request(2), Call::new(), 0);
        calls.assign(
            request(2),
            Callee::Remote { node, registration: RegistrationId::new(1).unwrap() },
            true,
        );
        assert_eq!(calls.node_lost(node), vec![request(2)]);
        assert_eq!(calls.drain(), vec![(request(1), local(7), true)]);
    }

    #[test]
    fn call_is_kept_for_another_callee_until_it_is_over() {
        let mut calls = one(None, true);
        assert_eq!(calls.retry(request(1)), None);
        calls.keep(request(1), ());
        assert_eq!(calls.retry(request(1)), Some(()));
        assert_eq!(calls.get(request(1)).unwrap().callee, None);
        calls.finish(request(1));
        calls.keep(request(1), ());
        assert_eq!(calls.retry(request(1)), None);
    }
}
