//! Messages that are encoded once, and sent many times with another request and another time in them.
//!
//! # Shape
//! A message has one argument, a text. One of 16 characters or more begins with `t` and the time it was sent: nanoseconds since
//! the driver started as 15 hexadecimal digits, the same characters in all encodings.

use crate::exit::{Exit, Failure};
use weald_wamp::{EncodeError, Message, RequestId, Serializer};

/// Characters of the time, with its mark.
pub(crate) const STAMP: usize = 16;

/// One in so many messages has the time in it when the others have no room for it.
const SAMPLED: u64 = 64;

/// Ids in the two encodings that have them in binary: integers below, and the codes before 1, 2, 4 and 8 octets.
const MSGPACK: (u64, [u8; 4]) = (128, [0xCC, 0xCD, 0xCE, 0xCF]);
const CBOR: (u64, [u8; 4]) = (24, [0x18, 0x19, 0x1A, 0x1B]);

/// An encoded message without its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    serializer: Serializer,
    before: Vec<u8>,
    after: Vec<u8>,
    stamp_at: Option<usize>,
}

impl Template {
    /// Makes a template of the same message encoded with the requests 1 and 2; `None` when they differ in more than that.
    pub(crate) fn new(serializer: Serializer, one: &[u8], two: &[u8]) -> Option<Self> {
        let at = one.iter().zip(two).position(|(a, b)| a != b)?;
        let after = one.get(at + 1..)?;
        if two.get(at + 1..) != Some(after) {
            return None;
        }
        let stamp_at = find(after);
        Some(Self { serializer, before: one[..at].to_vec(), after: after.to_vec(), stamp_at })
    }

    /// Appends the message for that request and time.
    pub(crate) fn write(&self, request: u64, now_ns: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        match self.serializer {
            Serializer::Json => decimal(request, out),
            Serializer::MsgPack => binary(request, MSGPACK, out),
            Serializer::Cbor => binary(request, CBOR, out),
        }
        let start = out.len();
        out.extend_from_slice(&self.after);
        if let Some(at) = self.stamp_at {
            write_stamp(now_ns, &mut out[start + at..start + at + STAMP]);
        }
    }
}

/// Messages of one size, so that the time is in each of them, or in one of [`SAMPLED`] where they have no room for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Templates {
    plain: Template,
    sample: Option<Template>,
}

impl Templates {
    /// Encodes the message of a request and a text; both differ from call to call.
    ///
    /// # Errors
    /// `encode` failed, or its results differ in more than the request.
    pub(crate) fn new(
        serializer: Serializer,
        payload_bytes: usize,
        mut encode: impl FnMut(RequestId, &str) -> Result<Message, EncodeError>,
    ) -> Result<Self, Failure> {
        let mut template = |text: &str| {
            let mut encoded = |request: RequestId| {
                let mut out = Vec::new();
                let message = encode(request, text)?;
                message.encode(serializer, &mut out).map(|()| out)
            };
            let failed =
                |e: EncodeError| Failure::new(Exit::Usage, format!("encode a message: {e}"));
            let one = encoded(RequestId::FIRST).map_err(failed)?;
            let two = encoded(RequestId::FIRST.next()).map_err(failed)?;
            Template::new(serializer, &one, &two).ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    "encode a message: requests differ in more than their number",
                )
            })
        };
        let plain = template(&text(payload_bytes))?;
        let sample = if payload_bytes < STAMP { Some(template(&text(STAMP))?) } else { None };
        Ok(Self { plain, sample })
    }

    /// The template for that request.
    pub(crate) fn of(&self, request: u64) -> &Template {
        match &self.sample {
            Some(sample) if request.is_multiple_of(SAMPLED) => sample,
            Some(_) | None => &self.plain,
        }
    }
}

/// A text for a message: of that size, with room for the time if it fits.
pub(crate) fn text(len: usize) -> String {
    let mut text = vec![b'x'; len];
    if len >= STAMP {
        write_stamp(0, &mut text[..STAMP]);
    }
    text.into_iter().map(char::from).collect()
}

/// The time in an encoded payload, if it has one.
pub(crate) fn read_stamp(payload: &[u8]) -> Option<u64> {
    let at = find(payload)? + 1;
    let digits = &payload[at..at + STAMP - 1];
    Some(digits.iter().fold(0, |time, digit| time << 4 | u64::from(value(*digit).unwrap_or(0))))
}

/// Where the mark with 15 digits after it is. The octets before are a few that tell length and type.
fn find(payload: &[u8]) -> Option<usize> {
    let is_stamp = |w: &[u8]| w[0] == b't' && w[1..].iter().all(|digit| value(*digit).is_some());
    payload.windows(STAMP).position(is_stamp)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn write_stamp(now_ns: u64, out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out[0] = b't';
    for (place, digit) in (0..STAMP - 1).rev().zip(&mut out[1..]) {
        *digit = DIGITS[usize::from((now_ns >> (4 * place)).to_le_bytes()[0] & 15)];
    }
}

fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn binary(number: u64, (small, codes): (u64, [u8; 4]), out: &mut Vec<u8>) {
    let octets = number.to_be_bytes();
    let (code, width) = match number {
        _ if number < small => return out.push(octets[7]),
        0..=0xFF => (codes[0], 1),
        0x100..=0xFFFF => (codes[1], 2),
        0x1_0000..=0xFFFF_FFFF => (codes[2], 4),
        _ => (codes[3], 8),
    };
    out.push(code);
    out.extend_from_slice(&octets[8 - width..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use weald_wamp::message::{Publish, PublishOptions};
    use weald_wamp::{Dict, Limits, Message, Payload, RequestId, Value, decode};

    fn publish(
        serializer: Serializer,
        request: RequestId,
        text: &str,
    ) -> Result<Message, EncodeError> {
        let payload = Payload::from_values(serializer, &[Value::from(text)], &Dict::new())?;
        let (topic, options) = ("a.topic".into(), PublishOptions::default());
        Ok(Message::Publish(Publish { request, options, topic, payload }))
    }

    fn encoded(serializer: Serializer, request: u64, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let message = publish(serializer, RequestId::new(request).unwrap(), text).unwrap();
        message.encode(serializer, &mut out).unwrap();
        out
    }

    fn templates(serializer: Serializer, len: usize) -> Templates {
        Templates::new(serializer, len, |request, text| publish(serializer, request, text)).unwrap()
    }

    #[test]
    fn template_writes_what_the_codec_writes() {
        for serializer in Serializer::ALL {
            for len in [0, 15, 16, 17, 200, 70_000] {
                let templates = templates(serializer, len);
                for request in [1, 23, 24, 127, 129, 255, 257, 65_535, 65_537, (1 << 32) + 1] {
                    let mut out = Vec::new();
                    templates.of(request).write(request, 0, &mut out);
                    assert_eq!(out, encoded(serializer, request, &text(len)), "{serializer} {len}");
                }
            }
        }
    }

    #[test]
    fn time_comes_back_from_the_payload() {
        for serializer in Serializer::ALL {
            for len in [0, 16, 0x74, 0x3030, 70_000] {
                let templates = templates(serializer, len);
                for now_ns in [0, 1, 0xABC_DEF0_1234_5678 & ((1 << 60) - 1), (1 << 60) - 1] {
                    let mut out = Vec::new();
                    templates.of(70_016).write(70_016, now_ns, &mut out);
                    let message =
                        decode(serializer, &Bytes::from(out), &Limits::default()).unwrap();
                    let Message::Publish(publish) = message else { panic!("{message:?}") };
                    assert_eq!(read_stamp(publish.payload.raw()), Some(now_ns));
                }
            }
        }
    }

    #[test]
    fn messages_without_room_for_the_time_are_sampled() {
        let small = templates(Serializer::Cbor, 0);
        let timed: Vec<u64> = (1..200).filter(|n| small.of(*n) != &small.plain).collect();
        assert_eq!(timed, [64, 128, 192]);
        assert!(templates(Serializer::Json, 16).sample.is_none());
    }

    #[test]
    fn payload_without_a_time_has_none() {
        assert_eq!(read_stamp(text(15).as_bytes()), None);
        assert_eq!(read_stamp(b"t00000000000000"), None);
        assert_eq!(read_stamp(b"[\"t00000000000000z\"]"), None);
    }

    #[test]
    fn messages_that_differ_in_more_than_a_request_are_no_template() {
        assert_eq!(Template::new(Serializer::Json, b"[1,1,2]", b"[1,2,3]"), None);
        assert_eq!(Template::new(Serializer::Json, b"[1,1]", b"[1,1]"), None);
    }
}
