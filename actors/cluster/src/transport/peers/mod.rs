//! Connections between nodes.
//!
//! What it is: [`Transport`], the [`Network`] of a node. A table says which connections there are, a dialer for each wanted
//! peer makes those that are missing, the listener takes those that others make, and each is an actor of its own, as those
//! of clients are.
//!
//! ```text
//! peers        dynamic; connections and dialers, all temporary
//! keeper       starts dialers, ends what nobody wants, pings, looks at the certificate files
//! ```
//! One connection for each (peer, channel, lane), with a bounded queue. A peer is up when all are there, and down with the
//! first that is lost: the rest is closed and everything is dialled anew, so that nobody has to think about half a peer.
//! Frames may come from a peer a moment before `Up` is told, as the other end may be ready first; none comes after `Down`.
//!
//! What it guarantees: the name and cluster of a peer are proved by its certificate, in both directions, also on loopback;
//! sending takes no lock but that of the one queue; a peer costs bounded memory whatever it does; who is half-open is cut
//! within [`Config::peer_idle_timeout`](super::Config::peer_idle_timeout).
//!
//! What it refuses: plain text, relaying for others, and knowing what frames mean.

mod accept;
mod demand;
mod dial;
mod events;
mod far;
mod keeper;
mod link;
mod road;
mod stats;
mod table;

pub use dial::{DialFailure, RefusedBy};
pub use far::Far;
pub use stats::{ChannelStats, PeerStats};

pub(super) use accept::{Accepted, greet};
pub(super) use keeper::keep;

use super::tls::Tls;
use super::{Config, hex};
use arc_swap::{ArcSwap, ArcSwapOption};
use events::Events;
use link::{Link, PING};
use road::Roads;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use table::{Claim, Effects, Lane, Table};
use tokio::sync::watch;
use weald_peers::{Channel, Inbox, PeerEvent, PeerInfo};
use weald_proto::Frame;
use weald_proto::hello::Refused;
use weald_proto::hello::node::NodeHello;
use weald_proto::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX};
use weald_storage::NodeId;
use weald_supervision::{DynamicHandle, LogLimit};

/// Says which nodes may connect.
pub trait Admission: Send + Sync + 'static {
    /// Asked in every handshake, on both sides, from many tasks: it must not block.
    ///
    /// # Errors
    /// Why not; the other side is told.
    fn admit(&self, peer: &PeerInfo) -> Result<(), Refused>;

    /// A wanted peer has refused this node. It must not block.
    fn refused_by(&self, peer: NodeId, why: &Refused) {
        let _nothing_to_do = (peer, why);
    }

    /// Where a member that answers is reached, if it need not be connected all the time. It must not block.
    fn way_to(&self, node: NodeId) -> Option<Vec<String>> {
        let _all_are_connected = node;
        None
    }
}

/// Lets in every node with a certificate of the cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit(&self, _peer: &PeerInfo) -> Result<(), Refused> {
        Ok(())
    }
}

type Inboxes = BTreeMap<u8, Arc<dyn Inbox>>;

/// The connections of a peer that is up.
struct Live {
    lanes: [Vec<Arc<Link>>; 3],
}

impl Live {
    fn channel(&self, channel: Channel) -> &[Arc<Link>] {
        let [control, data, relay] = &self.lanes;
        match channel {
            Channel::Control => control,
            Channel::Data => data,
            Channel::Relay => relay,
        }
    }
}

/// What all parts share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) tls: Tls,
    pub(super) bound: watch::Sender<Vec<SocketAddr>>,
    pub(super) children: DynamicHandle,
    pub(super) logs: LogLimit,
    /// Peers that come and go have a limit of their own: strangers cannot use it up.
    peer_logs: LogLimit,
    own: NodeId,
    boot: OnceLock<[u8; 16]>,
    /// Peers that have a dialer.
    dialers: Mutex<BTreeSet<NodeId>>,
    started: Instant,
    incarnation: AtomicU32,
    is_serving: AtomicBool,
    table: Mutex<Table>,
    live: ArcSwap<BTreeMap<NodeId, Arc<Live>>>,
    /// Where not all are connected: the ways of frames of clients.
    roads: Roads,
    following: Mutex<()>,
    inboxes: ArcSwap<Inboxes>,
    admission: ArcSwapOption<Arc<dyn Admission>>,
    events: Events,
    /// Counts changes of the table.
    changes: watch::Sender<u64>,
    unknown: AtomicU64,
}

impl Shared {
    /// Changes the table, and does what follows from that.
    fn change<T>(&self, change: impl FnOnce(&mut Table, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let result = {
            let mut table = self.table();
            let result = change(&mut table, &mut effects);
            if effects.publish {
                self.publish(&table);
            }
            // Queued under the lock, so that events come in the order of what they tell.
            let inboxes = self.inboxes.load_full();
            for event in std::mem::take(&mut effects.events) {
                self.log_event(&event);
                self.events.push(Arc::clone(&inboxes), event);
            }
            result
        };
        for (link, why) in effects.close {
            link.close(&why);
        }
        if effects.publish && self.config.far.is_some() {
            self.follow_roads();
        }
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        self.events.deliver();
        result
    }

    fn publish(&self, table: &Table) {
        let up = table.peers().filter(|(_, peer)| peer.up_since.is_some());
        let live = up.map(|(node, peer)| {
            let lanes = Channel::ALL.map(|channel| peer.links(channel));
            (*node, Arc::new(Live { lanes }))
        });
        self.live.store(Arc::new(live.collect()));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A frame for a service that this node does not have.
    fn unknown(&self, peer: NodeId, kind: u16) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.logs.admit() {
            tracing::warn!(event = "frame_unknown", peer = %peer, kind, suppressed, "frame of an unknown service");
        }
    }

    /// Asks whether a node may connect; when it has dialled, only while this node serves.
    fn admit(&self, peer: &PeerInfo, by_us: bool) -> Result<(), Refused> {
        match &*self.admission.load() {
            _ if !by_us && !self.is_serving.load(Ordering::Acquire) => Err(Refused::NotServing),
            Some(admission) => admission.admit(peer),
            // A node that is not ready may still find out who the others are.
            None if by_us => Ok(()),
            None => Err(Refused::NotServing),
        }
    }

    /// The cluster; none when neither the configuration nor a certificate says.
    fn cluster(&self) -> Option<String> {
        self.config.cluster.clone().or_else(|| self.tls.identity().map(|own| own.cluster))
    }

    fn hello(&self, lane: Lane) -> Result<NodeHello, String> {
        Ok(NodeHello {
            versions: self.config.versions,
            cluster: self.cluster().unwrap_or_default(),
            name: self.config.node_name.clone(),
            uuid: self.own.0,
            incarnation: self.incarnation(),
            boot: self.boot()?,
            partitions: self.config.partitions,
            lanes: self.config.lanes,
            channel: table::channel_number(lane.0),
            lane: lane.1,
            addresses: self.addresses(),
            capabilities: self.config.capabilities.clone(),
            nonce: weald_link::hello::random()?,
        })
    }

    /// Random number of this process, drawn when it is first needed.
    fn boot(&self) -> Result<[u8; 16], String> {
        if let Some(boot) = self.boot.get() {
            return Ok(*boot);
        }
        let drawn = weald_link::hello::random()?;
        Ok(*self.boot.get_or_init(|| drawn))
    }

    fn dialers(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        // Nothing panics while it is held.
        self.dialers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> Vec<String> {
        let mut addresses = self.config.advertise.clone();
        if addresses.is_empty() {
            addresses = self.bound.borrow().iter().map(ToString::to_string).collect();
        }
        addresses.retain(|address| address.len() <= ADDRESS_BYTES_MAX);
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }

    /// Checks what a node says of itself against its certificate and against this node, which has dialled it or was dialled.
    fn judge(
        &self,
        hello: &NodeHello,
        proved: &weald_link::pki::Identity,
        by_us: bool,
    ) -> Result<(), Refused> {
        hello.check()?;
        let ours = self.cluster().unwrap_or_default();
        if proved.cluster != ours || hello.cluster != ours {
            let theirs =
                if proved.cluster == ours { hello.cluster.clone() } else { proved.cluster.clone() };
            let (ours, theirs) = if by_us { (theirs, ours) } else { (ours, theirs) };
            return Err(Refused::OtherCluster { ours, theirs });
        }
        if hello.name != proved.node {
            return Err(Refused::Certificate(format!(
                "it is of node {:?}, the hello says {:?}",
                proved.node, hello.name
            )));
        }
        if hello.uuid == self.own.0 {
            let is_same = self.boot.get() == Some(&hello.boot);
            let clone = Refused::Clone(self.own.to_string());
            return Err(if is_same { Refused::Oneself } else { clone });
        }
        if hello.name == self.config.node_name {
            return Err(Refused::NameTaken(hello.name.clone()));
        }
        if hello.partitions != self.config.partitions {
            let (ours, theirs) = (self.config.partitions, hello.partitions);
            let (ours, theirs) = if by_us { (theirs, ours) } else { (ours, theirs) };
            return Err(Refused::Partitions { ours, theirs });
        }
        self.admit(&table::info_of(hello), by_us)
    }

    fn reserve(
        self: &Arc<Self>,
        hello: &NodeHello,
        is_own: bool,
    ) -> Result<link::Reserved, Refused> {
        let by_smaller = (self.own.0 < hello.uuid) == is_own;
        let claim = Claim { hello, by_smaller, is_own };
        let now = Instant::now();
        let link = self.change(|table, effects| table.reserve(&claim, now, effects))?;
        Ok(link::Reserved::new(link, Arc::clone(self)))
    }

    /// The incarnation that is told in handshakes.
    pub(super) fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Acquire)
    }

    fn log_event(&self, event: &PeerEvent) {
        let Some(suppressed) = self.peer_logs.admit() else { return };
        match event {
            PeerEvent::Up(info) => {
                tracing::info!(event = "peer_up", peer = %info.name, node_id = %info.node, incarnation = info.incarnation, suppressed, "peer up");
            }
            PeerEvent::Down { node, why, is_agreed: true } => {
                tracing::info!(event = "peer_released", node_id = %node, reason = %why, suppressed, "connections that nobody used are closed");
            }
            PeerEvent::Down { node, why, is_agreed: false } => {
                tracing::warn!(event = "peer_down", node_id = %node, reason = %why, suppressed, "peer down");
            }
        }
    }

    /// Sends a ping to every peer.
    fn ping(&self) {
        for live in self.live.load().values() {
            let outbound = live.channel(Channel::Control).first().and_then(|l| l.outbound());
            if let Some(outbound) = outbound {
                let frame = Frame { kind: PING, corr: self.now_us(), body: Vec::new() };
                // A queue that is full has no round trip worth measuring.
                outbound.send(&frame).ok();
            }
        }
    }
}

/// The connections of a node with its peers. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("own", &self.shared.own).finish_non_exhaustive()
    }
}

impl Transport {
    /// The transport of a node that is yet to run; see [`Transport::child_spec`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        let own = NodeId(config.node_uuid);
        let tls = Tls::new(config.tls.clone(), &config.node_name, config.cluster.as_deref());
        let shared = Shared {
            tls,
            bound: watch::Sender::new(Vec::new()),
            children: DynamicHandle::new("peers"),
            logs: LogLimit::new(),
            peer_logs: LogLimit::new(),
            own,
            boot: OnceLock::new(),
            dialers: Mutex::default(),
            started: Instant::now(),
            incarnation: AtomicU32::new(config.incarnation),
            is_serving: AtomicBool::new(true),
            table: Mutex::new(Table::new(own, config.lanes)),
            live: ArcSwap::default(),
            roads: Roads::default(),
            following: Mutex::default(),
            inboxes: ArcSwap::default(),
            admission: ArcSwapOption::empty(),
            events: Events::default(),
            changes: watch::Sender::new(0),
            unknown: AtomicU64::new(0),
            config,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps all channels to these peers connected, at any of the addresses given for each. Replaces what was wanted before:
    /// connections with others are closed, with members of a partial mesh once nobody uses them.
    pub fn want(&self, peers: BTreeMap<NodeId, Vec<String>>) {
        let may_stay = |node| self.shared.way_to(node).is_some();
        self.shared.change(|table, effects| table.want(peers, may_stay, effects));
    }

    /// Ends all connections with a peer. One that is wanted is dialled again.
    pub fn disconnect(&self, peer: NodeId, why: &str) {
        self.shared.change(|table, effects| table.take_down(peer, why, effects));
    }

    /// Connects to whoever is at one of these addresses, on all channels, and stays connected for at least 30 s, or for as
    /// long as the peer is wanted. Takes at most 10 s for each address.
    ///
    /// # Errors
    /// [`DialFailure`] of the last address tried.
    pub async fn dial_seed(&self, addresses: Vec<String>) -> Result<PeerInfo, DialFailure> {
        dial::seed(&self.shared, addresses).await
    }

    /// Says who takes the frames of a service (one of [`weald_peers::kind`]), and is told of peers. Those that are up already
    /// are told at once. Frames of a service that nobody takes are counted and dropped.
    pub fn set_inbox(&self, service: u8, inbox: Arc<dyn Inbox>) {
        {
            let table = self.shared.table();
            let mut inboxes = Inboxes::clone(&self.shared.inboxes.load());
            inboxes.insert(service, Arc::clone(&inbox));
            self.shared.inboxes.store(Arc::new(inboxes));
            let only = Arc::new(Inboxes::from([(service, inbox)]));
            for (_, peer) in table.peers().filter(|(_, peer)| peer.up_since.is_some()) {
                let event = PeerEvent::Up(Arc::clone(&peer.info));
                self.shared.events.push(Arc::clone(&only), event);
            }
        }
        self.shared.events.deliver();
    }

    /// Says which nodes may connect. Before this is set none may: they are told that the node is not serving.
    pub fn set_admission(&self, admission: Arc<dyn Admission>) {
        self.shared.admission.store(Some(Arc::new(admission)));
    }

    /// Whether other nodes may connect; true at first. Connections that stand are not touched.
    pub fn set_serving(&self, is_serving: bool) {
        self.shared.is_serving.store(is_serving, Ordering::Release);
    }

    /// The incarnation that is told in handshakes from now on.
    pub fn set_incarnation(&self, incarnation: u32) {
        self.shared.incarnation.store(incarnation, Ordering::Release);
    }

    /// Reads the certificate files again. New handshakes use them, connections that stand go on. Blocks for the reading.
    ///
    /// # Errors
    /// What is wrong with the files; those read before stay in use.
    pub fn reload(&self) -> Result<(), String> {
        self.shared.tls.load()
    }

    /// The peers that are up.
    #[must_use]
    pub fn peers(&self) -> Vec<Arc<PeerInfo>> {
        let table = self.shared.table();
        let up = table.peers().filter(|(_, peer)| peer.up_since.is_some());
        up.map(|(_, peer)| Arc::clone(&peer.info)).collect()
    }

    /// Every peer that is wanted, or is or was connected.
    #[must_use]
    pub fn stats(&self) -> Vec<PeerStats> {
        let table = self.shared.table();
        let mut all: BTreeMap<NodeId, PeerStats> = BTreeMap::new();
        for (node, counters) in table.counters() {
            let peer = table.peer(*node);
            let up_since = peer.and_then(|peer| peer.up_since);
            let up_ms = |since: Instant| u64::try_from(since.elapsed().as_millis());
            let channel = |channel| {
                let links = peer.map_or_else(Vec::new, |peer| peer.links(channel));
                let waiting: Vec<_> = links.iter().map(|link| link.waiting()).collect();
                counters.channel_stats(channel, &waiting)
            };
            let stats = PeerStats {
                connected: up_since.is_some(),
                up_ms: up_since.map(|since| up_ms(since).unwrap_or(u64::MAX)),
                channels: Channel::ALL.map(channel).to_vec(),
                ..counters.stats(*node)
            };
            all.insert(*node, stats);
        }
        for node in table.wanted.keys() {
            let stats = all.entry(*node);
            stats.or_insert_with(|| stats::Counters::default().stats(*node)).wanted = true;
        }
        all.into_values().collect()
    }

    /// Frames that came for services that nobody takes.
    #[must_use]
    pub fn unknown_frames(&self) -> u64 {
        self.shared.unknown.load(Ordering::Relaxed)
    }
}
