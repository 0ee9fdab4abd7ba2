//! Sessions: what a program has seen, carried from call to call and from node to node.
//!
//! What it guarantees: a call of a session sees all that earlier calls of it have read and written, on whatever node of the
//! cluster it is served, and its writes come after all that in causal order; otherwise it is [`Error::NotCaughtUp`] by its
//! deadline. Calls of one session run one after the other, in the order of the first polls.
//!
//! What it refuses: to say anything of a write whose outcome is unknown ([`Error::TimedOut`]): later calls may or may not
//! see it. Tokens are opaque, and of use within one cluster only.

use crate::client::Client;
use crate::error::Error;
use crate::store::{Context, Delete, Got, Put, PutIf, millis};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::MutexGuard as Turn;
use tokio::time::Instant;
use weald_proto::limits::WAIT_MS_MAX;
use weald_proto::request::{self, Op};

/// Most of a deadline that is kept back from the node's wait, so that its answer is here in time.
const RETURN_TIME_MAX: Duration = Duration::from_millis(500);

/// What was seen so far, as bytes to store or to send to another program.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token(Vec<u8>);

impl Token {
    /// From the bytes of [`Token::as_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// To keep it somewhere. Empty: nothing was seen yet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn to_send(&self) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then(|| self.0.clone())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// How many must have a write before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Concern {
    /// The node that takes it, as its table promises.
    #[default]
    Local,
    /// That node, and so many other members. When they do not have it by the deadline, the write is not undone:
    /// [`Error::ConcernNotMet`] says how many have it.
    Members(u8),
}

impl Concern {
    const fn count(self) -> u8 {
        match self {
            Self::Local => 0,
            Self::Members(count) => count,
        }
    }
}

/// A session. Clones are the same session.
///
/// ```
/// # use weald_client::{Client, Credential, Session};
/// # use weald_client_testing::FakeNode;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = FakeNode::start().await;
/// # let client = Client::unix(node.socket()).await?;
/// # let elsewhere = Client::unix(node.socket()).await?;
/// let session = client.session();
/// session.put("colours", "sky", "blue").await?;
/// let token = session.token();
///
/// // In another program, at another node:
/// let session = Session::resume(&elsewhere, token);
/// assert_eq!(session.get("colours", "sky").await?.value(), Some(&b"blue"[..]));
/// # node.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    client: Client,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Tokens cannot be put together here, so one call at a time carries the newest.
    turn: tokio::sync::Mutex<()>,
    token: Mutex<Token>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("token", &self.token()).finish_non_exhaustive()
    }
}

impl Client {
    /// Begins a session that has seen nothing yet.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::resume(self, Token::default())
    }
}

impl Session {
    /// Goes on, at this client's node, where another session of the same cluster was.
    #[must_use]
    pub fn resume(client: &Client, token: Token) -> Self {
        let shared = Shared { turn: tokio::sync::Mutex::default(), token: Mutex::new(token) };
        Self { client: client.clone(), shared: Arc::new(shared) }
    }

    /// What was seen so far.
    #[must_use]
    pub fn token(&self) -> Token {
        self.kept().clone()
    }

    /// Reads a key.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::NotCaughtUp`] when the node lacks what this session has seen.
    pub async fn get(&self, table: &str, key: impl Into<Vec<u8>>) -> Result<Got, Error> {
        self.get_within(table, key, self.client.deadline()).await
    }

    /// As [`Session::get`], with a deadline.
    ///
    /// # Errors
    /// As [`Session::get`].
    pub async fn get_within(
        &self,
        table: &str,
        key: impl Into<Vec<u8>>,
        deadline: Duration,
    ) -> Result<Got, Error> {
        let (_turn, left) = self.turn(deadline).await?;
        let get = request::GetWith {
            table: table.to_owned(),
            key: key.into(),
            token: self.token().to_send(),
            wait_ms: wait_ms(left),
        };
        let seen = self.client.request(get, left).await?;
        *self.kept() = Token(seen.token);
        Ok(seen.current.into())
    }

    /// Writes a key. The result is the context after the write.
    pub fn put(&self, table: &str, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Put {
        self.client.put(table, key, value).in_session(self)
    }

    /// Writes a key if exactly what this context has seen is stored on the node; see [`Client::put_if`].
    pub fn put_if(
        &self,
        table: &str,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        expected: Option<&Context>,
    ) -> PutIf {
        self.client.put_if(table, key, value, expected).in_session(self)
    }

    /// Deletes a key.
    pub fn delete(&self, table: &str, key: impl Into<Vec<u8>>) -> Delete {
        self.client.delete(table, key).in_session(self)
    }

    /// Waits until the client's node has all that this session has seen: for a scan or a watch, which carry no token.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::NotCaughtUp`] at the deadline.
    pub async fn catch_up(&self, deadline: Duration) -> Result<(), Error> {
        let (_turn, left) = self.turn(deadline).await?;
        let Some(token) = self.token().to_send() else { return Ok(()) };
        self.client.request(request::CatchUp { token, wait_ms: wait_ms(left) }, left).await
    }

    /// Waits for the end of the session's calls before; and the time that is left.
    async fn turn(&self, deadline: Duration) -> Result<(Turn<'_, ()>, Duration), Error> {
        let until = Instant::now() + deadline;
        let turn = tokio::time::timeout_at(until, self.shared.turn.lock()).await;
        let late = || Error::Overloaded("calls of this session before it are under way".to_owned());
        Ok((turn.map_err(|_elapsed| late())?, until.saturating_duration_since(Instant::now())))
    }

    fn kept(&self) -> MutexGuard<'_, Token> {
        // Nothing in here panics half-way.
        self.shared.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a write is made.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) client: Client,
    pub(crate) deadline: Duration,
    pub(crate) concern: Concern,
    pub(crate) session: Option<Session>,
}

impl Writing {
    pub(crate) fn new(client: &Client) -> Self {
        let client = client.clone();
        Self { deadline: client.deadline(), client, concern: Concern::Local, session: None }
    }

    /// Makes it.
    pub(crate) async fn run(self, op: Op) -> Result<Context, Error> {
        let Self { client, deadline, concern, session } = self;
        if let Some(session) = session {
            let (_turn, left) = session.turn(deadline).await?;
            let token = session.token().to_send();
            let (written, token) = run_with(&client, op, token, concern, left).await?;
            *session.kept() = token;
            return written;
        }
        if concern != Concern::Local {
            return run_with(&client, op, None, concern, deadline).await?.0;
        }
        let written = match op {
            Op::Put(put) => client.request(put, deadline).await,
            Op::PutIf(put) => client.request(put, deadline).await,
            Op::Delete(delete) => client.request(delete, deadline).await,
        };
        Ok(written?.into())
    }
}

/// The outer error: nothing is known to have been written. The inner one comes with a token that covers the write.
async fn run_with(
    client: &Client,
    op: Op,
    token: Option<Vec<u8>>,
    concern: Concern,
    deadline: Duration,
) -> Result<(Result<Context, Error>, Token), Error> {
    let wanted = concern.count();
    let write = request::WriteWith { op, token, wait_ms: wait_ms(deadline), concern: wanted };
    let written = client.request(write, deadline).await?;
    let context = Context::from_bytes(written.context);
    let result = if written.acked >= wanted {
        Ok(context)
    } else {
        Err(Error::ConcernNotMet { acked: written.acked, wanted, context })
    };
    Ok((result, Token(written.token)))
}

/// How long the node may wait when the answer has to be here by the deadline.
fn wait_ms(deadline: Duration) -> u64 {
    millis(deadline.saturating_sub(RETURN_TIME_MAX.min(deadline / 4))).min(WAIT_MS_MAX)
}
