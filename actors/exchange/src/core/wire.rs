//! What the two sides of an exchange say to each other, and the frames in which they say it.
//!
//! What it guarantees: a message of any size travels in frames of at most [`FRAME_BYTES`]; frames that come twice or in
//! another order are put right; a message larger than [`MESSAGE_BYTES_MAX`] or more than [`REORDER_MAX`] frames ahead of
//! their turn end the session. Decoding never panics, whatever the bytes are.
//!
//! # Shape
//! A frame is `number u32 | more u8 | part`, big-endian; the parts of a message in a row are one postcard [`Message`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use weald_peers::{Malformed, WireDelta};
use weald_storage::{Actor, Clock, Space, TreeNode};

/// Most bytes of one frame. // guess: small enough that control frames behind it never wait long
pub const FRAME_BYTES: usize = 256 * 1024;
/// Bytes of objects that are put into one message, about; one object may be larger by itself.
pub const DELTAS_BYTES: usize = 192 * 1024;
/// Most bytes of one message. An object may hold several siblings of 16 MiB. // guess
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// Most frames that wait for one before them. // guess: lanes keep the order, so any number is a rare event
pub const REORDER_MAX: usize = 32;
/// Bytes before the part.
const HEADER_BYTES: usize = 5;

/// One space of one partition: what has a clock and a tree of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    /// The partition.
    pub partition: u16,
    /// The space.
    pub space: Space,
}

impl Shard {
    /// The shard of a partition and space.
    #[must_use]
    pub const fn new(partition: u16, space: Space) -> Self {
        Self { partition, space }
    }

    /// All shards of a node with so many partitions, by number.
    pub fn all(partitions: u16) -> impl Iterator<Item = Self> {
        (0..partitions.saturating_mul(2)).map(Self::of_number)
    }

    /// Its number: twice the partition, plus one for memory. The same as its broadcast stream.
    #[must_use]
    pub const fn number(self) -> u16 {
        let space = match self.space {
            Space::Durable => 0,
            Space::Memory => 1,
        };
        self.partition * 2 + space
    }

    /// The shard with this number.
    #[must_use]
    pub const fn of_number(number: u16) -> Self {
        let space = if number.is_multiple_of(2) { Space::Durable } else { Space::Memory };
        Self { partition: number / 2, space }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = match self.space {
            Space::Durable => "durable",
            Space::Memory => "memory",
        };
        write!(f, "{}/{space}", self.partition)
    }
}

/// A node of a tree on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireNode {
    /// Objects under it.
    pub count: u64,
    /// Sum of their digests.
    pub digest: u128,
}

impl From<TreeNode> for WireNode {
    fn from(node: TreeNode) -> Self {
        Self { count: node.count, digest: node.digest }
    }
}

/// A shard in a few bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of the shard.
    pub shard: u16,
    /// Digest of the clock.
    pub clock: u64,
    /// Root of the tree on the same state; `None` when it did not hold still.
    pub root: Option<WireNode>,
}

/// A shard as one side has it when it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardState {
    /// Who issues the dots of this side.
    pub actor: Actor,
    /// What was processed.
    pub clock: Clock,
    /// Root of the tree on the same state; `None` when it did not hold still.
    pub root: Option<WireNode>,
}

/// A bucket's objects by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireBucket {
    /// Number of the bucket.
    pub bucket: u16,
    /// Whether they add up to the bucket's sum.
    pub sound: bool,
    /// The objects.
    pub entries: Vec<WireEntry>,
}

/// An object by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireEntry {
    /// First 16 bytes of the hash of its table and key.
    pub hash: u128,
    /// Its digest.
    pub digest: u128,
    /// Table and key, when asked for.
    pub name: Option<(String, Vec<u8>)>,
}

/// Which objects of a bucket are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// All of them.
    All,
    /// Those with these hashes.
    Keys(Vec<u128>),
}

/// The end of a stream of deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whether the receiver lacks events whose keys the sender has forgotten.
    pub needs_walk: bool,
}

/// What is said in a session. `I` is the side that began it, `R` the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// I: all shards. First message of a session.
    Summary {
        /// Compare only, merge nothing.
        look: bool,
        /// One for each shard.
        shards: Vec<Summary>,
    },
    /// R: numbers of the shards that differ. When there are none, the session is over.
    Differ {
        /// The numbers.
        shards: Vec<u16>,
    },
    /// I: begin with a shard.
    Open {
        /// Its number.
        shard: u16,
        /// As I has it.
        state: ShardState,
    },
    /// R: the shard as R has it.
    Opened {
        /// Its number.
        shard: u16,
        /// As R has it.
        state: ShardState,
    },
    /// Either: objects.
    Deltas {
        /// Number of the shard.
        shard: u16,
        /// Number of the message in its stream.
        seq: u32,
        /// The objects.
        deltas: Vec<WireDelta>,
        /// Buckets of these objects in which the sender's objects do not add up. In a walk only.
        unsound: Vec<u16>,
        /// Whether the stream ends with it.
        end: Option<End>,
    },
    /// Either: a [`Message::Deltas`] was merged.
    Ack {
        /// Number of the shard.
        shard: u16,
        /// Which one.
        seq: u32,
        /// Whether something in it could not be merged.
        refused: bool,
        /// What the sender of the ack holds of keys that are gone there. In a walk only.
        gone: Vec<WireDelta>,
    },
    /// I: the sums below the root, or below branches.
    AskNodes {
        /// Number of the shard.
        shard: u16,
        /// The branches; none for the root.
        branches: Vec<u8>,
    },
    /// R: the sums, in the order of the question.
    Nodes {
        /// Number of the shard.
        shard: u16,
        /// All of them in a row.
        nodes: Vec<WireNode>,
    },
    /// I: the entries of buckets.
    AskEntries {
        /// Number of the shard.
        shard: u16,
        /// The buckets.
        buckets: Vec<u16>,
        /// Whether table and key are wanted.
        names: bool,
    },
    /// R: the entries of the first of these buckets, at least of one.
    Entries {
        /// Number of the shard.
        shard: u16,
        /// The buckets.
        buckets: Vec<WireBucket>,
    },
    /// I: send these objects; I sends what R lacks.
    Swap {
        /// Number of the shard.
        shard: u16,
        /// Buckets with what is wanted of them.
        wants: Vec<(u16, Want)>,
    },
    /// Either: the walk of the shard is over.
    WalkEnd {
        /// Number of the shard.
        shard: u16,
        /// Whether everything was sound and merged on this side.
        clean: bool,
    },
    /// I: the session is over.
    Finish,
    /// Either: the session has ended before its time.
    Abort {
        /// Why, for the log.
        why: String,
    },
}

impl Message {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a message of plain data can be encoded")
    }

    /// Reads the bytes of a message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Ok(message),
            Ok((_, rest)) => {
                Err(Malformed::new("message", format!("{} bytes too many", rest.len())))
            }
            Err(e) => Err(Malformed::new("message", e.to_string())),
        }
    }

    /// The number of the shard it is about.
    #[must_use]
    pub const fn shard(&self) -> Option<u16> {
        match self {
            Self::Summary { .. } | Self::Differ { .. } | Self::Finish | Self::Abort { .. } => None,
            Self::Open { shard, .. }
            | Self::Opened { shard, .. }
            | Self::Deltas { shard, .. }
            | Self::Ack { shard, .. }
            | Self::AskNodes { shard, .. }
            | Self::Nodes { shard, .. }
            | Self::AskEntries { shard, .. }
            | Self::Entries { shard, .. }
            | Self::Swap { shard, .. }
            | Self::WalkEnd { shard, .. } => Some(*shard),
        }
    }
}

/// Makes frames of messages.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    next: u32,
}

impl Writer {
    /// The frames of a message.
    pub fn frames(&mut self, message: &Message) -> Vec<Vec<u8>> {
        let bytes = message.encode();
        let mut parts = bytes.chunks(FRAME_BYTES - HEADER_BYTES).peekable();
        let mut frames = Vec::new();
        while let Some(part) = parts.next() {
            let mut frame = Vec::with_capacity(HEADER_BYTES + part.len());
            frame.extend_from_slice(&self.next.to_be_bytes());
            frame.push(u8::from(parts.peek().is_some()));
            frame.extend_from_slice(part);
            self.next = self.next.wrapping_add(1);
            frames.push(frame);
        }
        frames
    }
}

/// Makes messages of frames.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    next: u32,
    part: Vec<u8>,
    early: BTreeMap<u32, Vec<u8>>,
}

impl Reader {
    /// Takes a frame; the messages that are complete with it.
    ///
    /// # Errors
    /// [`Malformed`]: nothing more can be read after it.
    pub fn take(&mut self, frame: &[u8]) -> Result<Vec<Message>, Malformed> {
        if frame.len() > FRAME_BYTES {
            return Err(Malformed::new("frame", format!("{} bytes", frame.len())));
        }
        let Some((number, _)) = frame.split_first_chunk::<4>() else {
            return Err(Malformed::new("frame", "too short"));
        };
        let number = u32::from_be_bytes(*number);
        if number < self.next {
            return Ok(Vec::new());
        }
        self.early.insert(number, frame[4..].to_vec());
        if self.early.len() > REORDER_MAX {
            return Err(Malformed::new("frame", format!("number {} is missing", self.next)));
        }
        let mut messages = Vec::new();
        while let Some(body) = self.early.remove(&self.next) {
            self.next = self.next.saturating_add(1);
            let Some((more, part)) = body.split_first() else {
                return Err(Malformed::new("frame", "too short"));
            };
            if self.part.len() + part.len() > MESSAGE_BYTES_MAX {
                return Err(Malformed::new("message", "too large"));
            }
            self.part.extend_from_slice(part);
            if *more == 0 {
                messages.push(Message::decode(&std::mem::take(&mut self.part))?);
            }
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shard_numbers_are_those_of_the_streams() {
        for (number, shard) in (0..).zip(Shard::all(3)) {
            assert_eq!((shard.number(), Shard::of_number(number)), (number, shard));
        }
        assert_eq!(Shard::new(2, Space::Memory).number(), 5);
    }

    fn message(bytes: usize) -> Message {
        Message::Abort { why: "x".repeat(bytes) }
    }

    #[test]
    fn frames_out_of_order_and_twice_are_put_right() {
        let mut writer = Writer::default();
        let said = [message(3), message(FRAME_BYTES * 2), message(0)];
        let mut frames: Vec<_> = said.iter().flat_map(|m| writer.frames(m)).collect();
        assert_eq!(frames.len(), 5);
        assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES));
        frames.reverse();
        frames.extend_from_within(..);
        let mut reader = Reader::default();
        let heard: Vec<_> = frames.iter().flat_map(|frame| reader.take(frame).unwrap()).collect();
        assert_eq!(heard, said);
    }

    #[test]
    fn frames_far_ahead_end_it() {
        let mut writer = Writer::default();
        let mut reader = Reader::default();
        let frames: Vec<_> = (0..40).flat_map(|_| writer.frames(&message(1))).collect();
        assert!(frames[1..].iter().map(|frame| reader.take(frame)).any(|taken| taken.is_err()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut reader = Reader::default();
            for (number, body) in (0_u32..).zip(frames) {
                let mut frame = number.to_be_bytes().to_vec();
                frame.extend(body);
                if reader.take(&frame).is_err() {
                    break;
                }
            }
        }
    }
}
