//! The seam between the ways into a node and what a node does.
//!
//! What it is: [`Service`] executes requests, [`Push`] sends a frame to a connected client, [`Credentials`] says who may
//! connect; [`Caller`] is the client that a request comes from. The socket and the cluster port call these traits, the gate
//! implements them.
//!
//! What it guarantees: every request frame gets exactly one answer with the same correlation id, and [`Service::closed`] is
//! called once per session that has called, after its last request was handed in.
//!
//! What it refuses: I/O, and any knowledge of frames beyond their header.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use weald_proto::Frame;
use weald_proto::request::ClientRole;

/// A boxed future that may be sent to another task.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The client that a request comes from.
pub struct Caller {
    /// Number of its session, never used twice by one process.
    pub session: u64,
    /// Its name; `local` for the Unix socket.
    pub name: String,
    /// What it may do.
    pub role: ClientRole,
    /// Where it is, for logs: an address or `unix`.
    pub peer: String,
    /// Sends it a frame.
    pub push: PushHandle,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("session", &self.session)
            .field("name", &self.name)
            .field("role", &self.role)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Sends a frame to a client and awaits its reply frame.
pub trait Push: Send + Sync {
    /// Sends `frame` with a correlation id of the session's own and waits for the reply.
    ///
    /// The future fails at once when the session ends.
    fn request(
        &self,
        frame: Frame,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Frame, PushError>>;
}

/// A shared [`Push`].
pub type PushHandle = Arc<dyn Push>;

/// Why a push had no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PushError {
    /// The session was over before: nothing was sent.
    #[error("the client's session has ended")]
    Closed,
    /// The session ended before the reply: the client may have the frame.
    #[error("the client's session ended; the actor may or may not have the message")]
    Lost,
    /// No reply in time.
    #[error("the client did not answer in time")]
    Timeout,
    /// Too much is waiting for this client already; nothing was sent.
    #[error("too much is waiting for the client")]
    Overloaded,
}

/// Executes the requests of clients.
pub trait Service: Send + Sync + 'static {
    /// Executes one request. Always answers, with the correlation id of `frame`.
    ///
    /// Called in the order in which the client sent its requests; whatever must keep that order (the writes of a key) is
    /// handed on before this returns, the future is only for waiting.
    fn call(&self, caller: Arc<Caller>, frame: Frame) -> BoxFuture<'static, Frame>;

    /// The session has ended: what it owns (names) is freed.
    fn closed(&self, session: u64);
}

/// The clients that may connect.
pub trait Credentials: Send + Sync + 'static {
    /// The Ed25519 public key and the role of a client, if there is such a client.
    fn lookup(&self, name: &str) -> Option<([u8; 32], ClientRole)>;

    /// Changes its number whenever a credential is added, changed or taken away; sessions then look theirs up again and end
    /// if it is gone.
    fn changed(&self) -> tokio::sync::watch::Receiver<u64>;
}
