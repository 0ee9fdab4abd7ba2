//! The client's side of RFC 6455: the upgrade, and frames.

use super::stream::Stream;
use std::time::Instant;

/// Key of every upgrade here, and the answer that RFC 6455 (1.3) gives for it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Mask of every frame; what it is does not matter.
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x3e];
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the message of the frame before.
    Continuation,
    /// A message of text.
    Text,
    /// A message of octets.
    Binary,
    /// The end.
    Close,
    /// To be answered.
    Ping,
    /// The answer.
    Pong,
    /// One without a meaning.
    Other(u8),
}

impl Opcode {
    const fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            other => Self::Other(other),
        }
    }
}

/// Asks for WebSocket. Gives the status, the head of the answer and what came after it.
///
/// # Errors
/// What went wrong.
pub fn upgrade(
    stream: &mut Stream,
    path: &str,
    protocols: &str,
    more: &str,
    end: Instant,
) -> Result<(u16, String, Vec<u8>), String> {
    let offer = match protocols {
        "" => String::new(),
        offer => format!("Sec-WebSocket-Protocol: {offer}\r\n"),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: router.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{offer}{more}\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer, end).map_err(|e| e.to_string())? {
            None if Instant::now() >= end => return Err("no answer in time".to_owned()),
            None => {}
            Some(0) => return Err("closed before an answer".to_owned()),
            Some(len) => answer.extend(&buffer[..len]),
        }
        if answer.len() > HEAD_BYTES_MAX {
            return Err("an endless head".to_owned());
        }
    };
    let rest = answer.split_off(head);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("no status: {head}"))?;
    if status == 101 && header(&head, "sec-websocket-accept") != Some(ACCEPT) {
        return Err(format!("wrong accept: {head}"));
    }
    Ok((status, head, rest))
}

/// The value of a header.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// A frame of a client.
#[must_use]
pub fn frame(opcode: Opcode, is_last: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::from(is_last) << 7 | opcode.number()];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len), _) if len < 126 => out.push(0x80 | len),
        (_, Ok(len)) => {
            out.push(0x80 | 126);
            out.extend(len.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(0x80 | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(octet, mask)| octet ^ mask));
    out
}

/// A frame of a server: kind, whether it is the last of its message, payload, length of the whole.
pub(super) type ServerFrame = (Opcode, bool, Vec<u8>, usize);

/// Takes a frame apart, if all of it is there.
pub(super) fn parse(octets: &[u8]) -> Result<Option<ServerFrame>, String> {
    let [first, second, ..] = *octets else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(format!("a server must not send {first:#x} {second:#x}"));
    }
    let (len, start) = match second {
        126 => match octets.get(2..4) {
            None => return Ok(None),
            Some(len) => (len.iter().fold(0, |len, o| len << 8 | usize::from(*o)), 4),
        },
        127 => match octets.get(2..10) {
            None => return Ok(None),
            Some(len) => (len.iter().fold(0, |len, o| len << 8 | usize::from(*o)), 10),
        },
        len => (usize::from(len), 2),
    };
    let payload = octets.get(start..start + len);
    Ok(payload.map(|payload| {
        (Opcode::from_number(first & 15), first & 0x80 != 0, payload.to_vec(), start + len)
    }))
}
