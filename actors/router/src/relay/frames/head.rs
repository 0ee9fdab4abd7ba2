//! Heads of messages as they travel.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    ByteString, Call, CallKey, CancelMode, Discloser, Disclosure, ErrorDetails, Kind, LIST_MAX,
    Limits, Malformed, MatchPolicy, Message, Parts, Payload, Ppt, Publish, Receivers,
    RegistrationId, RequestId, Serializer, SessionId, TEXT_BYTES_MAX, rest_in,
};
use weald_wamp::PublicationId;

/// Bytes of a usual head.
pub(super) const BYTES_HINT: usize = 192;

#[derive(Serialize, Deserialize)]
pub(super) enum Head<'a> {
    #[serde(borrow)]
    Publish(WirePublish<'a>),
    #[serde(borrow)]
    Call(WireCall<'a>),
    #[serde(borrow)]
    Chunk(WireCall<'a>),
    Cancel {
        of: Of<'a>,
        mode: u8,
    },
    Answer {
        of: Of<'a>,
        progress: bool,
        ppt: Option<WirePpt<'a>>,
        payload: Shape,
    },
    Failure {
        of: Of<'a>,
        error: &'a str,
        ppt: Option<WirePpt<'a>>,
        rest: &'a [u8],
        payload: Shape,
    },
    NotThere {
        of: Of<'a>,
    },
    Taken {
        of: Of<'a>,
        keeps_time: bool,
    },
    Revoke {
        realm: &'a str,
        is_registration: bool,
        policy: u8,
        uri: &'a str,
        session: Option<u64>,
        reason: Option<&'a str>,
    },
    Ask {
        realm: &'a str,
        ask: u64,
    },
    Reply {
        ask: u64,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct WirePublish<'a> {
    realm: &'a str,
    publication: u64,
    topic: &'a str,
    without: Option<u64>,
    #[serde(borrow)]
    receivers: Option<WireReceivers<'a>>,
    publisher: Option<WireDiscloser<'a>>,
    trustlevel: Option<u64>,
    retain: bool,
    retained: bool,
    ppt: Option<WirePpt<'a>>,
    payload: Shape,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireCall<'a> {
    #[serde(borrow)]
    of: Of<'a>,
    registration: u64,
    procedure: &'a str,
    caller: WireDiscloser<'a>,
    disclosure: Disclosure,
    trustlevel: Option<u64>,
    receive_progress: bool,
    progress: bool,
    timeout_ms: Option<u64>,
    ppt: Option<WirePpt<'a>>,
    payload: Shape,
}

/// Which call.
#[derive(Serialize, Deserialize)]
pub(super) struct Of<'a> {
    realm: &'a str,
    session: u64,
    request: u64,
}

/// What a payload is; its octets follow the head.
#[derive(Serialize, Deserialize)]
pub(super) struct Shape {
    serializer: u8,
    parts: u8,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireDiscloser<'a> {
    session: u64,
    authid: Option<&'a str>,
    authrole: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WirePpt<'a> {
    scheme: &'a str,
    serializer: Option<&'a str>,
    cipher: Option<&'a str>,
    keyid: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireReceivers<'a> {
    exclude: Option<Vec<u64>>,
    #[serde(borrow)]
    exclude_authid: Option<Vec<&'a str>>,
    exclude_authrole: Option<Vec<&'a str>>,
    eligible: Option<Vec<u64>>,
    eligible_authid: Option<Vec<&'a str>>,
    eligible_authrole: Option<Vec<&'a str>>,
}

/// The head of a message, and what follows it.
pub(super) fn of<'a>(message: &'a Message, rest: &'a [u8]) -> (Head<'a>, &'a [u8]) {
    match message {
        Message::Publish(publish) => (Head::Publish(publish_out(publish)), publish.payload.raw()),
        Message::Call(call) => (Head::Call(call_out(call)), call.payload.raw()),
        Message::Chunk(call) => (Head::Chunk(call_out(call)), call.payload.raw()),
        Message::Cancel { realm, key, mode } => {
            let mode = match mode {
                CancelMode::Skip => 0,
                CancelMode::Kill => 1,
                CancelMode::KillNoWait => 2,
            };
            (Head::Cancel { of: of_call(realm, *key), mode }, &[])
        }
        Message::Answer { realm, key, progress, ppt, payload } => {
            let (of, ppt) = (of_call(realm, *key), ppt.as_deref().map(ppt_out));
            let head = Head::Answer { of, progress: *progress, ppt, payload: shape(payload) };
            (head, payload.raw())
        }
        Message::Failure { realm, key, error, details, payload } => {
            let (of, ppt) = (of_call(realm, *key), details.ppt.as_deref().map(ppt_out));
            (Head::Failure { of, error, ppt, rest, payload: shape(payload) }, payload.raw())
        }
        Message::NotThere { realm, key } => (Head::NotThere { of: of_call(realm, *key) }, &[]),
        Message::Taken { realm, key, keeps_time } => {
            (Head::Taken { of: of_call(realm, *key), keeps_time: *keeps_time }, &[])
        }
        Message::Revoke { realm, kind, policy, uri, session, reason } => {
            let head = Head::Revoke {
                realm,
                is_registration: *kind == Kind::Registration,
                policy: match policy {
                    MatchPolicy::Exact => 0,
                    MatchPolicy::Prefix => 1,
                    MatchPolicy::Wildcard => 2,
                },
                uri,
                session: session.map(SessionId::get),
                reason: reason.as_deref(),
            };
            (head, &[])
        }
        Message::Ask { realm, ask, body } => (Head::Ask { realm, ask: *ask }, body),
        Message::Reply { ask, body } => (Head::Reply { ask: *ask }, body),
    }
}

/// The message of a head and what follows it.
pub(super) fn read(
    head: Head<'_>,
    texts: &Texts<'_>,
    tail: Bytes,
    limits: &Limits,
) -> Result<Message, Malformed> {
    let ends = |tail: &Bytes| match tail.len() {
        0 => Ok(()),
        len => Err(Malformed::new("message", format!("{len} bytes are left over"))),
    };
    Ok(match head {
        Head::Publish(publish) => Message::Publish(publish_in(publish, texts, tail)?),
        Head::Call(call) => Message::Call(call_in(call, texts, tail)?),
        Head::Chunk(call) => Message::Chunk(call_in(call, texts, tail)?),
        Head::Cancel { of, mode } => {
            ends(&tail)?;
            let mode = match mode {
                0 => CancelMode::Skip,
                1 => CancelMode::Kill,
                2 => CancelMode::KillNoWait,
                other => return Err(unknown("mode", other)),
            };
            let (realm, key) = texts.call(&of)?;
            Message::Cancel { realm, key, mode }
        }
        Head::Answer { of, progress, ppt, payload } => {
            let (realm, key) = texts.call(&of)?;
            let payload = payload_in(&payload, tail)?;
            Message::Answer { realm, key, progress, ppt: texts.ppt(ppt)?, payload }
        }
        Head::Failure { of, error, ppt, rest, payload } => {
            let (realm, key) = texts.call(&of)?;
            let rest = rest_in(texts.0.slice_ref(rest), limits)?;
            let details = ErrorDetails { ppt: texts.ppt(ppt)?, rest };
            let payload = payload_in(&payload, tail)?;
            Message::Failure { realm, key, error: texts.text(error)?, details, payload }
        }
        Head::NotThere { of } => {
            ends(&tail)?;
            let (realm, key) = texts.call(&of)?;
            Message::NotThere { realm, key }
        }
        Head::Taken { of, keeps_time } => {
            ends(&tail)?;
            let (realm, key) = texts.call(&of)?;
            Message::Taken { realm, key, keeps_time }
        }
        Head::Revoke { realm, is_registration, policy, uri, session, reason } => {
            ends(&tail)?;
            Message::Revoke {
                realm: texts.text(realm)?,
                kind: if is_registration { Kind::Registration } else { Kind::Subscription },
                policy: match policy {
                    0 => MatchPolicy::Exact,
                    1 => MatchPolicy::Prefix,
                    2 => MatchPolicy::Wildcard,
                    other => return Err(unknown("match", other)),
                },
                uri: texts.text(uri)?,
                session: session.map(session_in).transpose()?,
                reason: texts.optional(reason)?,
            }
        }
        Head::Ask { realm, ask } => Message::Ask { realm: texts.text(realm)?, ask, body: tail },
        Head::Reply { ask } => Message::Reply { ask, body: tail },
    })
}

fn unknown(what: &'static str, code: u8) -> Malformed {
    Malformed::new(what, format!("{code} is not known here"))
}

fn id<T>(what: &'static str, id: Option<T>) -> Result<T, Malformed> {
    id.ok_or_else(|| Malformed::new(what, "it is no id"))
}

fn session_in(session: u64) -> Result<SessionId, Malformed> {
    id("session", SessionId::new(session))
}

fn of_call(realm: &str, key: CallKey) -> Of<'_> {
    Of { realm, session: key.session.get(), request: key.request.get() }
}

fn shape(payload: &Payload) -> Shape {
    let serializer = match payload.serializer() {
        Serializer::Json => 0,
        Serializer::MsgPack => 1,
        Serializer::Cbor => 2,
    };
    let parts = match payload.parts() {
        Parts::None => 0,
        Parts::Args => 1,
        Parts::ArgsKwargs => 2,
    };
    Shape { serializer, parts }
}

fn payload_in(shape: &Shape, raw: Bytes) -> Result<Payload, Malformed> {
    let serializer = match shape.serializer {
        0 => Serializer::Json,
        1 => Serializer::MsgPack,
        2 => Serializer::Cbor,
        other => return Err(unknown("serializer", other)),
    };
    let parts = match shape.parts {
        0 => Parts::None,
        1 => Parts::Args,
        2 => Parts::ArgsKwargs,
        other => return Err(unknown("payload", other)),
    };
    if (parts == Parts::None) != raw.is_empty() {
        return Err(Malformed::new("payload", "it is not what it says"));
    }
    Ok(Payload::from_raw_trusted(serializer, parts, raw))
}

fn discloser_out(of: &Discloser) -> WireDiscloser<'_> {
    let (authid, authrole) = (of.authid.as_deref(), of.authrole.as_deref());
    WireDiscloser { session: of.session.get(), authid, authrole }
}

fn ppt_out(ppt: &Ppt) -> WirePpt<'_> {
    WirePpt {
        scheme: &ppt.scheme,
        serializer: ppt.serializer.as_deref(),
        cipher: ppt.cipher.as_deref(),
        keyid: ppt.keyid.as_deref(),
    }
}

fn receivers_out(of: &Receivers) -> WireReceivers<'_> {
    let ids = |list: &Option<Vec<SessionId>>| {
        list.as_ref().map(|list| list.iter().map(|id| id.get()).collect())
    };
    WireReceivers {
        exclude: ids(&of.exclude),
        exclude_authid: names_out(of.exclude_authid.as_ref()),
        exclude_authrole: names_out(of.exclude_authrole.as_ref()),
        eligible: ids(&of.eligible),
        eligible_authid: names_out(of.eligible_authid.as_ref()),
        eligible_authrole: names_out(of.eligible_authrole.as_ref()),
    }
}

fn names_out(names: Option<&Vec<ByteString>>) -> Option<Vec<&str>> {
    names.map(|names| names.iter().map(|name| &**name).collect())
}

fn publish_out(publish: &Publish) -> WirePublish<'_> {
    WirePublish {
        realm: &publish.realm,
        publication: publish.publication.get(),
        topic: &publish.topic,
        without: publish.without.map(SessionId::get),
        receivers: publish.receivers.as_deref().map(receivers_out),
        publisher: publish.publisher.as_ref().map(discloser_out),
        trustlevel: publish.trustlevel,
        retain: publish.retain,
        retained: publish.retained,
        ppt: publish.ppt.as_deref().map(ppt_out),
        payload: shape(&publish.payload),
    }
}

fn publish_in(wire: WirePublish<'_>, texts: &Texts<'_>, tail: Bytes) -> Result<Publish, Malformed> {
    Ok(Publish {
        realm: texts.text(wire.realm)?,
        publication: id("publication", PublicationId::new(wire.publication))?,
        topic: texts.text(wire.topic)?,
        without: wire.without.map(session_in).transpose()?,
        receivers: texts.receivers(wire.receivers)?,
        publisher: wire.publisher.map(|publisher| texts.discloser(&publisher)).transpose()?,
        trustlevel: wire.trustlevel,
        retain: wire.retain,
        retained: wire.retained,
        ppt: texts.ppt(wire.ppt)?,
        payload: payload_in(&wire.payload, tail)?,
    })
}

fn call_out(call: &Call) -> WireCall<'_> {
    WireCall {
        of: of_call(&call.realm, call.key),
        registration: call.registration.get(),
        procedure: &call.procedure,
        caller: discloser_out(&call.caller),
        disclosure: call.disclosure,
        trustlevel: call.trustlevel,
        receive_progress: call.receive_progress,
        progress: call.progress,
        timeout_ms: call.timeout_ms,
        ppt: call.ppt.as_deref().map(ppt_out),
        payload: shape(&call.payload),
    }
}

fn call_in(wire: WireCall<'_>, texts: &Texts<'_>, tail: Bytes) -> Result<Call, Malformed> {
    let (realm, key) = texts.call(&wire.of)?;
    Ok(Call {
        realm,
        key,
        registration: id("registration", RegistrationId::new(wire.registration))?,
        procedure: texts.text(wire.procedure)?,
        caller: texts.discloser(&wire.caller)?,
        disclosure: wire.disclosure,
        trustlevel: wire.trustlevel,
        receive_progress: wire.receive_progress,
        progress: wire.progress,
        timeout_ms: wire.timeout_ms,
        ppt: texts.ppt(wire.ppt)?,
        payload: payload_in(&wire.payload, tail)?,
    })
}

/// The body that texts are slices of.
pub(super) struct Texts<'a>(pub(super) &'a Bytes);

impl Texts<'_> {
    fn text(&self, text: &str) -> Result<ByteString, Malformed> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Malformed::new("text", format!("{} bytes", text.len())));
        }
        if text.is_empty() {
            return Ok(ByteString::new());
        }
        let slice = self.0.slice_ref(text.as_bytes());
        ByteString::try_from(slice).map_err(|e| Malformed::new("text", e.to_string()))
    }

    fn optional(&self, text: Option<&str>) -> Result<Option<ByteString>, Malformed> {
        text.map(|text| self.text(text)).transpose()
    }

    fn call(&self, of: &Of<'_>) -> Result<(ByteString, CallKey), Malformed> {
        let request = id("request", RequestId::new(of.request))?;
        Ok((self.text(of.realm)?, CallKey { session: session_in(of.session)?, request }))
    }

    fn discloser(&self, of: &WireDiscloser<'_>) -> Result<Discloser, Malformed> {
        let session = session_in(of.session)?;
        let (authid, authrole) = (self.optional(of.authid)?, self.optional(of.authrole)?);
        Ok(Discloser { session, authid, authrole })
    }

    fn ppt(&self, ppt: Option<WirePpt<'_>>) -> Result<Option<Box<Ppt>>, Malformed> {
        let Some(ppt) = ppt else { return Ok(None) };
        Ok(Some(Box::new(Ppt {
            scheme: self.text(ppt.scheme)?,
            serializer: self.optional(ppt.serializer)?,
            cipher: self.optional(ppt.cipher)?,
            keyid: self.optional(ppt.keyid)?,
        })))
    }

    fn receivers(
        &self,
        of: Option<WireReceivers<'_>>,
    ) -> Result<Option<Box<Receivers>>, Malformed> {
        let Some(of) = of else { return Ok(None) };
        Ok(Some(Box::new(Receivers {
            exclude: ids_in(of.exclude)?,
            exclude_authid: self.names(of.exclude_authid)?,
            exclude_authrole: self.names(of.exclude_authrole)?,
            eligible: ids_in(of.eligible)?,
            eligible_authid: self.names(of.eligible_authid)?,
            eligible_authrole: self.names(of.eligible_authrole)?,
        })))
    }

    fn names(&self, names: Option<Vec<&str>>) -> Result<Option<Vec<ByteString>>, Malformed> {
        let Some(names) = names else { return Ok(None) };
        bounded(names.len())?;
        names.into_iter().map(|name| self.text(name)).collect::<Result<_, _>>().map(Some)
    }
}

fn ids_in(ids: Option<Vec<u64>>) -> Result<Option<Vec<SessionId>>, Malformed> {
    let Some(ids) = ids else { return Ok(None) };
    bounded(ids.len())?;
    ids.into_iter().map(session_in).collect::<Result<_, _>>().map(Some)
}

fn bounded(len: usize) -> Result<(), Malformed> {
    if len > LIST_MAX {
        return Err(Malformed::new("receivers", format!("a list of {len}")));
    }
    Ok(())
}
