//! What passes between two nodes inside TLS, cut into units, and faults on the messages among them. Without I/O and clock.
//!
//! # Shape
//! First the handshake: six bytes of magic from the dialler, then messages `len: u16 big-endian | body`, never empty. Then
//! frames of `ractor_cluster`: `len: u64 big-endian | protobuf`; as these are far below 2⁴⁸ bytes, two zero bytes tell them
//! from the handshake. A cast to the link actor is `12 len (0A len ([08 to] 12 len batch))`, and a batch is messages
//! ([`Frame`]) one after another.

use super::faults::{Delay, MessageFaults};
use crate::seed::Seeded;
use weald_proto::Frame;

const MAGIC: &[u8; 6] = b"WEALD\x01";
const NODE: u8 = 0x12;
const CAST: u8 = 0x0A;
const TO: u8 = 0x08;
const WHAT: u8 = 0x12;

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Unit {
    /// Passes as it is.
    Opaque(Vec<u8>),
    /// Messages for an actor.
    Cast {
        /// The actor.
        to: u64,
        /// The messages.
        messages: Vec<Frame>,
    },
}

/// Cuts the bytes of one direction.
#[derive(Debug, Default)]
pub struct Splitter {
    bytes: Vec<u8>,
    started: bool,
}

impl Splitter {
    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What came and is no complete unit.
    #[must_use]
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// The units that are complete.
impl Iterator for Splitter {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        if !self.started {
            let common = self.bytes.len().min(MAGIC.len());
            if self.bytes[..common] == MAGIC[..common] {
                if common < MAGIC.len() {
                    return None;
                }
                self.started = true;
                return Some(Unit::Opaque(self.take(MAGIC.len())));
            }
            self.started = true;
        }
        let first = self.bytes.first_chunk::<2>()?;
        let body = usize::from(u16::from_be_bytes(*first));
        if body > 0 {
            return (self.bytes.len() >= 2 + body).then(|| Unit::Opaque(self.take(2 + body)));
        }
        let len = usize::try_from(u64::from_be_bytes(*self.bytes.first_chunk::<8>()?)).ok()?;
        if self.bytes.len() < 8 + len {
            return None;
        }
        let frame = self.take(8 + len);
        Some(match cast(&frame[8..]) {
            Some((to, messages)) => Unit::Cast { to, messages },
            None => Unit::Opaque(frame),
        })
    }
}

impl Splitter {
    fn take(&mut self, len: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(len);
        std::mem::replace(&mut self.bytes, rest)
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7F).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// The content, if the bytes are exactly one field with this tag.
fn only(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    let (_, rest) = bytes.split_first().filter(|(first, _)| **first == tag)?;
    let (len, rest) = varint(rest)?;
    (usize::try_from(len).ok()? == rest.len()).then_some(rest)
}

fn cast(body: &[u8]) -> Option<(u64, Vec<Frame>)> {
    let mut inner = only(CAST, only(NODE, body)?)?;
    let mut to = 0;
    if let Some((&TO, rest)) = inner.split_first() {
        (to, inner) = varint(rest)?;
    }
    Some((to, Frame::decode_batch(only(WHAT, inner)?).ok()?))
}

/// A cast of these messages.
///
/// # Panics
/// When a message is too large to have come as one.
#[must_use]
pub fn encode(to: u64, messages: &[Frame]) -> Vec<u8> {
    let mut batch = Vec::new();
    for message in messages {
        message.encode(&mut batch).unwrap_or_else(|e| panic!("encode a message: {e}"));
    }
    let wrap = |tag: u8, content: &[u8]| {
        let mut out = vec![tag];
        put_varint(content.len() as u64, &mut out);
        out.extend_from_slice(content);
        out
    };
    let mut inner = Vec::new();
    if to != 0 {
        inner.push(TO);
        put_varint(to, &mut inner);
    }
    inner.extend(wrap(WHAT, &batch));
    let body = wrap(NODE, &wrap(CAST, &inner));
    let mut frame = (body.len() as u64).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// What was done to messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Passed on, each copy counted.
    pub passed: u64,
    /// Dropped.
    pub dropped: u64,
    /// Duplicated.
    pub duplicated: u64,
    /// Held back, so that others overtake.
    pub reordered: u64,
}

#[derive(Debug)]
struct Held {
    after: u64,
    until_ms: u64,
    to: u64,
    message: Frame,
}

/// A message is not held longer than this when no others come that could overtake it.
const HOLD_MAX_MS: u64 = 300;
/// Messages held at a time; more pass at once.
const HELD_MAX: usize = 4096;

/// Does the faults.
#[derive(Debug)]
pub struct Mangler {
    rng: Seeded,
    number: u64,
    held: Vec<Held>,
    /// What was done so far.
    pub done: Done,
}

fn millis(delay: Delay, rng: &mut Seeded) -> u64 {
    let [base, jitter] =
        [delay.base, delay.jitter].map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    base + if jitter == 0 { 0 } else { rng.any() % (jitter + 1) }
}

impl Mangler {
    /// One whose choices depend on the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: Seeded::new(seed), number: 0, held: Vec::new(), done: Done::default() }
    }

    /// What is to be passed on, now that a unit came.
    pub fn pass(&mut self, unit: Unit, faults: &MessageFaults, now_ms: u64) -> Vec<u8> {
        let (to, messages) = match unit {
            Unit::Opaque(bytes) => return bytes,
            Unit::Cast { to, messages } => (to, messages),
        };
        let mut out = Vec::new();
        for message in messages {
            self.number += 1;
            if faults.concerns(message.kind) && !faults.is_none() {
                self.fault(to, message, faults, now_ms, &mut out);
            } else {
                self.emit(to, message, &mut out);
            }
            self.due(now_ms, &mut out);
        }
        out
    }

    fn emit(&mut self, to: u64, message: Frame, out: &mut Vec<u8>) {
        self.done.passed += 1;
        out.extend(encode(to, &[message]));
    }

    fn fault(
        &mut self,
        to: u64,
        message: Frame,
        faults: &MessageFaults,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) {
        if self.rng.chance(faults.drop_percent) {
            self.done.dropped += 1;
            return;
        }
        if self.rng.chance(faults.duplicate_percent) {
            self.done.duplicated += 1;
            self.emit(to, message.clone(), out);
        }
        let wait_ms = millis(faults.delay, &mut self.rng);
        let reorder = faults.reorder_window > 0 && self.rng.chance(faults.reorder_percent);
        if (wait_ms == 0 && !reorder) || self.held.len() >= HELD_MAX {
            return self.emit(to, message, out);
        }
        self.done.reordered += u64::from(reorder);
        let ahead = if reorder { 1 + self.rng.below(faults.reorder_window) } else { 0 };
        let hold_ms = if reorder { wait_ms.max(HOLD_MAX_MS) } else { wait_ms };
        let until_ms = now_ms + hold_ms;
        let after = if reorder { self.number + ahead as u64 } else { u64::MAX };
        self.held.push(Held { after, until_ms, to, message });
    }

    /// Held messages whose time has come.
    pub fn due(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        let number = self.number;
        let is_due = |held: &mut Held| held.after <= number || held.until_ms <= now_ms;
        for held in self.held.extract_if(.., is_due).collect::<Vec<_>>() {
            self.emit(held.to, held.message, out);
        }
    }

    /// Whether messages are held.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn message(kind: u16, corr: u64) -> Frame {
        Frame { kind, corr, body: vec![7; 300] }
    }

    fn stream() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0, 3, 1, 2, 3]);
        // A ping: control frames pass as they are.
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 4, 0x1A, 2, 0x1A, 0]);
        bytes.extend(encode(300, &[message(0x1201, 1), message(0x1301, 2)]));
        bytes.extend(encode(0, &[message(0x1202, 3)]));
        bytes
    }

    fn corrs(bytes: &[u8]) -> Vec<u64> {
        let mut splitter = Splitter::default();
        splitter.push(bytes);
        let messages = |unit| match unit {
            Unit::Cast { messages, .. } => messages,
            Unit::Opaque(_) => Vec::new(),
        };
        splitter.flat_map(messages).map(|m| m.corr).collect()
    }

    #[test]
    fn stream_is_cut_the_same_however_it_comes() {
        let bytes = stream();
        for step in [1, 7, bytes.len()] {
            let (mut splitter, mut units) = (Splitter::default(), Vec::new());
            for part in bytes.chunks(step) {
                splitter.push(part);
                units.extend(splitter.by_ref());
            }
            assert_eq!(units.len(), 5, "{units:?}");
            assert!(matches!(&units[3], Unit::Cast { to: 300, messages } if messages.len() == 2));
            assert!(matches!(&units[4], Unit::Cast { to: 0, messages } if messages.len() == 1));
            let again = units.into_iter().flat_map(|unit| match unit {
                Unit::Opaque(bytes) => bytes,
                Unit::Cast { to, messages } => encode(to, &messages),
            });
            assert_eq!(again.collect::<Vec<_>>(), bytes);
        }
    }

    fn mangled(faults: &MessageFaults, count: u64) -> (Vec<u64>, Done) {
        let (mut mangler, mut out) = (Mangler::new(1), Vec::new());
        for corr in 0..count {
            let unit = Unit::Cast { to: 1, messages: vec![message(0x1201, corr)] };
            out.extend(mangler.pass(unit, faults, corr));
        }
        mangler.due(count + 10_000, &mut out);
        assert!(!mangler.is_holding());
        (corrs(&out), mangler.done)
    }

    #[test]
    fn drops_duplicates_and_reorders_about_as_often_as_asked() {
        let faults = MessageFaults {
            services: vec![0x12],
            drop_percent: 5,
            duplicate_percent: 20,
            reorder_percent: 30,
            reorder_window: 50,
            ..MessageFaults::default()
        };
        let (out, done) = mangled(&faults, 2000);
        assert!((50..200).contains(&done.dropped), "{done:?}");
        assert!((300..500).contains(&done.duplicated), "{done:?}");
        assert!((450..750).contains(&done.reordered), "{done:?}");
        assert_eq!(out.len() as u64, 2000 - done.dropped + done.duplicated);
        let far = out.iter().enumerate().map(|(at, corr)| (at as u64 / 2).abs_diff(*corr / 2));
        assert!(out.windows(2).any(|pair| pair[0] > pair[1]));
        assert!(far.max() < Some(400));
        let other = MessageFaults { services: vec![0x13], ..faults };
        assert_eq!(mangled(&other, 100).0, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn delayed_messages_are_held_for_their_time() {
        let delay = Delay { base: Duration::from_millis(100), jitter: Duration::from_millis(50) };
        let faults = MessageFaults { delay, ..MessageFaults::default() };
        let mut mangler = Mangler::new(2);
        let unit = Unit::Cast { to: 1, messages: vec![message(1, 1)] };
        assert!(mangler.pass(unit, &faults, 1000).is_empty());
        let mut out = Vec::new();
        mangler.due(1099, &mut out);
        assert!(out.is_empty());
        mangler.due(1150, &mut out);
        assert_eq!(corrs(&out), [1]);
    }
}
