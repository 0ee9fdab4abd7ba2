//! How commands talk to a node.
//!
//! Guarantees: every error is one of four kinds, each with an exit code of its own; [`Retry`] repeats only what may be repeated.
//! Refuses: knowing how the node is reached.

use crate::exit::{Exit, Failure};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use weald_proto::request::Call;
use weald_proto::{ErrorCode, WireError};

/// A node, as seen by a command.
pub(crate) trait Api: Send + Sync + 'static {
    /// Sends a request and waits for the reply.
    fn request<C: Call>(
        &self,
        call: C,
        deadline: Duration,
    ) -> impl Future<Output = Result<C::Reply, ApiError>> + Send;
}

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// The node cannot be reached. Nothing was done.
    #[error("{0}")]
    Unreachable(String),
    /// The node does not let this client in. Nothing was done.
    #[error("{0}")]
    Refused(String),
    /// No answer in time. A write may or may not have happened.
    #[error("{0}")]
    Unknown(String),
    /// The node answered with an error.
    #[error("{0}")]
    Node(#[from] WireError),
}

impl ApiError {
    /// Whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Unknown(_) => true,
            Self::Refused(_) => false,
            Self::Node(e) => is_transient(e.code),
        }
    }

    /// The exit code it stands for.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable(_) => Exit::Unreachable,
            Self::Refused(_) => Exit::Refused,
            Self::Unknown(_) => Exit::TimedOut,
            Self::Node(e) => exit_of(e.code),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

/// Whether an error of that class may be gone a little later.
pub(crate) fn is_transient(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Overloaded
            | ErrorCode::Unavailable
            | ErrorCode::TimedOut
            | ErrorCode::Unknown
            | ErrorCode::NotCaughtUp
            | ErrorCode::NotServing
    )
}

/// The exit code an error of that class stands for.
pub(crate) fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::Invalid | ErrorCode::Unsupported => Exit::Usage,
        ErrorCode::NotFound => Exit::Unhealthy,
        ErrorCode::Forbidden => Exit::Refused,
        ErrorCode::Conflict | ErrorCode::Taken => Exit::Conflict,
        ErrorCode::StorageFull => Exit::StorageFull,
        ErrorCode::NotCaughtUp
        | ErrorCode::Overloaded
        | ErrorCode::Unavailable
        | ErrorCode::NotServing => Exit::Busy,
        ErrorCode::TimedOut | ErrorCode::Unknown => Exit::TimedOut,
        // A class of a later release is some fault of the node for us.
        _ => Exit::NodeFault,
    }
}

/// Repeats a request while its failure may pass, with growing pauses, up to a time limit.
///
/// Only for reads and for writes that may be done twice: after [`ApiError::Unknown`] the first one may have happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    until: Instant,
    pause: Duration,
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Retry {
    /// Starts the clock.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, pause: PAUSE_MIN }
    }

    /// Waits before the next try, or gives the error back when there is none.
    pub(crate) async fn after(&mut self, error: ApiError) -> Result<(), ApiError> {
        if !error.is_transient() || Instant::now() + self.pause > self.until {
            return Err(error);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Sends a request that may be done twice until it is answered or the time is over.
pub(crate) async fn request_again<A: Api, C: Call + Clone>(
    api: &A,
    call: C,
    deadline: Duration,
    limit: Duration,
) -> Result<C::Reply, ApiError> {
    let mut retry = Retry::new(limit);
    loop {
        match api.request(call.clone(), deadline).await {
            Ok(reply) => return Ok(reply),
            Err(error) => retry.after(error).await?,
        }
    }
}
