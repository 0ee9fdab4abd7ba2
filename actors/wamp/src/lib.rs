//! WAMP version 2: its messages, and the octets they travel as.
//!
//! What it is: every message of the basic and the advanced profile as a typed struct ([`message`]), their JSON, MessagePack
//! and CBOR encodings, payloads that stay encoded ([`Payload`]), the rules of URIs and patterns ([`uri`]), batches
//! ([`batch`]) and the names of subprotocols ([`subprotocol`]).
//!
//! What it guarantees: decoding never panics, whatever the octets; nesting, number of values and size are checked against
//! [`Limits`] before anything is allocated; what was decoded here is well-formed to its last octet, so that a payload
//! can be passed on to others as it is; the head of a message costs no copy, its strings and its payload are slices of the
//! frame (strings with JSON escapes excepted).
//!
//! What it refuses: I/O, async, clocks, randomness, routing. Unknown keys of options and details are skipped; whether a
//! URI, a feature or a combination of options is acceptable is for the router to say.

pub mod batch;
mod codec;
pub mod error;
pub mod id;
pub mod limits;
pub mod message;
pub mod payload;
pub mod roles;
pub mod serializer;
pub mod subprotocol;
pub mod uri;
pub mod value;

pub use bytestring::ByteString;

pub use codec::decode::decode;
pub use error::{DecodeError, EncodeError, TranscodeError};
pub use id::{PublicationId, RegistrationId, RequestId, SessionId, SubscriptionId};
pub use limits::Limits;
pub use message::Message;
pub use payload::{Parts, Payload};
pub use serializer::Serializer;
pub use subprotocol::Subprotocol;
pub use value::{Dict, Value};
