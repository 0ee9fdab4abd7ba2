//! What stands around messages on the wire: RawSocket frames and WebSocket frames, the client's side.
//!
//! Guarantees: a frame is taken only when all of it is there, wherever the octets were cut. Refuses: frames that a server must
//! not send, by an error that says which.

use bytes::Bytes;

/// Which frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// RawSocket.
    Raw,
    /// WebSocket with text messages.
    Text,
    /// WebSocket with binary messages.
    Binary,
}

/// A frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A whole message.
    Message(Bytes),
    /// A part of a message, and whether it is the last one.
    Part(Bytes, Last),
    /// To be answered with the same octets.
    Ping(Bytes),
    /// An answer nobody asked for.
    Pong,
    /// The server ends the connection, and says why.
    Close(String),
}

/// Whether a part of a message is the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    Yes,
    No,
}

/// A frame of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Message,
    Pong,
}

impl Framing {
    /// Takes a frame from `data[*at..]`, if a whole one is there.
    ///
    /// # Errors
    /// The server sent what it must not.
    pub(crate) fn take(self, data: &Bytes, at: &mut usize) -> Result<Option<Frame>, String> {
        match self {
            Self::Raw => raw(data, at),
            Self::Text | Self::Binary => web(data, at),
        }
    }

    /// Appends a frame.
    pub(crate) fn put(self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
        let len = payload.len() as u64;
        let bytes = len.to_be_bytes();
        match self {
            Self::Raw => {
                let kind = if kind == Kind::Pong { 2 } else { 0 };
                out.extend_from_slice(&[kind, bytes[5], bytes[6], bytes[7]]);
            }
            Self::Text | Self::Binary => {
                out.push(match (kind, self) {
                    (Kind::Pong, _) => 0x8A,
                    (Kind::Message, Self::Text) => 0x81,
                    (Kind::Message, Self::Raw | Self::Binary) => 0x82,
                });
                match len {
                    0..126 => out.push(0x80 | bytes[7]),
                    126..0x1_0000 => out.extend_from_slice(&[0x80 | 126, bytes[6], bytes[7]]),
                    _ => {
                        out.push(0x80 | 127);
                        out.extend_from_slice(&bytes);
                    }
                }
                // Masking protects careless proxies from pages that choose octets. There is neither here, and with a key of
                // zeros the server does all of its work while the driver has none.
                out.extend_from_slice(&[0; 4]);
            }
        }
        out.extend_from_slice(payload);
    }
}

fn raw(data: &Bytes, at: &mut usize) -> Result<Option<Frame>, String> {
    let Some(&[kind, a, b, c]) = data[*at..].first_chunk() else { return Ok(None) };
    let len = match (kind & 0xF8, usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)) {
        (0, len) => len,
        (8, 0) => 1 << 24,
        _ => return Err(format!("a RawSocket frame begins with {:02x?}", [kind, a, b, c])),
    };
    let from = *at + 4;
    if data.len() - from < len {
        return Ok(None);
    }
    *at = from + len;
    let payload = data.slice(from..*at);
    match kind & 7 {
        0 => Ok(Some(Frame::Message(payload))),
        1 => Ok(Some(Frame::Ping(payload))),
        2 => Ok(Some(Frame::Pong)),
        kind => Err(format!("a RawSocket frame has the reserved type {kind}")),
    }
}

fn web(data: &Bytes, at: &mut usize) -> Result<Option<Frame>, String> {
    let rest = &data[*at..];
    let Some(&[first, second]) = rest.first_chunk() else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(format!("a WebSocket frame begins with {:02x?}", [first, second]));
    }
    let (head, len) = match second {
        126 => match rest[2..].first_chunk::<2>() {
            Some(len) => (4, u64::from(u16::from_be_bytes(*len))),
            None => return Ok(None),
        },
        127 => match rest[2..].first_chunk::<8>() {
            Some(len) => (10, u64::from_be_bytes(*len)),
            None => return Ok(None),
        },
        len => (2, u64::from(len)),
    };
    if len > 1 << 31 {
        return Err(format!("a WebSocket frame of {len} bytes"));
    }
    let from = *at + head;
    let Some(end) = usize::try_from(len).ok().map(|len| from + len).filter(|e| *e <= data.len())
    else {
        return Ok(None);
    };
    *at = end;
    let payload = data.slice(from..end);
    let last = if first & 0x80 == 0 { Last::No } else { Last::Yes };
    match (first & 0x0F, last) {
        (1 | 2, Last::Yes) => Ok(Some(Frame::Message(payload))),
        (0..=2, last) => Ok(Some(Frame::Part(payload, last))),
        (8, _) => Ok(Some(Frame::Close(reason(&payload)))),
        (9, _) => Ok(Some(Frame::Ping(payload))),
        (10, _) => Ok(Some(Frame::Pong)),
        (code, _) => Err(format!("a WebSocket frame has the reserved code {code}")),
    }
}

fn reason(payload: &[u8]) -> String {
    match payload.split_first_chunk::<2>() {
        Some((code, text)) => {
            let code = u16::from_be_bytes(*code);
            format!("close code {code} {}", String::from_utf8_lossy(text)).trim_end().to_owned()
        }
        None => "close without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(framing: Framing, octets: &[u8]) -> Vec<Frame> {
        let data = Bytes::copy_from_slice(octets);
        let (mut at, mut frames) = (0, Vec::new());
        while let Some(frame) = framing.take(&data, &mut at).unwrap() {
            frames.push(frame);
        }
        assert_eq!(at, data.len());
        frames
    }

    /// Whatever is cut off the end, only whole frames are taken, and taking the rest later gives the same.
    fn cut_everywhere(framing: Framing, octets: &[u8]) {
        let whole = all(framing, octets);
        for cut in 0..octets.len() {
            let data = Bytes::copy_from_slice(&octets[..cut]);
            let (mut at, mut frames) = (0, Vec::new());
            while let Some(frame) = framing.take(&data, &mut at).unwrap() {
                frames.push(frame);
            }
            frames.extend(all(framing, &octets[at..]));
            assert_eq!(frames, whole, "cut at {cut}");
        }
    }

    #[test]
    fn raw_frames_are_taken_wherever_they_are_cut() {
        let octets = b"\0\0\0\x03abc\x01\0\0\x02hi\x02\0\0\0\0\0\0\0";
        let expected = [
            Frame::Message(Bytes::from_static(b"abc")),
            Frame::Ping(Bytes::from_static(b"hi")),
            Frame::Pong,
            Frame::Message(Bytes::new()),
        ];
        assert_eq!(all(Framing::Raw, octets), expected);
        cut_everywhere(Framing::Raw, octets);
    }

    #[test]
    fn web_frames_are_taken_wherever_they_are_cut() {
        let mut octets = b"\x81\x03abc\x89\x01?\x01\x01a\x80\x01b\x8A\0\x82\x7e\x00\xc8".to_vec();
        octets.extend([7; 200]);
        octets.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        octets.extend(vec![8; 0x1_0000]);
        octets.extend(b"\x88\x05\x03\xe9bye");
        let expected = [
            Frame::Message(Bytes::from_static(b"abc")),
            Frame::Ping(Bytes::from_static(b"?")),
            Frame::Part(Bytes::from_static(b"a"), Last::No),
            Frame::Part(Bytes::from_static(b"b"), Last::Yes),
            Frame::Pong,
            Frame::Message(vec![7; 200].into()),
            Frame::Message(vec![8; 0x1_0000].into()),
            Frame::Close("close code 1001 bye".to_owned()),
        ];
        assert_eq!(all(Framing::Binary, &octets), expected);
        let small = b"\x81\x03abc\x89\x01?\x01\x01a\x80\x01b\x82\x7e\x00\x03abc\x88\x05\x03\xe9bye";
        cut_everywhere(Framing::Text, small);
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error() {
        for (framing, octets) in [
            (Framing::Raw, &b"\x03\0\0\0"[..]),
            (Framing::Raw, b"\x08\0\0\x01"),
            (Framing::Raw, b"HTTP"),
            (Framing::Text, b"\x81\x80\0\0\0\0"),
            (Framing::Text, b"\xC1\0"),
            (Framing::Text, b"\x83\0"),
            (Framing::Text, b"\x82\x7f\xff\0\0\0\0\0\0\0"),
        ] {
            let data = Bytes::copy_from_slice(octets);
            framing.take(&data, &mut 0).unwrap_err();
        }
    }

    #[test]
    fn frames_of_the_client_have_the_length_in_its_shortest_form() {
        for (len, head) in [(0, 6), (125, 6), (126, 8), (0xFFFF, 8), (0x1_0000, 14)] {
            let mut out = Vec::new();
            Framing::Binary.put(Kind::Message, &vec![1; len], &mut out);
            assert_eq!(out.len(), head + len);
            assert_eq!(out[0], 0x82);
            assert!(out[1] & 0x80 != 0, "not masked");
        }
        let mut out = Vec::new();
        Framing::Raw.put(Kind::Pong, b"ab", &mut out);
        Framing::Text.put(Kind::Pong, b"ab", &mut out);
        assert_eq!(out, b"\x02\0\0\x02ab\x8A\x82\0\0\0\0ab");
    }
}
