//! The WebSocket protocol (RFC 6455) of a server: the opening handshake, and messages.

mod codec;
mod opening;

pub use codec::Violation;
pub(crate) use codec::{Decoder, End, close_frame, ping};
pub(crate) use opening::{Opened, open, refuse};
pub use opening::{OriginError, Origins, Refusal};
