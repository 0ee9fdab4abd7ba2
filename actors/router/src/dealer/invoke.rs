//! INVOCATION: a call reaches a callee of this node.

use weald_transports::{Class, Flushes};
use weald_wamp::message::{Invocation, InvocationDetails, MatchPolicy};
use weald_wamp::roles::Features;
use weald_wamp::{Limits, Message, RegistrationId, RequestId};

use super::{Caller, Refusal, Request};
use crate::error;
use crate::registry::{Callee, Registration};
use crate::session::handle::{Handle, Sent, encode};

/// How a callee is registered, as far as an invocation depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// The registration.
    pub(crate) registration: RegistrationId,
    /// How its URI matches.
    pub(crate) policy: MatchPolicy,
    /// Whether the callee asks to know callers.
    pub(crate) disclose_caller: bool,
    /// Whether it keeps to time limits by itself.
    pub(crate) forward_timeout: bool,
}

impl Target {
    pub(crate) fn new(row: &Registration<Handle>, callee: &Callee<Handle>) -> Self {
        Self {
            registration: row.id(),
            policy: row.policy(),
            disclose_caller: callee.options.disclose_caller,
            forward_timeout: callee.options.forward_timeout,
        }
    }
}

/// Why a callee was not invoked.
#[derive(Debug)]
pub(crate) enum NotInvoked {
    /// It is gone, another may be there.
    Gone,
    /// The call cannot be made.
    Refused(Refusal),
}

/// An invocation that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Invoked {
    /// Its id with the callee.
    pub(crate) invocation: RequestId,
    /// Whether the callee takes INTERRUPT.
    pub(crate) can_interrupt: bool,
}

fn features(callee: &Handle) -> Features {
    callee.roles().callee.unwrap_or_default()
}

/// Whether a callee takes INTERRUPT.
pub(crate) fn can_interrupt(callee: &Handle) -> bool {
    features(callee).contains(Features::CALL_CANCELING)
}

/// Invokes a callee. Ids of invocations are sequential for each callee: the id is taken and the message queued under one lock.
pub(crate) fn invoke(
    callee: &Handle,
    target: Target,
    caller: Caller,
    request: &Request,
    limits: &Limits,
    flushes: &mut Flushes,
) -> Result<Invoked, NotInvoked> {
    let features = features(callee);
    let can_interrupt = can_interrupt(callee);
    check(features, request).map_err(NotInvoked::Refused)?;
    let payload = request.payload.to(callee.serializer(), limits).map_err(|error| {
        let message = format!("the arguments have no form that the callee reads: {error}");
        NotInvoked::Refused(Refusal::new(error::INVALID_ARGUMENT, message))
    })?;
    let discloses = target.disclose_caller && !request.is_secret;
    let details = InvocationDetails {
        caller: request.caller.clone().or_else(|| discloses.then(|| request.identity.clone())),
        procedure: (target.policy != MatchPolicy::Exact).then(|| request.procedure.clone()),
        trustlevel: request.trustlevel,
        receive_progress: request.receive_progress
            && can_interrupt
            && features.contains(Features::PROGRESSIVE_CALL_RESULTS),
        progress: request.progress,
        timeout_ms: request.timeout_ms.filter(|_| keeps_time(features, target)),
        ppt: request.ppt.clone(),
    };
    let mut invocations = callee.invocations();
    let Some(invocation) = invocations.begin(target.registration, caller) else {
        return Err(NotInvoked::Gone);
    };
    let registration = target.registration;
    let message =
        Message::Invocation(Invocation { request: invocation, registration, details, payload });
    let sent = match encode(&message, callee.serializer(), callee.framing()) {
        Some(framed) => callee.send_framed(framed, Class::Reply, flushes),
        None => Sent::TooLarge,
    };
    match sent {
        Sent::Queued => Ok(Invoked { invocation, can_interrupt }),
        Sent::TooLarge => {
            invocations.undo(invocation);
            Err(NotInvoked::Refused(too_large("the callee")))
        }
        Sent::Lost => {
            invocations.abandon(invocation);
            Err(NotInvoked::Gone)
        }
    }
}

/// Sends another chunk of a progressive call. The invocation may be over by now; the chunk is dropped then.
pub(crate) fn chunk(
    callee: &Handle,
    invocation: RequestId,
    request: &Request,
    limits: &Limits,
    flushes: &mut Flushes,
) -> Result<(), Refusal> {
    let payload = request.payload.to(callee.serializer(), limits).map_err(|error| {
        let message = format!("the arguments have no form that the callee reads: {error}");
        Refusal::new(error::INVALID_ARGUMENT, message)
    })?;
    let details = InvocationDetails {
        progress: request.progress,
        ppt: request.ppt.clone(),
        ..InvocationDetails::default()
    };
    let invocations = callee.invocations();
    let Some(registration) = invocations.registration(invocation) else { return Ok(()) };
    let message =
        Message::Invocation(Invocation { request: invocation, registration, details, payload });
    let sent = callee.send(&message, flushes);
    drop(invocations);
    match sent {
        Sent::Queued | Sent::Lost => Ok(()),
        Sent::TooLarge => Err(too_large("the callee")),
    }
}

/// Whether the callee limits its time by itself; the router keeps no time for the call then.
pub(crate) fn keeps_time(features: Features, target: Target) -> bool {
    target.forward_timeout && features.contains(Features::CALL_TIMEOUT)
}

/// What is said of a message that its receiver does not take.
pub(crate) fn too_large(who: &str) -> Refusal {
    Refusal::new(error::PAYLOAD_SIZE_EXCEEDED, format!("larger than {who} takes"))
}

fn check(features: Features, request: &Request) -> Result<(), Refusal> {
    let progressive = Features::PROGRESSIVE_CALL_INVOCATIONS.with(Features::CALL_CANCELING);
    if request.progress && !features.contains(progressive) {
        let message = "the callee takes no progressive invocations";
        return Err(Refusal::new(error::FEATURE_NOT_SUPPORTED, message));
    }
    if request.ppt.is_some() && !features.contains(Features::PAYLOAD_PASSTHRU_MODE) {
        let message = "the callee takes no wrapped payloads";
        return Err(Refusal::new(error::FEATURE_NOT_SUPPORTED, message));
    }
    Ok(())
}
