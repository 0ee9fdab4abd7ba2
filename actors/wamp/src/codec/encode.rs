//! From a message to octets.

use super::cbor::CborWriter;
use super::json::JsonWriter;
use super::msgpack::MsgPackWriter;
use super::values::{write_dict, write_value};
use super::{Mark, Writer};
use crate::error::EncodeError;
use crate::id::SessionId;
use crate::message::options::{Choice, Names};
use crate::message::{
    Abort, Authenticate, Call, CallResult, Cancel, Challenge, Discloser, Error, Event, Goodbye,
    Hello, Interrupt, Invocation, Message, MessageType, Ppt, Publish, Published, Receivers,
    Register, Registered, Subscribe, Subscribed, Unregister, Unregistered, Unsubscribe,
    Unsubscribed, Welcome, Yield,
};
use crate::payload::{Parts, Payload};
use crate::serializer::Serializer;
use crate::value::{Dict, Value};

/// What every message can do.
trait Encode {
    fn write<W: Writer>(&self, out: &mut Out<W>) -> Result<(), EncodeError>;
}

/// Writes at the end of `out`; leaves it as it was where that fails.
fn encode<M: Encode>(
    message: &M,
    serializer: Serializer,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let written = match serializer {
        Serializer::Json => message.write(&mut Out { serializer, w: JsonWriter::new(out) }),
        Serializer::MsgPack => message.write(&mut Out { serializer, w: MsgPackWriter::new(out) }),
        Serializer::Cbor => message.write(&mut Out { serializer, w: CborWriter::new(out) }),
    };
    if written.is_err() {
        out.truncate(start);
    }
    written
}

macro_rules! encode {
    ($($message:ty),*) => {$(
        impl $message {
            /// Writes the message at the end of `out`.
            ///
            /// # Errors
            /// [`EncodeError`]: the payload is of another serializer, or details hold what the encoding cannot say. Nothing
            /// of the message is left in `out`.
            pub fn encode(
                &self,
                serializer: Serializer,
                out: &mut Vec<u8>,
            ) -> Result<(), EncodeError> {
                encode(self, serializer, out)
            }
        }
    )*};
}
encode!(
    Message,
    Hello,
    Welcome,
    Abort,
    Challenge,
    Authenticate,
    Goodbye,
    Error,
    Publish,
    Published,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Event,
    Call,
    Cancel,
    CallResult,
    Register,
    Registered,
    Unregister,
    Unregistered,
    Invocation,
    Interrupt,
    Yield
);

/// A writer that knows how messages begin and what their elements are.
struct Out<W> {
    serializer: Serializer,
    w: W,
}

/// A map of options that is being written.
struct Map<'w, W> {
    w: &'w mut W,
    mark: Mark,
    len: usize,
}

impl<W: Writer> Out<W> {
    /// Opens the list of `fields` elements besides type and payload.
    #[inline]
    fn open(
        &mut self,
        message_type: MessageType,
        fields: usize,
        payload: &Payload,
    ) -> Result<Mark, EncodeError> {
        if !payload.is_empty() && payload.serializer() != self.serializer {
            let found = payload.serializer();
            return Err(EncodeError::PayloadSerializer { found, wanted: self.serializer });
        }
        let parts = match payload.parts() {
            Parts::None => 0,
            Parts::Args => 1,
            Parts::ArgsKwargs => 2,
        };
        let mark = self.w.open_list(Some(1 + fields + parts))?;
        self.w.unsigned(message_type.code().into());
        Ok(mark)
    }

    /// Writes the payload and closes the list.
    #[inline]
    fn close(&mut self, mark: Mark, payload: &Payload) -> Result<(), EncodeError> {
        if !payload.is_empty() {
            self.w.raw(payload.raw());
        }
        self.w.close_list(mark, 0)
    }

    /// A whole message of ids.
    fn ids(&mut self, message_type: MessageType, ids: &[u64]) -> Result<(), EncodeError> {
        let mark = self.open(message_type, ids.len(), &Payload::empty())?;
        for id in ids {
            self.w.unsigned(*id);
        }
        self.close(mark, &Payload::empty())
    }

    #[inline]
    fn map(
        &mut self,
        write: impl FnOnce(&mut Map<'_, W>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mark = self.w.open_map(None)?;
        let mut map = Map { w: &mut self.w, mark, len: 0 };
        write(&mut map)?;
        let Map { mark, len, .. } = map;
        self.w.close_map(mark, len)
    }
}

impl<W: Writer> Map<'_, W> {
    fn key(&mut self, key: &str) -> Result<&mut W, EncodeError> {
        self.len += 1;
        self.w.key(key)?;
        Ok(self.w)
    }

    #[inline]
    fn flag(&mut self, key: &str, value: bool) -> Result<(), EncodeError> {
        if value { self.boolean(key, Some(true)) } else { Ok(()) }
    }

    #[inline]
    fn boolean(&mut self, key: &str, value: Option<bool>) -> Result<(), EncodeError> {
        if let Some(value) = value {
            self.key(key)?.boolean(value);
        }
        Ok(())
    }

    #[inline]
    fn unsigned(&mut self, key: &str, value: Option<u64>) -> Result<(), EncodeError> {
        if let Some(value) = value {
            self.key(key)?.unsigned(value);
        }
        Ok(())
    }

    #[inline]
    fn text(&mut self, key: &str, value: Option<&str>) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.key(key)?.text(value),
            None => Ok(()),
        }
    }

    fn choice<T: Names + PartialEq>(
        &mut self,
        key: &str,
        choice: &Choice<T>,
    ) -> Result<(), EncodeError> {
        match choice {
            Choice::Absent => Ok(()),
            Choice::Known(choice) => {
                let name = T::NAMES.iter().find(|(_, known)| known == choice);
                self.text(key, name.map(|(name, _)| *name))
            }
            Choice::Unknown(name) => self.text(key, Some(name)),
        }
    }

    fn value(&mut self, key: &str, value: &Value) -> Result<(), EncodeError> {
        write_value(self.key(key)?, value)
    }

    fn dict(&mut self, key: &str, dict: &Dict) -> Result<(), EncodeError> {
        write_dict(self.key(key)?, dict)
    }

    fn list<T>(
        &mut self,
        key: &str,
        list: Option<&Vec<T>>,
        mut item: impl FnMut(&mut W, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let Some(list) = list else { return Ok(()) };
        let w = self.key(key)?;
        let mark = w.open_list(Some(list.len()))?;
        for one in list {
            item(w, one)?;
        }
        w.close_list(mark, list.len())
    }

    #[inline]
    fn ppt(&mut self, ppt: Option<&Ppt>) -> Result<(), EncodeError> {
        let Some(ppt) = ppt else { return Ok(()) };
        self.text("ppt_scheme", Some(&ppt.scheme))?;
        self.text("ppt_serializer", ppt.serializer.as_deref())?;
        self.text("ppt_cipher", ppt.cipher.as_deref())?;
        self.text("ppt_keyid", ppt.keyid.as_deref())
    }

    /// A disclosed peer under three keys: the session's, the authid's and the role's.
    fn peer(&mut self, keys: [&str; 3], peer: Option<&Discloser>) -> Result<(), EncodeError> {
        let Some(peer) = peer else { return Ok(()) };
        self.unsigned(keys[0], Some(peer.session.get()))?;
        self.text(keys[1], peer.authid.as_deref())?;
        self.text(keys[2], peer.authrole.as_deref())
    }

    fn receivers(&mut self, receivers: Option<&Receivers>) -> Result<(), EncodeError> {
        let Some(r) = receivers else { return Ok(()) };
        let id = |w: &mut W, id: &SessionId| {
            w.unsigned(id.get());
            Ok(())
        };
        let text = |w: &mut W, text: &bytestring::ByteString| w.text(text);
        self.list("exclude", r.exclude.as_ref(), id)?;
        self.list("exclude_authid", r.exclude_authid.as_ref(), text)?;
        self.list("exclude_authrole", r.exclude_authrole.as_ref(), text)?;
        self.list("eligible", r.eligible.as_ref(), id)?;
        self.list("eligible_authid", r.eligible_authid.as_ref(), text)?;
        self.list("eligible_authrole", r.eligible_authrole.as_ref(), text)
    }
}

impl Encode for Message {
    fn write<W: Writer>(&self, out: &mut Out<W>) -> Result<(), EncodeError> {
        match self {
            Self::Hello(m) => m.write(out),
            Self::Welcome(m) => m.write(out),
            Self::Abort(m) => m.write(out),
            Self::Challenge(m) => m.write(out),
            Self::Authenticate(m) => m.write(out),
            Self::Goodbye(m) => m.write(out),
            Self::Error(m) => m.write(out),
            Self::Publish(m) => m.write(out),
            Self::Published(m) => m.write(out),
            Self::Subscribe(m) => m.write(out),
            Self::Subscribed(m) => m.write(out),
            Self::Unsubscribe(m) => m.write(out),
            Self::Unsubscribed(m) => m.write(out),
            Self::Event(m) => m.write(out),
            Self::Call(m) => m.write(out),
            Self::Cancel(m) => m.write(out),
            Self::Result(m) => m.write(out),
            Self::Register(m) => m.write(out),
            Self::Registered(m) => m.write(out),
            Self::Unregister(m) => m.write(out),
            Self::Unregistered(m) => m.write(out),
            Self::Invocation(m) => m.write(out),
            Self::Interrupt(m) => m.write(out),
            Self::Yield(m) => m.write(out),
        }
    }
}

/// A message of two elements, in the order they are given in.
macro_rules! simple {
    ($message:ty, $type:ident, |$m:ident, $out:ident| $($write:expr),* ; $payload:expr) => {
        impl Encode for $message {
            fn write<W: Writer>(&self, $out: &mut Out<W>) -> Result<(), EncodeError> {
                let $m = self;
                let payload: &Payload = $payload;
                let fields = [$(stringify!($write)),*].len();
                let mark = $out.open(MessageType::$type, fields, payload)?;
                $($write;)*
                $out.close(mark, payload)
            }
        }
    };
}

simple!(Hello, Hello, |m, out|
    match &m.realm {
        Some(realm) => out.w.text(realm)?,
        None => out.w.null(),
    },
    out.map(|map| {
        let d = &m.details;
        map.dict("roles", &d.roles.to_dict())?;
        map.text("agent", d.agent.as_deref())?;
        map.list("authmethods", d.authmethods.as_ref(), |w, method| w.text(method))?;
        map.text("authid", d.authid.as_deref())?;
        map.text("authrole", d.authrole.as_deref())?;
        if d.authextra.is_empty() { Ok(()) } else { map.dict("authextra", &d.authextra) }
    })?;
    &Payload::empty());
simple!(Welcome, Welcome, |m, out|
    out.w.unsigned(m.session.get()), write_dict(&mut out.w, &m.details)?; &Payload::empty());
simple!(Abort, Abort, |m, out|
    write_dict(&mut out.w, &m.details)?, out.w.text(&m.reason)?; &m.payload);
simple!(Challenge, Challenge, |m, out|
    out.w.text(&m.method)?, write_dict(&mut out.w, &m.extra)?; &Payload::empty());
simple!(Authenticate, Authenticate, |m, out|
    out.w.text(&m.signature)?, write_dict(&mut out.w, &m.extra)?; &Payload::empty());
simple!(Goodbye, Goodbye, |m, out|
    write_dict(&mut out.w, &m.details)?, out.w.text(&m.reason)?; &Payload::empty());
simple!(Error, Error, |m, out|
    out.w.unsigned(m.request_type.code().into()),
    out.w.unsigned(m.request.get()),
    out.map(|map| {
        map.ppt(m.details.ppt.as_deref())?;
        m.details.rest.iter().try_for_each(|(key, value)| map.value(key, value))
    })?,
    out.w.text(&m.error)?;
    &m.payload);
simple!(Publish, Publish, |m, out|
    out.w.unsigned(m.request.get()),
    out.map(|map| {
        let o = &m.options;
        map.flag("acknowledge", o.acknowledge)?;
        map.boolean("exclude_me", o.exclude_me)?;
        map.boolean("disclose_me", o.disclose_me)?;
        map.flag("retain", o.retain)?;
        map.receivers(o.receivers.as_deref())?;
        map.ppt(o.ppt.as_deref())
    })?,
    out.w.text(&m.topic)?;
    &m.payload);
simple!(Subscribe, Subscribe, |m, out|
    out.w.unsigned(m.request.get()),
    out.map(|map| {
        map.choice("match", &m.options.match_policy)?;
        map.flag("get_retained", m.options.get_retained)
    })?,
    out.w.text(&m.topic)?;
    &Payload::empty());
simple!(Event, Event, |m, out|
    out.w.unsigned(m.subscription.get()),
    out.w.unsigned(m.publication.get()),
    out.map(|map| {
        let d = &m.details;
        let keys = ["publisher", "publisher_authid", "publisher_authrole"];
        map.peer(keys, d.publisher.as_ref())?;
        map.text("topic", d.topic.as_deref())?;
        map.unsigned("trustlevel", d.trustlevel)?;
        map.flag("retained", d.retained)?;
        map.ppt(d.ppt.as_deref())
    })?;
    &m.payload);
simple!(Call, Call, |m, out|
    out.w.unsigned(m.request.get()),
    out.map(|map| {
        let o = &m.options;
        map.unsigned("timeout", o.timeout_ms)?;
        map.flag("receive_progress", o.receive_progress)?;
        map.flag("progress", o.progress)?;
        map.flag("disclose_me", o.disclose_me)?;
        map.ppt(o.ppt.as_deref())
    })?,
    out.w.text(&m.procedure)?;
    &m.payload);
simple!(Cancel, Cancel, |m, out|
    out.w.unsigned(m.request.get()),
    out.map(|map| map.choice("mode", &m.options.mode))?;
    &Payload::empty());
simple!(CallResult, Result, |m, out|
    out.w.unsigned(m.request.get()),
    out.map(|map| {
        map.flag("progress", m.details.progress)?;
        map.ppt(m.details.ppt.as_deref())
    })?;
    &m.payload);
simple!(Register, Register, |m, out|
    out.w.unsigned(m.request.get()),
    out.map(|map| {
        let o = &m.options;
        map.choice("match", &o.match_policy)?;
        map.choice("invoke", &o.invoke)?;
        map.flag("disclose_caller", o.disclose_caller)?;
        map.flag("forward_timeout", o.forward_timeout)?;
        map.flag("force_reregister", o.force_reregister)?;
        map.unsigned("concurrency", o.concurrency)
    })?,
    out.w.text(&m.procedure)?;
    &Payload::empty());
simple!(Invocation, Invocation, |m, out|
    out.w.unsigned(m.request.get()),
    out.w.unsigned(m.registration.get()),
    out.map(|map| {
        let d = &m.details;
        map.peer(["caller", "caller_authid", "caller_authrole"], d.caller.as_ref())?;
        map.text("procedure", d.procedure.as_deref())?;
        map.unsigned("trustlevel", d.trustlevel)?;
        map.flag("receive_progress", d.receive_progress)?;
        map.flag("progress", d.progress)?;
        map.unsigned("timeout", d.timeout_ms)?;
        map.ppt(d.ppt.as_deref())
    })?;
    &m.payload);
simple!(Interrupt, Interrupt, |m, out|
    out.w.unsigned(m.request.get()),
    out.map(|map| {
        map.choice("mode", &m.options.mode)?;
        map.text("reason", m.options.reason.as_deref())
    })?;
    &Payload::empty());
simple!(Yield, Yield, |m, out|
    out.w.unsigned(m.request.get()),
    out.map(|map| {
        map.flag("progress", m.options.progress)?;
        map.ppt(m.options.ppt.as_deref())
    })?;
    &m.payload);

/// A message of a request and an id.
macro_rules! ids {
    ($($message:ident: $id:ident),*) => {$(
        impl Encode for $message {
            fn write<W: Writer>(&self, out: &mut Out<W>) -> Result<(), EncodeError> {
                out.ids(MessageType::$message, &[self.request.get(), self.$id.get()])
            }
        }
    )*};
}
ids!(
    Published: publication,
    Subscribed: subscription,
    Unsubscribe: subscription,
    Registered: registration,
    Unregister: registration
);

/// A message that answers a request, or revokes without one.
macro_rules! revocable {
    ($($message:ident),*) => {$(
        impl Encode for $message {
            fn write<W: Writer>(&self, out: &mut Out<W>) -> Result<(), EncodeError> {
                let request = self.request.map_or(0, crate::id::RequestId::get);
                let Some(details) = &self.revocation else {
                    return out.ids(MessageType::$message, &[request]);
                };
                let mark = out.open(MessageType::$message, 2, &Payload::empty())?;
                out.w.unsigned(request);
                write_dict(&mut out.w, details)?;
                out.close(mark, &Payload::empty())
            }
        }
    )*};
}
revocable!(Unsubscribed, Unregistered);
