//! Messages of routing between nodes.
//!
//! # Shape
//! One frame kind. A body is a format byte, a head in postcard, and the octets of the payload as they came from the client:
//! they are copied once when a message is encoded, and are slices of the frame when it is decoded.
//!
//! What it guarantees: what is decoded keeps the bounds of ids, texts and lists; decoding never panics, and allocates no more
//! than a small multiple of the body.
//!
//! What it refuses: to look into payloads. They were checked by the node whose client sent them.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weald_peers::{Malformed, kind};
use weald_proto::Frame;
use weald_proto::limits::FRAME_BYTES_MAX;
use weald_wamp::message::{CancelMode, Discloser, ErrorDetails, MatchPolicy, Ppt, Receivers};
use weald_wamp::{
    ByteString, Dict, Limits, Parts, Payload, PublicationId, RegistrationId, RequestId, Serializer,
    SessionId,
};

use crate::registry::Kind;

mod head;

use head::{Head, Texts};

/// Kind of all frames of routing.
pub const RELAY: u16 = kind::of(kind::ROUTING, 0x10);
/// Longest text: a realm, a URI, a principal. // guess
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// Most entries of one list of receivers. // guess
pub const LIST_MAX: usize = 65_536;
/// The format of all bodies.
const FORMAT: u8 = 1;

/// A call, as the node of its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// The caller.
    pub session: SessionId,
    /// Its request.
    pub request: RequestId,
}

/// An event, for the subscribers of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// In which realm.
    pub realm: ByteString,
    /// Its publication.
    pub publication: PublicationId,
    /// Where to.
    pub topic: ByteString,
    /// The session that does not get it: its publisher, unless that wants it.
    pub without: Option<SessionId>,
    /// Who else gets it, and who does not.
    pub receivers: Option<Box<Receivers>>,
    /// Who published it, if that is disclosed.
    pub publisher: Option<Discloser>,
    /// How far its publisher is trusted.
    pub trustlevel: Option<u64>,
    /// Whether it is to be kept for later subscribers.
    pub retain: bool,
    /// Whether it is one that was kept.
    pub retained: bool,
    /// How the payload is wrapped, if it is.
    pub ppt: Option<Box<Ppt>>,
    /// What.
    pub payload: Payload,
}

/// A call, or a further part of one, for a callee of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// In which realm.
    pub realm: ByteString,
    /// Which call.
    pub key: CallKey,
    /// The registration that was chosen.
    pub registration: RegistrationId,
    /// What was called.
    pub procedure: ByteString,
    /// Who called.
    pub caller: Discloser,
    /// When callees are told who called.
    pub disclosure: Disclosure,
    /// How far the caller is trusted.
    pub trustlevel: Option<u64>,
    /// Whether the caller takes progressive results.
    pub receive_progress: bool,
    /// Whether more parts follow.
    pub progress: bool,
    /// What the caller allows, in milliseconds, for callees that keep time themselves.
    pub timeout_ms: Option<u64>,
    /// How the payload is wrapped, if it is.
    pub ppt: Option<Box<Ppt>>,
    /// The arguments.
    pub payload: Payload,
}

/// When callees are told who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disclosure {
    /// Always: the caller, or the realm, wants it.
    Always,
    /// If their registration asks for it.
    Asked,
    /// Never.
    Never,
}

/// A message of routing between nodes. Unless told otherwise one of a call goes to the node of its callee or its caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// An event.
    Publish(Publish),
    /// A call.
    Call(Call),
    /// A further part of a call whose first has gone to the same node.
    Chunk(Call),
    /// The caller gives up.
    Cancel {
        /// In which realm.
        realm: ByteString,
        /// Which call.
        key: CallKey,
        /// How.
        mode: CancelMode,
    },
    /// A result, the last unless there is progress.
    Answer {
        /// In which realm.
        realm: ByteString,
        /// Which call.
        key: CallKey,
        /// Whether more follow.
        progress: bool,
        /// How the payload is wrapped, if it is.
        ppt: Option<Box<Ppt>>,
        /// What.
        payload: Payload,
    },
    /// An error instead of a result.
    Failure {
        /// In which realm.
        realm: ByteString,
        /// Which call.
        key: CallKey,
        /// Which error, a URI.
        error: ByteString,
        /// Its details.
        details: ErrorDetails,
        /// What.
        payload: Payload,
    },
    /// There is no such registration here any more, or nobody of it is free: the caller's node chooses again.
    NotThere {
        /// In which realm.
        realm: ByteString,
        /// Which call.
        key: CallKey,
    },
    /// A callee has the call; said where the caller's node has to know more than that.
    Taken {
        /// In which realm.
        realm: ByteString,
        /// Which call.
        key: CallKey,
        /// Whether it keeps to the time limit by itself.
        keeps_time: bool,
    },
    /// Subscribers or callees of a node are taken off a row.
    Revoke {
        /// In which realm.
        realm: ByteString,
        /// Of which kind.
        kind: Kind,
        /// How the URI is compared.
        policy: MatchPolicy,
        /// The topic, the procedure, or a pattern.
        uri: ByteString,
        /// Who; none: all of the node.
        session: Option<SessionId>,
        /// Why, a URI.
        reason: Option<ByteString>,
    },
    /// A question about a realm that each node answers for its own sessions; see [`pack`].
    Ask {
        /// In which realm.
        realm: ByteString,
        /// Comes back with the reply.
        ask: u64,
        /// The question.
        body: Bytes,
    },
    /// Answers a question.
    Reply {
        /// Which.
        ask: u64,
        /// The answer.
        body: Bytes,
    },
}

/// Encodes a question or an answer.
///
/// # Errors
/// It is larger than a frame may be, or cannot be encoded.
pub fn pack<T: Serialize>(what: &T) -> Result<Bytes, Malformed> {
    let body = postcard::to_stdvec(what).map_err(|e| Malformed::new("question", e.to_string()))?;
    if body.len() > FRAME_BYTES_MAX {
        return Err(Malformed::new("question", format!("{} bytes", body.len())));
    }
    Ok(body.into())
}

/// Decodes a question or an answer.
///
/// # Errors
/// [`Malformed`].
pub fn unpack<T: DeserializeOwned>(body: &Bytes) -> Result<T, Malformed> {
    match postcard::take_from_bytes(body) {
        Ok((what, [])) => Ok(what),
        Ok((_, rest)) => {
            Err(Malformed::new("question", format!("{} bytes are left over", rest.len())))
        }
        Err(e) => Err(Malformed::new("question", e.to_string())),
    }
}

impl Message {
    /// As a frame.
    ///
    /// # Errors
    /// It is larger than a frame may be, or its details have no encoding.
    pub fn encode(&self) -> Result<Frame, Malformed> {
        let details = match self {
            Self::Failure { details, .. } => rest_out(&details.rest)?,
            _ => Payload::empty(),
        };
        let (head, tail) = head::of(self, details.raw());
        let mut body = Vec::with_capacity(1 + head::BYTES_HINT + tail.len());
        body.push(FORMAT);
        let mut body = postcard::to_extend(&head, body)
            .map_err(|e| Malformed::new("message", e.to_string()))?;
        body.extend_from_slice(tail);
        if body.len() > FRAME_BYTES_MAX {
            return Err(Malformed::new("message", format!("{} bytes", body.len())));
        }
        Ok(Frame { kind: RELAY, corr: 0, body })
    }

    /// Reads a frame; texts and payload are slices of it. `limits` are for what is decoded of details.
    ///
    /// # Errors
    /// [`Malformed`], with what is wrong.
    pub fn decode(frame: Frame, limits: &Limits) -> Result<Self, Malformed> {
        if frame.kind != RELAY {
            return Err(Malformed::new(
                "frame",
                format!("kind {:#06x} is not of routing", frame.kind),
            ));
        }
        let body = Bytes::from(frame.body);
        let head = match body.split_first() {
            Some((&FORMAT, head)) => head,
            Some((format, _)) => {
                return Err(Malformed::new("format", format!("{format} is not known here")));
            }
            None => return Err(Malformed::new("body", "it is empty")),
        };
        let (head, tail): (Head<'_>, &[u8]) =
            postcard::take_from_bytes(head).map_err(|e| Malformed::new("head", e.to_string()))?;
        head::read(head, &Texts(&body), body.slice_ref(tail), limits)
    }
}

/// Details beyond the known ones, as a payload of theirs.
fn rest_out(rest: &Dict) -> Result<Payload, Malformed> {
    Payload::from_values(Serializer::Cbor, &[], rest)
        .map_err(|e| Malformed::new("details", e.to_string()))
}

fn rest_in(raw: Bytes, limits: &Limits) -> Result<Dict, Malformed> {
    if raw.is_empty() {
        return Ok(Dict::new());
    }
    let malformed = |e: weald_wamp::DecodeError| Malformed::new("details", e.to_string());
    let payload = Payload::from_raw_checked(Serializer::Cbor, Parts::ArgsKwargs, raw, limits);
    let (_, rest) = payload.and_then(|payload| payload.decode(limits)).map_err(malformed)?;
    Ok(rest)
}

#[cfg(test)]
mod frames_test;
