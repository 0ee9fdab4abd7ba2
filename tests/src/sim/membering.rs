//! The membership of a simulated node, and the connections it wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weald_broadcast::core as plumtree;
use weald_membership::admission;
use weald_membership::config::{Config, Strategy};
use weald_membership::core::{DialTicket, Event, Force, Input, Membership, Output, Own};
use weald_membership::messages::{self, Message};
use weald_membership::saved::Saved;
use weald_peers::{Channel, PeerInfo, Status};
use weald_storage::NodeId;

use super::process::{Identity, Process, Times};
use super::replicas::Notes;

/// A seed is dialled for so long.
const DIAL_MS: u64 = 2_000;
/// Between two looks at the configured seeds.
const SEEDS_MS: u64 = 5_000;
/// How long a node that leaves tries to hand over what it has, and then to be heard.
const DRAIN_MS: u64 = 5_000;
/// Number of the request to leave.
const LEAVE: u64 = 1;

/// What the membership wants of connections.
#[derive(Debug, Default)]
pub(super) struct Wants {
    wanted: BTreeSet<NodeId>,
    /// Dials under way: the slots, and until when.
    dials: BTreeMap<DialTicket, (Vec<usize>, u64)>,
    next_seeds_ms: u64,
    /// The members file.
    pub(super) saved: Option<Vec<u8>>,
}

impl Wants {
    pub(super) fn new(saved: Option<Vec<u8>>) -> Self {
        Self { saved, ..Self::default() }
    }
}

/// Where the node of a slot listens.
fn address(slot: usize) -> String {
    format!("sim:{slot}")
}

fn slot_of(address: &str) -> Option<usize> {
    address.strip_prefix("sim:")?.parse().ok()
}

/// Starts the membership of a node.
pub(super) fn start(
    identity: &Identity,
    times: &Times,
    is_overlay: bool,
    saved: Option<&[u8]>,
    (now_ms, wall_ms): (u64, u64),
    seed: u64,
) -> (Membership, Vec<Output>) {
    let strategy = if is_overlay { Strategy::P2p } else { Strategy::FullMesh };
    let config = Config { strategy, max_absence_ms: times.max_absence_ms, ..Config::default() };
    let own = Own {
        node: identity.node,
        name: identity.name.clone(),
        incarnation: identity.incarnation,
        addresses: vec![address(identity.slot)],
        capabilities: Vec::new(),
    };
    let saved = saved.and_then(|bytes| Saved::decode(bytes).ok());
    Membership::new(config, &own, saved, seed, now_ms, wall_ms)
}

impl Process {
    /// The handshake's view of this node.
    #[must_use]
    pub fn info(&self) -> Arc<PeerInfo> {
        Arc::new(PeerInfo {
            node: self.identity.node,
            name: self.identity.name.clone(),
            incarnation: self.identity.incarnation,
            addresses: vec![address(self.identity.slot)],
            capabilities: Vec::new(),
        })
    }

    /// Whether this peer may connect.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, peer: &PeerInfo) -> Result<(), admission::Refusal> {
        admission::admit(&self.cluster, peer)
    }

    /// Whether this node wants to be connected with the node of that slot.
    #[must_use]
    pub fn wants(&self, peer: NodeId, slot: usize) -> bool {
        self.wants.wanted.contains(&peer)
            || self.wants.dials.values().any(|(slots, _)| slots.contains(&slot))
    }

    /// Time of the next thing to do.
    pub(super) fn members_deadline(&self) -> u64 {
        let dials = self.wants.dials.values().map(|(_, until)| *until);
        let drained = self.drain_since_ms.map(|since| since + DRAIN_MS);
        let own = self.membership.next_deadline().min(self.wants.next_seeds_ms);
        dials.chain(drained).fold(own, u64::min)
    }

    pub(super) fn member(&mut self, input: Input, notes: &mut Notes<'_>) {
        let out = self.membership.handle(notes.now_ms, notes.wall_ms, input);
        self.perform_members(out, notes);
    }

    pub(super) fn perform_members(&mut self, out: Vec<Output>, notes: &mut Notes<'_>) {
        for output in out {
            match output {
                Output::Send { to, message } => {
                    self.send(to, Channel::Control, messages::KIND, message.encode());
                }
                Output::Connect(wanted) => self.wants.wanted = wanted.into_keys().collect(),
                Output::DialSeed { ticket, addresses } => {
                    let slots = addresses.iter().filter_map(|a| slot_of(a)).collect();
                    self.wants.dials.insert(ticket, (slots, notes.now_ms + DIAL_MS));
                }
                Output::Changed => self.changed(notes),
                Output::Persist(bytes) => self.wants.saved = Some(bytes),
                Output::Event(event) => self.note(&event, notes),
                Output::Reply { request, .. } => self.has_left |= request == LEAVE,
                Output::RenewIncarnation { above } => self.renew_above(above, notes),
            }
        }
    }

    fn note(&mut self, event: &Event, notes: &mut Notes<'_>) {
        match event {
            Event::Fenced { .. } => notes.sometimes.hit("fenced_peer"),
            Event::Replaced { .. } => notes.sometimes.hit("replaced_member"),
            Event::SelfEvicted => {
                notes.sometimes.hit("self_evicted");
                self.has_left = true;
            }
            Event::SelfYielded { .. } => self.has_left = true,
            _ => {}
        }
    }

    /// The cluster looks different: everybody is told.
    fn changed(&mut self, notes: &mut Notes<'_>) {
        self.cluster = self.membership.cluster();
        self.exchanges.set_cluster(&self.cluster, notes.now_ms);
        let input = plumtree::Input::Neighbours {
            peers: self.cluster.neighbours.clone(),
            is_full_mesh: self.cluster.is_full_mesh,
        };
        self.plumtree(input, &[], notes);
    }

    /// A connection has come.
    pub fn peer_up(&mut self, info: &Arc<PeerInfo>, slot: usize, notes: &mut Notes<'_>) {
        self.connected.insert(info.node);
        self.exchanges.up(info.node, notes.now_ms);
        self.member(Input::PeerUp(Arc::clone(info)), notes);
        let dials = self.wants.dials.iter().filter(|(_, (slots, _))| slots.contains(&slot));
        for ticket in dials.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            self.wants.dials.remove(&ticket);
            self.member(Input::Dialled { ticket, result: Ok(Arc::clone(info)) }, notes);
        }
    }

    /// A connection is gone.
    pub fn peer_down(&mut self, peer: NodeId, notes: &mut Notes<'_>) {
        if self.connected.remove(&peer) {
            self.exchanges_down(peer, notes);
            self.member(Input::PeerDown(peer), notes);
        }
    }

    /// A peer has refused the handshake.
    pub fn refused(&mut self, by: NodeId, refusal: &admission::Refusal, notes: &mut Notes<'_>) {
        if *refusal == admission::Refusal::Evicted {
            self.member(Input::EvictedSays { by }, notes);
        }
    }

    pub(super) fn on_membership(&mut self, from: NodeId, body: &[u8], notes: &mut Notes<'_>) {
        if let Ok(message) = Message::decode(body) {
            self.member(Input::Message { from, message }, notes);
        }
    }

    pub(super) fn members_wake(&mut self, notes: &mut Notes<'_>) {
        let late = self.wants.dials.iter().filter(|(_, (_, until))| *until <= notes.now_ms);
        for ticket in late.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            self.wants.dials.remove(&ticket);
            self.member(Input::Dialled { ticket, result: Err("no answer".to_owned()) }, notes);
        }
        if self.wants.next_seeds_ms <= notes.now_ms {
            self.wants.next_seeds_ms = notes.now_ms + SEEDS_MS;
            let addresses = self.seeds.iter().map(|slot| address(*slot)).collect();
            self.member(Input::Discovered { addresses }, notes);
        }
        if self.membership.next_deadline() <= notes.now_ms {
            self.member(Input::Tick, notes);
        }
        if self.drain_since_ms.is_some_and(|since| since + DRAIN_MS <= notes.now_ms) {
            self.leave(notes);
        }
    }

    /// Begins to hand over what this node has, to leave then.
    pub fn drain(&mut self, notes: &mut Notes<'_>) {
        self.drain_since_ms = Some(notes.now_ms);
        for peer in self.connected.clone() {
            self.exchanges.scheduler.behind(peer, notes.now_ms);
        }
    }

    pub(super) fn leave(&mut self, notes: &mut Notes<'_>) {
        if self.drain_since_ms.take().is_some() {
            let deadline_ms = notes.now_ms + DRAIN_MS;
            self.member(Input::Leave { request: LEAVE, deadline_ms }, notes);
        }
    }

    /// An operator at this node removes another one.
    pub fn forget(&mut self, name: &str, notes: &mut Notes<'_>) {
        self.member(Input::Forget { request: 2, who: name.to_owned(), force: Force::Yes }, notes);
    }

    /// A complete exchange with a member is done: a fenced node is one again.
    pub(super) fn rejoined(&mut self, notes: &mut Notes<'_>) {
        let own = self.cluster.members.get(&self.identity.node);
        if own.is_some_and(|own| own.status == Status::Fenced) {
            notes.sometimes.hit("rejoined");
            self.member(Input::RejoinDone, notes);
        }
    }
}
