//! The handshake between nodes.
//!
//! # Shape
//! Inside mutual TLS, as in [`super`] but for the bound, [`crate::limits::NODE_HELLO_BYTES_MAX`]:
//!
//! ```text
//! dialler                                              acceptor
//!   MAGIC, Hello{role: Node, ..}, NodeHello{..} ─►
//!                     ◄─ NodeAnswer::Welcome{hello, cookie} | NodeAnswer::Refused
//! ```
//! [`NodeHello`] begins with the versions, and a refusal is encoded as in [`super::Answer`]: these keep their encoding for
//! ever, so that nodes of any two releases can tell each other why they do not talk. The rest of the hello belongs to the
//! version. A stranger without a certificate is refused after the first hello.

use super::{HelloError, Refused};
use crate::limits::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, CAPABILITIES_MAX, CAPABILITY_BYTES_MAX, LANES_MAX,
    NAME_BYTES_MAX,
};
use serde::{Deserialize, Serialize};

/// Least and greatest version of the protocol between nodes that this release speaks. 2: connections are closed by agreement,
/// routes are told along trees and carry what they have replaced. 3: so are changes of the membership, and views are compared by
/// what each has before anything is sent. 4: messages to named actors at other nodes.
pub const VERSIONS: (u16, u16) = (4, 4);

/// Number of channels between nodes.
pub const CHANNELS: usize = 3;

/// What a node says of itself and of the connection it opens; the answer says the same of the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHello {
    /// Least and greatest version that it speaks. Always first.
    pub versions: (u16, u16),
    /// Its cluster.
    pub cluster: String,
    /// Its name, which its certificate proves.
    pub name: String,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its incarnation.
    pub incarnation: u32,
    /// Random number of its process: tells a restarted node from a copy of one that runs.
    pub boot: [u8; 16],
    /// Partitions of its keys.
    pub partitions: u16,
    /// Lanes of each channel. The smaller number of both sides counts.
    pub lanes: [u8; CHANNELS],
    /// Channel of this connection.
    pub channel: u8,
    /// Lane of this connection.
    pub lane: u8,
    /// Where it listens, `host:port`.
    pub addresses: Vec<String>,
    /// What it can do beyond its version, by name.
    pub capabilities: Vec<String>,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
}

/// The acceptor's answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeAnswer {
    /// Welcome; the stream now speaks `ractor_cluster`.
    Welcome {
        /// The acceptor.
        hello: NodeHello,
        /// Cookie of this connection, 64 hex digits.
        cookie: String,
    },
    /// No, and why. The connection ends. Encoded as a refusal in [`super::Answer`] is.
    Refused(Refused),
}

impl std::fmt::Debug for NodeAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Welcome { hello, .. } => {
                f.debug_struct("Welcome").field("hello", hello).finish_non_exhaustive()
            }
            Self::Refused(refused) => f.debug_tuple("Refused").field(refused).finish(),
        }
    }
}

/// The greatest version that both speak.
///
/// # Errors
/// [`Refused::Versions`].
pub fn agree(ours: (u16, u16), theirs: (u16, u16)) -> Result<u16, Refused> {
    let version = ours.1.min(theirs.1);
    if version < ours.0.max(theirs.0) {
        return Err(Refused::Versions { ours, theirs });
    }
    Ok(version)
}

/// The versions in front of an encoded [`NodeHello`] of whatever version.
///
/// # Errors
/// [`HelloError::Malformed`].
pub fn versions_of(body: &[u8]) -> Result<(u16, u16), HelloError> {
    let (versions, _rest) =
        postcard::take_from_bytes(body).map_err(|e| HelloError::Malformed(e.to_string()))?;
    Ok(versions)
}

impl NodeHello {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`Refused::Malformed`], which names the bound.
    pub fn check(&self) -> Result<(), Refused> {
        let bad = |what: &str| Err(Refused::Malformed(what.to_owned()));
        if self.cluster.len() > NAME_BYTES_MAX || self.name.len() > NAME_BYTES_MAX {
            return bad("a name is too long");
        }
        if self.addresses.len() > ADDRESSES_MAX
            || self.addresses.iter().any(|a| a.len() > ADDRESS_BYTES_MAX)
        {
            return bad("too many or too long addresses");
        }
        if self.capabilities.len() > CAPABILITIES_MAX
            || self.capabilities.iter().any(|c| c.len() > CAPABILITY_BYTES_MAX)
        {
            return bad("too many or too long capabilities");
        }
        if self.lanes.iter().any(|lanes| !(1..=LANES_MAX).contains(lanes)) {
            return bad("lanes out of range");
        }
        match self.lanes.get(usize::from(self.channel)) {
            Some(lanes) if self.lane < *lanes => Ok(()),
            _ => bad("no such channel and lane"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::{Answer, decode, encode_within};
    use crate::limits::NODE_HELLO_BYTES_MAX;

    fn hello() -> NodeHello {
        NodeHello {
            versions: VERSIONS,
            cluster: "blue".into(),
            name: "n1".into(),
            uuid: [1; 16],
            incarnation: 3,
            boot: [2; 16],
            partitions: 8,
            lanes: [1, 2, 2],
            channel: 1,
            lane: 1,
            addresses: vec!["127.0.0.1:18086".into()],
            capabilities: vec![],
            nonce: [4; 32],
        }
    }

    #[test]
    fn versions_overlap_or_are_refused_with_both_named() {
        assert_eq!(agree((1, 3), (2, 5)), Ok(3));
        assert_eq!(agree((1, 1), (1, 1)), Ok(1));
        let old = agree((3, 4), (1, 2)).unwrap_err().to_string();
        assert!(old.contains("3 to 4") && old.contains("1 to 2"), "{old}");
        assert!(old.contains("the dialled one is newer"), "{old}");
        let new = agree((1, 2), (3, 4)).unwrap_err().to_string();
        assert!(new.contains("the dialling one is newer"), "{new}");
    }

    #[test]
    fn hello_of_an_unknown_version_still_tells_its_versions() {
        let encoded = encode_within(&(7_u16, 9_u16, "something else"), NODE_HELLO_BYTES_MAX);
        assert_eq!(versions_of(&encoded.unwrap()[2..]), Ok((7, 9)));
        let encoded = encode_within(&hello(), NODE_HELLO_BYTES_MAX).unwrap();
        assert_eq!(versions_of(&encoded[2..]), Ok(VERSIONS));
        assert_eq!(decode::<NodeHello>(&encoded[2..]), Ok(hello()));
        assert_eq!(hello().check(), Ok(()));
    }

    #[test]
    fn refusals_of_both_handshakes_have_the_same_bytes() {
        let refused = Refused::Versions { ours: (1, 2), theirs: (3, 4) };
        let bytes = postcard::to_stdvec(&Answer::Refused(refused.clone())).unwrap();
        assert_eq!(bytes, [1, 6, 1, 2, 3, 4], "golden bytes");
        assert_eq!(decode::<NodeAnswer>(&bytes), Ok(NodeAnswer::Refused(refused)));
    }

    #[test]
    fn hello_over_a_bound_is_refused() {
        let cases: [fn(&mut NodeHello); 6] = [
            |h| h.name = "n".repeat(300),
            |h| h.addresses = vec![String::new(); 9],
            |h| h.capabilities = vec!["c".repeat(40)],
            |h| h.lanes = [0, 1, 1],
            |h| h.channel = 3,
            |h| h.lane = 2,
        ];
        for case in cases {
            let mut bad = hello();
            case(&mut bad);
            assert!(matches!(bad.check(), Err(Refused::Malformed(_))), "{bad:?}");
        }
    }
}
