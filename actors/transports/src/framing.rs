//! The bytes around a message on the wire, the same for every connection of one kind.
//!
//! What it guarantees: a message is framed once, in the buffer it is encoded to, without being moved; the outcome serves
//! any number of connections of the same framing.
//!
//! What it refuses: to fragment, to compress, or to put two messages into one frame.

use bytes::Bytes;
use std::convert::Infallible;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use weald_wamp::Subprotocol;
use weald_wamp::batch::RECORD_SEPARATOR;

/// The longest message a RawSocket frame can hold.
pub const RAW_BYTES_MAX: usize = 1 << 24;

/// Room for the longest header of an unmasked WebSocket frame.
const WEBSOCKET_ROOM: usize = 10;

/// Bytes reserved for a message of unknown size. // guess: an event with a payload of 16 bytes fits
const EXPECTED_BYTES: usize = 112;

/// How messages are delimited on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Framing {
    /// RawSocket: a header of four octets.
    RawSocket,
    /// A WebSocket text message.
    Text,
    /// A WebSocket binary message.
    Binary,
    /// A WebSocket text message that is a batch of one.
    TextBatched,
    /// A WebSocket binary message that is a batch of one.
    BinaryBatched,
}

impl Framing {
    /// That of a WebSocket with this subprotocol.
    #[must_use]
    pub fn of(subprotocol: Subprotocol) -> Self {
        match (subprotocol.serializer.is_binary(), subprotocol.batched) {
            (false, false) => Self::Text,
            (true, false) => Self::Binary,
            (false, true) => Self::TextBatched,
            (true, true) => Self::BinaryBatched,
        }
    }

    /// Frames what `write` appends, which is one encoded message. `write` must append only.
    ///
    /// # Limits
    /// What is longer than [`RAW_BYTES_MAX`] cannot be framed for RawSocket: the outcome is then a frame that every
    /// [`Outbox`](crate::Outbox) refuses as too large.
    pub fn frame(self, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        self.frame_sized(EXPECTED_BYTES, write)
    }

    /// As [`Self::frame`], with the number of bytes that `write` is expected to append.
    pub fn frame_sized(self, expected_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let Ok(framed) = self.try_frame(expected_bytes, |out| {
            write(out);
            Ok::<(), Infallible>(())
        });
        framed
    }

    /// As [`Self::frame_sized`], for an encoder that may fail.
    ///
    /// # Errors
    /// That of `write`.
    pub fn try_frame<E>(
        self,
        expected_bytes: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let room = self.room();
        let mut out = Vec::with_capacity(room + expected_bytes + 1);
        out.resize(room, 0);
        write(&mut out)?;
        let message_bytes = out.len() - room;
        let start = match self {
            Self::RawSocket => {
                out[..4].copy_from_slice(&crate::raw::header(crate::raw::MESSAGE, message_bytes));
                0
            }
            Self::Text => websocket(Data::Text, &mut out, room),
            Self::Binary => websocket(Data::Binary, &mut out, room),
            Self::TextBatched => {
                out.push(RECORD_SEPARATOR);
                websocket(Data::Text, &mut out, room)
            }
            Self::BinaryBatched => {
                let length = u32::try_from(message_bytes).unwrap_or(u32::MAX);
                out[WEBSOCKET_ROOM..room].copy_from_slice(&length.to_be_bytes());
                websocket(Data::Binary, &mut out, WEBSOCKET_ROOM)
            }
        };
        let mut framed = Bytes::from(out);
        bytes::Buf::advance(&mut framed, start);
        Ok(framed)
    }

    /// The length of the frame around a message, saturating.
    #[must_use]
    pub fn framed_bytes(self, message_bytes: usize) -> usize {
        let header = |bytes: usize| match bytes {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10_usize,
        };
        let content = match self {
            Self::RawSocket | Self::Text | Self::Binary => message_bytes,
            Self::TextBatched => message_bytes.saturating_add(1),
            Self::BinaryBatched => message_bytes.saturating_add(4),
        };
        match self {
            Self::RawSocket => content.saturating_add(4),
            _ => content.saturating_add(header(content)),
        }
    }

    fn room(self) -> usize {
        match self {
            Self::RawSocket => 4,
            Self::Text | Self::Binary | Self::TextBatched => WEBSOCKET_ROOM,
            Self::BinaryBatched => WEBSOCKET_ROOM + 4,
        }
    }
}

/// Writes the header of a data frame just before what begins at `room`; where it starts.
fn websocket(kind: Data, out: &mut [u8], room: usize) -> usize {
    let header = FrameHeader { opcode: OpCode::Data(kind), ..FrameHeader::default() };
    let length = (out.len() - room) as u64;
    let start = room - header.len(length);
    let mut place = &mut out[start..room];
    header.format(length, &mut place).expect("the header has the length it has said");
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Framing; 5] = [
        Framing::RawSocket,
        Framing::Text,
        Framing::Binary,
        Framing::TextBatched,
        Framing::BinaryBatched,
    ];

    #[test]
    fn small_message_has_the_bytes_of_its_framing() {
        let framed = |framing: Framing| framing.frame(|out| out.extend_from_slice(b"[1]"));
        assert_eq!(&framed(Framing::RawSocket)[..], b"\0\0\0\x03[1]");
        assert_eq!(&framed(Framing::Text)[..], b"\x81\x03[1]");
        assert_eq!(&framed(Framing::Binary)[..], b"\x82\x03[1]");
        assert_eq!(&framed(Framing::TextBatched)[..], b"\x81\x04[1]\x1e");
        assert_eq!(&framed(Framing::BinaryBatched)[..], b"\x82\x07\0\0\0\x03[1]");
    }

    #[test]
    fn framed_bytes_is_the_length_of_the_frame() {
        for framing in ALL {
            for bytes in [0, 1, 120, 121, 122, 124, 125, 126, 65_531, 65_534, 65_535, 65_536] {
                let framed = framing.frame(|out| out.extend(std::iter::repeat_n(7, bytes)));
                assert_eq!(framed.len(), framing.framed_bytes(bytes), "{framing:?} {bytes}");
            }
        }
    }

    #[test]
    fn raw_message_of_two_to_the_24th_has_the_extra_length_bit() {
        let framed = Framing::RawSocket.frame_sized(RAW_BYTES_MAX, |out| {
            out.resize(out.len() + RAW_BYTES_MAX, 0);
        });
        assert_eq!(&framed[..4], [0x08, 0, 0, 0]);
        assert_eq!(framed.len(), 4 + RAW_BYTES_MAX);
    }

    #[test]
    fn failed_encoder_gives_its_error() {
        let failed = Framing::Text.try_frame(0, |_| Err("no"));
        assert_eq!(failed, Err("no"));
    }
}
