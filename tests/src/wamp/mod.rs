//! A WAMP peer for tests that shares no code with the router.
//!
//! What it is: a blocking client that speaks messages as JSON values ([`Peer`]), over RawSocket or WebSocket, on TCP, with
//! TLS or without, or Unix sockets, in any serializer; with encodings ([`Serializer`]) and framings ([`Wire`]) of its own, so
//! that a mistake in the router's codec is not repeated here.
//!
//! What it guarantees: nothing waits without a deadline; everything sent and received is in a transcript ([`Log`]), which a
//! failure can show; what was not expected fails the test instead of being skipped.
//!
//! What it refuses: reconnecting, queueing, and being fast.

mod cbor;
mod log;
mod msgpack;
mod pattern;
mod peer;
mod serializer;
mod stream;
mod tls;
mod verbs;
mod websocket;
mod wire;

pub use log::Log;
pub use pattern::{ABSENT, ANY, ID, TEXT, matches};
pub use peer::{Got, PATIENCE, Peer, details};
pub use serializer::Serializer;
pub use stream::{At, Stream};
pub use tls::{SERVER, Trust};
pub use verbs::Invocation;
pub use websocket::{Opcode, frame as websocket_frame, upgrade};
pub use wire::{Frame, Transport, Wire};
