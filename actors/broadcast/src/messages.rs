//! Messages of the broadcast.
//!
//! # Shape
//! Each is the body of a frame; the low byte of the frame's kind says which. All but gossip are postcard. A gossip has a head
//! of fixed length before its postcard, so that it is forwarded without being encoded again:
//! `root: 16 bytes | round: u16 | stream: u16 | events: postcard [WireDelta]`, integers big-endian.
//!
//! Refuses: trust. Sizes are checked before anything is decoded, and decoding never panics.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weald_peers::{Dots, Malformed, WireDelta, kind};
use weald_storage::NodeId;

/// Kind of a frame with a [`Gossip`].
pub const GOSSIP: u16 = kind::of(kind::BROADCAST, 1);
/// Kind of a frame with an [`IHave`].
pub const I_HAVE: u16 = kind::of(kind::BROADCAST, 2);
/// Kind of a frame with a [`Graft`].
pub const GRAFT: u16 = kind::of(kind::BROADCAST, 3);
/// Kind of a frame with a [`Prune`].
pub const PRUNE: u16 = kind::of(kind::BROADCAST, 4);

/// Bytes of events that are put into one gossip; one that is larger travels alone. // guess: a few LMDB commits' worth
pub const GOSSIP_BYTES: usize = 512 << 10;
/// Largest control message, in bytes. // guess: thousands of runs
pub const CONTROL_BYTES_MAX: usize = 512 << 10;
/// Most announcements in one message.
pub const ANNOUNCEMENTS_MAX: usize = 1024;
/// Most events in one gossip.
pub const EVENTS_MAX: usize = 16_384;

/// Bytes before the events of a gossip.
const HEAD_BYTES: usize = 20;

/// Events on their way along the tree of `root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// Whose tree.
    pub root: NodeId,
    /// How often it was forwarded; 0 when it comes from the root.
    pub round: u16,
    /// Which stream the dots count in.
    pub stream: u16,
    /// The events.
    pub events: Vec<WireDelta>,
}

/// Events that the sender has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// In whose tree they would be sent.
    pub root: NodeId,
    /// With which round.
    pub round: u16,
    /// Which stream the dots count in.
    pub stream: u16,
    /// The events.
    pub dots: Dots,
}

/// Announces events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IHave(pub Vec<Announcement>);

/// Asks for events, and for those that follow in the tree of `root`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graft {
    /// Whose tree.
    pub root: NodeId,
    /// Which stream the dots count in.
    pub stream: u16,
    /// What is missing; may be nothing.
    pub dots: Dots,
}

/// Asks not to be sent events of `root`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// Whose tree.
    pub root: NodeId,
}

impl Gossip {
    /// The bytes.
    ///
    /// # Errors
    /// [`Malformed`]: never for what fits into memory.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut bytes = Vec::with_capacity(
            HEAD_BYTES + 8 + self.events.iter().map(WireDelta::len_hint).sum::<usize>(),
        );
        bytes.extend_from_slice(&self.root.0);
        bytes.extend_from_slice(&self.round.to_be_bytes());
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        postcard::to_extend(&self.events, bytes)
            .map_err(|e| Malformed::new("gossip", e.to_string()))
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (root, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let (round, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (stream, rest) = rest.split_first_chunk().ok_or_else(short)?;
        // An event takes more memory than bytes: the count is looked at before there is room for them.
        let (count, _) = postcard::take_from_bytes::<u64>(rest)
            .map_err(|e| Malformed::new("gossip", e.to_string()))?;
        if count > EVENTS_MAX as u64 {
            return Err(Malformed::new("gossip", format!("{count} events")));
        }
        let events: Vec<WireDelta> = whole("gossip", rest)?;
        let (round, stream) = (u16::from_be_bytes(*round), u16::from_be_bytes(*stream));
        Ok(Self { root: NodeId(*root), round, stream, events })
    }

    /// The bytes of the same events as they are forwarded.
    pub fn set_round(bytes: &mut [u8], round: u16) {
        if let Some(place) = bytes.get_mut(16..18) {
            place.copy_from_slice(&round.to_be_bytes());
        }
    }

    /// The stream, without decoding the rest.
    #[must_use]
    pub fn stream_of(bytes: &[u8]) -> Option<u16> {
        Some(u16::from_be_bytes(bytes.get(18..HEAD_BYTES)?.try_into().ok()?))
    }

    /// The events' dots.
    #[must_use]
    pub fn dots(&self) -> Dots {
        dots_of(&self.events)
    }
}

/// The dots of events.
#[must_use]
pub fn dots_of<'e>(events: impl IntoIterator<Item = &'e WireDelta>) -> Dots {
    let mut set = crate::dots::DotSet::new();
    for event in events {
        set.extend(&event.dots);
    }
    set.to_dots()
}

/// The bytes of a control message.
///
/// # Errors
/// [`Malformed`] when it is larger than [`CONTROL_BYTES_MAX`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Malformed> {
    let bytes =
        postcard::to_stdvec(message).map_err(|e| Malformed::new("message", e.to_string()))?;
    if bytes.len() > CONTROL_BYTES_MAX {
        return Err(Malformed::new("message", format!("{} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// Reads a control message.
///
/// # Errors
/// [`Malformed`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    if bytes.len() > CONTROL_BYTES_MAX {
        return Err(Malformed::new("message", format!("{} bytes", bytes.len())));
    }
    whole("message", bytes)
}

fn whole<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Malformed> {
    let (message, rest) =
        postcard::take_from_bytes(bytes).map_err(|e| Malformed::new(what, e.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(Malformed::new(what, format!("{} bytes too many", rest.len())))
    }
}

fn short() -> Malformed {
    Malformed::new("gossip", "too short for its head")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weald_storage::Actor;

    use super::*;

    fn sample() -> Gossip {
        let node = NodeId([7; 16]);
        let dots = Dots(vec![(Actor { node, incarnation: 2 }, vec![(3, 5)])]);
        let event = WireDelta { table: "t".into(), key: vec![1, 2], object: vec![3], dots };
        Gossip { root: node, round: 1, stream: 0x0203, events: vec![event] }
    }

    #[test]
    fn gossip_is_forwarded_without_encoding_it_again() {
        let mut gossip = sample();
        let mut bytes = gossip.encode().unwrap();
        assert_eq!(bytes[..16], [7; 16]);
        assert_eq!(bytes[16..24], [0, 1, 2, 3, 1, 1, b't', 2]);
        assert_eq!(Gossip::decode(&bytes).as_ref(), Ok(&gossip));
        Gossip::set_round(&mut bytes, 0x0405);
        gossip.round = 0x0405;
        assert_eq!(bytes, gossip.encode().unwrap());
        assert_eq!(Gossip::stream_of(&bytes), Some(0x0203));
        assert_eq!((Gossip::stream_of(&bytes[..19]), gossip.dots().count()), (None, 3));
        bytes.push(0);
        assert!(Gossip::decode(&bytes).is_err());
    }

    #[test]
    fn control_messages_round_trip_and_are_bounded() {
        let dots = sample().dots();
        let root = NodeId([1; 16]);
        let have = IHave(vec![Announcement { root, round: 2, stream: 3, dots: dots.clone() }]);
        assert_eq!(decode(&encode(&have).unwrap()), Ok(have.clone()));
        let graft = Graft { root, stream: 9, dots };
        assert_eq!(decode(&encode(&graft).unwrap()), Ok(graft));
        assert_eq!(decode(&encode(&Prune { root }).unwrap()), Ok(Prune { root }));
        let large = IHave(vec![have.0[0].clone(); 20_000]);
        assert!(encode(&large).is_err());
        assert!(decode::<IHave>(&vec![0; CONTROL_BYTES_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn messages_decode_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cut in 0_usize..60,
            flip in 0_usize..60,
        ) {
            for bytes in [bytes, {
                let mut bytes = sample().encode().unwrap();
                let at = flip % bytes.len();
                bytes[at] ^= 0x55;
                bytes.truncate(cut);
                bytes
            }] {
                drop(Gossip::decode(&bytes));
                drop(decode::<IHave>(&bytes));
                drop(decode::<Graft>(&bytes));
                drop(decode::<Prune>(&bytes));
            }
        }
    }
}
