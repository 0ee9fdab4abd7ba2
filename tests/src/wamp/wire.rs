//! A connection that carries messages: RawSocket or WebSocket.

use super::serializer::Serializer;
use super::stream::{At, Stream};
use super::websocket::{self, Opcode};
use std::time::Instant;

/// Longest message this side announces: 2^24 octets.
const LENGTH_NIBBLE: u8 = 15;

/// How messages are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// WAMP's own framing.
    RawSocket,
    /// RFC 6455.
    WebSocket,
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message, still encoded.
    Message(Vec<u8>),
    /// Answered already.
    Ping(Vec<u8>),
    /// The answer to a ping.
    Pong(Vec<u8>),
    /// WebSocket's close with its code.
    Close(Option<u16>),
    /// The connection is gone.
    End,
}

/// A connection.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    transport: Transport,
    text: bool,
    received: Vec<u8>,
    message: Vec<u8>,
}

impl Wire {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// What went wrong.
    pub fn open(
        at: &At,
        transport: Transport,
        serializer: Serializer,
        end: Instant,
    ) -> Result<Self, String> {
        let mut stream = Stream::connect(at).map_err(|e| format!("connect to {at:?}: {e}"))?;
        match transport {
            Transport::RawSocket => {
                let hello = [0x7f, LENGTH_NIBBLE << 4 | serializer.number(), 0, 0];
                stream.write_all(&hello).map_err(|e| e.to_string())?;
                let mut wire = Self::over(stream, transport, false, Vec::new());
                wire.fill(4, end)?;
                let answer: Vec<u8> = wire.received.drain(..4).collect();
                match answer[..] {
                    [0x7f, kind, 0, 0] if kind & 15 == serializer.number() => Ok(wire),
                    _ => Err(format!("RawSocket handshake answered with {answer:x?}")),
                }
            }
            Transport::WebSocket => {
                let name = format!("wamp.2.{}", serializer.name());
                let (status, head, rest) = websocket::upgrade(&mut stream, "/ws", &name, "", end)?;
                let chosen = websocket::header(&head, "sec-websocket-protocol");
                if status != 101 || chosen != Some(&name) {
                    return Err(format!("WebSocket handshake answered with {head}"));
                }
                Ok(Self::over(stream, transport, serializer == Serializer::Json, rest))
            }
        }
    }

    /// On a connection whose handshake is done; `rest` was read beyond it. `text` tells text messages from binary ones.
    #[must_use]
    pub const fn over(stream: Stream, transport: Transport, text: bool, rest: Vec<u8>) -> Self {
        Self { stream, transport, text, received: rest, message: Vec::new() }
    }

    /// The socket.
    #[must_use]
    pub const fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn fill(&mut self, len: usize, end: Instant) -> Result<(), String> {
        while self.received.len() < len {
            match self.read_some(end)? {
                None => return Err("nothing came in time".to_owned()),
                Some(0) => return Err("the connection was closed".to_owned()),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn read_some(&mut self, end: Instant) -> Result<Option<usize>, String> {
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Some(len) = self.stream.read(&mut buffer, end).map_err(|e| e.to_string())? {
                self.received.extend(&buffer[..len]);
                return Ok(Some(len));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
        }
    }

    /// A message with what goes around it.
    #[must_use]
    pub fn framed(&self, message: &[u8]) -> Vec<u8> {
        match (self.transport, self.text) {
            (Transport::RawSocket, _) => raw_frame(0, message),
            (Transport::WebSocket, true) => websocket::frame(Opcode::Text, true, message),
            (Transport::WebSocket, false) => websocket::frame(Opcode::Binary, true, message),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Those of the system.
    pub fn send(&mut self, message: &[u8]) -> Result<(), String> {
        let framed = self.framed(message);
        self.send_octets(&framed)
    }

    /// Sends octets as they are.
    ///
    /// # Errors
    /// Those of the system.
    pub fn send_octets(&mut self, octets: &[u8]) -> Result<(), String> {
        self.stream.write_all(octets).map_err(|e| e.to_string())
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// Those of the system.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), String> {
        let octets = match self.transport {
            Transport::RawSocket => raw_frame(1, payload),
            Transport::WebSocket => websocket::frame(Opcode::Ping, true, payload),
        };
        self.send_octets(&octets)
    }

    /// What comes next; `None` when nothing does until `end`.
    ///
    /// # Errors
    /// What the router must not send, or errors of the system.
    pub fn receive(&mut self, end: Instant) -> Result<Option<Frame>, String> {
        loop {
            let frame = match self.transport {
                Transport::RawSocket => self.raw_frame()?,
                Transport::WebSocket => self.websocket_frame()?,
            };
            if let Some(frame) = frame {
                return Ok(Some(frame));
            }
            match self.read_some(end)? {
                None => return Ok(None),
                Some(0) => return Ok(Some(Frame::End)),
                Some(_) => {}
            }
        }
    }

    fn raw_frame(&mut self) -> Result<Option<Frame>, String> {
        let [kind, high, middle, low, ..] = self.received[..] else { return Ok(None) };
        let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let len = if kind & 8 == 0 { len } else { 1 << 24 };
        if self.received.len() < 4 + len {
            return Ok(None);
        }
        let payload: Vec<u8> = self.received.drain(..4 + len).skip(4).collect();
        match kind & !8 {
            0 => Ok(Some(Frame::Message(payload))),
            1 => {
                self.send_octets(&raw_frame(2, &payload))?;
                Ok(Some(Frame::Ping(payload)))
            }
            2 => Ok(Some(Frame::Pong(payload))),
            _ => Err(format!("a RawSocket frame of type {kind:#x}")),
        }
    }

    fn websocket_frame(&mut self) -> Result<Option<Frame>, String> {
        while let Some((opcode, is_last, payload, len)) = websocket::parse(&self.received)? {
            self.received.drain(..len);
            match opcode {
                Opcode::Ping => {
                    let pong = websocket::frame(Opcode::Pong, true, &payload);
                    self.send_octets(&pong)?;
                    return Ok(Some(Frame::Ping(payload)));
                }
                Opcode::Pong => return Ok(Some(Frame::Pong(payload))),
                Opcode::Close => {
                    let code = payload.get(..2).map(|c| u16::from(c[0]) << 8 | u16::from(c[1]));
                    return Ok(Some(Frame::Close(code)));
                }
                Opcode::Text | Opcode::Binary if (opcode == Opcode::Text) != self.text => {
                    return Err(format!("{opcode:?} is the wrong kind of message here"));
                }
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    self.message.extend(payload);
                    if is_last {
                        return Ok(Some(Frame::Message(std::mem::take(&mut self.message))));
                    }
                }
                Opcode::Other(_) => return Err(format!("a frame of kind {opcode:?}")),
            }
        }
        Ok(None)
    }
}

fn raw_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("frames of tests are small");
    let mut out = if len == 1 << 24 { 0_u32 } else { len }.to_be_bytes().to_vec();
    out[0] = if len == 1 << 24 { 8 | kind } else { kind };
    out.extend(payload);
    out
}
