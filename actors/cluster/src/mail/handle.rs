//! What everybody but the mail actor holds.

use super::actor::Msg;
use super::core::{Letter, Limits, Stats};
use super::wire::Message;
use crate::gate::consistency::Consistency;
use crate::registry::RegistryHandle;
use crate::service::{BoxFuture, PushError};
use arc_swap::ArcSwap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use weald_peers::{Channel, ClusterWatch, Inbox, Meter, Network, PeerEvent};
use weald_proto::limits::{FRAME_BYTES_MAX, WAIT_MS_MAX};
use weald_proto::request::{self, decode_reply, request_frame};
use weald_proto::{ErrorCode, Frame, Reply, WireError};
use weald_storage::NodeId;
use weald_supervision::{Address, CallError, LogLimit};

/// Bytes of frames of other nodes that wait for the actor.
const FRAMES_BYTES_MAX: usize = 64 << 20; // guess: eight of the largest
/// Bytes of messages of clients that wait for the actor.
const SENDS_BYTES_MAX: usize = 64 << 20; // guess
/// What a frame has beside payload and token, at most: the name and some numbers.
const OVERHEAD_BYTES: usize = 1024;
/// Most of a deadline that is kept back from a wait for data, so that its outcome is told in time.
const RETURN_TIME_MAX: Duration = Duration::from_millis(500);
/// What an answer may take beyond the time that the core keeps.
const SLACK: Duration = Duration::from_secs(2);

/// What the mail is made of.
pub struct Parts {
    /// Sends to other nodes.
    pub network: Arc<dyn Network>,
    /// Who is here.
    pub registry: RegistryHandle,
    /// What this node has seen.
    pub consistency: Arc<dyn Consistency>,
    /// The members.
    pub cluster: ClusterWatch,
    /// When this process began, unix milliseconds.
    pub begun_ms: u64,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("begun_ms", &self.begun_ms).finish_non_exhaustive()
    }
}

/// What outlives the mail actor.
#[derive(Debug)]
pub struct Shared {
    pub(super) parts: Parts,
    pub(super) limits: Limits,
    pub(super) started: Instant,
    /// The last life that was begun.
    pub(super) life: AtomicU64,
    ids: AtomicU64,
    frames: Arc<Meter>,
    sends: Arc<Meter>,
    connected: Mutex<BTreeSet<NodeId>>,
    /// With whom something is under way.
    pub(super) needed: ArcSwap<BTreeSet<NodeId>>,
    pub(super) stats: Mutex<Stats>,
    pub(super) logs: LogLimit,
}

/// A message for an actor here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivering {
    /// Name of the actor.
    pub name: String,
    /// The message.
    pub payload: Vec<u8>,
    /// Whether the actor's answer is awaited.
    pub reply: bool,
    /// What this node has to have seen first.
    pub token: Option<Vec<u8>>,
    /// Time for it.
    pub timeout_ms: u64,
}

/// The mail as its users hold it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MailHandle {
    address: Address<Msg>,
    shared: Arc<Shared>,
}

impl MailHandle {
    /// The mail of a node.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        // Lives of one process are one apart, those of two processes are not the same even when the clock was set back.
        let mut salt = [0; 2];
        if getrandom::fill(&mut salt).is_err() {
            // Without randomness the clock alone has to do.
            salt = [0; 2];
        }
        let life = parts.begun_ms << 16 | u64::from(u16::from_be_bytes(salt));
        let shared = Shared {
            limits: Limits::default(),
            started: Instant::now(),
            life: AtomicU64::new(life),
            ids: AtomicU64::new(0),
            frames: Meter::new(FRAMES_BYTES_MAX),
            sends: Meter::new(SENDS_BYTES_MAX),
            connected: Mutex::default(),
            needed: ArcSwap::default(),
            stats: Mutex::default(),
            logs: LogLimit::new(),
            parts,
        };
        Self { address: Address::new("mail"), shared: Arc::new(shared) }
    }

    /// The address the actor is to be started under.
    #[must_use]
    pub fn address(&self) -> &Address<Msg> {
        &self.address
    }

    /// What the actor is to be started with.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// What it has done since the process started.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = *self.shared.stats();
        stats.refused += self.shared.sends.refused() + self.shared.frames.refused();
        stats
    }

    /// Sends a message to an actor at another node. Handed on before this returns.
    #[must_use]
    pub fn send(&self, to: NodeId, letter: Letter) -> BoxFuture<'static, Reply<Vec<u8>>> {
        let token = match &letter.how {
            super::How::Acknowledged { token } => token.as_ref().map_or(0, Vec::len),
            super::How::Once { .. } | super::How::Newest { .. } => 0,
        };
        let bytes = letter.payload.len() + token + OVERHEAD_BYTES;
        if bytes > FRAME_BYTES_MAX {
            let most = FRAME_BYTES_MAX - OVERHEAD_BYTES;
            let text =
                format!("a message of that size is over the limit between nodes, {most} bytes");
            return ready(Err(WireError::new(ErrorCode::Invalid, text)));
        }
        let Some(permit) = self.shared.sends.take(bytes) else {
            let text = "too many messages wait to be sent to other nodes";
            return ready(Err(WireError::new(ErrorCode::Overloaded, text)));
        };
        let id = self.shared.ids.fetch_add(1, Ordering::Relaxed) + 1;
        let time = Duration::from_millis(letter.timeout_ms) + SLACK;
        let sent =
            self.address.call(|reply| Msg::Send { id, to, letter, reply, _permit: permit }, time);
        Box::pin(async move {
            sent.await.unwrap_or_else(|error| {
                let code = match error {
                    CallError::Down => ErrorCode::Unavailable,
                    CallError::Lost => ErrorCode::Unknown,
                    CallError::Timeout => ErrorCode::TimedOut,
                };
                Err(WireError::new(code, format!("mail to other nodes: {error}")))
            })
        })
    }

    /// Delivers a message to an actor here. Handed on before this returns, if it need not wait for anything.
    #[must_use]
    pub fn deliver(&self, delivering: Delivering) -> BoxFuture<'static, Reply<Vec<u8>>> {
        self.shared.deliver(delivering)
    }
}

impl Shared {
    pub(super) fn deliver(
        self: &Arc<Self>,
        mut delivering: Delivering,
    ) -> BoxFuture<'static, Reply<Vec<u8>>> {
        // It may come from another node.
        delivering.timeout_ms = delivering.timeout_ms.clamp(1, WAIT_MS_MAX);
        let Some(token) = delivering.token.take() else { return self.push(delivering) };
        match self.parts.consistency.is_caught_up(&token) {
            Ok(true) => return self.push(delivering),
            Ok(false) => {}
            Err(error) => return ready(Err(error)),
        }
        let time = Duration::from_millis(delivering.timeout_ms);
        let deadline = tokio::time::Instant::now() + time;
        // Whoever waits at another node is to hear of it before that is over.
        let caught_up_by = deadline - RETURN_TIME_MAX.min(time / 4);
        let caught_up = self.parts.consistency.caught_up(token, caught_up_by);
        let shared = Arc::clone(self);
        Box::pin(async move {
            caught_up.await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            delivering.timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
            shared.push(delivering).await
        })
    }

    fn push(&self, delivering: Delivering) -> BoxFuture<'static, Reply<Vec<u8>>> {
        let Delivering { name, payload, reply, timeout_ms, .. } = delivering;
        let Some(entry) = self.parts.registry.here(&name) else {
            let text = format!("no actor is registered as {name:?} any more");
            return ready(Err(WireError::new(ErrorCode::NotFound, text)));
        };
        let call = request_frame(0, &request::Deliver { name, payload, reply });
        let answer = entry.holder.0.request(call, Duration::from_millis(timeout_ms));
        Box::pin(async move {
            let frame = answer.await.map_err(push_error)?;
            decode_reply::<request::Deliver>(&frame).unwrap_or_else(|e| {
                Err(WireError::new(ErrorCode::Internal, format!("actor's reply: {e}")))
            })
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn connected(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        // Nothing panics while it is held.
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        // Nothing panics while it is held.
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox for MailHandle {
    fn frame(&self, from: NodeId, _channel: Channel, frame: Frame) {
        if let Some(permit) = self.shared.frames.take(frame.encoded_len()) {
            drop(self.address.cast(Msg::Frame { from, frame, permit }));
            return;
        }
        // What is acknowledged comes again; who has asked once is told.
        if let Ok(Message::Ask { corr, .. }) = Message::decode(&frame) {
            let busy = WireError::new(ErrorCode::Overloaded, "too many messages wait for delivery");
            let answer = Message::Answer { corr, result: Err(busy) }.encode();
            // Without it the deadline tells.
            self.shared.parts.network.send(from, Channel::Relay, corr, &answer).ok();
        }
    }

    fn peer(&self, event: &PeerEvent) {
        match event {
            PeerEvent::Up(info) => {
                self.shared.connected().insert(info.node);
            }
            PeerEvent::Down { node, .. } => {
                self.shared.connected().remove(node);
            }
        }
        // An actor that is being started looks at who is connected.
        drop(self.address.cast(Msg::Peer(event.clone())));
    }

    fn needs(&self, peer: NodeId) -> bool {
        self.shared.needed.load().contains(&peer)
    }

    fn unsent(&self, to: NodeId, frame: Frame) {
        drop(self.address.cast(Msg::Unsent { to, frame }));
    }
}

fn ready(result: Reply<Vec<u8>>) -> BoxFuture<'static, Reply<Vec<u8>>> {
    Box::pin(std::future::ready(result))
}

fn push_error(error: PushError) -> WireError {
    let code = match error {
        PushError::Closed => ErrorCode::Unavailable,
        PushError::Lost => ErrorCode::Unknown,
        PushError::Timeout => ErrorCode::TimedOut,
        PushError::Overloaded => ErrorCode::Overloaded,
    };
    WireError::new(code, error.to_string())
}
