//! Answers of the router itself.

use std::sync::Arc;

use bytestring::ByteString;
use weald_wamp::message::{Abort, Error, ErrorDetails, Goodbye, RequestType};
use weald_wamp::{Dict, Message, Payload, RequestId, Serializer, Value};

use super::Work;
use super::handle::{Ending, Handle};
use crate::dealer::Refusal;
use crate::realm::Realm;

/// An explanation as the one argument of an error.
pub(crate) fn explanation(serializer: Serializer, message: &str) -> Payload {
    values(serializer, &[Value::from(message)], &Dict::new())
}

/// Arguments of the router's own making. What has no encoding is left out as a whole: the router makes none such.
pub(crate) fn values(serializer: Serializer, args: &[Value], kwargs: &Dict) -> Payload {
    Payload::from_values(serializer, args, kwargs).unwrap_or_default()
}

/// ERROR for a request of a client.
pub(crate) fn error(
    _: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request_type: RequestType,
    request: RequestId,
    refusal: &Refusal,
) {
    let message = Message::Error(Error {
        request_type,
        request,
        details: ErrorDetails::default(),
        error: ByteString::from_static(refusal.error),
        payload: explanation(session.serializer(), &refusal.message),
    });
    session.send(&message, &mut work.flushes);
}

/// ABORT.
pub(crate) fn abort(reason: &'static str, message: String) -> Message {
    Message::Abort(Abort {
        details: Dict::new().with("message", message),
        reason: ByteString::from_static(reason),
        payload: Payload::empty(),
    })
}

/// GOODBYE.
pub(crate) fn goodbye(ending: &Ending) -> Message {
    let mut details = Dict::new();
    if let Some(message) = &ending.message {
        details.insert("message", message.as_str());
    }
    Message::Goodbye(Goodbye { details, reason: ByteString::from(ending.reason.as_str()) })
}
