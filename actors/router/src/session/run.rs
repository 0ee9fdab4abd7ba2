//! The task of a connection: reads, decodes, and routes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use weald_transports::{Class, Close, Connection, Read};
use weald_wamp::message::{CancelMode, Choice, Hello, MatchPolicy};
use weald_wamp::{Message, uri};

use super::core::{Core, State, Step};
use super::handle::{Ending, Handle, Parts, encode};
use super::ids::Reserved;
use super::{Violation, Work, reply, welcome};
use crate::auth::{Offer, Pending, Verdict};
use crate::broker::{publish, subscribe};
use crate::dealer::{Refusal, answer, call, cancel, register};
use crate::error;
use crate::realm::Realm;
use crate::router::Router;

/// Time that what is queued has to leave before a connection is cut.
const FLUSH_TIME: Duration = Duration::from_secs(2); // guess

/// What is said to those who come while the node stops.
const STOPPING: &str = "this node is stopping";

/// Serves a connection until it ends. Dropping the future, as a crash does, leaves nothing of the session behind either.
pub async fn serve(router: Arc<Router>, connection: Connection) {
    let deadline = Instant::now() + router.settings().handshake_timeout;
    let task = Task {
        router,
        connection,
        core: Core::default(),
        work: Work::new(),
        joined: None,
        pending: None,
        deadline: Some(deadline),
    };
    Box::pin(task.run()).await;
}

/// A session in its realm; leaves it when dropped.
struct Joined {
    realm: Arc<Realm>,
    session: Handle,
    /// Given back when all of the session is gone.
    _id: Reserved,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.realm.leave(&self.session, &mut Work::new());
    }
}

/// What is known of a client that has been challenged.
struct Challenged {
    id: Reserved,
    realm: Arc<Realm>,
    hello: Box<Hello>,
    pending: Box<dyn Pending>,
}

struct Task {
    router: Arc<Router>,
    connection: Connection,
    core: Core,
    work: Work,
    joined: Option<Joined>,
    pending: Option<Challenged>,
    /// When the client has to have said something that it has not.
    deadline: Option<Instant>,
}

/// Whether the connection goes on.
enum Next {
    On,
    Close,
}

impl Task {
    async fn run(mut self) {
        let mut inbox = Vec::new();
        loop {
            let next = match self.read(&mut inbox).await {
                Some(Read::Messages) => self.messages(&mut inbox).await,
                Some(Read::Deadline) => self.time_passed(),
                Some(Read::Kicked(_)) => self.kicked(),
                // Closed in its way: a WebSocket's CLOSE is answered.
                Some(Read::Closed(_)) => Next::Close,
                None => self.abort(error::SYSTEM_SHUTDOWN, STOPPING.to_owned()),
            };
            self.work.flushes.flush();
            if matches!(next, Next::Close) {
                self.joined = None;
                self.connection.close(Close::Normal, FLUSH_TIME).await;
                return;
            }
        }
    }

    /// What comes next; none when the node stops and there is no session that would be told otherwise.
    async fn read(&mut self, inbox: &mut Vec<Bytes>) -> Option<Read> {
        let deadline = self.next_deadline();
        if self.joined.is_some() || self.core.state() == State::Leaving {
            return Some(self.connection.read(inbox, deadline).await);
        }
        let (router, connection) = (&self.router, &mut self.connection);
        let either = async {
            // Stopping first: who floods the node with HELLOs does not keep it.
            tokio::select! {
                biased;
                () = router.draining() => None,
                read = connection.read(inbox, deadline) => Some(read),
            }
        };
        // In a box, for the many tasks that have a session are not to be as large.
        Box::pin(either).await
    }

    fn next_deadline(&self) -> Option<Instant> {
        let call = self.joined.as_ref().and_then(|joined| {
            let deadline_ms = joined.session.calls().next_deadline_ms()?;
            Some(self.router.instant(deadline_ms))
        });
        [self.deadline, call].into_iter().flatten().min()
    }

    async fn messages(&mut self, inbox: &mut Vec<Bytes>) -> Next {
        let serializer = self.connection.info().serializer;
        for octets in inbox.drain(..) {
            let step = match weald_wamp::decode(serializer, &octets, self.router.limits()) {
                Ok(message) => self.core.receive(message),
                Err(_) if self.core.state() == State::Failed => Step::Ignore,
                Err(error) => self.core.violation(error.to_string()),
            };
            if matches!(self.step(step).await, Next::Close) {
                return Next::Close;
            }
        }
        Next::On
    }

    async fn step(&mut self, step: Step) -> Next {
        let routed = match step {
            Step::Route(message) => self.route(message).await,
            Step::Chunk(Message::Call(message)) => match &self.joined {
                Some(Joined { realm, session, .. }) => {
                    call::continued(realm, &mut self.work, session, message)
                }
                None => Ok(()),
            },
            Step::Hello(hello) => return self.hello(hello).await,
            Step::Authenticate(message) => return self.authenticate(message).await,
            Step::Leave => {
                self.joined = None;
                let ending = Ending {
                    reason: error::GOODBYE_AND_OUT.to_owned(),
                    message: None,
                    is_announced: true,
                };
                self.say(&reply::goodbye(&ending));
                self.await_hello();
                Ok(())
            }
            Step::Gone | Step::Left => return Next::Close,
            Step::Chunk(_) | Step::Ignore => Ok(()),
            Step::Violation(why) => Err(Violation(why)),
        };
        match routed {
            Ok(()) => Next::On,
            Err(Violation(why)) => self.abort(error::PROTOCOL_VIOLATION, why),
        }
    }

    /// Routes a message of an established session.
    async fn route(&mut self, message: Message) -> Result<(), Violation> {
        let Some(Joined { realm, session, .. }) = &self.joined else { return Ok(()) };
        let work = &mut self.work;
        match message {
            Message::Publish(message) => match publish::publish(realm, work, session, message)? {
                publish::Published::Done => Ok(()),
                publish::Published::Keep(kept) => {
                    // What came before it must not wait for the store.
                    work.flushes.flush();
                    publish::keep(realm, work, session, kept).await;
                    Ok(())
                }
            },
            Message::Call(message) => call::call(realm, work, session, message),
            Message::Yield(message) => answer::yielded(realm, work, session, message),
            Message::Error(message) => answer::failed(realm, work, session, message),
            Message::Cancel(message) => {
                let mode = match message.options.mode {
                    Choice::Absent => CancelMode::KillNoWait,
                    Choice::Known(mode) => mode,
                    Choice::Unknown(mode) => {
                        return Err(Violation(format!("CANCEL mode {mode:?} is unknown")));
                    }
                };
                let refusal = Refusal::new(error::CANCELED, "the caller cancelled it");
                cancel::cancel(realm, work, session, message.request, mode, &refusal);
                Ok(())
            }
            Message::Subscribe(message) => subscribe::subscribe(realm, work, session, message),
            Message::Unsubscribe(message) => {
                subscribe::unsubscribe(realm, work, session, message).await;
                Ok(())
            }
            Message::Register(message) => register::register(realm, work, session, message),
            Message::Unregister(message) => {
                register::unregister(realm, work, session, message).await;
                Ok(())
            }
            // The core lets nothing else through.
            _ => Ok(()),
        }
    }

    async fn hello(&mut self, hello: Box<Hello>) -> Next {
        if self.router.is_draining() {
            return self.abort(error::SYSTEM_SHUTDOWN, STOPPING.to_owned());
        }
        if !hello.details.roles.has_client() {
            let why = "HELLO names no role of a client";
            return self.abort(error::PROTOCOL_VIOLATION, why.to_owned());
        }
        let Some(name) = &hello.realm else {
            return self.abort(error::NO_SUCH_REALM, "HELLO names no realm".to_owned());
        };
        if uri::check(name, uri::Strictness::Loose, MatchPolicy::Exact).is_err() {
            return self.abort(error::INVALID_URI, format!("{name:?} is no name of a realm"));
        }
        let Some(realm) = self.router.realm(name) else {
            return self.abort(error::NO_SUCH_REALM, format!("there is no realm {name}"));
        };
        let id = self.router.ids().reserve(&mut self.work.rng);
        let offer = Offer {
            realm: name,
            details: &hello.details,
            session: id.id(),
            peer: welcome::address(self.connection.info()),
        };
        let verdict = realm.authenticator().hello(&offer).await;
        self.verdict(id, realm, hello, verdict)
    }

    async fn authenticate(&mut self, message: Message) -> Next {
        let (Message::Authenticate(message), Some(challenged)) = (message, self.pending.take())
        else {
            return Next::Close;
        };
        let Challenged { id, realm, hello, pending } = challenged;
        let verdict = pending.answer(&message.signature, &message.extra).await;
        self.verdict(id, realm, hello, verdict)
    }

    fn verdict(
        &mut self,
        id: Reserved,
        realm: Arc<Realm>,
        hello: Box<Hello>,
        verdict: Verdict,
    ) -> Next {
        match verdict {
            Verdict::Refuse { reason, message } => self.abort(reason, message),
            Verdict::Challenge { method, extra, pending } => {
                self.core.challenged();
                self.pending = Some(Challenged { id, realm, hello, pending });
                self.say(&Message::Challenge(weald_wamp::message::Challenge { method, extra }));
                Next::On
            }
            Verdict::Welcome(principal) => {
                let info = self.connection.info();
                let session = Handle::new(Parts {
                    id: id.id(),
                    principal,
                    roles: hello.details.roles,
                    transport: welcome::transport(info),
                    serializer: info.serializer,
                    outbox: self.connection.outbox().clone(),
                });
                self.deadline = None;
                self.core.welcomed(realm.settings().strict_request_ids);
                self.say(&welcome::welcome(session.id(), &realm, session.principal()));
                realm.join(&session, &mut self.work);
                if self.router.is_draining() {
                    // All others were told before this one was there.
                    session.end(Ending::system_shutdown());
                }
                self.joined = Some(Joined { realm, session, _id: id });
                Next::On
            }
        }
    }

    fn abort(&mut self, reason: &'static str, message: String) -> Next {
        self.core.failed();
        tracing::debug!(event = "session_aborted", reason, message, "a client was turned away");
        self.say(&reply::abort(reason, message));
        Next::Close
    }

    /// Says something outside of a session.
    fn say(&mut self, message: &Message) {
        let outbox = self.connection.outbox();
        let serializer = self.connection.info().serializer;
        let Some(framed) = encode(message, serializer, outbox.framing()) else { return };
        // A client that is gone is noticed by the next read.
        let _gone_or_queued = self.work.flushes.push(outbox, framed, Class::Reply);
    }

    /// The connection may be used for another session.
    fn await_hello(&mut self) {
        self.deadline = Some(Instant::now() + self.router.settings().handshake_timeout);
    }

    fn time_passed(&mut self) -> Next {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return match self.core.state() {
                // The client does not answer GOODBYE, or has nothing more to say.
                State::Leaving | State::Failed => Next::Close,
                State::Closed | State::Joining | State::Challenging | State::Established => {
                    let message = "no session was opened in time".to_owned();
                    self.abort(error::AUTHENTICATION_FAILED, message)
                }
            };
        }
        if let Some(Joined { realm, session, .. }) = &self.joined {
            cancel::expire(realm, &mut self.work, session);
        }
        Next::On
    }

    /// The router ends the session, or the connection.
    fn kicked(&mut self) -> Next {
        let Some(joined) = self.joined.take() else { return Next::Close };
        let Some(ending) = joined.session.ending() else { return Next::Close };
        self.say(&reply::goodbye(&ending));
        self.core.leaving();
        self.deadline = Some(Instant::now() + self.router.settings().goodbye_timeout);
        drop(joined);
        Next::On
    }
}
