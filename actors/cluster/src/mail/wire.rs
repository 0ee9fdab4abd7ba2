//! What nodes say to each other about messages for named actors.
//!
//! # Shape
//! One kind of frame; its body is the postcard of a [`Message`], whose variants keep their numbers.

use crate::registry::core::is_name;
use serde::{Deserialize, Serialize};
use weald_peers::delivery::{acknowledged, monotonic};
use weald_peers::{Malformed, kind};
use weald_proto::limits::{MONOTONIC_KEY_BYTES_MAX, TOKEN_BYTES_MAX};
use weald_proto::{Frame, Reply};

const KIND: u16 = kind::of(kind::ACTORS, 1);

/// A message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A message for an actor, sent once.
    Ask {
        /// Comes back with the answer.
        corr: u64,
        /// Name of the actor.
        name: String,
        /// The message.
        payload: Vec<u8>,
        /// Whether the sender waits for the actor's answer.
        reply: bool,
        /// Time for it.
        timeout_ms: u64,
    },
    /// Answers an [`Message::Ask`].
    Answer {
        /// Which.
        corr: u64,
        /// What became of it.
        result: Reply<Vec<u8>>,
    },
    /// Says which life of the sending process this is. A later one is greater.
    Hello {
        /// The sender's.
        life: u64,
        /// The last one of the receiver that the sender knows.
        knows: Option<u64>,
        /// Whether a hello is to come back.
        asks: bool,
    },
    /// An [`Item`], sent until it is acknowledged; taken by this life of the receiver only, so that it is never taken twice.
    Packet {
        /// The receiver's life. The sender's is the epoch of the packet.
        to_life: u64,
        /// The packet.
        packet: acknowledged::Packet,
    },
    /// Acknowledges packets.
    Ack {
        /// The life of who acknowledges.
        from_life: u64,
        /// What it has.
        ack: acknowledged::Ack,
    },
    /// The newest message of a key; the key holds a [`Subject`].
    Newest {
        /// The packet.
        packet: monotonic::Packet,
    },
}

/// What is in an acknowledged packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A message for an actor.
    Tell {
        /// Comes back with the outcome.
        corr: u64,
        /// Name of the actor.
        name: String,
        /// The message.
        payload: Vec<u8>,
        /// What the receiving node has to have seen first.
        token: Option<Vec<u8>>,
        /// Time for it.
        timeout_ms: u64,
    },
    /// What became of an [`Item::Tell`].
    Told {
        /// Which.
        corr: u64,
        /// Whether the actor has it.
        result: Reply<()>,
    },
}

/// What a message of which the newest counts is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Name of the actor.
    pub name: String,
    /// The sender's key.
    pub key: Vec<u8>,
}

impl Message {
    /// The frame of a message.
    #[must_use]
    pub fn encode(&self) -> Frame {
        Frame { kind: KIND, corr: 0, body: encode(self) }
    }

    /// Reads the message in a frame.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(frame: &Frame) -> Result<Self, Malformed> {
        if frame.kind != KIND {
            return Err(Malformed::new("kind", format!("{:#06x} is not known", frame.kind)));
        }
        let message: Self = decode("message", &frame.body)?;
        if let Self::Ask { name, .. } = &message {
            check_name(name)?;
        }
        Ok(message)
    }
}

impl Item {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let item: Self = decode("item", bytes)?;
        if let Self::Tell { name, token, .. } = &item {
            check_name(name)?;
            if token.as_ref().is_some_and(|token| token.len() > TOKEN_BYTES_MAX) {
                return Err(Malformed::new("token", "too long"));
            }
        }
        Ok(item)
    }
}

impl Subject {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let subject: Self = decode("subject", bytes)?;
        check_name(&subject.name)?;
        if subject.key.len() > MONOTONIC_KEY_BYTES_MAX {
            return Err(Malformed::new("key", "too long"));
        }
        Ok(subject)
    }
}

fn check_name(name: &str) -> Result<(), Malformed> {
    if is_name(name) { Ok(()) } else { Err(Malformed::new("name", "it is none")) }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Writing to a Vec fails only for types without a known length, of which there is none here.
    postcard::to_stdvec(value).unwrap_or_default()
}

fn decode<T: for<'a> Deserialize<'a>>(what: &'static str, bytes: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(Malformed::new(what, format!("{} bytes after its end", rest.len()))),
        Err(e) => Err(Malformed::new(what, e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_keep_their_bytes() {
        let packet = acknowledged::Packet { epoch: 1, first: 2, seq: 3, body: vec![4] };
        let newest = monotonic::Packet { epoch: 1, version: 2, key: vec![3], body: vec![4] };
        let ack = acknowledged::Ack { epoch: 1, up_to: 2, runs: vec![(3, 4)] };
        let ask = Message::Ask {
            corr: 1,
            name: "n".into(),
            payload: vec![2],
            reply: true,
            timeout_ms: 3,
        };
        let cases: [(Message, &[u8]); 6] = [
            (ask, &[0, 1, 1, b'n', 1, 2, 1, 3]),
            (Message::Answer { corr: 1, result: Ok(vec![7]) }, &[1, 1, 0, 1, 7]),
            (Message::Hello { life: 1, knows: Some(2), asks: true }, &[2, 1, 1, 2, 1]),
            (Message::Packet { to_life: 9, packet }, &[3, 9, 1, 2, 3, 1, 4]),
            (Message::Ack { from_life: 9, ack }, &[4, 9, 1, 2, 1, 3, 4]),
            (Message::Newest { packet: newest }, &[5, 1, 2, 1, 3, 1, 4]),
        ];
        for (message, bytes) in cases {
            let frame = message.encode();
            assert_eq!((frame.kind, frame.body.as_slice()), (0x1501, bytes));
            assert_eq!(Message::decode(&frame), Ok(message));
        }
        let tell =
            Item::Tell { corr: 1, name: "n".into(), payload: vec![2], token: None, timeout_ms: 3 };
        assert_eq!(tell.encode(), [0, 1, 1, b'n', 1, 2, 0, 3]);
        assert_eq!(Item::Told { corr: 1, result: Ok(()) }.encode(), [1, 1, 0]);
        assert_eq!(Subject { name: "n".into(), key: vec![1] }.encode(), [1, b'n', 1, 1]);
    }

    #[test]
    fn what_is_no_name_or_too_long_is_malformed() {
        let ask = |name: &str| Message::Ask {
            corr: 1,
            name: name.into(),
            payload: vec![],
            reply: false,
            timeout_ms: 1,
        };
        assert!(
            Message::decode(&ask("").encode()).is_err()
                && Message::decode(&ask("a\n").encode()).is_err()
        );
        let subject = Subject { name: "n".into(), key: vec![0; 256] };
        assert!(Subject::decode(&subject.encode()).is_err());
        let tell =
            Item::Tell { corr: 1, name: "\0".into(), payload: vec![], token: None, timeout_ms: 3 };
        assert!(Item::decode(&tell.encode()).is_err());
        let mut frame = ask("n").encode();
        frame.body.push(0);
        assert!(Message::decode(&frame).is_err());
        frame.kind = 0x1502;
        assert!(Message::decode(&frame).is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _any_outcome = (Item::decode(&body), Subject::decode(&body));
            let _any_outcome = Message::decode(&Frame { kind: KIND, corr: 0, body });
        }
    }
}
