//! What waits to be sent to a client: a bounded queue anybody pushes to and anybody may flush.
//!
//! What it guarantees: pushing and flushing never block; a flush writes straight to the socket from the task that asks for
//! it, and only what the socket does not take is left to the connection's own task; chunks are shared, not copied.
//! A queue is bounded by bytes and by the time in which its socket takes nothing, and all stuck queues together by a budget,
//! which the largest one pays for.
//!
//! What it refuses: to keep a client that does not read (see [`Policy`]), and messages longer than the client takes.

mod budget;
mod queue;
mod write;

pub use budget::{Config, Counts, Egress};

use crate::framing::Framing;
use crate::socket::WriteHalf;
use budget::Place;
use bytes::Bytes;
use futures::task::AtomicWaker;
pub(crate) use queue::Wrote;
use queue::{By, Next, Queue, Writer};
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use tokio::time::Instant;

/// What to do with a client that does not read as fast as others write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// End its connection.
    #[default]
    Disconnect,
    /// Leave out events, and count them. Where anything else has no room the connection is ended.
    DropEvents,
}

/// What kind of message it is, for the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits for it: it may not be left out.
    Reply,
    /// An event: see [`Policy::DropEvents`].
    Event,
}

/// What has become of a pushed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "whoever is first has to flush"]
pub enum Pushed {
    /// Queued, and the caller must call [`Outbox::flush`] soon ([`Flushes`](crate::Flushes) does).
    First,
    /// Queued, and somebody else flushes.
    Queued,
    /// Left out by policy, and counted.
    Dropped,
    /// Longer than the client takes: not sent, and counted. The connection goes on.
    TooLarge,
    /// The connection has ended or is being ended.
    Refused,
}

/// Why a connection is being ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kick {
    /// Somebody has asked for it. What is queued is still sent, and more may be.
    Asked,
    /// The client does not read and its queue is full.
    QueueFull,
    /// The client has taken nothing for too long.
    Stuck,
    /// Queues of all connections are too large together, and this one is the largest.
    Budget,
    /// The socket does not take bytes any more.
    Broken,
}

impl Kick {
    /// Whether nothing more is sent.
    #[must_use]
    pub fn is_at_once(self) -> bool {
        self != Self::Asked
    }
}

/// The way to one client. Cloning is cheap; the connection ends without regard to clones.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    this: Weak<Self>,
    framing: Framing,
    message_bytes_max: usize,
    framed_bytes_max: usize,
    /// Only the connection's own task may write.
    by_owner: bool,
    egress: Arc<Egress>,
    queue: Mutex<State>,
    /// Something is there for the connection's own task: to write, or to end.
    called: AtomicBool,
    waker: AtomicWaker,
}

struct State {
    queue: Queue<WriteHalf>,
    stuck: Option<Stuck>,
}

/// A socket that does not take what is there.
struct Stuck {
    since: Instant,
    /// Its place in the account of all that are stuck.
    place: Place,
}

/// A way to write chunks without waiting.
pub(crate) type Io<'a> = &'a mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>;

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("framing", &self.0.framing).finish_non_exhaustive()
    }
}

impl PartialEq for Outbox {
    /// Whether it is the same connection's.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Outbox {}

impl Outbox {
    pub(crate) fn new(
        socket: WriteHalf,
        framing: Framing,
        message_bytes_max: usize,
        egress: Arc<Egress>,
    ) -> Self {
        Self(Arc::new_cyclic(|this| Inner {
            this: Weak::clone(this),
            framing,
            message_bytes_max,
            framed_bytes_max: framing.framed_bytes(message_bytes_max),
            by_owner: socket.is_owners(),
            egress,
            queue: Mutex::new(State { queue: Queue::new(socket), stuck: None }),
            called: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }))
    }

    /// The bytes around a message on this connection.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.0.framing
    }

    /// The longest message the client is willing to receive, without what is around it.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.0.message_bytes_max
    }

    /// Queues a message framed by this connection's [`Framing`]. Never blocks, and writes nothing.
    pub fn push(&self, framed: Bytes, class: Class) -> Pushed {
        if framed.len() > self.0.framed_bytes_max {
            self.0.egress.count_too_large();
            return Pushed::TooLarge;
        }
        self.push_any(framed, class)
    }

    /// As [`Self::push`], for a frame that is no message.
    pub(crate) fn push_any(&self, framed: Bytes, class: Class) -> Pushed {
        let inner = &*self.0;
        let egress = &inner.egress;
        let mut state = inner.lock();
        let kicked = state.queue.kicked();
        let share = state.stuck.as_ref().and_then(|_| egress.share(framed.len()));
        let pushed = state.queue.push(framed, class, egress.bounds(), share);
        match pushed {
            Pushed::Queued => {
                let bytes = state.queue.bytes();
                let over = state.stuck.as_ref().is_some_and(|stuck| stuck.place.resize(bytes));
                drop(state);
                if over {
                    egress.relieve();
                }
            }
            Pushed::Dropped => egress.count_dropped(),
            Pushed::Refused if state.queue.kicked() != kicked => inner.ended(state),
            Pushed::First | Pushed::TooLarge | Pushed::Refused => {}
        }
        pushed
    }

    /// Writes what is queued as far as the socket takes it; the rest is left to the connection's own task. Never blocks,
    /// may be called by anybody at any time.
    pub fn flush(&self) {
        let inner = &*self.0;
        let mut state = inner.lock();
        if inner.by_owner {
            if state.queue.hand_over() {
                drop(state);
                inner.call();
            }
            return;
        }
        let Some(writer) = state.queue.take(By::Flusher) else { return };
        drop(state);
        inner.write(writer, By::Flusher, None);
    }

    /// Ends the connection soon: its [`Connection::read`](crate::Connection::read) says so. After [`Kick::Asked`] what is
    /// queued is still sent.
    pub fn kick(&self, why: Kick) {
        let mut state = self.0.lock();
        let before = state.queue.kicked();
        state.queue.end(why);
        if state.queue.kicked() != before {
            self.0.ended(state);
        }
    }

    /// Bytes that wait, with a charge for each message.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.0.lock().queue.bytes()
    }
}

/// For the connection's own task.
impl Outbox {
    /// Registers the task to be called, and tells whether it was since the last time.
    pub(crate) fn is_called(&self, waker: &Waker) -> bool {
        self.0.waker.register(waker);
        // The load spares idle polls the write to a shared line.
        self.0.called.load(Ordering::Acquire) && self.0.called.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn kicked(&self) -> Option<Kick> {
        self.0.lock().queue.kicked()
    }

    /// Whether the owner is to write.
    pub(crate) fn is_owners(&self) -> bool {
        self.0.lock().queue.is_owners()
    }

    /// Whether all is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().queue.is_empty()
    }

    /// When the socket has taken nothing for too long, if it takes nothing now.
    pub(crate) fn stuck_until(&self) -> Option<Instant> {
        let state = self.0.lock();
        if state.queue.is_stale() {
            return None;
        }
        state.stuck.as_ref().map(|stuck| stuck.since + self.0.egress.config().stuck_max)
    }

    /// Acts on a socket that has taken nothing for too long.
    pub(crate) fn too_old(&self) -> Option<Kick> {
        match self.0.egress.config().policy {
            Policy::Disconnect => self.kick(Kick::Stuck),
            Policy::DropEvents => self.0.lock().queue.set_stale(),
        }
        self.kicked()
    }

    /// Writes as the owner of the connection, to `io` where the queue has no socket of its own. What is in the way, if
    /// anything is left.
    pub(crate) fn write_as_owner(&self, io: Option<Io<'_>>) -> Option<Wrote> {
        let writer = self.0.lock().queue.take(By::Owner)?;
        self.0.write(writer, By::Owner, io)
    }

    fn kick_for_budget(&self) {
        self.kick(Kick::Budget);
        // Ended before, for another reason: its bytes are gone all the same.
        self.0.lock().stuck = None;
    }

    /// Refuses all that is pushed from now on.
    pub(crate) fn seal(&self) {
        self.0.lock().queue.seal();
    }

    /// Forgets all that is queued, and the socket.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        let socket = state.queue.close();
        state.stuck = None;
        drop(state);
        drop(socket);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; and a queue is whole between any two steps.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the connection's own task.
    fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// What follows when the connection is being ended for a new reason.
    fn ended(&self, mut state: MutexGuard<'_, State>) {
        if let Some(kick) = state.queue.kicked() {
            self.egress.count_kick(kick);
            if kick.is_at_once() {
                state.stuck = None;
            }
        }
        drop(state);
        self.call();
    }

    /// Writes until nothing is left or the owner has to go on; then, why.
    fn write(
        &self,
        mut writer: Writer<WriteHalf>,
        by: By,
        mut io: Option<Io<'_>>,
    ) -> Option<Wrote> {
        loop {
            let Writer { socket, batch, turn_bytes } = &mut writer;
            let (freed, how) = match &mut io {
                Some(io) => write::write(batch, turn_bytes, io),
                None => write::write(batch, turn_bytes, &mut |chunks| socket.try_write(chunks)),
            };
            let mut state = self.lock();
            let kicked = state.queue.kicked();
            match state.queue.wrote(writer, freed, how) {
                Next::Write(next) => {
                    state.stuck = None;
                    drop(state);
                    writer = next;
                }
                Next::Done => {
                    state.stuck = None;
                    if state.queue.kicked() != kicked {
                        self.ended(state);
                    }
                    return None;
                }
                Next::Owner => {
                    self.left_to_owner(state, freed, how);
                    if by == By::Flusher {
                        self.call();
                    }
                    return Some(how);
                }
            }
        }
    }

    /// Keeps the account of a socket that does not take what is there.
    fn left_to_owner(&self, mut state: MutexGuard<'_, State>, freed: usize, how: Wrote) {
        let bytes = state.queue.bytes();
        if how != Wrote::Blocked {
            state.stuck = None;
            return;
        }
        let over = match &mut state.stuck {
            Some(stuck) => {
                if freed > 0 {
                    stuck.since = Instant::now();
                }
                stuck.place.resize(bytes)
            }
            None => {
                let place = Place::new(&self.egress, Weak::clone(&self.this));
                let over = place.resize(bytes);
                state.stuck = Some(Stuck { since: Instant::now(), place });
                over
            }
        };
        drop(state);
        if over {
            self.egress.relieve();
        }
    }
}
