//! From a frame to a message.

use bytes::Bytes;

use super::Reader;
use super::cbor::CborReader;
use super::fields::{Fields, Key};
use super::json::JsonReader;
use super::msgpack::MsgPackReader;
use super::values;
use crate::error::DecodeError;
use crate::id::{PublicationId, RegistrationId, RequestId, SessionId, SubscriptionId};
use crate::limits::Limits;
use crate::message::{
    Abort, Authenticate, Call, CallOptions, CallResult, Cancel, CancelOptions, Challenge,
    Discloser, Error, ErrorDetails, Event, EventDetails, Goodbye, Hello, HelloDetails, Interrupt,
    InterruptOptions, Invocation, InvocationDetails, Message, MessageType, Ppt, Publish,
    PublishOptions, Published, Receivers, Register, RegisterOptions, Registered, RequestType,
    ResultDetails, Subscribe, SubscribeOptions, Subscribed, Unregister, Unregistered, Unsubscribe,
    Unsubscribed, Welcome, Yield, YieldOptions,
};
use crate::roles::{Features, Roles};
use crate::serializer::Serializer;
use crate::value::Dict;

/// Reads a message, which must be all of the frame.
///
/// The strings and the payload of the message are slices of the frame. The payload is checked to its last octet, but not
/// decoded.
///
/// # Errors
/// [`DecodeError`]: whatever it is, the sender does not speak WAMP as it should.
///
/// # Limits
/// Those given; besides, options and details are read to 65,536 values at most.
pub fn decode(
    serializer: Serializer,
    frame: &Bytes,
    limits: &Limits,
) -> Result<Message, DecodeError> {
    match serializer {
        Serializer::Json => read(serializer, frame, JsonReader::new(frame, limits)?),
        Serializer::MsgPack => read(serializer, frame, MsgPackReader::new(frame, limits)?),
        Serializer::Cbor => read(serializer, frame, CborReader::new(frame, limits)?),
    }
}

fn read<'a, R: Reader<'a>>(
    serializer: Serializer,
    frame: &'a Bytes,
    reader: R,
) -> Result<Message, DecodeError> {
    let (mut fields, message_type) = Fields::open(frame, serializer, reader)?;
    let f = &mut fields;
    Ok(match message_type {
        MessageType::Publish => Message::Publish(publish(f)?),
        MessageType::Event => Message::Event(event(f)?),
        MessageType::Call => Message::Call(call(f)?),
        MessageType::Result => Message::Result(result(f)?),
        MessageType::Invocation => Message::Invocation(invocation(f)?),
        MessageType::Yield => Message::Yield(yielded(f)?),
        MessageType::Error => Message::Error(error(f)?),
        MessageType::Hello => Message::Hello(Box::new(hello(f)?)),
        MessageType::Welcome => {
            let session = f.id("Session", SessionId::new)?;
            Message::Welcome(Welcome { session, details: last_dict(f, "Details")? })
        }
        MessageType::Abort => {
            let (details, reason) = (f.dict("Details")?, f.text("Reason")?);
            Message::Abort(Abort { details, reason, payload: f.payload()? })
        }
        MessageType::Challenge => {
            let method = f.text("AuthMethod")?;
            Message::Challenge(Challenge { method, extra: last_dict(f, "Extra")? })
        }
        MessageType::Authenticate => {
            let signature = f.text("Signature")?;
            Message::Authenticate(Authenticate { signature, extra: last_dict(f, "Extra")? })
        }
        MessageType::Goodbye => {
            let (details, reason) = (f.dict("Details")?, f.text("Reason")?);
            f.finish()?;
            Message::Goodbye(Goodbye { details, reason })
        }
        MessageType::Subscribe => Message::Subscribe(subscribe(f)?),
        MessageType::Register => Message::Register(register(f)?),
        MessageType::Cancel => Message::Cancel(cancel(f)?),
        MessageType::Interrupt => Message::Interrupt(interrupt(f)?),
        MessageType::Published => {
            let (request, publication) = two_ids(f, "Publication", PublicationId::new)?;
            Message::Published(Published { request, publication })
        }
        MessageType::Subscribed => {
            let (request, subscription) = two_ids(f, "Subscription", SubscriptionId::new)?;
            Message::Subscribed(Subscribed { request, subscription })
        }
        MessageType::Unsubscribe => {
            let (request, subscription) = two_ids(f, "Subscription", SubscriptionId::new)?;
            Message::Unsubscribe(Unsubscribe { request, subscription })
        }
        MessageType::Registered => {
            let (request, registration) = two_ids(f, "Registration", RegistrationId::new)?;
            Message::Registered(Registered { request, registration })
        }
        MessageType::Unregister => {
            let (request, registration) = two_ids(f, "Registration", RegistrationId::new)?;
            Message::Unregister(Unregister { request, registration })
        }
        MessageType::Unsubscribed => {
            let (request, revocation) = revocation(f)?;
            Message::Unsubscribed(Unsubscribed { request, revocation })
        }
        MessageType::Unregistered => {
            let (request, revocation) = revocation(f)?;
            Message::Unregistered(Unregistered { request, revocation })
        }
    })
}

fn last_dict<'a, R: Reader<'a>>(
    f: &mut Fields<'a, R>,
    field: &'static str,
) -> Result<Dict, DecodeError> {
    let dict = f.dict(field)?;
    f.finish()?;
    Ok(dict)
}

fn request<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<RequestId, DecodeError> {
    f.id("Request", RequestId::new)
}

fn two_ids<'a, R: Reader<'a>, T>(
    f: &mut Fields<'a, R>,
    field: &'static str,
    new: impl FnOnce(u64) -> Option<T>,
) -> Result<(RequestId, T), DecodeError> {
    let ids = (request(f)?, f.id(field, new)?);
    f.finish()?;
    Ok(ids)
}

/// `Request|id`, or 0 and `Details|dict`.
fn revocation<'a, R: Reader<'a>>(
    f: &mut Fields<'a, R>,
) -> Result<(Option<RequestId>, Option<Dict>), DecodeError> {
    let number = f.unsigned("Request")?;
    if number == 0 {
        return Ok((None, Some(last_dict(f, "Details")?)));
    }
    let Some(request) = RequestId::new(number) else {
        let expected = "an id from 1 to 2^53";
        return Err(DecodeError::Field { message: f.message, field: "Request", expected });
    };
    f.finish()?;
    Ok((Some(request), None))
}

fn hello<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Hello, DecodeError> {
    let realm = f.text_or_null("Realm")?;
    let mut details = HelloDetails::default();
    let message = f.message;
    f.options("Details", |name, key| {
        match name {
            "roles" => details.roles = roles(key, message)?,
            "agent" => details.agent = key.text("agent")?,
            "authmethods" => details.authmethods = key.texts("authmethods")?,
            "authid" => details.authid = key.text("authid")?,
            "authrole" => details.authrole = key.text("authrole")?,
            "authextra" => details.authextra = key.dict("authextra")?.unwrap_or_default(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    f.finish()?;
    Ok(Hello { realm, details })
}

fn roles<'a, R: Reader<'a>>(
    key: &mut Key<'_, R>,
    message: &'static str,
) -> Result<Roles, DecodeError> {
    let wrong = |expected| DecodeError::Option { message, key: "roles", expected };
    let announced = key.dict("roles")?.unwrap_or_default();
    let mut roles = Roles::default();
    for (name, role) in announced.iter() {
        let Some(known) = roles.get_mut(name) else { continue };
        let role = role.as_dict().ok_or_else(|| wrong("maps of roles"))?;
        let mut features = Features::NONE;
        if let Some(announced) = role.get("features").filter(|value| !value.is_null()) {
            let announced = announced.as_dict().ok_or_else(|| wrong("maps of features"))?;
            for (name, value) in announced.iter() {
                let Some(feature) = Features::from_name(name) else { continue };
                match value.as_bool() {
                    Some(true) => features = features.with(feature),
                    Some(false) => features = features.without(feature),
                    None if value.is_null() => {}
                    None => return Err(wrong("booleans for features")),
                }
            }
        }
        *known = Some(features);
    }
    Ok(roles)
}

fn error<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Error, DecodeError> {
    let code = f.unsigned("REQUEST.Type")?;
    let Some(request_type) = RequestType::from_code(code) else {
        let (message, field) = (f.message, "REQUEST.Type");
        return Err(DecodeError::Field { message, field, expected: "the type of a request" });
    };
    let request = f.id("REQUEST.Request", RequestId::new)?;
    let mut details = ErrorDetails::default();
    f.options("Details", |name, key| {
        if !key.ppt(name, &mut details.ppt)? {
            details.rest.push(name.into(), values::value(key.reader)?);
        }
        Ok(true)
    })?;
    details.ppt = with_scheme(details.ppt);
    Ok(Error { request_type, request, details, error: f.text("Error")?, payload: f.payload()? })
}

/// The mode is on with a scheme only.
fn with_scheme(ppt: Option<Box<Ppt>>) -> Option<Box<Ppt>> {
    ppt.filter(|ppt| !ppt.scheme.is_empty())
}

fn publish<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Publish, DecodeError> {
    let request = request(f)?;
    let mut o = PublishOptions::default();
    f.options("Options", |name, key| {
        match name {
            "acknowledge" => o.acknowledge = key.flag("acknowledge")?,
            "exclude_me" => o.exclude_me = key.boolean("exclude_me")?,
            "disclose_me" => o.disclose_me = key.boolean("disclose_me")?,
            "retain" => o.retain = key.flag("retain")?,
            _ => return Ok(receivers(name, key, &mut o.receivers)? || key.ppt(name, &mut o.ppt)?),
        }
        Ok(true)
    })?;
    o.ppt = with_scheme(o.ppt);
    Ok(Publish { request, options: o, topic: f.text("Topic")?, payload: f.payload()? })
}

fn receivers<'a, R: Reader<'a>>(
    name: &str,
    key: &mut Key<'_, R>,
    receivers: &mut Option<Box<Receivers>>,
) -> Result<bool, DecodeError> {
    fn put<T>(
        receivers: &mut Option<Box<Receivers>>,
        list: Option<Vec<T>>,
        slot: impl FnOnce(&mut Receivers) -> &mut Option<Vec<T>>,
    ) {
        if list.is_some() {
            *slot(receivers.get_or_insert_default()) = list;
        }
    }
    match name {
        "exclude" => put(receivers, key.ids("exclude", SessionId::new)?, |r| &mut r.exclude),
        "exclude_authid" => {
            put(receivers, key.texts("exclude_authid")?, |r| &mut r.exclude_authid);
        }
        "exclude_authrole" => {
            put(receivers, key.texts("exclude_authrole")?, |r| &mut r.exclude_authrole);
        }
        "eligible" => put(receivers, key.ids("eligible", SessionId::new)?, |r| &mut r.eligible),
        "eligible_authid" => {
            put(receivers, key.texts("eligible_authid")?, |r| &mut r.eligible_authid);
        }
        "eligible_authrole" => {
            put(receivers, key.texts("eligible_authrole")?, |r| &mut r.eligible_authrole);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn subscribe<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Subscribe, DecodeError> {
    let request = request(f)?;
    let mut o = SubscribeOptions::default();
    f.options("Options", |name, key| {
        match name {
            "match" => o.match_policy = key.choice("match")?,
            "get_retained" => o.get_retained = key.flag("get_retained")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let topic = f.text("Topic")?;
    f.finish()?;
    Ok(Subscribe { request, options: o, topic })
}

fn register<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Register, DecodeError> {
    let request = request(f)?;
    let mut o = RegisterOptions::default();
    f.options("Options", |name, key| {
        match name {
            "match" => o.match_policy = key.choice("match")?,
            "invoke" => o.invoke = key.choice("invoke")?,
            "disclose_caller" => o.disclose_caller = key.flag("disclose_caller")?,
            "forward_timeout" => o.forward_timeout = key.flag("forward_timeout")?,
            "force_reregister" => o.force_reregister = key.flag("force_reregister")?,
            "concurrency" => o.concurrency = key.unsigned("concurrency")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let procedure = f.text("Procedure")?;
    f.finish()?;
    Ok(Register { request, options: o, procedure })
}

fn call<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Call, DecodeError> {
    let request = request(f)?;
    let mut o = CallOptions::default();
    f.options("Options", |name, key| {
        match name {
            "timeout" => o.timeout_ms = key.unsigned("timeout")?,
            "receive_progress" => o.receive_progress = key.flag("receive_progress")?,
            "progress" => o.progress = key.flag("progress")?,
            "disclose_me" => o.disclose_me = key.flag("disclose_me")?,
            _ => return key.ppt(name, &mut o.ppt),
        }
        Ok(true)
    })?;
    o.ppt = with_scheme(o.ppt);
    Ok(Call { request, options: o, procedure: f.text("Procedure")?, payload: f.payload()? })
}

fn cancel<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Cancel, DecodeError> {
    let request = f.id("CALL.Request", RequestId::new)?;
    let mut o = CancelOptions::default();
    f.options("Options", |name, key| {
        if name == "mode" {
            o.mode = key.choice("mode")?;
        }
        Ok(name == "mode")
    })?;
    f.finish()?;
    Ok(Cancel { request, options: o })
}

fn interrupt<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Interrupt, DecodeError> {
    let request = f.id("INVOCATION.Request", RequestId::new)?;
    let mut o = InterruptOptions::default();
    f.options("Options", |name, key| {
        match name {
            "mode" => o.mode = key.choice("mode")?,
            "reason" => o.reason = key.text("reason")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    f.finish()?;
    Ok(Interrupt { request, options: o })
}

fn yielded<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Yield, DecodeError> {
    let request = f.id("INVOCATION.Request", RequestId::new)?;
    let mut o = YieldOptions::default();
    f.options("Options", |name, key| {
        if name == "progress" {
            o.progress = key.flag("progress")?;
            return Ok(true);
        }
        key.ppt(name, &mut o.ppt)
    })?;
    o.ppt = with_scheme(o.ppt);
    Ok(Yield { request, options: o, payload: f.payload()? })
}

fn result<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<CallResult, DecodeError> {
    let request = f.id("CALL.Request", RequestId::new)?;
    let mut d = ResultDetails::default();
    f.options("Details", |name, key| {
        if name == "progress" {
            d.progress = key.flag("progress")?;
            return Ok(true);
        }
        key.ppt(name, &mut d.ppt)
    })?;
    d.ppt = with_scheme(d.ppt);
    Ok(CallResult { request, details: d, payload: f.payload()? })
}

/// The three keys that disclose a peer, in any order; without a session nobody is disclosed.
#[derive(Default)]
struct Disclosed {
    session: Option<SessionId>,
    authid: Option<bytestring::ByteString>,
    authrole: Option<bytestring::ByteString>,
}

impl Disclosed {
    fn peer(self) -> Option<Discloser> {
        let session = self.session?;
        Some(Discloser { session, authid: self.authid, authrole: self.authrole })
    }
}

fn event<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Event, DecodeError> {
    let subscription = f.id("Subscription", SubscriptionId::new)?;
    let publication = f.id("Publication", PublicationId::new)?;
    let mut d = EventDetails::default();
    let mut publisher = Disclosed::default();
    f.options("Details", |name, key| {
        match name {
            "publisher" => publisher.session = key.id("publisher", SessionId::new)?,
            "publisher_authid" => publisher.authid = key.text("publisher_authid")?,
            "publisher_authrole" => publisher.authrole = key.text("publisher_authrole")?,
            "topic" => d.topic = key.text("topic")?,
            "trustlevel" => d.trustlevel = key.unsigned("trustlevel")?,
            "retained" => d.retained = key.flag("retained")?,
            _ => return key.ppt(name, &mut d.ppt),
        }
        Ok(true)
    })?;
    d.ppt = with_scheme(d.ppt);
    d.publisher = publisher.peer();
    Ok(Event { subscription, publication, details: d, payload: f.payload()? })
}

fn invocation<'a, R: Reader<'a>>(f: &mut Fields<'a, R>) -> Result<Invocation, DecodeError> {
    let request = request(f)?;
    let registration = f.id("Registration", RegistrationId::new)?;
    let mut d = InvocationDetails::default();
    let mut caller = Disclosed::default();
    f.options("Details", |name, key| {
        match name {
            "caller" => caller.session = key.id("caller", SessionId::new)?,
            "caller_authid" => caller.authid = key.text("caller_authid")?,
            "caller_authrole" => caller.authrole = key.text("caller_authrole")?,
            "procedure" => d.procedure = key.text("procedure")?,
            "trustlevel" => d.trustlevel = key.unsigned("trustlevel")?,
            "receive_progress" => d.receive_progress = key.flag("receive_progress")?,
            "progress" => d.progress = key.flag("progress")?,
            "timeout" => d.timeout_ms = key.unsigned("timeout")?,
            _ => return key.ppt(name, &mut d.ppt),
        }
        Ok(true)
    })?;
    d.ppt = with_scheme(d.ppt);
    d.caller = caller.peer();
    Ok(Invocation { request, registration, details: d, payload: f.payload()? })
}
