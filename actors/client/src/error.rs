//! What can go wrong with a call.

use crate::store::Context;
use std::time::Duration;
use thiserror::Error;
use weald_proto::error::{Current, ErrorCode, WireError};
use weald_proto::hello::Refused;

/// Why a call has no result. The first line of each says what is known about a write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was done: no node could be reached in time.
    #[error("cannot reach {node}: {reason}; is it running, and is the address right?")]
    Unreachable {
        /// The addresses tried.
        node: String,
        /// What the last try said.
        reason: String,
    },
    /// Nothing was done: the node does not let this client in.
    #[error("the node refused the connection: {0}")]
    Refused(Refused),
    /// The outcome of a write is unknown: it was sent, and no answer came.
    #[error(
        "no answer within {0:?}; a write may or may not have happened: read before you repeat it"
    )]
    TimedOut(Duration),
    /// Nothing was done: this replica has not caught up with what the session has seen.
    #[error("not caught up: {0}")]
    NotCaughtUp(String),
    /// The write is done and stays: it is durable on the node that took it, but fewer other members than asked for had it by
    /// the deadline. The rest get it later as any write.
    #[error(
        "the write is durable on the node, but {acked} of {wanted} other members have it so far"
    )]
    ConcernNotMet {
        /// Other members that are known to have it.
        acked: u8,
        /// How many were asked for.
        wanted: u8,
        /// The context after the write.
        context: Context,
    },
    /// Nothing was done: something else is stored than was expected. Carries what is stored.
    #[error("conflict: {message}; decide on the current values and write again with their context")]
    Conflict {
        /// What the node said.
        message: String,
        /// What is stored now, when the node told.
        current: Current,
    },
    /// Nothing was done: the node has no space left; reads go on.
    #[error("storage full: {0}; free some space on the node, then try again")]
    StorageFull(String),
    /// Nothing was done: the request is wrong, and doing it again cannot help.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Nothing was done: what the request names is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// Nothing was done: this client may not do that.
    #[error("forbidden: {0}; ask an operator for another role")]
    Forbidden(String),
    /// Nothing was done: too much is in flight; try later, or with fewer calls at a time.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// Nothing was done: the actor that should answer is down at the moment; try later.
    #[error("unavailable: {0}; try again")]
    Unavailable(String),
    /// Nothing was done: the node takes no writes because of where it stands in its cluster (fenced, evicted, under a name that
    /// is another's). Another node may do it; this one may once that is resolved.
    #[error("the node takes no writes: {0}")]
    NotServing(String),
    /// The stored record is damaged and is not served.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// Nothing was done: the name belongs to another.
    #[error("name taken: {0}")]
    Taken(String),
    /// Nothing was done: the node is of a release that does not know this call.
    #[error("not supported by this node: {0}")]
    Unsupported(String),
    /// Whether the actor has the message is not known: the way to it broke while it was there. The text says where.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Something failed that should not; whether a write happened is not known.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Whether the same call may succeed a little later. After [`Error::TimedOut`] and
    /// [`Error::Unknown`] it may have happened already.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::TimedOut(_)
                | Self::Unknown(_)
                | Self::NotCaughtUp(_)
                | Self::Overloaded(_)
                | Self::Unavailable(_)
                | Self::NotServing(_)
        )
    }

    /// The class the node gave it, if it came from a node.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        Some(match self {
            // A write whose concern is not met is none of the node's errors: it was done.
            Self::Unreachable { .. } | Self::Refused(_) | Self::ConcernNotMet { .. } => {
                return None;
            }
            Self::TimedOut(_) => ErrorCode::TimedOut,
            Self::NotCaughtUp(_) => ErrorCode::NotCaughtUp,
            Self::Conflict { .. } => ErrorCode::Conflict,
            Self::StorageFull(_) => ErrorCode::StorageFull,
            Self::Invalid(_) => ErrorCode::Invalid,
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::Overloaded(_) => ErrorCode::Overloaded,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::NotServing(_) => ErrorCode::NotServing,
            Self::Corrupt(_) => ErrorCode::Corrupt,
            Self::Taken(_) => ErrorCode::Taken,
            Self::Unsupported(_) => ErrorCode::Unsupported,
            Self::Unknown(_) => ErrorCode::Unknown,
            Self::Internal(_) => ErrorCode::Internal,
        })
    }

    pub(crate) fn from_node(error: WireError, deadline: Duration) -> Self {
        let WireError { code, message, current } = error;
        match code {
            ErrorCode::Invalid => Self::Invalid(message),
            ErrorCode::NotFound => Self::NotFound(message),
            ErrorCode::Forbidden => Self::Forbidden(message),
            ErrorCode::Conflict => {
                let current =
                    current.unwrap_or_else(|| Current { values: Vec::new(), context: Vec::new() });
                Self::Conflict { message, current }
            }
            ErrorCode::StorageFull => Self::StorageFull(message),
            ErrorCode::NotCaughtUp => Self::NotCaughtUp(message),
            ErrorCode::Overloaded => Self::Overloaded(message),
            ErrorCode::Unavailable => Self::Unavailable(message),
            ErrorCode::NotServing => Self::NotServing(message),
            ErrorCode::TimedOut => Self::TimedOut(deadline),
            ErrorCode::Corrupt => Self::Corrupt(message),
            ErrorCode::Unsupported => Self::Unsupported(message),
            ErrorCode::Taken => Self::Taken(message),
            ErrorCode::Unknown => Self::Unknown(message),
            ErrorCode::Internal => Self::Internal(message),
            // A class that a later release has added.
            _ => Self::Internal(message),
        }
    }
}

impl From<WireError> for Error {
    /// As an entry of a batch's result: a deadline has no part in it.
    fn from(error: WireError) -> Self {
        Self::from_node(error, Duration::ZERO)
    }
}
