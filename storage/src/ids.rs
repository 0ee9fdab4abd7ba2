//! Identity of nodes, of their lives (actors) and of single writes (dots).
//!
//! Guarantees: the order of [`NodeId`], [`Actor`] and [`Dot`] is the order of their big-endian
//! bytes, on every machine and in every release.
//! Refuses: to decide when a life ends; that is the boot's business.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// UUID of a node: drawn at its first boot, kept with its data, never given to another disk.
///
/// # Shape
/// 16 bytes; as text, hyphenated lower-case hex (8-4-4-4-12).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

/// Text that is no node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a node id: expected 36 characters of hyphenated hex, 8-4-4-4-12")]
pub struct NodeIdError;

impl NodeId {
    /// Draws a random id (UUID version 4) from the operating system.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Ok(Self(bytes))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return Err(NodeIdError);
        }
        let mut digits = [0; 32];
        let mut len = 0;
        for (i, &c) in text.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(NodeIdError);
                }
                continue;
            }
            digits[len] = match c {
                b'0'..=b'9' => c - b'0',
                b'a'..=b'f' => c - b'a' + 10,
                b'A'..=b'F' => c - b'A' + 10,
                _ => return Err(NodeIdError),
            };
            len += 1;
        }
        Ok(Self(std::array::from_fn(|i| digits[2 * i] << 4 | digits[2 * i + 1])))
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

/// One life of a node: the only writer of its dots.
///
/// A node that may have forgotten a dot (fresh disk, unclean stop, restored backup) goes on under
/// a higher incarnation, so that a dot names one value for ever.
///
/// # Shape
/// 20 bytes: node UUID, then the incarnation as big-endian `u32`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The node.
    pub node: NodeId,
    /// Number of its life; grows, need not be contiguous.
    pub incarnation: u32,
}

impl Actor {
    /// Length of the byte form.
    pub const LEN: usize = 20;

    /// The byte form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.node.0);
        bytes[16..].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes
    }

    /// Reads the byte form; every value is an actor.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut node = [0; 16];
        let mut incarnation = [0; 4];
        node.copy_from_slice(&bytes[..16]);
        incarnation.copy_from_slice(&bytes[16..]);
        Self { node: NodeId(node), incarnation: u32::from_be_bytes(incarnation) }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.incarnation)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Name of one write: an actor and the number of the write among all writes of that actor in one
/// partition, starting at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The writer.
    pub actor: Actor,
    /// Position among its writes in the partition; never 0.
    pub counter: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00112233-4455-6677-8899-aabbccddeeff";
    const NODE: NodeId = NodeId([
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
        0xff,
    ]);

    #[test]
    fn node_id_text_round_trips() {
        assert_eq!(NODE.to_string(), TEXT);
        assert_eq!(TEXT.parse(), Ok(NODE));
        assert_eq!(TEXT.to_uppercase().parse(), Ok(NODE));
    }

    #[test]
    fn node_id_other_text_is_refused() {
        for text in [
            "",
            "0",
            &TEXT[1..],
            &format!("{TEXT}0"),
            &TEXT.replace('-', ""),
            &TEXT.replace('-', "0"),
            &TEXT.replacen('0', "g", 1),
            &TEXT.replacen('0', "-", 1),
            "\u{e9}0112233-4455-6677-8899-aabbccddeef",
        ] {
            assert_eq!(text.parse::<NodeId>(), Err(NodeIdError), "{text}");
        }
    }

    #[test]
    fn node_id_serde_is_text_for_people_and_bytes_for_machines() {
        assert_eq!(serde_json::to_string(&NODE).unwrap(), format!("\"{TEXT}\""));
        assert_eq!(serde_json::from_str::<NodeId>(&format!("\"{TEXT}\"")).unwrap(), NODE);
        assert_eq!(postcard::to_stdvec(&NODE).unwrap(), NODE.0);
        assert_eq!(postcard::from_bytes::<NodeId>(&NODE.0).unwrap(), NODE);
    }

    #[test]
    fn random_node_ids_are_version_4_and_differ() {
        let (a, b) = (NodeId::random().unwrap(), NodeId::random().unwrap());
        assert_ne!(a, b);
        assert_eq!((a.0[6] >> 4, a.0[8] >> 6), (4, 2));
    }

    #[test]
    fn actor_order_is_byte_order() {
        let actors: Vec<Actor> = [(0, 0), (0, 1), (0, 256), (1, 0), (1, u32::MAX), (255, 7)]
            .map(|(node, incarnation)| Actor { node: NodeId([node; 16]), incarnation })
            .to_vec();
        for pair in actors.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
        }
        for actor in actors {
            assert_eq!(Actor::from_bytes(actor.to_bytes()), actor);
        }
    }
}
