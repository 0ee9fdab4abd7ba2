//! The membership as everybody but its actor holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::watch;
use weald_peers::{
    Channel, Cluster, ClusterWatch, Inbox, Liveness, Member, Meter, PeerEvent, PeerInfo, Status,
};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_supervision::{Address, CallError};

use crate::actor::Msg;
use crate::admission::{Refusal, admit};
use crate::core::{Force, OpError, Own};

/// Bytes of frames that may wait for the actor. // guess: some hundred pages
const WAITING_BYTES_MAX: usize = 16 << 20;
/// What an answer may take beyond the request's own deadline.
const GRACE: Duration = Duration::from_secs(2);

/// Connected peers; replaced as a whole.
pub(crate) type Peers = BTreeMap<NodeId, Arc<PeerInfo>>;

/// What outlives the actor.
#[derive(Debug)]
pub struct Shared {
    pub(crate) own: Own,
    pub(crate) started: Instant,
    pub(crate) snapshot: ArcSwap<Cluster>,
    pub(crate) watch: watch::Sender<Arc<Cluster>>,
    /// What the transport says; the actor follows it, whatever messages were lost.
    pub(crate) peers: ArcSwap<Peers>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) malformed: AtomicU64,
    pub(crate) unsent: AtomicU64,
    pub(crate) health: AtomicU64,
    undelivered: AtomicU64,
    name_conflicts: AtomicU64,
}

/// Why a request failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The membership said no.
    #[error(transparent)]
    Refused(#[from] OpError),
    /// The membership is down or did not answer in time.
    #[error("the membership did not answer: {0}")]
    Unavailable(CallError),
}

/// Counters for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Frames that did not decode.
    pub malformed: u64,
    /// Frames refused because too much was waiting.
    pub refused: u64,
    /// Frames that came while the actor was down.
    pub undelivered: u64,
    /// Messages that the network did not take.
    pub unsent: u64,
    /// Handshakes refused because of a live member's name.
    pub name_conflicts: u64,
    /// Local health: 0 is well.
    pub health: u64,
}

/// The membership. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MembershipHandle {
    pub(crate) address: Address<Msg>,
    pub(crate) shared: Arc<Shared>,
}

impl MembershipHandle {
    /// The membership of this node, before its actor runs: alone.
    #[must_use]
    pub fn new(own: Own) -> Self {
        let member = Member {
            node: own.node,
            name: own.name.clone(),
            incarnation: own.incarnation,
            version: 0,
            addresses: own.addresses.clone(),
            status: Status::Joined,
            liveness: Liveness::Up,
            seen_ms: 0,
        };
        let alone = Arc::new(Cluster::alone(member));
        let shared = Shared {
            own,
            started: Instant::now(),
            snapshot: ArcSwap::new(Arc::clone(&alone)),
            watch: watch::Sender::new(alone),
            peers: ArcSwap::default(),
            meter: Meter::new(WAITING_BYTES_MAX),
            malformed: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            health: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
            name_conflicts: AtomicU64::new(0),
        };
        Self { address: Address::new("membership"), shared: Arc::new(shared) }
    }

    /// The cluster, whenever it changes.
    #[must_use]
    pub fn watch(&self) -> ClusterWatch {
        self.shared.watch.subscribe()
    }

    /// The cluster now. Takes no lock.
    #[must_use]
    pub fn cluster(&self) -> Arc<Cluster> {
        self.shared.snapshot.load_full()
    }

    /// Whether a peer may connect. Takes no lock; asked in each handshake.
    ///
    /// # Errors
    /// [`Refusal`]; a conflict of names is logged, too.
    pub fn admit(&self, peer: &PeerInfo) -> Result<(), Refusal> {
        let result = admit(&self.shared.snapshot.load(), peer);
        if let Err(Refusal::NameTaken { name, holder }) = &result {
            self.shared.name_conflicts.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                event = "name_conflict",
                member = %name,
                %holder,
                refused = %peer.node,
                "refused a node under the name of a live member"
            );
        }
        result
    }

    /// Joins a cluster through any of these addresses. Tries until it works or `deadline` has passed.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn join(
        &self,
        addresses: Vec<String>,
        deadline: Duration,
    ) -> Result<(), RequestError> {
        let within = deadline;
        self.request(|reply| Msg::Join { addresses, within, reply }, deadline).await
    }

    /// Leaves the cluster; the data stay. Returns when the neighbours know, or `deadline` has passed.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn leave(&self, deadline: Duration) -> Result<(), RequestError> {
        self.request(|reply| Msg::Leave { within: deadline, reply }, deadline).await
    }

    /// Evicts a member, by id or name.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn forget(
        &self,
        name_or_id: String,
        force: Force,
        deadline: Duration,
    ) -> Result<(), RequestError> {
        self.request(|reply| Msg::Forget { who: name_or_id, force, reply }, deadline).await
    }

    async fn request(
        &self,
        make: impl FnOnce(weald_supervision::ractor::RpcReplyPort<Result<(), OpError>>) -> Msg,
        deadline: Duration,
    ) -> Result<(), RequestError> {
        let answer = self.address.call(make, deadline + GRACE).await;
        Ok(answer.map_err(RequestError::Unavailable)??)
    }

    /// This node was fenced, and has caught up with a complete exchange: it is a full member again.
    pub fn rejoin_done(&self) {
        self.tell(Msg::RejoinDone);
    }

    /// The store has taken a new incarnation.
    pub fn renewed(&self, incarnation: u32) {
        self.tell(Msg::Incarnation(incarnation));
    }

    /// A member has refused this node's connection as evicted.
    pub fn evicted_by(&self, member: NodeId) {
        self.tell(Msg::EvictedBy(member));
    }

    /// Addresses where members may be.
    pub fn discovered(&self, addresses: Vec<String>) {
        self.tell(Msg::Discovered(addresses));
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            malformed: read(&self.shared.malformed),
            refused: self.shared.meter.refused(),
            undelivered: read(&self.shared.undelivered),
            unsent: read(&self.shared.unsent),
            name_conflicts: read(&self.shared.name_conflicts),
            health: read(&self.shared.health),
        }
    }

    fn tell(&self, message: Msg) {
        if self.address.cast(message).is_err() {
            self.shared.undelivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Inbox for MembershipHandle {
    fn frame(&self, from: NodeId, _channel: Channel, frame: Frame) {
        if let Some(permit) = self.shared.meter.take(frame.encoded_len()) {
            self.tell(Msg::Frame { from, frame, permit });
        }
    }

    fn peer(&self, event: &PeerEvent) {
        self.shared.peers.rcu(|peers| {
            let mut peers = Peers::clone(peers);
            match event {
                PeerEvent::Up(info) => drop(peers.insert(info.node, Arc::clone(info))),
                PeerEvent::Down { node, .. } => drop(peers.remove(node)),
            }
            peers
        });
        self.tell(Msg::Peers);
    }
}
