//! A node while it runs: the cores, put together as the actors of a real node do it.
//!
//! Everything here is volatile but for the durable part of the replicas and the members file, which the simulator keeps when
//! it ends a process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weald_broadcast::core::{self as plumtree, Plumtree};
use weald_exchange::core as exchange;
use weald_membership::core::{Input, Membership};
use weald_peers::{Channel, Cluster, Dots, kind};
use weald_storage::{Actor, Delta, Evidence, NodeId, Replicated};

use super::exchanging::Exchanges;
use super::history::Place;
use super::membering::{self, Wants};
use super::replicas::{Notes, Replicas, places};

/// A frame on its way out.
#[derive(Debug, Clone)]
pub struct Packet {
    /// To whom.
    pub to: NodeId,
    /// Which connection.
    pub channel: Channel,
    /// Its kind.
    pub kind: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Times of a node.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Between exchanges.
    pub exchange_ms: u64,
    /// Between acknowledgements of clocks, and between sweeps.
    pub ack_ms: u64,
    /// An exchange without progress ends after so long.
    pub idle_ms: u64,
    /// How old a tombstone must be.
    pub min_age_ms: u64,
    /// How long a member may be away.
    pub max_absence_ms: u64,
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its slot.
    pub slot: usize,
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its incarnation; 0 before its first start.
    pub incarnation: u32,
    /// The one of its places in memory, new at each start.
    pub memory_incarnation: u32,
}

impl Identity {
    /// Who issues the dots of a place.
    #[must_use]
    pub const fn actor(&self, place: Place) -> Actor {
        let incarnation =
            if place.is_memory() { self.memory_incarnation } else { self.incarnation };
        Actor { node: self.node, incarnation }
    }

    /// As a store does it at boot.
    fn boot(&mut self, is_clean: bool, wall_ms: u64) {
        if !is_clean {
            self.incarnation = next_incarnation(0, self.incarnation, wall_ms);
        }
        self.memory_incarnation = next_incarnation(1, self.memory_incarnation, wall_ms);
    }
}

/// As the store takes one: above the highest known, not below the clock, even in durable places and odd in memory.
fn next_incarnation(bit: u32, known: u32, wall_ms: u64) -> u32 {
    let seconds = u32::try_from(wall_ms / 1_000).unwrap_or(u32::MAX);
    let next = known.saturating_add(1).max(seconds);
    if next & 1 == bit { next } else { next + 1 }
}

/// What survives a process.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Who it is.
    pub identity: Identity,
    /// What it holds; the places in memory are empty when it starts again.
    pub replicas: Replicas,
    /// The members file.
    pub members: Option<Vec<u8>>,
    /// Whether it was closed cleanly: the node goes on under its incarnation.
    pub is_clean: bool,
}

/// What a node is started with, besides its disk.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its times.
    pub times: Times,
    /// Whether it talks to an overlay of neighbours.
    pub is_overlay: bool,
    /// Slots of the nodes that its configuration names.
    pub seeds: Vec<usize>,
    /// Seed of its randomness.
    pub seed: u64,
}

/// A node.
#[derive(Debug)]
pub struct Process {
    /// Who it is.
    pub identity: Identity,
    /// What it holds.
    pub replicas: Replicas,
    /// Frames to send.
    pub outbox: Vec<Packet>,
    /// Whether its disk is full.
    pub is_full: bool,
    /// Whether it has left, or was evicted and knows it.
    pub has_left: bool,
    /// The cluster as it sees it.
    pub cluster: Arc<Cluster>,
    pub(super) connected: BTreeSet<NodeId>,
    pub(super) membership: Membership,
    pub(super) wants: Wants,
    pub(super) seeds: Vec<usize>,
    pub(super) drain_since_ms: Option<u64>,
    pub(super) plumtree: Plumtree,
    pub(super) pushed: BTreeMap<Place, u64>,
    pub(super) exchanges: Exchanges,
    pub(super) times: Times,
}

impl Process {
    /// Starts a node on what its disk holds.
    #[must_use]
    pub fn start(disk: Disk, setting: Setting, notes: &mut Notes<'_>) -> Self {
        let Disk { mut identity, replicas, members, is_clean } = disk;
        let Setting { times, is_overlay, seeds, seed } = setting;
        identity.boot(is_clean, notes.wall_ms);
        let replicas = replicas.restarted(&identity);
        let now = (notes.now_ms, notes.wall_ms);
        let (membership, out) =
            membering::start(&identity, &times, is_overlay, members.as_deref(), now, seed);
        let own = identity.node;
        let mut process = Self {
            outbox: Vec::new(),
            is_full: false,
            has_left: false,
            cluster: membership.cluster(),
            connected: BTreeSet::new(),
            membership,
            wants: Wants::new(members),
            seeds,
            drain_since_ms: None,
            plumtree: Plumtree::new(own, plumtree::Config::default()),
            pushed: places().map(|place| (place, own_counter(&replicas, place))).collect(),
            exchanges: Exchanges::new(own, &times, notes.now_ms, seed ^ 1),
            times,
            identity,
            replicas,
        };
        process.perform_members(out, notes);
        process
    }

    /// What it leaves when it ends without warning.
    #[must_use]
    pub fn to_disk(&self) -> Disk {
        Disk {
            identity: self.identity.clone(),
            replicas: self.replicas.clone(),
            members: self.wants.saved.clone(),
            is_clean: false,
        }
    }

    pub(super) fn send(&mut self, to: NodeId, channel: Channel, kind: u16, body: Vec<u8>) {
        if self.connected.contains(&to) {
            self.outbox.push(Packet { to, channel, kind, body });
        }
    }

    /// A frame has arrived.
    pub fn frame(&mut self, from: NodeId, kind: u16, body: &[u8], notes: &mut Notes<'_>) {
        match kind::service(kind) {
            kind::MEMBERSHIP => self.on_membership(from, body, notes),
            kind::BROADCAST => self.on_broadcast(from, kind, body, notes),
            kind::EXCHANGE => self.on_exchange(from, kind, body, notes),
            _ => {}
        }
    }

    /// When it wants to be woken.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        let plumtree = self.plumtree.next_deadline().unwrap_or(u64::MAX);
        plumtree.min(self.members_deadline()).min(self.exchanges.next_deadline())
    }

    /// Time has passed.
    pub fn wake(&mut self, notes: &mut Notes<'_>) {
        self.members_wake(notes);
        self.exchanges_wake(notes);
        if self.plumtree.next_deadline().is_some_and(|at| at <= notes.now_ms) {
            for (stream, dots) in self.plumtree.due(notes.now_ms) {
                let clock = self.replicas.clock(Place(stream));
                let dots = Dots::from_iter(dots.iter().filter(|dot| clock.contains(dot)));
                self.plumtree(plumtree::Input::Known { stream, dots }, &[], notes);
            }
            self.plumtree(plumtree::Input::Tick, &[], notes);
        }
    }

    /// Merges, and begins a new life when that is what it takes.
    pub(super) fn merge(
        &mut self,
        place: Place,
        items: Vec<(Delta, Evidence)>,
        notes: &mut Notes<'_>,
    ) -> Vec<Result<bool, exchange::MergeFailure>> {
        if self.is_full {
            notes.sometimes.hit("merge_failed");
            return items.iter().map(|_| Err(exchange::MergeFailure::StorageFull)).collect();
        }
        let results = self.replicas.merge(place, items, notes);
        let forgotten = results.iter().filter_map(|result| match result {
            Err(exchange::MergeFailure::OwnEventUnknown { highest }) => Some(*highest),
            _ => None,
        });
        if let Some(highest) = forgotten.max() {
            self.renew(highest, notes);
        }
        results
    }

    /// Begins a new life above an incarnation that others know: this one has forgotten what it told them.
    pub(super) fn renew(&mut self, highest: u32, notes: &mut Notes<'_>) {
        notes.sometimes.hit("own_event_unknown");
        self.renew_above(highest, notes);
    }

    pub(super) fn renew_above(&mut self, highest: u32, notes: &mut Notes<'_>) {
        let identity = &mut self.identity;
        let next = |bit, known: u32| next_incarnation(bit, known.max(highest), notes.wall_ms);
        identity.incarnation = next(0, identity.incarnation);
        identity.memory_incarnation = next(1, identity.memory_incarnation);
        self.replicas.renew(&self.identity);
        self.pushed = places().map(|place| (place, own_counter(&self.replicas, place))).collect();
        self.member(Input::Incarnation(self.identity.incarnation), notes);
    }
}

/// The last counter issued by the present life in a place.
fn own_counter(replicas: &Replicas, place: Place) -> u64 {
    let actor = replicas.of(place).actor();
    replicas.clock(place).get(&actor).map_or(0, weald_storage::Seen::highest)
}
