//! The RawSocket protocol as functions of bytes: handshake and frames, without a socket.
//!
//! What it guarantees: input may be split anywhere; a length is checked before anything is kept for it; reserved bits and
//! types end the connection.
//!
//! What it refuses: serializers that are not ours, and an upgrade of the limits after the handshake (nobody has it).

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use weald_wamp::Serializer;

/// The octet that begins a handshake, and no HTTP request.
pub const MAGIC: u8 = 0x7f;
/// Octets of a handshake, each way.
pub const HANDSHAKE_BYTES: usize = 4;
/// Octets before each frame.
pub const HEADER_BYTES: usize = 4;

/// The frame type of a WAMP message.
pub(crate) const MESSAGE: u8 = 0;
const PING: u8 = 1;
const PONG: u8 = 2;
/// The 25th bit of the length.
const LONG: u8 = 0x08;

/// The header of a frame. Of a length that has no place in it, the low bits.
pub(crate) fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    let [.., high, middle, low] = (length as u64).to_be_bytes();
    let long = if length == crate::framing::RAW_BYTES_MAX { LONG } else { 0 };
    [kind | long, high, middle, low]
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How it encodes messages.
    pub serializer: Serializer,
    /// The longest message it takes.
    pub message_bytes_max: usize,
}

/// Why a handshake fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It is another protocol: there is no answer to it.
    #[error("first octet is {0:#04x}, which is no RawSocket handshake")]
    NotRawSocket(u8),
    /// A serializer that is not ours, or the illegal one.
    #[error("serializer {0} is not supported")]
    SerializerUnsupported(u8),
    /// Octets that have no meaning yet.
    #[error("reserved octets are in use")]
    ReservedBits,
    /// Too many connections.
    #[error("too many connections")]
    ConnectionsMax,
}

impl HandshakeError {
    /// The answer to the client; none if it does not speak this protocol.
    #[must_use]
    pub fn reply(self) -> Option<[u8; HANDSHAKE_BYTES]> {
        let code = match self {
            Self::NotRawSocket(_) => return None,
            Self::SerializerUnsupported(_) => 1,
            Self::ReservedBits => 3,
            Self::ConnectionsMax => 4,
        };
        Some([MAGIC, code << 4, 0, 0])
    }
}

/// Reads a client's handshake.
///
/// # Errors
/// The answer is in the error.
pub fn request(octets: [u8; HANDSHAKE_BYTES]) -> Result<Request, HandshakeError> {
    let [magic, choice, reserved @ ..] = octets;
    if magic != MAGIC {
        return Err(HandshakeError::NotRawSocket(magic));
    }
    let serializer = match choice & 0x0f {
        1 => Serializer::Json,
        2 => Serializer::MsgPack,
        3 => Serializer::Cbor,
        other => return Err(HandshakeError::SerializerUnsupported(other)),
    };
    if reserved != [0, 0] {
        return Err(HandshakeError::ReservedBits);
    }
    Ok(Request { serializer, message_bytes_max: 1 << (9 + (choice >> 4)) })
}

/// The answer to a handshake that is good: the longest message we take is the power of two at or below
/// `message_bytes_max`, within 512 bytes and 16 MiB.
#[must_use]
pub fn accept(serializer: Serializer, message_bytes_max: usize) -> [u8; HANDSHAKE_BYTES] {
    let code: u8 = match serializer {
        Serializer::Json => 1,
        Serializer::MsgPack => 2,
        Serializer::Cbor => 3,
    };
    [MAGIC, (length_code(message_bytes_max) << 4) | code, 0, 0]
}

/// What [`accept`] announces, in bytes.
#[must_use]
pub fn announced_bytes(message_bytes_max: usize) -> usize {
    1 << (9 + length_code(message_bytes_max))
}

fn length_code(message_bytes_max: usize) -> u8 {
    (0..=15).rev().find(|code| 1_usize << (9 + code) <= message_bytes_max).unwrap_or(0)
}

/// Why a connection is failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Bits of the header that must be zero.
    #[error("reserved bits are set in the header of a frame: {0:#04x}")]
    ReservedBits(u8),
    /// A type of frame nobody has defined.
    #[error("reserved frame type {0}")]
    ReservedType(u8),
    /// More than was announced.
    #[error("frame of {bytes} bytes, more than the {max} announced")]
    TooLong {
        /// Length of the frame.
        bytes: usize,
        /// The longest we take.
        max: usize,
    },
}

/// Cuts a stream of bytes into messages. Keeps nothing: what is incomplete stays with the caller.
#[derive(Debug, Clone)]
pub struct Decoder {
    message_bytes_max: usize,
}

impl Decoder {
    /// A decoder that takes messages of up to this many bytes.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max }
    }

    /// Takes every whole frame off the front of `input`: messages go to `messages`, answers to pings to `reply`, framed.
    /// The outcome is the number of bytes the frame needs that now is in front, as far as that is known.
    ///
    /// # Errors
    /// Nothing more may be read from this stream. What came before stays in `messages`.
    pub fn decode(
        &self,
        input: &mut BytesMut,
        messages: &mut Vec<Bytes>,
        reply: &mut Vec<u8>,
    ) -> Result<usize, FrameError> {
        while let Some((head, _)) = input.split_first_chunk::<HEADER_BYTES>() {
            let (kind, bytes) = self.header(*head)?;
            if input.len() - HEADER_BYTES < bytes {
                return Ok(HEADER_BYTES + bytes);
            }
            input.advance(HEADER_BYTES);
            let payload = input.split_to(bytes);
            match kind {
                MESSAGE => messages.push(payload.freeze()),
                PING => {
                    reply.extend_from_slice(&header(PONG, bytes));
                    reply.extend_from_slice(&payload);
                }
                // A pong tells that the peer lives, which any byte does.
                _ => {}
            }
        }
        Ok(HEADER_BYTES)
    }

    fn header(&self, head: [u8; HEADER_BYTES]) -> Result<(u8, usize), FrameError> {
        let [first, length @ ..] = head;
        let kind = first & 0x07;
        if first & 0xf0 != 0 {
            return Err(FrameError::ReservedBits(first));
        }
        if kind > PONG {
            return Err(FrameError::ReservedType(kind));
        }
        let low = length.iter().fold(0, |sum, octet| (sum << 8) | usize::from(*octet));
        let bytes = match (first & LONG != 0, low) {
            (false, low) => low,
            (true, 0) => crate::framing::RAW_BYTES_MAX,
            // The bit stands for exactly 2^24.
            (true, _) => return Err(FrameError::ReservedBits(first)),
        };
        if bytes > self.message_bytes_max {
            return Err(FrameError::TooLong { bytes, max: self.message_bytes_max });
        }
        Ok((kind, bytes))
    }
}

/// A ping without payload, framed.
#[must_use]
pub fn ping() -> Bytes {
    Bytes::from_static(&[PING, 0, 0, 0])
}

#[cfg(test)]
#[path = "raw_test.rs"]
mod tests;
