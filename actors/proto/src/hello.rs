//! The handshake on the cluster port, before `ractor_cluster` sees a byte.
//!
//! # Shape
//! The dialler opens with [`MAGIC`]; then each message is `len: u16 big-endian | postcard`, at most
//! [`crate::limits::HELLO_BYTES_MAX`] bytes, and the whole must be done in [`crate::limits::HELLO_TIMEOUT_MS`]:
//!
//! ```text
//! client                                   node
//!   MAGIC, Hello{version, role, name, nonce} ─►
//!                          ◄─ Challenge{node, uuid, incarnation, nonce} | Refused
//!   Proof{signature over transcript} ─►
//!                          ◄─ Accepted{session, cookie} | Refused
//! ```
//! The client signs `SIGN_CONTEXT ‖ hello ‖ challenge` (the encoded messages) with its Ed25519 key: the node stores public
//! keys only, and a recorded handshake is of no use a second time, as both nonces are new. The cookie is random per
//! connection and serves `ractor_cluster`'s own handshake; the cluster's secret is never told to a client.
//! The channel is authenticated, not encrypted: beyond loopback it belongs inside TLS.
//!
//! Nodes speak [`node`] after the hello; both ends prove who they are with certificates.

pub mod node;

use crate::limits::HELLO_BYTES_MAX;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

/// First bytes of every connection.
pub const MAGIC: [u8; 6] = *b"WEALD\x01";
/// Version of the handshake.
pub const VERSION: u16 = 1;
/// Domain separation of the signature.
pub const SIGN_CONTEXT: &[u8] = b"weald client handshake v1\0";

/// What the dialler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A member of the cluster.
    Node,
    /// A program that uses the cluster.
    Client,
}

/// First message, from the dialler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u16,
    /// What the dialler is.
    pub role: Role,
    /// The cluster it wants, if it minds.
    pub cluster: Option<String>,
    /// The client's name, which selects its public key.
    pub name: String,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
}

/// The node's answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Go on: sign this.
    Challenge(Challenge),
    /// No, and why. The connection ends.
    Refused(Refused),
}

/// What the client signs, together with its hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Name of the node.
    pub node: String,
    /// Node UUID.
    pub uuid: [u8; 16],
    /// Its incarnation.
    pub incarnation: u32,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
}

/// The client's proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Ed25519 signature, 64 bytes.
    pub signature: Vec<u8>,
}

/// The node's last word.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Welcome; the stream now speaks `ractor_cluster`.
    Accepted {
        /// Number of this connection at the node.
        session: u64,
        /// Cookie of this connection, 64 hex digits.
        cookie: String,
    },
    /// No, and why. The connection ends.
    Refused(Refused),
}

impl std::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted { session, .. } => {
                f.debug_struct("Accepted").field("session", session).finish_non_exhaustive()
            }
            Self::Refused(refused) => f.debug_tuple("Refused").field(refused).finish(),
        }
    }
}

/// Why a handshake ended. Says no more than the dialler needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refused {
    /// The node speaks another version.
    #[error("handshake version {theirs} is not spoken here (this node speaks {ours})")]
    Version {
        /// What the node speaks.
        ours: u16,
        /// What the dialler said.
        theirs: u16,
    },
    /// The node belongs to another cluster.
    #[error("this node belongs to another cluster")]
    Cluster,
    /// The name is unknown or the signature is wrong; which of the two is not told.
    #[error("unknown client or wrong key")]
    Credentials,
    /// Too many connections.
    #[error("too many connections")]
    Busy,
    /// The node is stopping or not yet started.
    #[error("the node is not serving")]
    NotServing,
    /// This port does not take dialler of this role.
    #[error("role not accepted here")]
    Role,
    /// No version of the protocol between nodes is spoken by both.
    #[error(
        "the dialled node speaks versions {0} to {1}, the dialling one {2} to {3}: the {newer} one is newer, upgrade the other",
        ours.0, ours.1, theirs.0, theirs.1, newer = if ours.1 > theirs.1 { "dialled" } else { "dialling" }
    )]
    Versions {
        /// Least and greatest version of the node that refuses.
        ours: (u16, u16),
        /// Those of the dialler.
        theirs: (u16, u16),
    },
    /// The nodes belong to different clusters.
    #[error("the dialled node belongs to cluster {ours:?}, the dialling one to {theirs:?}")]
    OtherCluster {
        /// Cluster of the node that refuses.
        ours: String,
        /// That of the dialler.
        theirs: String,
    },
    /// The nodes divide their keys differently.
    #[error(
        "the dialled node has {ours} partitions, the dialling one {theirs}: they must be equal"
    )]
    Partitions {
        /// Partitions of the node that refuses.
        ours: u16,
        /// Those of the dialler.
        theirs: u16,
    },
    /// The certificate does not prove what the hello says, or there is none.
    #[error("certificate refused: {0}")]
    Certificate(String),
    /// An operator has removed this node from the cluster.
    #[error("node {0:?} was removed from this cluster")]
    Evicted(String),
    /// Another node of this name is alive.
    #[error("the name {0:?} belongs to another node that is alive")]
    NameTaken(String),
    /// Another process with the same node id is connected: a copied data directory.
    #[error(
        "another process with node id {0} is connected already: was its data directory copied?"
    )]
    Clone(String),
    /// There is a connection of this channel and lane already.
    #[error("this lane is connected already")]
    Duplicate,
    /// The node dialled itself.
    #[error("this is the node itself")]
    Oneself,
    /// The hello breaks a bound.
    #[error("hello refused: {0}")]
    Malformed(String),
}

/// Why bytes are not a handshake message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The first bytes are not [`MAGIC`].
    #[error("not a weald connection: first bytes are {0:02x?}")]
    Magic([u8; 6]),
    /// Longer than [`HELLO_BYTES_MAX`], or for a node [`crate::limits::NODE_HELLO_BYTES_MAX`].
    #[error("handshake message of {0} bytes is over the limit")]
    TooLarge(usize),
    /// Does not decode.
    #[error("malformed handshake message: {0}")]
    Malformed(String),
}

/// Encodes a message with its length in front.
///
/// # Errors
/// [`HelloError::TooLarge`], when a name is too long.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, HelloError> {
    encode_within(message, HELLO_BYTES_MAX)
}

/// As [`encode`], with another bound.
///
/// # Errors
/// As [`encode`].
pub fn encode_within<T: Serialize>(message: &T, max: usize) -> Result<Vec<u8>, HelloError> {
    let body = postcard::to_stdvec(message).map_err(|e| HelloError::Malformed(e.to_string()))?;
    match u16::try_from(body.len()) {
        Ok(len) if body.len() <= max => {
            let mut out = len.to_be_bytes().to_vec();
            out.extend_from_slice(&body);
            Ok(out)
        }
        _ => Err(HelloError::TooLarge(body.len())),
    }
}

/// Decodes a message without its length.
///
/// # Errors
/// [`HelloError::Malformed`], also when bytes are left over.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, HelloError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(HelloError::Malformed(format!("{} bytes after its end", rest.len()))),
        Err(e) => Err(HelloError::Malformed(e.to_string())),
    }
}

/// The bytes that the client signs: both messages as they were sent, without lengths.
#[must_use]
pub fn transcript(hello: &[u8], challenge: &[u8]) -> Vec<u8> {
    let mut out = SIGN_CONTEXT.to_vec();
    for part in [hello, challenge] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}
