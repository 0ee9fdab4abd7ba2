//! What everybody but the broadcast actor holds, and what outlives that actor.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weald_peers::{Channel, ClusterWatch, Inbox, Meter, Network, PeerEvent};
use weald_proto::Frame;
use weald_storage::{Actor, NodeId, ReadError, Space};
use weald_supervision::{Address, ChildSpec, LogLimit, Shutdown};

use crate::actor::{BroadcastActor, Msg};
use crate::config::Config;
use crate::core::Counters;
use crate::source::{Behind, Source, stream_of};

/// Bytes of frames that wait to be merged; more are dropped and their senders are behind. // guess: a second of traffic
pub const WAITING_BYTES_MAX: usize = 64 << 20;
/// Frames that wait; likewise. The mailbox takes twice as many messages, so that frames never keep out what jobs have to
/// say. // guess
pub const WAITING_FRAMES_MAX: u64 = 8192;
/// Time the actor has to stop.
const STOP_TIME: Duration = Duration::from_secs(2);

/// What a broadcast is made of.
#[derive(Clone)]
pub struct Parts {
    /// Times and bounds.
    pub config: Config,
    /// The way to peers.
    pub network: Arc<dyn Network>,
    /// The membership.
    pub cluster: ClusterWatch,
    /// Who arranges exchanges.
    pub behind: Arc<dyn Behind>,
    /// The streams: parts of the store by [`stream_of`], others from [`crate::source::OPAQUE_STREAMS`] on.
    pub sources: BTreeMap<u16, Arc<dyn Source>>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("config", &self.config)
            .field("streams", &self.sources.len())
            .finish_non_exhaustive()
    }
}

/// What a broadcast has done since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Of the present actor's trees.
    pub trees: Counters,
    /// Events of this node that were handed to the trees.
    pub published: u64,
    /// Events of peers that were merged and brought something new.
    pub merged: u64,
    /// Events of peers that the store did not take.
    pub merge_failures: u64,
    /// Messages of peers that could not be read.
    pub malformed: u64,
    /// Messages of peers dropped because too much waited.
    pub refused: u64,
    /// Reads of the store that failed.
    pub read_failures: u64,
    /// Neighbours that the trees know of.
    pub neighbours: u64,
    /// Bytes of frames waiting.
    pub waiting_bytes: usize,
}

/// A stream, as it outlives the actor.
pub(crate) struct Stream {
    pub(crate) source: Arc<dyn Source>,
    /// Whether something may have been committed since the last read began.
    pub(crate) is_dirty: AtomicBool,
    /// Up to which event of which actor this node has pushed. Kept here so that what is committed while the actor is
    /// down is pushed by its successor.
    pushed: Mutex<(Actor, u64)>,
}

impl Stream {
    pub(crate) fn pushed(&self) -> (Actor, u64) {
        *self.pushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_pushed(&self, pushed: (Actor, u64)) {
        *self.pushed.lock().unwrap_or_else(PoisonError::into_inner) = pushed;
    }
}

#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) trees: Mutex<Counters>,
    pub(crate) published: AtomicU64,
    pub(crate) merged: AtomicU64,
    pub(crate) merge_failures: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) read_failures: AtomicU64,
    pub(crate) neighbours: AtomicU64,
}

impl Totals {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What outlives the actor.
pub(crate) struct Shared {
    pub(crate) own: NodeId,
    pub(crate) config: Config,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) cluster: ClusterWatch,
    pub(crate) behind: Arc<dyn Behind>,
    pub(crate) streams: BTreeMap<u16, Arc<Stream>>,
    pub(crate) address: Address<Msg>,
    pub(crate) totals: Totals,
    pub(crate) generations: AtomicU64,
    /// Of lines that come with every event of a node whose disk is full.
    pub(crate) logs: LogLimit,
    meter: Arc<Meter>,
    started: Instant,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Shared {
    /// Milliseconds since the process started.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Sends to the actor what it can do without when it is down.
    pub(crate) fn cast(&self, message: Msg) {
        drop(self.address.cast(message));
    }
}

/// The broadcast as its users hold it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BroadcastHandle {
    shared: Arc<Shared>,
}

impl BroadcastHandle {
    /// A broadcast of what these sources commit from now on; older events are the exchange's business. Reads the clocks
    /// of all sources.
    ///
    /// # Errors
    /// A clock cannot be read.
    pub fn new(parts: Parts) -> Result<Self, ReadError> {
        let mut streams = BTreeMap::new();
        for (stream, source) in parts.sources {
            let actor = source.actor();
            let last = source.clock()?.get(&actor).map_or(0, weald_storage::Seen::highest);
            let pushed = Mutex::new((actor, last));
            // The first read starts with the actor: something may be committed before the hook is set.
            let stream_state = Stream { source, is_dirty: AtomicBool::new(true), pushed };
            streams.insert(stream, Arc::new(stream_state));
        }
        let own = parts.cluster.borrow().own;
        let shared = Shared {
            own,
            config: parts.config,
            network: parts.network,
            cluster: parts.cluster,
            behind: parts.behind,
            streams,
            address: Address::with_capacity("cluster/broadcast", 2 * WAITING_FRAMES_MAX),
            totals: Totals::default(),
            generations: AtomicU64::new(0),
            logs: LogLimit::new(),
            meter: Meter::new(WAITING_BYTES_MAX),
            started: Instant::now(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The child for a supervisor. Restart type `Permanent`.
    #[must_use]
    pub fn child_spec(&self) -> ChildSpec {
        let shared = Arc::clone(&self.shared);
        ChildSpec::worker("broadcast", &self.shared.address, move || {
            (BroadcastActor, Arc::clone(&shared))
        })
        .shutdown(Shutdown::Timeout(STOP_TIME))
    }

    /// Something was committed in a part of the store. From the commit hook: never blocks, and calls that come faster than
    /// the events are pushed are one.
    pub fn committed(&self, partition: u16, space: Space) {
        self.stirred(stream_of(partition, space));
    }

    /// A stream may have new events of this node. As [`Self::committed`], for any stream.
    pub fn stirred(&self, stream: u16) {
        let Some(state) = self.shared.streams.get(&stream) else { return };
        if !state.is_dirty.swap(true, Ordering::AcqRel) {
            // When the actor is down its successor looks at all streams.
            self.shared.cast(Msg::Committed { stream });
        }
    }

    /// What has been done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let totals = &self.shared.totals;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            trees: *totals.trees.lock().unwrap_or_else(PoisonError::into_inner),
            published: get(&totals.published),
            merged: get(&totals.merged),
            merge_failures: get(&totals.merge_failures),
            malformed: get(&totals.malformed),
            refused: get(&totals.refused),
            read_failures: get(&totals.read_failures),
            neighbours: get(&totals.neighbours),
            waiting_bytes: self.shared.meter.waiting(),
        }
    }
}

impl Inbox for BroadcastHandle {
    fn frame(&self, from: NodeId, _channel: Channel, frame: Frame) {
        let has_room = self.shared.address.depth() < WAITING_FRAMES_MAX;
        let permit = has_room.then(|| self.shared.meter.take(frame.encoded_len())).flatten();
        let sent = permit
            .map(|permit| self.shared.address.cast(Msg::Frame { from, frame, permit }).is_ok());
        if sent != Some(true) {
            Totals::add(&self.shared.totals.refused, 1);
            self.shared.behind.behind(from);
        }
    }

    /// Neighbours come from the membership.
    fn peer(&self, _event: &PeerEvent) {}
}

/// The child for a supervisor, as [`BroadcastHandle::child_spec`].
#[must_use]
pub fn child_spec(handle: &BroadcastHandle) -> ChildSpec {
    handle.child_spec()
}
