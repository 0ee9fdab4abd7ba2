//! WebSocket messages as functions of bytes, without a socket.
//!
//! What it guarantees: frames may be split anywhere and messages into any frames; what the protocol forbids is found as
//! soon as it has come: in a header before its payload, in text with the frame that holds it. Every ping is answered.
//!
//! What it refuses: extensions. Frame headers and close codes are tungstenite's; messages are put together here, because
//! tungstenite's own assembly keeps a buffer for every idle connection and copies every message into it.

use bytes::{Buf as _, Bytes, BytesMut};
use std::io::Cursor;
use thiserror::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use weald_wamp::Subprotocol;
use weald_wamp::batch::{self, BatchError};

/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 14;
/// Messages of one batch, so that a batch of nothing but small ones costs no more memory than it is long. // guess
const BATCH_MESSAGES_MAX: usize = 64 * 1024;
/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;

/// How a client broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A frame that the protocol does not know, or not there.
    #[error("{0}")]
    Protocol(&'static str),
    /// Text where octets are agreed, or the other way round.
    #[error("wrong type of message for the subprotocol")]
    Type,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// Longer than we take.
    #[error("message of more than {max} bytes")]
    TooLong {
        /// The longest we take.
        max: usize,
    },
    /// An empty batch, or not the parts it says it has.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Violation {
    /// The code of the close frame that answers it.
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) | Self::Batch(_) => 1002,
            Self::Type => 1003,
            Self::Text => 1007,
            Self::TooLong { .. } => 1009,
        }
    }
}

/// Why nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client has sent a close frame, with this code.
    Close(Option<u16>),
    Violation(Violation),
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub(crate) struct Decoder {
    subprotocol: Subprotocol,
    message_bytes_max: usize,
    /// Frames of a message whose last one has not come.
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug, Default)]
struct Fragments {
    bytes: BytesMut,
    /// Of text, how much is known to be UTF-8.
    checked: usize,
}

impl Decoder {
    pub(crate) fn new(subprotocol: Subprotocol, message_bytes_max: usize) -> Self {
        Self { subprotocol, message_bytes_max, fragments: None }
    }

    fn is_text(&self) -> bool {
        !self.subprotocol.serializer.is_binary()
    }

    /// Takes every whole frame off the front of `input`; as [`raw::Decoder::decode`](crate::raw::Decoder::decode).
    pub(crate) fn decode(
        &mut self,
        input: &mut BytesMut,
        messages: &mut Vec<Bytes>,
        reply: &mut Vec<u8>,
    ) -> Result<usize, End> {
        loop {
            let mut cursor = Cursor::new(&input[..input.len().min(HEADER_BYTES_MAX)]);
            let parsed = FrameHeader::parse(&mut cursor);
            let header_bytes = usize::try_from(cursor.position()).unwrap_or(HEADER_BYTES_MAX);
            let Some((header, length)) =
                parsed.map_err(|_opcode| Violation::Protocol("reserved opcode"))?
            else {
                check_first(input)?;
                return Ok(HEADER_BYTES_MAX);
            };
            let bytes = self.check(&header, length, header_bytes)?;
            if input.len() - header_bytes < bytes {
                return Ok(header_bytes + bytes);
            }
            input.advance(header_bytes);
            let mut payload = input.split_to(bytes);
            unmask(&mut payload, header.mask.unwrap_or_default());
            match header.opcode {
                OpCode::Control(Control::Ping) => control(Control::Pong, &payload, reply),
                OpCode::Control(Control::Close) => return Err(closed(&payload)?),
                // A pong tells that the peer lives, which any byte does.
                OpCode::Control(_) => {}
                OpCode::Data(_) => self.data(payload, header.is_final, messages)?,
            }
        }
    }

    /// Judges a frame by its header; the length of its payload.
    fn check(
        &self,
        header: &FrameHeader,
        length: u64,
        header_bytes: usize,
    ) -> Result<usize, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::Protocol("reserved bits are set"));
        }
        if header.mask.is_none() {
            return Err(Violation::Protocol("frame is not masked"));
        }
        if header.len(length) != header_bytes {
            return Err(Violation::Protocol("length is not in its shortest form"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => {
                return Err(Violation::Protocol("control frame in fragments"));
            }
            OpCode::Control(_) if length > CONTROL_BYTES_MAX => {
                return Err(Violation::Protocol("control frame is too long"));
            }
            OpCode::Control(_) => {}
            OpCode::Data(Data::Continue) if self.fragments.is_none() => {
                return Err(Violation::Protocol("nothing to continue"));
            }
            OpCode::Data(Data::Continue) => {}
            OpCode::Data(_) if self.fragments.is_some() => {
                return Err(Violation::Protocol("message within a message"));
            }
            OpCode::Data(kind) if (kind == Data::Text) != self.is_text() => {
                return Err(Violation::Type);
            }
            OpCode::Data(_) => {}
        }
        let before = self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.len());
        let max = self.message_bytes_max;
        match usize::try_from(length) {
            Ok(bytes) if bytes <= max.saturating_sub(before) => Ok(bytes),
            // A control frame within a long message is not part of it.
            Ok(bytes) if matches!(header.opcode, OpCode::Control(_)) => Ok(bytes),
            _ => Err(Violation::TooLong { max }),
        }
    }

    fn data(
        &mut self,
        payload: BytesMut,
        is_final: bool,
        messages: &mut Vec<Bytes>,
    ) -> Result<(), Violation> {
        let message = match self.fragments.take() {
            None if is_final => {
                if self.is_text() && std::str::from_utf8(&payload).is_err() {
                    return Err(Violation::Text);
                }
                payload.freeze()
            }
            fragments => {
                let mut fragments = fragments.unwrap_or_default();
                fragments.bytes.extend_from_slice(&payload);
                if self.is_text() {
                    fragments.check_text(is_final)?;
                }
                if !is_final {
                    self.fragments = Some(fragments);
                    return Ok(());
                }
                fragments.bytes.freeze()
            }
        };
        if self.subprotocol.batched {
            let serializer = self.subprotocol.serializer;
            let before = messages.len();
            batch::split(serializer, &message, BATCH_MESSAGES_MAX, messages)
                .inspect_err(|_malformed| messages.truncate(before))?;
            return Ok(());
        }
        messages.push(message);
        Ok(())
    }
}

impl Fragments {
    /// Checks what has come last; a character may have been cut in two.
    fn check_text(&mut self, is_final: bool) -> Result<(), Violation> {
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(e) if e.error_len().is_none() && !is_final => self.checked += e.valid_up_to(),
            Err(_) => return Err(Violation::Text),
        }
        Ok(())
    }
}

/// Judges the first octets of a header whose rest has not come.
fn check_first(input: &[u8]) -> Result<(), Violation> {
    let Some(first) = input.first() else { return Ok(()) };
    if first & 0x70 != 0 {
        return Err(Violation::Protocol("reserved bits are set"));
    }
    match OpCode::from(first & 0x0f) {
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            Err(Violation::Protocol("reserved opcode"))
        }
        OpCode::Data(_) | OpCode::Control(_) => Ok(()),
    }
}

/// What a close frame says.
fn closed(payload: &[u8]) -> Result<End, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(End::Close(None)),
            _ => Err(Violation::Protocol("close frame with half a code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(Violation::Protocol("close code that is not to be sent"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation::Text);
    }
    Ok(End::Close(Some(code)))
}

/// Removes the mask, sixteen octets at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let mut wide = [0; 16];
    for (octet, key) in wide.iter_mut().zip(mask.iter().cycle()) {
        *octet = *key;
    }
    let mut chunks = payload.chunks_exact_mut(16);
    for chunk in &mut chunks {
        for (octet, key) in chunk.iter_mut().zip(wide) {
            *octet ^= key;
        }
    }
    for (octet, key) in chunks.into_remainder().iter_mut().zip(wide) {
        *octet ^= key;
    }
}

/// Appends a control frame of up to 125 octets.
fn control(kind: Control, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode: OpCode::Control(kind), ..FrameHeader::default() };
    header.format(payload.len() as u64, out).expect("a Vec takes any bytes");
    out.extend_from_slice(payload);
}

/// A ping without payload.
pub(crate) fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

/// A close frame; none of the codes stands for a close frame without one.
pub(crate) fn close_frame(code: Option<u16>) -> Bytes {
    let mut out = Vec::with_capacity(4);
    let code = code.map(u16::to_be_bytes);
    control(Control::Close, code.as_ref().map_or(&[], |code| &code[..]), &mut out);
    out.into()
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
