//! CANCEL, time limits, and callers that are gone: nobody waits any more, and the callee is told if it wants to be.

use std::sync::Arc;

use weald_wamp::message::{CancelMode, Choice, Interrupt, InterruptOptions, RequestType};
use weald_wamp::{Message, RequestId};

use super::Refusal;
use super::calls::{Callee, Cancel, Cancelled};
use crate::error;
use crate::realm::Realm;
use crate::relay::CallKey;
use crate::session::Work;
use crate::session::handle::Handle;

/// Cancels a call of a session, whose end is `refusal` if it ends at once.
pub(crate) fn cancel(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    mode: CancelMode,
    refusal: &Refusal,
) {
    let cancel = match mode {
        CancelMode::Skip => Cancel::Skip,
        CancelMode::Kill => Cancel::Kill,
        CancelMode::KillNoWait => Cancel::KillNoWait,
    };
    // Unknown, finished, or cancelled before: ignored, since answers race with cancels.
    let Some(cancelled) = session.calls().cancel(request, cancel) else { return };
    tell(realm, work, session, request, &cancelled);
    if cancelled.answers {
        crate::session::reply::error(realm, work, session, RequestType::Call, request, refusal);
    }
}

/// Ends the calls of a session whose time is over.
pub(crate) fn expire(realm: &Arc<Realm>, work: &mut Work, session: &Handle) {
    let expired = session.calls().expire(realm.now_ms());
    for (request, cancelled) in expired {
        tell(realm, work, session, request, &cancelled);
        let refusal = Refusal::new(error::TIMEOUT, "the callee took too long");
        crate::session::reply::error(realm, work, session, RequestType::Call, request, &refusal);
    }
}

/// The caller is gone.
pub(crate) fn abandon(realm: &Arc<Realm>, work: &mut Work, session: &Handle) {
    let left = session.calls().drain();
    for (request, callee, tell_it) in left {
        let interrupt = tell_it.then(|| callee.clone());
        let cancelled = Cancelled { answers: true, interrupt, callee: Some(callee) };
        tell(realm, work, session, request, &cancelled);
    }
}

/// Tells the callee, or its node.
fn tell(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    cancelled: &Cancelled<Handle>,
) {
    let mode = match (cancelled.answers, cancelled.interrupt.is_some()) {
        (true, true) => CancelMode::KillNoWait,
        (true, false) => CancelMode::Skip,
        (false, _) => CancelMode::Kill,
    };
    match &cancelled.callee {
        None => {}
        Some(Callee::Local { session: callee, invocation }) => {
            interrupt(work, callee, *invocation, mode);
        }
        Some(Callee::Remote { node, .. }) => {
            let key = CallKey { session: session.id(), request };
            realm.relay().cancel(*node, realm.name(), key, mode);
        }
    }
}

/// Sends INTERRUPT unless the mode is skip; when nobody waits for its answer the invocation is over. False when it was over.
pub(crate) fn interrupt(
    work: &mut Work,
    callee: &Handle,
    invocation: RequestId,
    mode: CancelMode,
) -> bool {
    let mut invocations = callee.invocations();
    if !invocations.is_open(invocation) {
        return false;
    }
    if mode != CancelMode::Kill {
        invocations.abandon(invocation);
    }
    if mode != CancelMode::Skip {
        let options = InterruptOptions { mode: Choice::Known(mode), reason: None };
        let message = Message::Interrupt(Interrupt { request: invocation, options });
        callee.send(&message, &mut work.flushes);
    }
    true
}
