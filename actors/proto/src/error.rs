//! Errors that travel from a node to its client.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The class of an error; stable numbers by position, new ones only at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request itself is wrong (bad table name, key too long, bad token); doing it again cannot help.
    Invalid,
    /// The request names something that is not there (an actor, a path, a client).
    NotFound,
    /// The caller may not do this.
    Forbidden,
    /// `put_if`: the stored state is not the expected one. The error carries what is stored.
    Conflict,
    /// No space; reads go on, a later try may succeed.
    StorageFull,
    /// This replica has not caught up with the caller's session in time.
    NotCaughtUp,
    /// Too much in flight; nothing was done, try later.
    Overloaded,
    /// The actor that should answer is down at the moment; nothing was done, try later.
    Unavailable,
    /// The answer did not come in time. A write may or may not have happened.
    TimedOut,
    /// The stored record is damaged and is not served.
    Corrupt,
    /// The node does not know this kind of request (an older release).
    Unsupported,
    /// The name is taken by another owner.
    Taken,
    /// The node failed in a way it cannot classify; the text says how.
    Internal,
    /// The node takes no writes because of where it stands in its cluster (fenced, evicted, under a name that is another's);
    /// the text says why. Nothing was done; another node may do it.
    NotServing,
    /// The way to the actor broke: it may or may not have the message. The text says where.
    Unknown,
}

/// An error as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct WireError {
    /// Its class.
    pub code: ErrorCode,
    /// What was wrong and what was expected.
    pub message: String,
    /// With [`ErrorCode::Conflict`]: the values stored now, and their context.
    pub current: Option<Current>,
}

/// What is stored under a key now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// Live values; none when the key is absent, several when they are siblings.
    pub values: Vec<Vec<u8>>,
    /// The context to hand back with the next write.
    pub context: Vec<u8>,
}

impl WireError {
    /// An error without a current state.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), current: None }
    }
}
