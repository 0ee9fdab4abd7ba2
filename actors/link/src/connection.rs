//! The actor that owns one connection.
//!
//! `ractor_cluster`'s `NodeSession` talks to an actor with the message type [`NodeServerMessage`] and asks no more of it. This
//! actor is that counterpart for exactly one session: it starts the link actor and the `NodeSession`, answers the session's
//! questions, finds the proxy of the peer's link actor when both sides are ready, and ends with either of them. So a
//! connection is a small tree of its own, and no failure in it touches another.
//!
//! What it guarantees: [`Receive::up`] at most once; [`Receive::closed`] exactly once, also when the actor is killed; node
//! ids are unique in the process, as `ractor` keys remote actors by them in tables of the whole process.
//!
//! What it refuses: choosing between sessions of one peer. That is for whoever accepts or dials, before the handshake ends.

use crate::filter::{Side, Violation};
use crate::outbound::Outbound;
use crate::stream::{Filtered, Shared};
use crate::{Halves, Limits};
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, Message, SupervisionEvent};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation, SessionCheckReply};
use ractor_cluster::{NetworkStream, NodeServerMessage, NodeSession};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;
use weald_proto::frame::{Frame, HEADER_BYTES, Header};

/// Node ids of this process: `ractor`'s tables are process-wide, so their keys must be.
static NEXT_NODE_ID: AtomicU64 = AtomicU64::new(1);

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Close {
    /// The peer closed it.
    #[error("closed by the peer")]
    Peer,
    /// The socket failed.
    #[error("{0}")]
    Io(String),
    /// The peer did what it may not.
    #[error("{0}")]
    Violation(Violation),
    /// The peer sent nothing for too long.
    #[error("silent for too long")]
    Idle,
    /// The peer did not read for too long.
    #[error("does not read")]
    Stalled,
    /// What the peer sent is not frames.
    #[error("malformed frames: {0}")]
    Malformed(String),
    /// More waits for the peer than may.
    #[error("does not read: {0}")]
    Full(String),
    /// The peer did not complete the connection in time.
    #[error("not set up in time")]
    Setup,
    /// This side ended it.
    #[error("{0}")]
    Local(String),
}

/// Takes what comes from the peer. Called by the link actor, one call at a time, so it must not block.
pub trait Receive: Send + Sync + 'static {
    /// Both sides are ready.
    fn up(&self);
    /// A frame, in the order in which the peer sent it.
    fn frame(&self, frame: Frame);
    /// The frames of one batch were handed in, also when the batch turned out malformed after them.
    fn batch_end(&self) {}
    /// The connection is over.
    fn closed(&self, why: &Close);
}

/// Ends a connection from outside.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.0.closed()).finish()
    }
}

impl Handle {
    /// Ends it; the first reason given stays.
    pub fn close(&self, why: Close) {
        self.0.close(why);
    }
}

/// All that a connection starts with.
pub struct Setup {
    halves: Halves,
    side: Side,
    cookie: String,
    label: String,
    shared: Arc<Shared>,
    outbound: Arc<Outbound>,
    receive: Arc<dyn Receive>,
    limits: Limits,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Setup {
    /// A connection over `halves`, which have a handshake behind them that gave `cookie`.
    #[must_use]
    pub fn new(
        halves: Halves,
        side: Side,
        cookie: String,
        label: String,
        outbound: Arc<Outbound>,
        receive: Arc<dyn Receive>,
        limits: Limits,
    ) -> Self {
        let shared = Arc::new(Shared::new(Arc::clone(&outbound), limits.clone()));
        Self { halves, side, cookie, label, shared, outbound, receive, limits }
    }

    /// Ends the connection from outside, at any time.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }
}

/// The actor; see the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connection;

/// What the actor knows.
pub struct State {
    session: ActorCell,
    link: ActorCell,
    up: bool,
    outbound: Arc<Outbound>,
    ending: Ending,
    deadline: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("up", &self.up).finish_non_exhaustive()
    }
}

/// Reports the end of the connection when it is dropped, whatever ends the actor.
struct Ending {
    shared: Arc<Shared>,
    receive: Arc<dyn Receive>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.close(Close::Local("the connection's actor has ended".to_owned()));
        if let Some(why) = self.shared.closed() {
            self.receive.closed(why);
        }
    }
}

impl Actor for Connection {
    type Msg = NodeServerMessage;
    type State = State;
    type Arguments = Option<Setup>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        setup: Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let setup = setup.ok_or("a connection is started once only")?;
        let ending =
            Ending { shared: Arc::clone(&setup.shared), receive: Arc::clone(&setup.receive) };
        let link = Link { shared: Arc::clone(&setup.shared), receive: setup.receive };
        let (link, _) = Actor::spawn_linked(None, link, (), myself.get_cell()).await?;
        let node_id = NEXT_NODE_ID.fetch_add(1, Ordering::Relaxed);
        let is_server = setup.side == Side::Server;
        // The type of this message is private to ractor_cluster; its default can be had by inference.
        let mut name = None::<&NodeServerSessionInformation>
            .and_then(|info| info.peer_name.clone())
            .unwrap_or_default();
        name.name = format!("{}-{node_id}", if is_server { "node" } else { "client" });
        name.connection_string = name.name.clone();
        let session = NodeSession::new(
            node_id,
            is_server,
            setup.cookie,
            myself.clone(),
            name,
            NodeConnectionMode::Isolated,
        )
        .with_max_inbound_frame_size(crate::filter::FRAME_BYTES_MAX as u64);
        let filtered = Filtered::new(
            setup.halves,
            Arc::clone(&setup.shared),
            setup.side,
            link.get_id().pid(),
            setup.label.clone(),
        );
        let (reader, writer, label) = Box::new(filtered).into_parts();
        let stream =
            NetworkStream::External { peer_label: Some(label), local_label: None, reader, writer };
        let (session, _) = Actor::spawn_linked(None, session, stream, myself.get_cell()).await?;
        let shared = Arc::clone(&setup.shared);
        let deadline = tokio::spawn(async move {
            tokio::time::sleep(setup.limits.setup_timeout).await;
            shared.close(Close::Setup);
        });
        Ok(State {
            session: session.get_cell(),
            link: link.get_cell(),
            up: false,
            outbound: setup.outbound,
            ending,
            deadline,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: NodeServerMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            NodeServerMessage::CheckSession { reply, .. } => {
                // The handshake before this one has settled who it is; there is no other session to weigh it against.
                let _late = reply.send(SessionCheckReply::NoOtherConnection);
            }
            NodeServerMessage::ConnectionReady(_) => {
                let children = state.session.get_children();
                let Some(peer) = children.into_iter().find(|child| !child.get_id().is_local())
                else {
                    state.ending.shared.close(Close::Setup);
                    myself.stop(None);
                    return Ok(());
                };
                state.up = true;
                stop_listening(state.session.get_id());
                state.deadline.abort();
                let peer = ActorRef::<Batch>::from(peer);
                state.outbound.attach(move |batch| peer.cast(Batch(batch)).is_ok());
                state.ending.receive.up();
            }
            NodeServerMessage::GetSessions(reply) => {
                let _late = reply.send(Default::default());
            }
            NodeServerMessage::ConnectionAuthenticated(_)
            | NodeServerMessage::UpdateSession { .. }
            | NodeServerMessage::ConnectionOpened { .. }
            | NodeServerMessage::ConnectionOpenedExternal { .. }
            | NodeServerMessage::SubscribeToEvents { .. }
            | NodeServerMessage::UnsubscribeToEvents(_)
            | NodeServerMessage::PortChanged { .. } => {}
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (who, why) = match event {
            SupervisionEvent::ActorFailed(who, error) => (who, format!("actor failed: {error}")),
            SupervisionEvent::ActorTerminated(who, _, reason) => {
                (who, reason.unwrap_or_else(|| "ended".to_owned()))
            }
            _ => return Ok(()),
        };
        if who.get_id() == state.session.get_id() || who.get_id() == state.link.get_id() {
            state.ending.shared.close(Close::Local(why));
            myself.stop(None);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.deadline.abort();
        state.ending.shared.close(Close::Local("stopped".to_owned()));
        Ok(())
    }
}

/// Takes a session off the lists of those who are told of every actor and group of the process. It has announced the link
/// actor, and the filter would drop the rest: without this, every actor started would cost work in every session.
fn stop_listening(session: ActorId) {
    ractor::registry::pid_registry::demonitor(session);
    ractor::pg::demonitor_scope(ractor::pg::ALL_SCOPES_NOTIFICATION.to_owned(), session);
    ractor::pg::demonitor(ractor::pg::ALL_GROUPS_NOTIFICATION.to_owned(), session);
}

/// The only message that crosses a connection: a batch of frames.
struct Batch(Vec<u8>);

impl Message for Batch {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        Ok(SerializedMessage::Cast { variant: String::new(), args: self.0, metadata: None })
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Cast { args, .. } => Ok(Self(args)),
            SerializedMessage::Call { .. } | SerializedMessage::CallReply(..) => {
                Err(BoxedDowncastErr)
            }
        }
    }
}

/// Decodes a batch, frame by frame.
fn each_frame(mut bytes: &[u8], mut take: impl FnMut(Frame)) -> Result<(), String> {
    while !bytes.is_empty() {
        let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(format!("{} bytes where a frame header should be", bytes.len()));
        };
        let header = Header::decode(head).map_err(|e| e.to_string())?;
        let Some((body, rest)) = rest.split_at_checked(header.len) else {
            return Err(format!("frame of {} bytes in a batch with {}", header.len, rest.len()));
        };
        take(Frame { kind: header.kind, corr: header.corr, body: body.to_vec() });
        bytes = rest;
    }
    Ok(())
}

/// The actor that the peer reaches.
struct Link {
    shared: Arc<Shared>,
    receive: Arc<dyn Receive>,
}

impl Actor for Link {
    type Msg = Batch;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Batch>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Batch>,
        Batch(bytes): Batch,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if self.shared.closed().is_some() {
            return Ok(());
        }
        let result = each_frame(&bytes, |frame| self.receive.frame(frame));
        self.receive.batch_end();
        self.shared.taken(bytes.len());
        if let Err(why) = result {
            self.shared.close(Close::Local(format!("malformed batch: {why}")));
        }
        Ok(())
    }
}
