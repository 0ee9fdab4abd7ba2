//! The client itself: connecting, and the one call that everything else is built on.

use crate::credential::Credential;
use crate::dial::{Line, Target, keep};
use crate::error::Error;
use crate::inbox::Inbox;
use crate::tls;
use crate::wire::{Outcome, Wire};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use weald_link::{IDLE_TIMEOUT_MIN, Limits, SendError};
use weald_proto::frame::Frame;
use weald_proto::limits::{FRAME_BYTES_MAX, IN_FLIGHT_MAX};
use weald_proto::request::{self, Call, decode_reply, request_frame};

/// Time for a call that is given none.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Requests in flight of one client, in KiB; below what a node takes, so that it never has to refuse.
const IN_FLIGHT_KIB: usize = 24 << 10;
/// Pause before a full queue is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// A connection to a node that heals by itself. Clones share it; the last one dropped ends it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    target: String,
    deadline: Duration,
    line: watch::Receiver<Line>,
    inbox: Arc<Inbox>,
    requests: Semaphore,
    kib: Semaphore,
    keeper: tokio::task::JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("node", &self.inner.target)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Builder {
    addresses: Vec<String>,
    credential: Option<Credential>,
    unix: Option<PathBuf>,
    cluster: Option<String>,
    authorities: Option<PathBuf>,
    deadline: Duration,
    limits: Limits,
}

impl Builder {
    /// A node's cluster port, as `host:port`. With several, the next is tried when one fails.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Who the client is.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credential = Some(credential);
        self
    }

    /// The control socket of a node on this machine, in place of addresses.
    #[must_use]
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix = Some(path.into());
        self
    }

    /// Refuse nodes of another cluster.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = Some(name.into());
        self
    }

    /// Speak TLS, and trust the authorities in this PEM file. The node's certificate must name the host of its address.
    #[must_use]
    pub fn tls(mut self, authorities: impl Into<PathBuf>) -> Self {
        self.authorities = Some(authorities.into());
        self
    }

    /// Time for calls that are given none; [`DEADLINE`] unless told.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// A node that is silent for so long is taken for lost; 20 s unless told, at least 6 s.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// Connects: returns once the node has let this client in.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the configuration makes no sense, [`Error::Refused`], [`Error::Unreachable`].
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.start()?;
        client.wire(Instant::now() + client.inner.deadline).await?;
        Ok(client)
    }

    /// As [`Builder::connect`], without waiting: calls wait for the connection, each for its own deadline.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the configuration makes no sense.
    pub fn start(self) -> Result<Client, Error> {
        if self.limits.idle_timeout < IDLE_TIMEOUT_MIN {
            return Err(Error::Invalid(format!("the least idle timeout is {IDLE_TIMEOUT_MIN:?}")));
        }
        let tls = self.authorities.as_deref().map(tls::Connector::new).transpose();
        let tls = tls.map_err(Error::Invalid)?;
        let target = match (self.unix, self.credential) {
            (Some(path), _) if self.addresses.is_empty() => Target::Unix(path),
            (Some(_), _) => {
                return Err(Error::Invalid("give a socket or addresses, not both".to_owned()));
            }
            (None, Some(credential)) if !self.addresses.is_empty() => Target::Tcp {
                addresses: self.addresses,
                credential: Box::new(credential),
                cluster: self.cluster,
                tls,
            },
            (None, Some(_)) => return Err(Error::Invalid("give an address".to_owned())),
            (None, None) => return Err(Error::Invalid("give a credential".to_owned())),
        };
        let (line, line_now) = watch::channel(Line::Down(None));
        let inbox = Arc::<Inbox>::default();
        let name = target.to_string();
        let keeper = tokio::spawn(keep(target, self.limits, Arc::clone(&inbox), line));
        Ok(Client {
            inner: Arc::new(Inner {
                target: name,
                deadline: self.deadline,
                line: line_now,
                inbox,
                requests: Semaphore::new(IN_FLIGHT_MAX),
                kib: Semaphore::new(IN_FLIGHT_KIB),
                keeper,
            }),
        })
    }
}

impl Client {
    /// How to connect, step by step.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            addresses: Vec::new(),
            credential: None,
            unix: None,
            cluster: None,
            authorities: None,
            deadline: DEADLINE,
            limits: Limits::default(),
        }
    }

    /// Connects to the cluster port of a node, `host:port`. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// See [`Builder::connect`].
    pub async fn connect(
        address: impl Into<String>,
        credential: Credential,
    ) -> Result<Self, Error> {
        Self::builder().address(address).credential(credential).connect().await
    }

    /// Connects to the control socket of a node on this machine.
    ///
    /// # Errors
    /// See [`Builder::connect`].
    pub async fn unix(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder().unix(path.as_ref()).connect().await
    }

    /// Whether there is a connection at the moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(*self.inner.line.borrow(), Line::Up(_))
    }

    /// Time for calls that are given none.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.inner.deadline
    }

    /// Sends a request and awaits its reply.
    ///
    /// What is only read, and what was not sent yet, is tried again on a new connection while there is time. A write that
    /// was sent is never sent again: without an answer it ends as [`Error::TimedOut`], its outcome unknown.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn request<C: Call>(&self, call: C, deadline: Duration) -> Result<C::Reply, Error> {
        let until = Instant::now() + deadline;
        let mut frame = request_frame(0, &call);
        let (_request, _kib) = self.permits(&frame, until).await?;
        loop {
            let wire = self.wire(until).await?;
            let sent = match wire.send(&mut frame) {
                Ok(sent) => sent,
                Err(SendError::Closed) => {
                    self.line_after(&wire, until).await;
                    continue;
                }
                Err(SendError::Full { waiting }) if Instant::now() + FULL_PAUSE >= until => {
                    return Err(Error::Overloaded(format!("{waiting} bytes wait to be sent")));
                }
                Err(SendError::Full { .. }) => {
                    tokio::time::sleep(FULL_PAUSE).await;
                    continue;
                }
                Err(e) => return Err(Error::Invalid(e.to_string())),
            };
            match sent.outcome(until).await {
                Outcome::Reply(reply) => {
                    return match decode_reply::<C>(&reply) {
                        Ok(Ok(value)) => Ok(value),
                        Ok(Err(error)) => Err(Error::from_node(error, deadline)),
                        Err(e) => Err(Error::Internal(format!("the node's reply: {e}"))),
                    };
                }
                Outcome::Lost if may_repeat(C::KIND) => self.line_after(&wire, until).await,
                Outcome::Lost | Outcome::Elapsed => return Err(Error::TimedOut(deadline)),
            }
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inner.inbox
    }

    pub(crate) fn line(&self) -> watch::Receiver<Line> {
        self.inner.line.clone()
    }

    /// Takes what the request will occupy at the node; given back with its end.
    async fn permits(
        &self,
        frame: &Frame,
        until: Instant,
    ) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), Error> {
        let len = frame.body.len();
        if len > FRAME_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "a request of {len} bytes is over the limit of {FRAME_BYTES_MAX}"
            )));
        }
        let kib = u32::try_from(len / 1024 + 1).unwrap_or(u32::MAX);
        let both = async {
            let request = self.inner.requests.acquire().await;
            (request, self.inner.kib.acquire_many(kib).await)
        };
        match tokio::time::timeout_at(until, both).await {
            Ok((Ok(request), Ok(kib))) => Ok((request, kib)),
            // Neither semaphore is ever closed.
            Ok(_) | Err(_) => Err(Error::Overloaded(format!(
                "this client has {IN_FLIGHT_MAX} calls or {IN_FLIGHT_KIB} KiB in flight: await some"
            ))),
        }
    }

    /// The connection, as soon as there is one.
    async fn wire(&self, until: Instant) -> Result<Arc<Wire>, Error> {
        let mut line = self.inner.line.clone();
        loop {
            match &*line.borrow_and_update() {
                Line::Up(wire) => return Ok(Arc::clone(wire)),
                Line::Down(Some(refused @ Error::Refused(why))) if is_final(why) => {
                    return Err(refused.clone());
                }
                Line::Down(_) => {}
            }
            match tokio::time::timeout_at(until, line.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => {
                    return Err(match &*line.borrow() {
                        Line::Down(Some(error)) => error.clone(),
                        Line::Down(None) | Line::Up(_) => Error::Unreachable {
                            node: self.inner.target.clone(),
                            reason: "no connection in time".to_owned(),
                        },
                    });
                }
            }
        }
    }

    /// Waits until this connection is no longer the one in use.
    async fn line_after(&self, wire: &Arc<Wire>, until: Instant) {
        let mut line = self.inner.line.clone();
        let changed =
            line.wait_for(|line| !matches!(line, Line::Up(now) if Arc::ptr_eq(now, wire)));
        // Out of time or out of a keeper: the next look at the line tells.
        tokio::time::timeout_at(until, changed).await.ok();
    }
}

/// Whether a refusal will not go away by itself.
fn is_final(refused: &weald_proto::hello::Refused) -> bool {
    use weald_proto::hello::Refused;
    matches!(
        refused,
        Refused::Credentials | Refused::Cluster | Refused::Role | Refused::Version { .. }
    )
}

/// Requests that change nothing, or nothing more when done twice.
fn may_repeat(kind: u16) -> bool {
    [
        request::Get::KIND,
        request::Scan::KIND,
        request::Watch::KIND,
        request::DeclareTable::KIND,
        request::Tables::KIND,
        request::Whereis::KIND,
        request::Names::KIND,
        request::Tree::KIND,
        request::Log::KIND,
        request::Status::KIND,
        request::SetLogLevel::KIND,
        request::Clients::KIND,
        request::GetWith::KIND,
        request::CatchUp::KIND,
        request::Members::KIND,
        request::ClusterStatus::KIND,
        request::ClusterEvents::KIND,
        request::AaeStatus::KIND,
        request::AaeRun::KIND,
        request::AaeDiff::KIND,
    ]
    .contains(&kind)
}
