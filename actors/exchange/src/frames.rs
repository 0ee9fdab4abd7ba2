//! Frames of this service, apart from those inside a session.
//!
//! # Shape
//! `corr` is the number of the session, chosen by the side that began it; 0 for the others.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weald_peers::{Malformed, kind};
use weald_storage::{Actor, Clock, NodeId};

use crate::core::clock_bytes;

/// A frame of a session, from the side that began it.
pub(crate) const FROM_INITIATOR: u16 = kind::of(kind::EXCHANGE, 1);
/// A frame of a session, from the other side.
pub(crate) const FROM_RESPONDER: u16 = kind::of(kind::EXCHANGE, 2);
/// [`Clocks`].
pub(crate) const CLOCKS: u16 = kind::of(kind::EXCHANGE, 3);
/// Tell your clocks at once for a while. Body: 1 if all of them are unknown to the sender.
pub(crate) const ASK_CLOCKS: u16 = kind::of(kind::EXCHANGE, 4);
/// To the side that began it: there is no such session here (any more). Body: 1 if there are too many.
pub(crate) const NO_SESSION: u16 = kind::of(kind::EXCHANGE, 5);
/// What do you know of these members? A [`Question`].
pub(crate) const ASK_RELAYED: u16 = kind::of(kind::EXCHANGE, 6);
/// [`Relayed`].
pub(crate) const RELAYED: u16 = kind::of(kind::EXCHANGE, 7);

/// A question about members that the sender is not connected with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Each with a digest of what the sender knows of it; 0 for nothing.
    pub(crate) members: Vec<(NodeId, u64)>,
}

/// What the sender knows of the clocks of others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Relayed {
    /// The member, number of the shard, its actor, its clock.
    pub(crate) clocks: Vec<(NodeId, u16, Actor, Clock)>,
}

impl Question {
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a question is plain data")
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        postcard::from_bytes(body).map_err(|e| Malformed::new("question", e.to_string()))
    }
}

impl Relayed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("clocks are plain data")
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        postcard::from_bytes(body).map_err(|e| Malformed::new("relayed clocks", e.to_string()))
    }
}

/// Clocks of the sender, those that have changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Clocks {
    /// Number of the shard, the sender's actor, its clock.
    pub(crate) clocks: Vec<(u16, Actor, Clock)>,
}

/// About how many bytes of clocks go into one frame.
const CLOCKS_BYTES: usize = 192 * 1024;

impl Clocks {
    /// The bodies of frames for these clocks.
    pub(crate) fn bodies(clocks: &[(u16, Actor, Arc<Clock>)]) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        let (mut part, mut bytes) = (Self::default(), 0);
        for (shard, actor, clock) in clocks {
            bytes += clock_bytes(clock);
            part.clocks.push((*shard, *actor, Clock::clone(clock)));
            if bytes > CLOCKS_BYTES {
                bodies.push(std::mem::take(&mut part).encode());
                bytes = 0;
            }
        }
        if !part.clocks.is_empty() {
            bodies.push(part.encode());
        }
        bodies
    }

    fn encode(self) -> Vec<u8> {
        postcard::to_stdvec(&self).expect("clocks are plain data")
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        postcard::from_bytes(body).map_err(|e| Malformed::new("clocks", e.to_string()))
    }
}
