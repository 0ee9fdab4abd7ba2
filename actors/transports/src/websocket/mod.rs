//! The WebSocket protocol (RFC 6455) of a server: the opening handshake, and messages.

mod batch;
mod codec;
mod opening;
mod subprotocol;

pub use codec::Violation;
pub(crate) use codec::{Decoder, End, close_frame, ping};
pub(crate) use opening::{Opened, open, refuse};
pub use opening::{OriginError, Origins, Refusal};
pub use subprotocol::Subprotocol;
