//! CALL: a session of this node calls.

use std::sync::Arc;
use std::time::Duration;

use weald_wamp::message::{Call as Asked, CallOptions, CancelMode, MatchPolicy, RequestType};
use weald_wamp::roles::Features;
use weald_wamp::{RequestId, uri};

use super::calls::{Call, Callee};
use super::invoke::{Invoked, NotInvoked, Target, chunk, invoke, too_large};
use super::{Caller, Refusal, Request, Retry, Tried, disclose, is_busy};
use crate::auth::{Action, Decision, Disclosure};
use crate::error;
use crate::meta;
use crate::realm::Realm;
use crate::registry::Choice;
use crate::relay::{CallKey, NotSent};
use crate::session::handle::Handle;
use crate::session::{Violation, Work};

/// Time limits that the router gives calls. A callee that keeps to the limits by itself gets them with the invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// For calls that ask for none; none: they may take for ever.
    pub default: Option<Duration>,
    /// The longest a call may ask for, and those that ask for none get; none: any. The router keeps to it, whatever the
    /// callee keeps to.
    pub max: Option<Duration>,
}

impl Times {
    /// The limit of a call that asks for this one, milliseconds.
    fn limit_ms(self, asked_ms: Option<u64>) -> Option<u64> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wanted_ms = asked_ms.filter(|asked_ms| *asked_ms > 0).or_else(|| self.default.map(ms));
        [wanted_ms, self.max.map(ms)].into_iter().flatten().min()
    }
}

/// Takes a CALL with an id of its own.
pub(crate) fn call(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    asked: Asked,
) -> Result<(), Violation> {
    check_features(session, &asked.options)?;
    let request_id = asked.request;
    if let Err(refusal) = begin(realm, work, session, asked) {
        refuse(realm, work, session, request_id, &refusal);
    }
    Ok(())
}

/// Takes a CALL whose id was used before: another chunk of a progressive call, or a violation. A chunk of a call that is over
/// is dropped: its caller may not know yet.
pub(crate) fn continued(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    asked: Asked,
) -> Result<(), Violation> {
    check_features(session, &asked.options)?;
    let callee = {
        let mut calls = session.calls();
        match calls.get(asked.request) {
            None => return Ok(()),
            Some(call) if !call.is_open => {
                let id = asked.request;
                return Err(Violation(format!(
                    "CALL {id} is in flight, and not a progressive one"
                )));
            }
            Some(_) => calls.chunk(asked.request, !asked.options.progress),
        }
    };
    let request_id = asked.request;
    let is_last = !asked.options.progress;
    let request = Request {
        procedure: asked.procedure,
        caller: None,
        identity: disclose(session),
        is_secret: true,
        trustlevel: None,
        receive_progress: false,
        progress: !is_last,
        timeout_ms: None,
        ppt: asked.options.ppt,
        payload: asked.payload,
    };
    pass_chunk(realm, work, session, request_id, callee, &request);
    Ok(())
}

/// Sends a chunk of a call again, to whoever works on it now: where it was sent first it did not arrive.
pub(crate) fn chunk_again(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request_id: RequestId,
    request: &Request,
) {
    let callee = session.calls().get(request_id).and_then(|call| call.callee.clone());
    pass_chunk(realm, work, session, request_id, callee, request);
}

fn pass_chunk(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request_id: RequestId,
    callee: Option<Callee<Handle>>,
    request: &Request,
) {
    let sent = match callee {
        None => Ok(()),
        Some(Callee::Local { session: callee, invocation }) => {
            chunk(&callee, invocation, request, realm.limits(), &mut work.flushes)
        }
        Some(Callee::Remote { node, registration }) => {
            let key = CallKey { session: session.id(), request: request_id };
            realm.relay().chunk(node, realm.name(), key, registration, request);
            Ok(())
        }
    };
    if let Err(refusal) = sent {
        super::cancel::cancel(realm, work, session, request_id, CancelMode::KillNoWait, &refusal);
    }
}

fn check_features(session: &Handle, options: &CallOptions) -> Result<(), Violation> {
    let features = session.roles().caller.unwrap_or_default();
    for (is_used, feature, what) in [
        (options.progress, Features::PROGRESSIVE_CALL_INVOCATIONS, "progressive_call_invocations"),
        (options.ppt.is_some(), Features::PAYLOAD_PASSTHRU_MODE, "payload_passthru_mode"),
    ] {
        if is_used && !features.contains(feature) {
            return Err(Violation(format!("CALL uses {what}, which the caller did not announce")));
        }
    }
    Ok(())
}

fn begin(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    asked: Asked,
) -> Result<(), Refusal> {
    let Asked { request: request_id, options, procedure, payload } = asked;
    let calls_max = realm.settings().session.calls;
    if session.calls().count() >= calls_max {
        let message = format!("a session has at most {calls_max} calls in flight");
        return Err(Refusal::new(error::LIMIT_EXCEEDED, message));
    }
    if uri::check(&procedure, realm.uri_rules(), MatchPolicy::Exact).is_err() {
        let message = format!("{procedure:?} is no procedure");
        return Err(Refusal::new(error::INVALID_URI, message));
    }
    let (is_disclosed, is_secret, trustlevel) =
        match realm.decide(session, Action::Call, &procedure, MatchPolicy::Exact)? {
            (Disclosure::Never, _) if options.disclose_me => {
                let message = "callers are not disclosed here";
                return Err(Refusal::new(error::DISCLOSE_ME_DISALLOWED, message));
            }
            (Disclosure::Never, level) => (false, true, level),
            (Disclosure::Always, level) => (true, false, level),
            (Disclosure::OnRequest, level) => (options.disclose_me, false, level),
        };
    if uri::is_reserved(&procedure) {
        return meta::call(realm, work, session, request_id, &procedure, &payload);
    }
    let identity = disclose(session);
    let timeout_ms = realm.settings().calls.limit_ms(options.timeout_ms);
    let request = Arc::new(Request {
        procedure,
        caller: is_disclosed.then(|| identity.clone()),
        identity,
        is_secret,
        trustlevel,
        receive_progress: options.receive_progress,
        progress: options.progress,
        timeout_ms,
        ppt: options.ppt,
        payload,
    });
    let call = Call {
        receive_progress: options.receive_progress,
        is_open: options.progress,
        timeout_ms,
        ..Call::new()
    };
    let now_ms = if timeout_ms.is_some() { realm.now_ms() } else { 0 };
    session.calls().begin(request_id, call, now_ms);
    route(realm, work, session, request_id, Retry::new(request))
}

/// Sends a call in flight to a callee that was not asked before.
pub(crate) fn route(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request_id: RequestId,
    mut retry: Retry,
) -> Result<(), Refusal> {
    let is_rerouted = !(retry.sessions.is_empty() && retry.nodes.is_empty());
    let request = Arc::clone(&retry.request);
    let unknown = || {
        let message = format!("nothing is registered for {}", request.procedure);
        Refusal::new(error::NO_SUCH_PROCEDURE, message)
    };
    let snapshot = realm.snapshot();
    let found = snapshot.procedure(&request.procedure).ok_or_else(unknown)?;
    let row = found.registration();
    loop {
        let random = work.rng.u64(..);
        let choice = found.choose(random, retry.excluded(), |callee| is_busy(row.id(), callee));
        match choice {
            Choice::Local(callee) => {
                let target = Target::new(row, callee);
                let who = &callee.session;
                // One callee alone cannot be replaced by another.
                if row.local().len() > 1 || found.nodes().next().is_some() {
                    session.calls().keep(request_id, Arc::new(retry.clone()));
                }
                let caller = Caller::Local { session: session.clone(), request: request_id };
                match invoke(who, target, caller, &request, realm.limits(), &mut work.flushes) {
                    Ok(invoked) => {
                        taken(realm, session, request_id, who, target, invoked);
                        return Ok(());
                    }
                    Err(NotInvoked::Gone) => retry = retry.without(Tried::Session(who.id())),
                    Err(NotInvoked::Refused(refusal)) => return Err(refusal),
                }
            }
            Choice::Node(node) => {
                let key = CallKey { session: session.id(), request: request_id };
                {
                    let mut calls = session.calls();
                    calls.keep(request_id, Arc::new(retry.clone()));
                    calls.assign(request_id, Callee::Remote { node, registration: row.id() }, true);
                }
                match realm.relay().call(node, realm.name(), key, row.id(), &request) {
                    Ok(()) => return Ok(()),
                    Err(NotSent::Unreachable) => retry = retry.without(Tried::Unreached(node)),
                    Err(NotSent::TooLarge) => return Err(too_large("the node of the callee")),
                }
            }
            Choice::Busy => {
                return Err(Refusal::new(error::NO_AVAILABLE_CALLEE, "all callees are busy"));
            }
            Choice::Nobody if retry.is_unreached => {
                let message = "a node with callees cannot be reached";
                return Err(Refusal::new(error::NETWORK_FAILURE, message));
            }
            Choice::Nobody if is_rerouted => {
                return Err(Refusal::new(error::NO_AVAILABLE_CALLEE, "no callee has time for it"));
            }
            // They are gone, and the registry hears of it in this moment.
            Choice::Nobody => return Err(unknown()),
        }
    }
}

fn taken(
    realm: &Realm,
    session: &Handle,
    request: RequestId,
    callee: &Handle,
    target: Target,
    invoked: Invoked,
) {
    let mut calls = session.calls();
    let by = Callee::Local { session: callee.clone(), invocation: invoked.invocation };
    // False: the answer was faster.
    calls.assign(request, by, invoked.can_interrupt);
    let features = callee.roles().callee.unwrap_or_default();
    if super::invoke::keeps_time(features, target) && realm.settings().calls.max.is_none() {
        calls.unlimit(request);
    }
}

/// Ends a call with an error of the router's own.
pub(crate) fn refuse(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    refusal: &Refusal,
) {
    session.calls().finish(request);
    crate::session::reply::error(realm, work, session, RequestType::Call, request, refusal);
}

/// What an authorizer's decision means for a request.
pub(crate) fn verdict(
    decision: &Decision,
    action: Action,
    uri: &str,
) -> Result<(Disclosure, Option<u64>), Refusal> {
    match decision {
        Decision::Allow { disclosure, trustlevel } => Ok((*disclosure, *trustlevel)),
        Decision::Deny => {
            let message = format!("{} {uri} is not allowed", action.name());
            Err(Refusal::new(error::NOT_AUTHORIZED, message))
        }
        Decision::Failed => {
            let message = format!("whether to allow {} {uri} could not be decided", action.name());
            Err(Refusal::new(error::AUTHORIZATION_FAILED, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_of_a_call_is_what_it_asks_for_or_the_default_up_to_the_longest() {
        let seconds = |limit: Option<u64>| limit.map(Duration::from_secs);
        for (default, max, asked_ms, expected_ms) in [
            (None, None, None, None),
            (None, None, Some(0), None),
            (None, None, Some(1_500), Some(1_500)),
            (Some(2), None, None, Some(2_000)),
            (Some(2), None, Some(0), Some(2_000)),
            (Some(2), None, Some(9_000), Some(9_000)),
            (None, Some(3), None, Some(3_000)),
            (None, Some(3), Some(9_000), Some(3_000)),
            (Some(2), Some(3), Some(1), Some(1)),
            (Some(5), Some(3), None, Some(3_000)),
        ] {
            let times = Times { default: seconds(default), max: seconds(max) };
            assert_eq!(times.limit_ms(asked_ms), expected_ms, "{times:?} {asked_ms:?}");
        }
    }
}
