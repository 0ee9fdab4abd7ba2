//! The membership of one node, as a pure state machine.
//!
//! What it is: the view, the failure detector, the overlay and the ways of changes and rumours, put together. Inputs in, outputs out; time and
//! randomness are handed in.
//!
//! What it guarantees: nobody is removed but by leaving, by an operator, or by a new node of the same name that takes the place of
//! one that is down. A node that is evicted or has left does nothing in the cluster until an operator lets it join again.
//! Absence is counted in time that *this* node was running: a node that was itself away does not fence those it has not
//! heard of meanwhile, and a clock that jumps fences nobody.
//!
//! What it refuses: connections, files, sleeping, logging (see [`Event`]).

mod event;
mod io;
mod names;
mod operations;
mod own;
mod receive;
mod records;
mod settle;
mod spread;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weald_peers::{Cluster, Liveness, Member, PeerInfo};
use weald_storage::NodeId;

use crate::config::{Config, Strategy};
use crate::gossip::Rumours;
use crate::messages::{Body, Message};
use crate::overlay::{Env, HyParView, Outbox};
use crate::plumtree::Plumtree;
use crate::rng::Rng;
use crate::saved::Saved;
use crate::swim::{Around, Detector};
use crate::view::{Moment, Record, Row, View};

pub use event::Event;
pub use io::{DialTicket, Force, Input, OpError, Output, Own, RequestId};

/// A peer that is connected for no other reason stays so for this long. // guess
const CONTACT_MS: u64 = 10_000;
/// A peer that was just evicted stays connected for so long, to learn of it. // guess
const FAREWELL_MS: u64 = 2_000;
/// Time between looks at names, and at absences and records of the gone. // guess
const NAMES_MS: u64 = 1_000;
const ABSENCES_MS: u64 = 5_000;
/// Changes are saved at most so often, and the time of running at least so often. // guess
const SAVE_MIN_MS: u64 = 500;
const SAVE_MAX_MS: u64 = 60_000;
/// Messages that came before the news of their connection: how many, and for how long. // guess
const EARLY_MAX: usize = 64;
const EARLY_MS: u64 = 1_000;
/// Most addresses that are dialled at a time besides members. // guess
const DIALS_MAX: usize = 32;

/// The membership of one node.
#[derive(Debug, Clone)]
pub struct Membership {
    config: Config,
    rng: Rng,
    id: NodeId,
    view: View,
    detector: Detector,
    overlay: Option<HyParView>,
    rumours: Rumours,
    plumtree: Plumtree,
    /// Nodes whose records changed with the present input, and have to go on.
    fresh: Vec<NodeId>,
    /// Peers with a connection.
    connected: BTreeSet<NodeId>,
    infos: BTreeMap<NodeId, Arc<PeerInfo>>,
    /// Messages that came before the news of the connection, and when.
    early: Vec<(u64, NodeId, Message)>,
    /// Peers that stay connected until then, whatever else.
    contacts: BTreeMap<NodeId, u64>,
    dials: BTreeMap<DialTicket, operations::Dial>,
    next_ticket: u64,
    /// Who was found at addresses that no record names.
    found_at: BTreeMap<String, NodeId>,
    joins: BTreeMap<RequestId, operations::Join>,
    leave: Option<operations::Leave>,
    syncs: BTreeMap<NodeId, sync::Sync>,
    /// Two live nodes with one name, and since when.
    conflicts: BTreeMap<(NodeId, NodeId), u64>,
    gossip_ring: Vec<NodeId>,
    neighbours: BTreeSet<NodeId>,
    wanted: BTreeMap<NodeId, Vec<String>>,
    digest: Option<u64>,
    clock: Clock,
    due: Due,
    stale: Stale,
}

/// Time, as of the present input.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now_ms: u64,
    wall_ms: u64,
    /// Running time of earlier lives, and when this one began.
    run_before_ms: u64,
    started_ms: u64,
}

/// When the periodic things are due.
#[derive(Debug, Clone, Copy)]
struct Due {
    gossip_ms: u64,
    sync_ms: u64,
    names_ms: u64,
    absences_ms: u64,
    saved_ms: u64,
}

/// What has to be worked out again.
#[derive(Debug, Clone, Copy, Default)]
struct Stale {
    /// Records, liveness or neighbours changed: the snapshot is old.
    snapshot: bool,
    /// Whom to be connected with, and the neighbours.
    peers: bool,
    /// Names, or who answers to them.
    names: bool,
    /// The file.
    file: bool,
}

impl Clock {
    fn run_ms(&self) -> u64 {
        self.run_before_ms + self.now_ms.saturating_sub(self.started_ms)
    }

    fn moment(&self) -> Moment {
        Moment { wall_ms: self.wall_ms, run_ms: self.run_ms() }
    }
}

/// The overlay's view of the rest.
struct Rest<'a> {
    own: NodeId,
    connected: &'a BTreeSet<NodeId>,
    view: &'a View,
    detector: &'a Detector,
}

impl Env for Rest<'_> {
    fn is_connected(&self, node: NodeId) -> bool {
        self.connected.contains(&node)
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node != self.own
            && self.view.is_member(node)
            && self.detector.liveness(node) != Liveness::Down
    }

    fn alive(&self) -> Vec<NodeId> {
        self.view.members().map(|(node, _)| node).filter(|node| self.is_alive(*node)).collect()
    }

    fn lost(&self) -> Vec<NodeId> {
        let others = self.view.members().map(|(node, _)| node).filter(|node| *node != self.own);
        others.filter(|node| self.detector.liveness(*node) == Liveness::Down).collect()
    }
}

/// The parts, borrowed so that the overlay can be driven.
macro_rules! rest {
    ($self:ident) => {
        Rest {
            own: $self.id,
            connected: &$self.connected,
            view: &$self.view,
            detector: &$self.detector,
        }
    };
}

/// Whom the detector may talk to.
macro_rules! around {
    ($self:ident) => {
        Around {
            connected: &$self.connected,
            probed: $self.overlay.as_ref().map(HyParView::active),
        }
    };
}

use {around, rest};

impl Membership {
    /// The membership of a node that starts, with what it remembers. The outputs are to be carried out first.
    #[must_use]
    pub fn new(
        config: Config,
        own: &Own,
        saved: Option<Saved>,
        seed: u64,
        now_ms: u64,
        wall_ms: u64,
    ) -> (Self, Vec<Output>) {
        let saved = saved.unwrap_or_default();
        let mut rng = Rng::new(seed);
        let is_full_mesh = config.strategy == Strategy::FullMesh;
        let overlay = (!is_full_mesh)
            .then(|| HyParView::new(config.hyparview.clone(), own.node, now_ms, &mut rng));
        let due = Due {
            gossip_ms: now_ms,
            sync_ms: now_ms + rng.jitter(config.sync_period_ms, 50),
            names_ms: now_ms,
            absences_ms: now_ms,
            saved_ms: now_ms,
        };
        let clock = Clock { now_ms, wall_ms, run_before_ms: saved.run_ms, started_ms: now_ms };
        let mut this = Self {
            detector: Detector::new(config.swim.clone(), own.node, now_ms),
            rng,
            id: own.node,
            view: View::default(),
            overlay,
            rumours: Rumours::default(),
            plumtree: Plumtree::new(own.node, is_full_mesh, config.lazy_tick_ms),
            fresh: Vec::new(),
            connected: BTreeSet::new(),
            infos: BTreeMap::new(),
            early: Vec::new(),
            contacts: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_ticket: 1,
            found_at: BTreeMap::new(),
            joins: BTreeMap::new(),
            leave: None,
            syncs: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            gossip_ring: Vec::new(),
            neighbours: BTreeSet::new(),
            wanted: BTreeMap::new(),
            digest: None,
            clock,
            due,
            stale: Stale { snapshot: true, peers: true, names: true, file: true },
            config,
        };
        for row in saved.rows {
            this.view.restore(Row {
                record: Arc::new(row.record),
                seen_ms: row.seen_ms,
                seen_run_ms: row.seen_run_ms,
                gone_run_ms: row.gone_run_ms,
            });
        }
        this.start_own(own);
        let members: Vec<NodeId> = this.view.members().map(|(node, _)| node).collect();
        for node in members {
            this.detector.add(now_ms, node, true);
        }
        let mut out = Vec::new();
        this.settle(&mut out);
        (this, out)
    }

    /// Takes an input at a moment: `now_ms` never goes back, `wall_ms` is for people.
    pub fn handle(&mut self, now_ms: u64, wall_ms: u64, input: Input) -> Vec<Output> {
        self.clock.now_ms = now_ms.max(self.clock.now_ms);
        self.clock.wall_ms = wall_ms;
        let mut out = Vec::new();
        match input {
            Input::Tick => self.on_tick(&mut out),
            Input::Message { from, message } => self.on_message(from, message, &mut out),
            Input::PeerUp(info) => self.on_peer_up(&info, &mut out),
            Input::PeerDown(node) => self.on_peer_down(node, &mut out),
            Input::Dialled { ticket, result } => self.on_dialled(ticket, result, &mut out),
            Input::Join { request, addresses, deadline_ms } => {
                self.on_join(request, addresses, deadline_ms, &mut out);
            }
            Input::Leave { request, deadline_ms } => self.on_leave(request, deadline_ms, &mut out),
            Input::Forget { request, who, force } => self.on_forget(request, &who, force, &mut out),
            Input::Discovered { addresses } => self.on_discovered(addresses, &mut out),
            Input::RejoinDone => self.on_rejoin_done(),
            Input::Incarnation(incarnation) => self.on_incarnation(incarnation),
            Input::EvictedSays { by } => self.on_evicted_says(by, &mut out),
        }
        self.settle(&mut out);
        out
    }

    /// This node's record.
    #[must_use]
    pub fn own(&self) -> &Record {
        &self
            .view
            .get(self.id)
            .expect("the own record is put in at the start and never dropped")
            .record
    }

    /// The records.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Who is thought to be alive.
    #[must_use]
    pub fn liveness(&self, node: NodeId) -> Liveness {
        self.detector.liveness(node)
    }

    /// Local health: 0 is well; see [`crate::swim`].
    #[must_use]
    pub fn health(&self) -> u64 {
        self.detector.health()
    }

    /// Peers to gossip with: connected, not down.
    #[must_use]
    pub fn neighbours(&self) -> &BTreeSet<NodeId> {
        &self.neighbours
    }

    /// The overlay, unless it is a full mesh.
    #[must_use]
    pub fn overlay(&self) -> Option<&HyParView> {
        self.overlay.as_ref()
    }

    /// The cluster at this moment. Costs a copy of the view.
    #[must_use]
    pub fn cluster(&self) -> Arc<Cluster> {
        let member = |(node, row): (NodeId, &Row)| {
            let record = &row.record;
            let is_own = node == self.id;
            let member = Member {
                node,
                name: record.name.clone(),
                incarnation: record.incarnation,
                version: record.version,
                addresses: record.addresses.clone(),
                status: record.status,
                liveness: self.detector.liveness(node),
                seen_ms: if is_own { self.clock.wall_ms } else { row.seen_ms },
            };
            (node, member)
        };
        Arc::new(Cluster {
            own: self.id,
            members: self.view.rows().map(member).collect(),
            neighbours: self.neighbours.clone(),
            is_full_mesh: self.overlay.is_none(),
        })
    }

    /// When [`Input::Tick`] has something to do; a tick every 100 ms does as well.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        if !self.is_active() {
            return self.due.saved_ms + SAVE_MAX_MS;
        }
        let gossip = (!self.rumours.is_empty()).then_some(self.due.gossip_ms);
        let joins = self.joins.values().map(operations::Join::next_deadline);
        let leave = self.leave.as_ref().map(operations::Leave::next_deadline);
        let syncs = self.syncs.values().map(|sync| sync.until_ms);
        let file = self.due.saved_ms + if self.stale.file { SAVE_MIN_MS } else { SAVE_MAX_MS };
        let fixed = [self.due.sync_ms, self.due.absences_ms, file, self.detector.next_deadline()];
        let overlay = self.overlay.as_ref().map(HyParView::next_deadline);
        let contacts = self.contacts.values().copied();
        let all = fixed.into_iter().chain(gossip).chain(joins).chain(leave).chain(syncs);
        let trees = self.plumtree.next_deadline();
        let names = (self.stale.names || !self.conflicts.is_empty()).then_some(self.due.names_ms);
        all.chain(overlay)
            .chain(contacts)
            .chain(names)
            .chain(trees)
            .min()
            .unwrap_or(self.clock.now_ms)
    }

    /// Whether this node takes part.
    fn is_active(&self) -> bool {
        self.own().status.is_member() || self.leave.is_some()
    }

    fn on_tick(&mut self, out: &mut Vec<Output>) {
        let now_ms = self.clock.now_ms;
        if !self.is_active() {
            return;
        }
        let mut effects = Vec::new();
        self.detector.tick(now_ms, around!(self), &mut self.rng, &mut effects);
        self.carry_out(effects, out);
        let mut sends = Outbox::new();
        if let Some(overlay) = &mut self.overlay {
            overlay.tick(now_ms, &rest!(self), &mut self.rng, &mut sends);
        }
        self.send_overlay(sends, out);
        self.doubt_unreached(out);
        self.early.retain(|(at_ms, _, _)| at_ms + EARLY_MS > now_ms);
        let contacts_before = self.contacts.len();
        self.contacts.retain(|_, until| *until > now_ms);
        self.stale.peers |= contacts_before != self.contacts.len() || self.overlay.is_some();
        self.tick_operations(out);
        self.tick_syncs(out);
        self.tick_plumtree(out);
        if self.due.names_ms <= now_ms && (self.stale.names || !self.conflicts.is_empty()) {
            self.due.names_ms = now_ms + NAMES_MS;
            self.stale.names = false;
            self.look_at_names(out);
        }
        if self.due.absences_ms <= now_ms {
            self.due.absences_ms = now_ms + ABSENCES_MS;
            self.look_at_absence(out);
        }
        if self.due.sync_ms <= now_ms {
            self.due.sync_ms = now_ms + self.rng.jitter(self.config.sync_period_ms, 20);
            let neighbours: Vec<NodeId> = self.neighbours.iter().copied().collect();
            if let Some(node) = self.rng.pick(&neighbours) {
                self.start_sync(node, out);
            }
        }
        if self.due.gossip_ms <= now_ms && !self.rumours.is_empty() {
            self.due.gossip_ms = now_ms + self.config.gossip_period_ms;
            self.gossip(out);
        }
    }

    /// Whoever the overlay could not connect is suspect, unless others reach it.
    fn doubt_unreached(&mut self, out: &mut Vec<Output>) {
        let unreached = self.overlay.as_mut().map(HyParView::take_unreached).unwrap_or_default();
        let mut effects = Vec::new();
        for node in unreached.into_iter().filter(|node| self.view.is_member(*node)) {
            let around = around!(self);
            let now_ms = self.clock.now_ms;
            self.detector.on_disconnect(now_ms, node, around, &mut self.rng, &mut effects);
        }
        self.carry_out(effects, out);
    }

    /// One round of gossip: the neighbours in turn, in a random order.
    fn gossip(&mut self, out: &mut Vec<Output>) {
        let mut receivers = BTreeSet::new();
        let wanted = self.config.gossip_fanout.min(self.neighbours.len());
        for _round in 0..2 {
            while receivers.len() < wanted {
                let Some(node) = self.gossip_ring.pop() else { break };
                if self.neighbours.contains(&node) {
                    receivers.insert(node);
                }
            }
            if receivers.len() < wanted {
                self.gossip_ring = self.neighbours.iter().copied().collect();
                self.rng.shuffle(&mut self.gossip_ring);
            }
        }
        if receivers.is_empty() {
            // Nobody to tell: whoever connects compares views.
            self.rumours.clear();
            return;
        }
        let members = self.view.len();
        let rumours = self.rumours.take(receivers.len(), self.neighbours.len(), members);
        for node in receivers {
            let rumours = rumours.clone();
            let message = Message { records: Vec::new(), rumours, body: Body::Gossip };
            out.push(Output::Send { to: node, message });
        }
    }

    fn on_peer_up(&mut self, info: &Arc<PeerInfo>, out: &mut Vec<Output>) {
        let (now_ms, node) = (self.clock.now_ms, info.node);
        if node == self.id {
            return;
        }
        self.connected.insert(node);
        self.infos.insert(node, Arc::clone(info));
        self.stale.peers = true;
        if !self.is_active() {
            return;
        }
        if self.tell_evicted(node, out) {
            self.contacts.insert(node, now_ms + FAREWELL_MS);
            return;
        }
        self.contacts.insert(node, now_ms + CONTACT_MS);
        self.view.seen(node, self.clock.moment());
        let mut effects = Vec::new();
        self.detector.alive(now_ms, node, &mut effects);
        self.carry_out(effects, out);
        // One of the two begins; whoever has to join cannot know whether the other knows of it.
        if self.id < node || self.is_joining_through(node) || !self.view.is_member(node) {
            self.start_sync(node, out);
        }
        let is_contact = self.overlay.as_ref().is_some_and(|o| o.active().is_empty());
        let mut sends = Outbox::new();
        if let Some(overlay) = &mut self.overlay {
            overlay.on_connect(now_ms, node, is_contact, &mut sends);
        }
        self.send_overlay(sends, out);
        let (early, others) =
            std::mem::take(&mut self.early).into_iter().partition(|(_, from, _)| *from == node);
        self.early = others;
        for (_, from, message) in early {
            self.on_message(from, message, out);
        }
    }

    fn on_peer_down(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let now_ms = self.clock.now_ms;
        if !self.connected.remove(&node) {
            return;
        }
        self.infos.remove(&node);
        self.syncs.remove(&node);
        self.stale.peers = true;
        self.leave_without(node);
        if !self.is_active() {
            return;
        }
        // Beyond the neighbours of an overlay, connections end as they come.
        let is_watched = self.overlay.as_ref().is_none_or(|o| o.active().contains(&node));
        if let Some(overlay) = &mut self.overlay {
            overlay.on_disconnect(now_ms, node, &rest!(self), &mut self.rng);
        }
        if is_watched && self.view.is_member(node) {
            let mut effects = Vec::new();
            self.detector.on_disconnect(now_ms, node, around!(self), &mut self.rng, &mut effects);
            self.carry_out(effects, out);
        }
    }
}
