//! What can go wrong when something is to be started or stopped by hand.

use std::time::Duration;

/// A start that did not happen. In every case nothing of what was to be started is left running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The specification contradicts itself.
    #[error("{path}: {problem}")]
    InvalidSpec {
        /// The child or supervisor.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A child of this id exists.
    #[error("a child {id:?} exists already")]
    Duplicate {
        /// The id.
        id: String,
    },
    /// The dynamic supervisor has as many children as it may have.
    #[error("{max} children are there, which is the limit")]
    Full {
        /// The limit.
        max: usize,
    },
    /// `pre_start` (or the factory) failed.
    #[error("{path} did not start: {reason}: {error}")]
    Failed {
        /// Which child; below the one asked for, when a supervisor's child failed.
        path: String,
        /// `error` or `panic`.
        reason: String,
        /// What it said.
        error: String,
        /// Where it panicked.
        location: Option<String>,
    },
    /// `pre_start` took longer than allowed.
    #[error("{path} did not start within {limit:?}")]
    Timeout {
        /// Which child.
        path: String,
        /// The time it had.
        limit: Duration,
    },
    /// The supervisor is down, stopping, or did not answer.
    #[error("the supervisor is not up")]
    Down,
}

/// A child that could not be terminated by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TerminateError {
    /// There is no such child.
    #[error("no child {id:?}")]
    NotFound {
        /// The id.
        id: String,
    },
    /// The supervisor is down, stopping, or did not answer.
    #[error("the supervisor is not up")]
    Down,
}

impl StartError {
    /// The reason name for records.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::InvalidSpec { .. }
            | Self::Duplicate { .. }
            | Self::Full { .. }
            | Self::Failed { .. }
            | Self::Down => "start_failed",
        }
    }

    /// Where it panicked, if it did.
    pub(crate) fn location(&self) -> Option<String> {
        match self {
            Self::Failed { location, .. } => location.clone(),
            Self::InvalidSpec { .. }
            | Self::Duplicate { .. }
            | Self::Full { .. }
            | Self::Timeout { .. }
            | Self::Down => None,
        }
    }
}
