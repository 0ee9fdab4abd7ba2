//! What everybody but the interest actor holds, and what outlives that actor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weald_peers::{Channel, ClusterWatch, Inbox, Meter, Network, PeerEvent};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_supervision::{Address, ChildSpec, Shutdown};

use super::actor::{InterestActor, Msg};
use super::config::{Config, ms};
use super::core::{Interest, Output, Standing};
use super::row::{Change, Row, Value};

/// Frames of peers that wait; more are dropped, and healed by the next digest. // guess
const WAITING_FRAMES_MAX: u64 = 8192;
/// Time the actor has to stop.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Where rows of other nodes go. Called by the interest actor, one call at a time: what takes long holds up the rows of all
/// nodes.
pub trait Routes: Send + Sync + 'static {
    /// Rows of a node are these now; those that are gone have no count. May say what is known already.
    fn apply(&self, node: NodeId, rows: Vec<Change>);
    /// All rows of a node are gone, and what was said of their use.
    fn drop_node(&self, node: NodeId);
    /// Whether the rows of a node may be used. That they may not is said before the first of them.
    fn usable(&self, node: NodeId, is_usable: bool);
}

/// What interest is made of.
#[derive(Clone)]
pub struct Parts {
    /// This node.
    pub own: NodeId,
    /// Larger than in any life of this node before: the incarnation of its memory tables.
    pub incarnation: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Times and bounds.
    pub config: Config,
    /// The way to peers.
    pub network: Arc<dyn Network>,
    /// The membership.
    pub cluster: ClusterWatch,
    /// Where rows of other nodes go.
    pub routes: Arc<dyn Routes>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("own", &self.own)
            .field("incarnation", &self.incarnation)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How interest stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// This node's own rows; `None` before the actor has run.
    pub own: Option<Standing>,
    /// Those of other nodes.
    pub nodes: BTreeMap<NodeId, Standing>,
    /// Nodes that are reached, or members that may answer yet, whose rows have not come once since the start.
    pub awaited: BTreeSet<NodeId>,
}

impl Status {
    /// Whether the rows of all nodes that are reached, and of all members that may answer, have come at least once.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.own.is_some() && self.awaited.is_empty()
    }
}

/// What has happened since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames sent, one for each peer.
    pub sent: u64,
    /// Frames that the network did not take.
    pub unsent: u64,
    /// Frames of peers that could not be read.
    pub malformed: u64,
    /// Frames of peers that were dropped because too many waited.
    pub refused: u64,
    /// Rows of other nodes that have changed.
    pub applied: u64,
    /// What should not have happened; see the log.
    pub troubles: u64,
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) sent: AtomicU64,
    pub(super) unsent: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) applied: AtomicU64,
    pub(super) troubles: AtomicU64,
}

impl Totals {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// The core, and what it has said that was not done yet.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) interest: Interest,
    pub(super) outputs: VecDeque<Arc<Output>>,
}

/// Changes of this node's rows on their way to the core.
#[derive(Debug, Default)]
struct Changed {
    new: BTreeMap<Row, Value>,
    /// Taken by an actor that may crash before it is done with them.
    taken: Arc<BTreeMap<Row, Value>>,
}

/// What outlives the actor.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) parts: Parts,
    pub(super) address: Address<Msg>,
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) totals: Totals,
    /// Locked by the actor alone, and for one input.
    pub(super) running: Mutex<Running>,
    changed: Mutex<Changed>,
    /// Whether a message about changes is on its way.
    is_stirred: AtomicBool,
    /// Who is connected, each time under another number. Written by connection actors.
    connected: Mutex<BTreeMap<NodeId, u64>>,
    next_connection: AtomicU64,
    meter: Arc<Meter>,
    started: Instant,
}

impl Shared {
    /// Milliseconds since the process started.
    pub(super) fn now_ms(&self) -> u64 {
        ms(self.started.elapsed())
    }

    pub(super) fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is connected, and by which connection.
    pub(super) fn connected(&self) -> BTreeMap<NodeId, u64> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes since the last call, with those that were taken before and not done with.
    pub(super) fn take_changed(&self) -> Arc<BTreeMap<Row, Value>> {
        self.is_stirred.store(false, Ordering::SeqCst);
        let mut changed = self.changed();
        let new = std::mem::take(&mut changed.new);
        if changed.taken.is_empty() {
            changed.taken = Arc::new(new);
        } else {
            Arc::make_mut(&mut changed.taken).extend(new);
        }
        Arc::clone(&changed.taken)
    }

    /// What was taken is with the core.
    pub(super) fn changed_done(&self) {
        let done = std::mem::take(&mut self.changed().taken);
        // Freed without the lock held.
        drop(done);
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Interest as its users hold it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InterestHandle {
    shared: Arc<Shared>,
}

impl InterestHandle {
    /// A handle for the actor that [`Self::child_spec`] starts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let interest =
            Interest::new(parts.own, parts.incarnation, parts.seed, parts.config.clone());
        let shared = Shared {
            // Twice as many messages as frames, so that frames never keep out the rest.
            address: Address::with_capacity("router/interest", 2 * WAITING_FRAMES_MAX),
            status: watch::Sender::new(Arc::default()),
            totals: Totals::default(),
            running: Mutex::new(Running { interest, outputs: VecDeque::new() }),
            changed: Mutex::default(),
            is_stirred: AtomicBool::new(false),
            connected: Mutex::default(),
            next_connection: AtomicU64::new(1),
            meter: Meter::new(parts.config.waiting_bytes_max),
            started: Instant::now(),
            parts,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The child for a supervisor. Restart type `Permanent`.
    #[must_use]
    pub fn child_spec(&self) -> ChildSpec {
        let shared = Arc::clone(&self.shared);
        ChildSpec::worker("interest", &self.shared.address, move || {
            (InterestActor, Arc::clone(&shared))
        })
        .shutdown(Shutdown::Timeout(STOP_TIME))
    }

    /// Rows of this node are these now. Never waits; what waits to be told is bounded by the distinct rows, of which the
    /// newest value counts. Calls for one row have to come in the order of its changes.
    pub fn changed(&self, rows: impl IntoIterator<Item = Change>) {
        self.shared.changed().new.extend(rows);
        if !self.shared.is_stirred.swap(true, Ordering::SeqCst)
            && self.shared.address.cast(Msg::Changed).is_err()
        {
            // The actor looks at its start, and with every tick.
            self.shared.is_stirred.store(false, Ordering::SeqCst);
        }
    }

    /// How interest stands, as of a moment ago.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.shared.status.borrow())
    }

    /// Tells of changes of [`Self::status`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Status>> {
        self.shared.status.subscribe()
    }

    /// Waits until another node is reached: the first thing for a node that is told where others are and remembers none. Says
    /// whether that came before the deadline.
    pub async fn met(&self, deadline: Instant) -> bool {
        let mut watch = self.shared.status.subscribe();
        let met = watch.wait_for(|status| !status.nodes.is_empty());
        matches!(tokio::time::timeout_at(deadline, met).await, Ok(Ok(_status)))
    }

    /// Waits until the rows of all nodes that are reached have come; see [`Status::is_caught_up`].
    ///
    /// # Errors
    /// Whose rows have not, at the deadline.
    pub async fn caught_up(&self, deadline: Instant) -> Result<(), BTreeSet<NodeId>> {
        let mut watch = self.shared.status.subscribe();
        let caught_up = watch.wait_for(|status| status.is_caught_up());
        match tokio::time::timeout_at(deadline, caught_up).await {
            Ok(Ok(_status)) => Ok(()),
            // The sender lives as long as this handle.
            Ok(Err(_)) | Err(_) => Err(self.status().awaited.clone()),
        }
    }

    /// What has happened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let totals = &self.shared.totals;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            sent: get(&totals.sent),
            unsent: get(&totals.unsent),
            malformed: get(&totals.malformed),
            refused: get(&totals.refused),
            applied: get(&totals.applied),
            troubles: get(&totals.troubles),
        }
    }
}

/// For frames that [`is_interest`](super::wire::is_interest): whoever takes all frames of the service hands on those.
impl Inbox for InterestHandle {
    fn frame(&self, from: NodeId, _channel: Channel, frame: Frame) {
        let shared = &self.shared;
        let has_room = shared.address.depth() < WAITING_FRAMES_MAX;
        let permit = has_room.then(|| shared.meter.take(frame.encoded_len())).flatten();
        let taken =
            permit.map(|permit| shared.address.cast(Msg::Frame { from, frame, permit }).is_ok());
        if taken != Some(true) {
            Totals::add(&shared.totals.refused, 1);
        }
    }

    fn peer(&self, event: &PeerEvent) {
        {
            let connected = self.shared.connected.lock();
            let mut connected = connected.unwrap_or_else(PoisonError::into_inner);
            match event {
                PeerEvent::Up(info) => {
                    let number = self.shared.next_connection.fetch_add(1, Ordering::Relaxed);
                    connected.insert(info.node, number);
                }
                PeerEvent::Down { node, .. } => {
                    connected.remove(node);
                }
            }
        }
        // If it is lost, the actor looks with its next tick.
        drop(self.shared.address.cast(Msg::Peers));
    }
}
