//! A publication as it is stored and sent to other nodes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weald_wamp::message::{Discloser, Ppt, Receivers};
use weald_wamp::{ByteString, Limits, Parts, Payload, PublicationId, Serializer, SessionId};

use super::publication::Publication;

/// A payload, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PayloadForm {
    serializer: u8,
    parts: u8,
    #[serde(with = "octets")]
    raw: Bytes,
}

impl From<&Payload> for PayloadForm {
    fn from(payload: &Payload) -> Self {
        Self {
            serializer: match payload.serializer() {
                Serializer::Json => 0,
                Serializer::MsgPack => 1,
                Serializer::Cbor => 2,
            },
            parts: match payload.parts() {
                Parts::None => 0,
                Parts::Args => 1,
                Parts::ArgsKwargs => 2,
            },
            raw: payload.raw().clone(),
        }
    }
}

impl PayloadForm {
    /// The payload, checked: a node that sends nonsense must not make this one send it on to clients.
    pub(crate) fn payload(self, limits: &Limits) -> Option<Payload> {
        let serializer = match self.serializer {
            0 => Serializer::Json,
            1 => Serializer::MsgPack,
            2 => Serializer::Cbor,
            _ => return None,
        };
        let parts = match self.parts {
            0 => Parts::None,
            1 => Parts::Args,
            2 => Parts::ArgsKwargs,
            _ => return None,
        };
        Payload::from_raw_checked(serializer, parts, self.raw, limits).ok()
    }
}

/// A session as it is disclosed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiscloserForm {
    session: u64,
    authid: Option<String>,
    authrole: Option<String>,
}

impl From<&Discloser> for DiscloserForm {
    fn from(of: &Discloser) -> Self {
        Self {
            session: of.session.get(),
            authid: of.authid.as_ref().map(ToString::to_string),
            authrole: of.authrole.as_ref().map(ToString::to_string),
        }
    }
}

impl DiscloserForm {
    pub(crate) fn discloser(self) -> Option<Discloser> {
        Some(Discloser {
            session: SessionId::new(self.session)?,
            authid: self.authid.map(ByteString::from),
            authrole: self.authrole.map(ByteString::from),
        })
    }
}

/// How a payload is wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PptForm {
    scheme: String,
    serializer: Option<String>,
    cipher: Option<String>,
    keyid: Option<String>,
}

impl From<&Ppt> for PptForm {
    fn from(ppt: &Ppt) -> Self {
        let text = |text: &Option<ByteString>| text.as_ref().map(ToString::to_string);
        Self {
            scheme: ppt.scheme.to_string(),
            serializer: text(&ppt.serializer),
            cipher: text(&ppt.cipher),
            keyid: text(&ppt.keyid),
        }
    }
}

impl PptForm {
    pub(crate) fn ppt(self) -> Box<Ppt> {
        Box::new(Ppt {
            scheme: self.scheme.into(),
            serializer: self.serializer.map(ByteString::from),
            cipher: self.cipher.map(ByteString::from),
            keyid: self.keyid.map(ByteString::from),
        })
    }
}

/// Who receives a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReceiversForm {
    exclude: Option<Vec<u64>>,
    exclude_authid: Option<Vec<String>>,
    exclude_authrole: Option<Vec<String>>,
    eligible: Option<Vec<u64>>,
    eligible_authid: Option<Vec<String>>,
    eligible_authrole: Option<Vec<String>>,
}

impl From<&Receivers> for ReceiversForm {
    fn from(of: &Receivers) -> Self {
        let ids = |ids: &Option<Vec<SessionId>>| {
            ids.as_ref().map(|ids| ids.iter().map(|id| id.get()).collect())
        };
        let names = |names: &Option<Vec<ByteString>>| {
            names.as_ref().map(|names| names.iter().map(ToString::to_string).collect())
        };
        Self {
            exclude: ids(&of.exclude),
            exclude_authid: names(&of.exclude_authid),
            exclude_authrole: names(&of.exclude_authrole),
            eligible: ids(&of.eligible),
            eligible_authid: names(&of.eligible_authid),
            eligible_authrole: names(&of.eligible_authrole),
        }
    }
}

impl ReceiversForm {
    fn receivers(self) -> Receivers {
        let ids = |ids: Option<Vec<u64>>| {
            ids.map(|ids| ids.into_iter().filter_map(SessionId::new).collect())
        };
        let names = |names: Option<Vec<String>>| {
            names.map(|names| names.into_iter().map(ByteString::from).collect())
        };
        Receivers {
            exclude: ids(self.exclude),
            exclude_authid: names(self.exclude_authid),
            exclude_authrole: names(self.exclude_authrole),
            eligible: ids(self.eligible),
            eligible_authid: names(self.eligible_authid),
            eligible_authrole: names(self.eligible_authrole),
        }
    }
}

/// A publication but for its topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Form {
    id: u64,
    without: Option<u64>,
    receivers: Option<Box<ReceiversForm>>,
    publisher: Option<DiscloserForm>,
    trustlevel: Option<u64>,
    ppt: Option<Box<PptForm>>,
    payload: PayloadForm,
}

impl From<&Publication> for Form {
    fn from(of: &Publication) -> Self {
        Self {
            id: of.id.get(),
            without: of.without.map(SessionId::get),
            receivers: of.receivers.as_deref().map(|receivers| Box::new(receivers.into())),
            publisher: of.publisher.as_ref().map(DiscloserForm::from),
            trustlevel: of.trustlevel,
            ppt: of.ppt.as_deref().map(|ppt| Box::new(ppt.into())),
            payload: PayloadForm::from(&of.payload),
        }
    }
}

impl Form {
    /// Whether it has no receivers of its own.
    pub(crate) fn is_for_all(&self) -> bool {
        self.receivers.is_none()
    }

    /// The publication. None when it is not well-formed.
    pub(crate) fn publication(self, topic: ByteString) -> Option<Publication> {
        Some(Publication {
            id: PublicationId::new(self.id)?,
            topic,
            without: self.without.and_then(SessionId::new),
            receivers: self.receivers.map(|receivers| Box::new(receivers.receivers())),
            publisher: match self.publisher {
                None => None,
                Some(publisher) => Some(publisher.discloser()?),
            },
            trustlevel: self.trustlevel,
            retained: false,
            ppt: self.ppt.map(|ppt| ppt.ppt()),
            payload: self.payload.payload(&Limits::default())?,
            lane: 0,
        })
    }
}

/// Octets as one string of octets, not as a list of numbers.
mod octets {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        <&[u8]>::deserialize(from).map(Bytes::copy_from_slice)
    }
}
