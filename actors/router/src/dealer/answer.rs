//! YIELD and ERROR of a callee: the answer goes to whoever called.

use std::sync::Arc;

use weald_wamp::message::{
    CallResult, Error, ErrorDetails, Ppt, RequestType, ResultDetails, Yield,
};
use weald_wamp::roles::Features;
use weald_wamp::{Message, Payload, RequestId, Serializer};

use super::call::{refuse, route};
use super::invocations::Answer;
use super::invoke::too_large;
use super::{Caller, Refusal, Tried};
use crate::error;
use crate::realm::Realm;
use crate::session::handle::{Handle, Sent};
use crate::session::{Violation, Work};
use bytestring::ByteString;

/// What a callee says.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A result, the last one unless there is progress.
    Result {
        /// Whether more follow.
        progress: bool,
        /// How the payload is wrapped, if it is.
        ppt: Option<Box<Ppt>>,
        /// What.
        payload: Payload,
    },
    /// An error.
    Error {
        /// Its details.
        details: ErrorDetails,
        /// Which, a URI.
        error: ByteString,
        /// What.
        payload: Payload,
    },
}

impl Reply {
    /// Whether nothing follows it.
    pub(crate) fn is_last(&self) -> bool {
        !matches!(self, Self::Result { progress: true, .. })
    }

    /// Whether the callee asks for another to be called.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Error { error, .. } if *error == error::UNAVAILABLE)
    }

    /// An error of the router's own.
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        // Any serializer will do: who reads it may read another.
        let payload = crate::session::reply::explanation(Serializer::MsgPack, &refusal.message);
        let error = ByteString::from_static(refusal.error);
        Self::Error { details: ErrorDetails::default(), error, payload }
    }
}

/// A YIELD of a session.
pub(crate) fn yielded(
    realm: &Arc<Realm>,
    work: &mut Work,
    callee: &Handle,
    message: Yield,
) -> Result<(), Violation> {
    let Yield { request, options, payload } = message;
    if options.ppt.is_some() && !announces(callee, Features::PAYLOAD_PASSTHRU_MODE) {
        let what = "YIELD uses payload_passthru_mode, which the callee did not announce";
        return Err(Violation(what.to_owned()));
    }
    let reply = Reply::Result { progress: options.progress, ppt: options.ppt, payload };
    answered(realm, work, callee, request, reply)
}

/// An ERROR of a session.
pub(crate) fn failed(
    realm: &Arc<Realm>,
    work: &mut Work,
    callee: &Handle,
    message: Error,
) -> Result<(), Violation> {
    let Error { request, details, error, payload, .. } = message;
    answered(realm, work, callee, request, Reply::Error { details, error, payload })
}

fn announces(callee: &Handle, feature: Features) -> bool {
    callee.roles().callee.unwrap_or_default().contains(feature)
}

fn answered(
    realm: &Arc<Realm>,
    work: &mut Work,
    callee: &Handle,
    invocation: RequestId,
    reply: Reply,
) -> Result<(), Violation> {
    let answer = callee.invocations().answer(invocation, reply.is_last());
    match answer {
        Answer::Discard => Ok(()),
        Answer::NeverAsked => {
            Err(Violation(format!("an answer to invocation {invocation}, which was never made")))
        }
        Answer::To(Caller::Local { session, request }) => {
            if reply.is_unavailable() && announces(callee, Features::CALL_REROUTE) {
                reroute(realm, work, &session, request, Tried::Session(callee.id()), true);
                return Ok(());
            }
            deliver(realm, work, &session, request, reply);
            Ok(())
        }
        Answer::To(Caller::Remote { node, key }) => {
            let may_reroute = announces(callee, Features::CALL_REROUTE);
            crate::relay::incoming::answered(realm, work, callee, node, key, &reply, may_reroute);
            Ok(())
        }
    }
}

/// Sends a call elsewhere. With `is_unavailable` its end, if nobody else is there, is that nobody is available.
pub(crate) fn reroute(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    tried: Tried,
    is_unavailable: bool,
) {
    let kept = session.calls().retry(request);
    let routed = match kept {
        Some(kept) => route(realm, work, session, request, kept.without(tried)),
        None if is_unavailable => {
            Err(Refusal::new(error::NO_AVAILABLE_CALLEE, "no callee has time for it"))
        }
        None => Err(Refusal::new(error::CANCELED, "the callee is gone")),
    };
    if let Err(refusal) = routed {
        let is_in_flight = session.calls().get(request).is_some();
        if is_in_flight {
            refuse(realm, work, session, request, &refusal);
        }
    }
}

/// Hands an answer to the session that called. Late ones find no call and are dropped.
pub(crate) fn deliver(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    reply: Reply,
) {
    let is_last = reply.is_last();
    let takes_ppt =
        session.roles().caller.unwrap_or_default().contains(Features::PAYLOAD_PASSTHRU_MODE);
    let message = match reply {
        Reply::Result { ppt: Some(_), .. } if !takes_ppt => {
            let message = "the caller takes no wrapped payloads";
            Err(Refusal::new(error::FEATURE_NOT_SUPPORTED, message))
        }
        Reply::Result { progress, ppt, payload } => {
            translate(realm, session, &payload).map(|payload| {
                Message::Result(CallResult {
                    request,
                    details: ResultDetails { progress, ppt },
                    payload,
                })
            })
        }
        Reply::Error { details, error, payload } => {
            translate(realm, session, &payload).map(|payload| {
                Message::Error(Error {
                    request_type: RequestType::Call,
                    request,
                    details,
                    error,
                    payload,
                })
            })
        }
    };
    let now_ms = if is_last { 0 } else { realm.now_ms() };
    let mut calls = session.calls();
    let is_wanted = match (&message, is_last) {
        // Something that cannot be said ends the call.
        (Err(_), _) | (Ok(_), true) => calls.finish(request).is_some(),
        (Ok(_), false) => calls.progress(request, now_ms),
    };
    if !is_wanted {
        return;
    }
    let refusal = match message {
        Ok(message) => match session.send(&message, &mut work.flushes) {
            Sent::Queued | Sent::Lost => None,
            Sent::TooLarge => Some(too_large("the caller")),
        },
        Err(refusal) => Some(refusal),
    };
    let Some(refusal) = refusal else { return };
    calls.finish(request);
    drop(calls);
    crate::session::reply::error(realm, work, session, RequestType::Call, request, &refusal);
}

fn translate(realm: &Arc<Realm>, session: &Handle, payload: &Payload) -> Result<Payload, Refusal> {
    payload.to(session.serializer(), realm.limits()).map_err(|error| {
        let message = format!("the answer has no form that the caller reads: {error}");
        Refusal::new(error::INVALID_ARGUMENT, message)
    })
}
