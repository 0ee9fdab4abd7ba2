//! Named actors: giving an actor of this process a name at the node, finding others, talking to them.
//!
//! Messages are postcard. A name belongs to the connection: it is free when the connection ends, and taken again by itself
//! when the client is back. It is known on all nodes: a program that is connected to any of them reaches the actor. Two
//! programs may register one name on nodes that cannot reach each other; when they can, the older registration stays and the
//! other ends ([`Ended::Lost`]).

use crate::client::Client;
use crate::delivery::Sending;
use crate::dial::Line;
use crate::error::Error;
use crate::inbox::{Answer, Handler, Inbox};
use crate::store::millis;
use crate::wire::{Outcome, Wire};
use ractor::{ActorRef, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use weald_proto::error::{ErrorCode, WireError};
use weald_proto::request::{self, Named, Register, Unregister, decode_reply, request_frame};

/// Time for the node to take a name.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause before a name is tried for again after a reconnect.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// What the node may take beyond the time given to the actor.
pub(crate) const CALL_SLACK: Duration = Duration::from_secs(1);

/// A name held at the node; given back when dropped.
#[derive(Debug)]
#[must_use = "the name is given back when this is dropped"]
pub struct Registration {
    name: String,
    keeper: tokio::task::JoinHandle<Ended>,
    ended: Option<Ended>,
    // Keeps the connection that the name belongs to.
    client: Client,
}

/// Why a name is lost for good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The actor it was for has ended.
    Actor,
    /// Another client had registered it on a node that was out of reach, and has had it for longer.
    Lost {
        /// The node of that client.
        node: String,
        /// That client.
        owner: String,
        /// Since when it has it, unix milliseconds by the clock of its node.
        since_ms: u64,
    },
    /// The client is no more.
    Client,
}

impl Registration {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the name is lost for good, and says why.
    pub async fn ended(&mut self) -> Ended {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        // An error is a cancelled task, as when the runtime ends.
        let ended = (&mut self.keeper).await.unwrap_or(Ended::Client);
        self.ended = Some(ended.clone());
        ended
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.keeper.is_finished() {
            // It may belong to another registration by now.
            return;
        }
        self.keeper.abort();
        let line = self.client.line();
        give_back(&line, self.client.inbox(), &self.name);
    }
}

fn give_back(line: &watch::Receiver<Line>, inbox: &Inbox, name: &str) {
    inbox.remove(name);
    if let Line::Up(wire) = &*line.borrow() {
        let unregister = Unregister { name: name.to_owned() };
        // Nobody waits for the answer: without a connection the name is free anyway.
        drop(wire.send(&mut request_frame(0, &unregister)));
    }
}

/// Keeps one name registered, over all connections.
struct Keeper {
    name: String,
    line: watch::Receiver<Line>,
    first: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = RETRY_PAUSE.0;
        loop {
            let Ok(up) = self
                .line
                .wait_for(|line| matches!(line, Line::Up(_)))
                .await
                .map(|line| line.clone())
            else {
                return;
            };
            let Line::Up(wire) = up else { continue };
            match register(&wire, &self.name).await {
                Ok(()) => {
                    if let Some(first) = self.first.take() {
                        first.send(Ok(())).ok();
                    }
                    pause = RETRY_PAUSE.0;
                    wire.over().await;
                    self.line.wait_for(|line| !is(line, &wire)).await.ok();
                    continue;
                }
                Err(error) => {
                    if let Some(first) = self.first.take() {
                        first.send(Err(error)).ok();
                        return;
                    }
                    tracing::warn!(event = "name_not_restored", name = %self.name, error = %error, "name could not be taken again yet");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE.1);
        }
    }
}

fn is(line: &Line, wire: &Arc<Wire>) -> bool {
    matches!(line, Line::Up(now) if Arc::ptr_eq(now, wire))
}

async fn register(wire: &Arc<Wire>, name: &str) -> Result<(), Error> {
    let lost = || Error::Unavailable("the connection was lost".to_owned());
    let register = Register { name: name.to_owned() };
    let sent = wire.send(&mut request_frame(0, &register)).map_err(|_unsent| lost())?;
    match sent.outcome_within(REGISTER_TIMEOUT).await {
        Outcome::Reply(reply) => match decode_reply::<Register>(&reply) {
            Ok(Ok(_named)) => Ok(()),
            Ok(Err(error)) => Err(Error::from_node(error, REGISTER_TIMEOUT)),
            Err(e) => Err(Error::Internal(format!("the node's reply: {e}"))),
        },
        Outcome::Lost => Err(lost()),
        Outcome::Elapsed => Err(Error::TimedOut(REGISTER_TIMEOUT)),
    }
}

fn malformed(e: &postcard::Error) -> WireError {
    WireError::new(ErrorCode::Invalid, format!("the actor cannot read the message: {e}"))
}

fn decode<M: DeserializeOwned>(payload: &[u8]) -> Result<M, WireError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(malformed(&postcard::Error::DeserializeBadEncoding)),
        Err(e) => Err(malformed(&e)),
    }
}

/// An actor at the other end of the cluster, by its name: takes `M`, answers `R`.
pub struct NamedActor<M, R = ()> {
    client: Client,
    name: String,
    types: PhantomData<fn(M) -> R>,
}

impl<M, R> Clone for NamedActor<M, R> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), name: self.name.clone(), types: PhantomData }
    }
}

impl<M, R> fmt::Debug for NamedActor<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedActor").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<M: Serialize, R: DeserializeOwned> NamedActor<M, R> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message; `.await` returns when it is in the actor's mailbox. Messages that one task awaits arrive in order.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nobody has the name, [`Error::Unavailable`] when its node cannot be reached,
    /// [`Error::Unknown`] when the way to it breaks, and any other.
    pub fn send(&self, message: &M) -> Sending {
        let payload = postcard::to_stdvec(message).map_err(|e| Error::Invalid(e.to_string()));
        Sending::new(&self.client, &self.name, payload)
    }

    /// Sends a message and awaits the actor's answer.
    ///
    /// # Errors
    /// As [`NamedActor::send`]; [`Error::TimedOut`] when the actor does not answer in time.
    pub async fn call(&self, message: &M, deadline: Duration) -> Result<R, Error> {
        let payload = postcard::to_stdvec(message).map_err(|e| Error::Invalid(e.to_string()))?;
        let (name, timeout_ms) = (self.name.clone(), millis(deadline));
        let send = request::SendTo { name, payload, reply: true, timeout_ms };
        // The node keeps the deadline; the slack lets its answer arrive.
        let answer = self.client.request(send, deadline + CALL_SLACK).await?;
        decode(&answer).map_err(|e| Error::Invalid(format!("the answer: {}", e.message)))
    }
}

impl Client {
    /// Who has a name, on whichever node; also on one that does not answer at the moment.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn whereis(&self, name: &str) -> Result<Option<Named>, Error> {
        self.request(request::Whereis { name: name.to_owned() }, self.deadline()).await
    }

    /// Names of all nodes that start with a prefix, at most 1,000.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn names(&self, prefix: &str) -> Result<Vec<Named>, Error> {
        self.request(request::Names { prefix: prefix.to_owned() }, self.deadline()).await
    }

    /// The actor of a name, to talk to, on whichever node; it need not be there yet.
    #[must_use]
    pub fn actor<M: Serialize, R: DeserializeOwned>(&self, name: &str) -> NamedActor<M, R> {
        NamedActor { client: self.clone(), name: name.to_owned(), types: PhantomData }
    }

    /// Gives an actor of this process a name: whoever sends to the name sends to it. The name is given back when the
    /// registration is dropped or the actor ends, and taken again after a reconnect.
    ///
    /// # Errors
    /// [`Error::Taken`] when another has the name, and any other.
    pub async fn register<M>(&self, name: &str, actor: ActorRef<M>) -> Result<Registration, Error>
    where
        M: DeserializeOwned + Message,
    {
        let target = actor.clone();
        let handler: Handler = Arc::new(move |payload, reply| {
            Answer::Now(if reply {
                let why =
                    "this actor takes messages and does not answer; it would have to be served";
                Err(WireError::new(ErrorCode::Unsupported, why))
            } else {
                decode::<M>(payload).and_then(|message| match target.cast(message) {
                    Ok(()) => Ok(Vec::new()),
                    Err(_gone) => Err(WireError::new(ErrorCode::NotFound, "the actor has ended")),
                })
            })
        });
        let ended = async move {
            // Without a time-out this waits for the end.
            actor.wait(None).await.ok();
        };
        self.hold(name, handler, Some(ended)).await
    }

    /// Gives a function a name: it is called with each message sent to the name, and what it returns is the answer. Calls
    /// run side by side.
    ///
    /// # Errors
    /// [`Error::Taken`] when another has the name, and any other.
    pub async fn serve<M, R, F, Fut>(&self, name: &str, handler: F) -> Result<Registration, Error>
    where
        M: DeserializeOwned,
        R: Serialize,
        F: Fn(M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |payload, reply| match decode::<M>(payload) {
            Err(e) => Answer::Now(Err(e)),
            Ok(message) => {
                let work = handler(message);
                let answer = async move {
                    let answer = work.await;
                    postcard::to_stdvec(&answer)
                        .map_err(|e| WireError::new(ErrorCode::Internal, e.to_string()))
                };
                if reply {
                    Answer::Later(Box::pin(answer))
                } else {
                    // The sender waits for the message to be taken only.
                    tokio::spawn(async move { answer.await.map(drop) });
                    Answer::Now(Ok(Vec::new()))
                }
            }
        });
        self.hold(name, handler, None::<std::future::Pending<()>>).await
    }

    async fn hold(
        &self,
        name: &str,
        handler: Handler,
        until: Option<impl Future<Output = ()> + Send + 'static>,
    ) -> Result<Registration, Error> {
        let inbox = self.inbox();
        let Some(lost) = inbox.add(name, handler) else {
            return Err(Error::Taken(format!("this client has registered {name:?} already")));
        };
        let (first, registered) = oneshot::channel();
        let keeper = Keeper { name: name.to_owned(), line: self.line(), first: Some(first) };
        let (line, inbox, held) = (self.line(), Arc::clone(inbox), name.to_owned());
        let keeper = tokio::spawn(async move {
            let actor_ends = async move {
                match until {
                    None => std::future::pending().await,
                    Some(until) => until.await,
                }
            };
            // A loss first: the name is another's then.
            tokio::select! {
                biased;
                Ok(lost) = lost => {
                    let request::Lost { node, owner, since_ms, .. } = lost;
                    Ended::Lost { node, owner, since_ms }
                }
                () = keeper.run() => Ended::Client,
                () = actor_ends => {
                    give_back(&line, &inbox, &held);
                    Ended::Actor
                }
            }
        });
        // From here on, dropping it gives the name back.
        let (name_held, client) = (name.to_owned(), self.clone());
        let registration = Registration { name: name_held, keeper, ended: None, client };
        match tokio::time::timeout(self.deadline(), registered).await {
            Ok(Ok(Ok(()))) => Ok(registration),
            Ok(Ok(Err(error))) => {
                // Not ours: it must not be given back.
                self.inbox().remove(name);
                Err(error)
            }
            Ok(Err(_)) | Err(_) => Err(Error::TimedOut(self.deadline())),
        }
    }
}
