//! Which connections there are to which peers: every decision about them, without I/O.
//!
//! What it guarantees: at most one connection for each (peer, channel, lane); of two that were dialled at the same time both
//! ends keep the one that the node with the smaller id has dialled; one process for each node id and one node id for each
//! name; `Up` and `Down` of a peer alternate.
//!
//! What it refuses: more than [`PEERS_MAX`] peers.

use super::link::Link;
use super::stats::Counters;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weald_peers::{Channel, PeerInfo};
use weald_proto::hello::Refused;
use weald_proto::hello::node::{CHANNELS, NodeHello};
use weald_storage::NodeId;

/// Most peers with connections at a time.
pub(super) const PEERS_MAX: usize = 1024; // guess
/// Most peers whose counters are kept.
const COUNTERS_MAX: usize = 2 * PEERS_MAX;
/// How long a peer that nobody here asked for may stay.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// How long a member stays that was never used for frames of clients, and is not wanted for anything else.
pub(super) const NEVER_USED: Duration = Duration::from_secs(2);

/// A channel and one of its lanes.
pub(super) type Lane = (Channel, u8);

/// What comes after a change of the table: links to close, and what to tell.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) close: Vec<(Arc<Link>, String)>,
    pub(super) events: Vec<weald_peers::PeerEvent>,
    /// The set of peers that are up has changed.
    pub(super) publish: bool,
}

#[derive(Debug)]
struct Slot {
    link: Arc<Link>,
    is_up: bool,
}

/// A peer with at least one connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) info: Arc<PeerInfo>,
    boot: [u8; 16],
    lanes: [u8; CHANNELS],
    slots: BTreeMap<Lane, Slot>,
    pub(super) up_since: Option<Instant>,
    keep_until: Instant,
    /// When the other end was told that it is of no use.
    pub(super) leaving: Option<Instant>,
    /// Frames of clients from and to it, and since when there were no more; the same at the beginning.
    pub(super) used: (u64, Instant),
    pub(super) used_before: u64,
}

/// Who asks for a place.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub(super) hello: &'a NodeHello,
    /// Whether the node with the smaller id has dialled.
    pub(super) by_smaller: bool,
    /// Whether this node has dialled.
    pub(super) is_own: bool,
}

/// What a dialer has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// The peer is not wanted any more.
    Unwanted,
    /// Everything stands or is on its way.
    Nothing,
    /// Dial this lane at one of these addresses.
    Dial(Lane, Vec<String>),
}

#[derive(Debug)]
pub(super) struct Table {
    own: NodeId,
    lanes: [u8; CHANNELS],
    pub(super) wanted: BTreeMap<NodeId, Vec<String>>,
    /// Who is dialled because something waits for it, and until when.
    pub(super) demanded: BTreeMap<NodeId, (Vec<String>, Instant)>,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    counters: BTreeMap<NodeId, Arc<Counters>>,
    /// Lanes that this node is in a handshake for, by the name in the peer's certificate.
    dialling: BTreeSet<(String, Lane)>,
    last_link: u64,
}

impl Table {
    pub(super) fn new(own: NodeId, lanes: [u8; CHANNELS]) -> Self {
        Self {
            own,
            lanes,
            wanted: BTreeMap::new(),
            demanded: BTreeMap::new(),
            peers: BTreeMap::new(),
            counters: BTreeMap::new(),
            dialling: BTreeSet::new(),
            last_link: 0,
        }
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter()
    }

    pub(super) fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    pub(super) fn counters(&self) -> &BTreeMap<NodeId, Arc<Counters>> {
        &self.counters
    }

    /// The peer of this name, if it has connections.
    pub(super) fn named(&self, name: &str) -> Option<&Peer> {
        self.peers.values().find(|peer| peer.info.name == name)
    }

    /// Takes the place of a new connection, or says why not.
    pub(super) fn reserve(
        &mut self,
        claim: &Claim<'_>,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<Arc<Link>, Refused> {
        let hello = claim.hello;
        let node = NodeId(hello.uuid);
        let lane = lane_of(hello).ok_or(Refused::Duplicate)?;
        self.may_stand(claim, node, lane)?;
        let replaced = self.peers.get(&node).filter(|peer| peer.slots.contains_key(&lane));
        if let Some(peer) = replaced {
            let stands_by_smaller = peer.slots.get(&lane).is_some_and(|s| s.link.by_smaller);
            // A peer that dials what it has dialled before has lost it; this node never does.
            let is_anew = !claim.is_own && claim.by_smaller == stands_by_smaller;
            if !is_anew && (!claim.by_smaller || stands_by_smaller) {
                return Err(Refused::Duplicate);
            }
            if peer.up_since.is_some() {
                // The other end has lost a connection that is still held here.
                self.take_down(node, "the peer has connected anew", effects);
            } else if let Some(slot) =
                self.peers.get_mut(&node).and_then(|peer| peer.slots.remove(&lane))
            {
                effects.close.push((slot.link, "replaced by the peer's own connection".to_owned()));
            }
        }
        self.last_link += 1;
        let link = Link::new(self.last_link, node, lane, claim.by_smaller, self.counters_of(node));
        let lanes = effective(self.lanes, hello.lanes);
        let used_before = link.counters.channel(Channel::Relay).frames();
        let peer = self.peers.entry(node).or_insert_with(|| Peer {
            info: Arc::new(info_of(hello)),
            boot: hello.boot,
            lanes,
            slots: BTreeMap::new(),
            up_since: None,
            keep_until: now + GRACE,
            leaving: None,
            used: (used_before, now),
            used_before,
        });
        let info = info_of(hello);
        if *peer.info != info {
            peer.info = Arc::new(info);
        }
        peer.slots.insert(lane, Slot { link: Arc::clone(&link), is_up: false });
        Ok(link)
    }

    fn may_stand(&self, claim: &Claim<'_>, node: NodeId, lane: Lane) -> Result<(), Refused> {
        let hello = claim.hello;
        if self.peers.iter().any(|(id, peer)| *id != node && peer.info.name == hello.name) {
            return Err(Refused::NameTaken(hello.name.clone()));
        }
        match self.peers.get(&node) {
            Some(peer) if peer.boot != hello.boot => return Err(Refused::Clone(node.to_string())),
            None if self.peers.len() >= PEERS_MAX => return Err(Refused::Busy),
            Some(_) | None => {}
        }
        if lane.1 >= lanes_of(effective(self.lanes, hello.lanes), lane.0) {
            return Err(Refused::Malformed("a lane that only one side has".to_owned()));
        }
        // This node's own connection is on its way, and would win.
        let is_crossing = !claim.by_smaller && !claim.is_own;
        if is_crossing && self.dialling.contains(&(hello.name.clone(), lane)) {
            return Err(Refused::Duplicate);
        }
        Ok(())
    }

    /// A connection is ready.
    pub(super) fn link_up(&mut self, link: &Link, now: Instant, effects: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&link.peer) else { return };
        match peer.slots.get_mut(&link.lane) {
            Some(slot) if slot.link.id == link.id => slot.is_up = true,
            Some(_) | None => return,
        }
        let is_whole =
            all_lanes(peer.lanes).all(|lane| peer.slots.get(&lane).is_some_and(|slot| slot.is_up));
        if is_whole && peer.up_since.is_none() {
            peer.up_since = Some(now);
            self.demanded.remove(&link.peer);
            effects.publish = true;
            effects.events.push(weald_peers::PeerEvent::Up(Arc::clone(&peer.info)));
            link.counters.connected();
        }
    }

    /// A connection is over.
    pub(super) fn link_closed(&mut self, link: &Link, why: &str, effects: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&link.peer) else { return };
        if peer.slots.get(&link.lane).is_none_or(|slot| slot.link.id != link.id) {
            return;
        }
        peer.slots.remove(&link.lane);
        link.counters.failed(why);
        if peer.up_since.is_some() {
            let why = format!("{} lane {}: {why}", link.lane.0, link.lane.1);
            self.take_down(link.peer, &why, effects);
        } else if peer.slots.is_empty() {
            self.peers.remove(&link.peer);
        }
    }

    /// Ends all connections of a peer.
    pub(super) fn take_down(&mut self, node: NodeId, why: &str, effects: &mut Effects) {
        let Some(peer) = self.peers.remove(&node) else { return };
        let links = peer.slots.into_values().map(|slot| (slot.link, why.to_owned()));
        effects.close.extend(links);
        if peer.up_since.is_some() {
            effects.publish = true;
            let (why, is_agreed) = (why.to_owned(), peer.leaving.is_some());
            effects.events.push(weald_peers::PeerEvent::Down { node, why, is_agreed });
        }
    }

    /// Replaces what is wanted. Who was wanted and is not any more goes at once, unless it may stay.
    pub(super) fn want(
        &mut self,
        wanted: BTreeMap<NodeId, Vec<String>>,
        may_stay: impl Fn(NodeId) -> bool,
        effects: &mut Effects,
    ) {
        let before = std::mem::replace(&mut self.wanted, wanted);
        self.wanted.remove(&self.own);
        let is_gone = |node: &NodeId| !self.wanted.contains_key(node) && !may_stay(*node);
        let gone: Vec<_> = before.into_keys().filter(is_gone).collect();
        for node in gone {
            self.take_down(node, "not wanted any more", effects);
        }
    }

    /// Ends the connections of peers that nobody here has asked for in time, but for those that may stay.
    pub(super) fn reap(
        &mut self,
        now: Instant,
        may_stay: impl Fn(NodeId) -> bool,
        effects: &mut Effects,
    ) {
        let over: Vec<_> = self.overdue(now).filter(|node| !may_stay(*node)).collect();
        for node in over {
            self.take_down(node, "not wanted", effects);
        }
    }

    /// Peers that nobody here has asked for in time.
    pub(super) fn overdue(&self, now: Instant) -> impl Iterator<Item = NodeId> {
        let is_over = move |(node, peer): &(&NodeId, &Peer)| {
            peer.keep_until <= now && !self.wanted.contains_key(node)
        };
        self.peers.iter().filter(is_over).map(|(node, _)| *node)
    }

    /// Notes why a peer is not connected.
    pub(super) fn failed(&mut self, node: NodeId, why: &str) {
        self.counters_of(node).failed(why);
    }

    /// Keeps a peer for [`GRACE`] from now on.
    pub(super) fn keep(&mut self, node: NodeId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.keep_until = now + GRACE;
        }
    }

    /// What a dialer of this peer has to do.
    pub(super) fn todo(&self, node: NodeId) -> Todo {
        let demanded = || self.demanded.get(&node).map(|(addresses, _)| addresses);
        let Some(addresses) = self.wanted.get(&node).or_else(demanded) else {
            return Todo::Unwanted;
        };
        match self.missing(node) {
            Some(lane) => Todo::Dial(lane, addresses.clone()),
            None => Todo::Nothing,
        }
    }

    /// The first lane of a peer without a connection.
    pub(super) fn missing(&self, node: NodeId) -> Option<Lane> {
        match self.peers.get(&node) {
            None => Some((Channel::Control, 0)),
            Some(peer) => all_lanes(peer.lanes).find(|lane| !peer.slots.contains_key(lane)),
        }
    }

    /// Notes that a handshake for a lane has begun. False when there is a connection already, or another such handshake.
    pub(super) fn dialling(&mut self, name: &str, lane: Lane) -> bool {
        let stands = self.named(name).is_some_and(|peer| peer.slots.contains_key(&lane));
        !stands && self.dialling.insert((name.to_owned(), lane))
    }

    /// The handshake is over.
    pub(super) fn dialled(&mut self, name: &str, lane: Lane) {
        self.dialling.remove(&(name.to_owned(), lane));
    }

    fn counters_of(&mut self, node: NodeId) -> Arc<Counters> {
        if self.counters.len() >= COUNTERS_MAX {
            let (peers, wanted) = (&self.peers, &self.wanted);
            self.counters.retain(|node, _| peers.contains_key(node) || wanted.contains_key(node));
        }
        Arc::clone(self.counters.entry(node).or_default())
    }
}

impl Peer {
    /// The connections of a channel, by lane.
    pub(super) fn links(&self, channel: Channel) -> Vec<Arc<Link>> {
        let of_channel = self.slots.iter().filter(|((of, _), _)| *of == channel);
        of_channel.map(|(_, slot)| Arc::clone(&slot.link)).collect()
    }
}

/// Every lane of every channel, control first.
fn all_lanes(lanes: [u8; CHANNELS]) -> impl Iterator<Item = Lane> {
    Channel::ALL
        .into_iter()
        .flat_map(move |channel| (0..lanes_of(lanes, channel)).map(move |lane| (channel, lane)))
}

fn effective(ours: [u8; CHANNELS], theirs: [u8; CHANNELS]) -> [u8; CHANNELS] {
    let [a, b, c] = ours;
    let [x, y, z] = theirs;
    [a.min(x), b.min(y), c.min(z)]
}

fn lanes_of([control, data, relay]: [u8; CHANNELS], channel: Channel) -> u8 {
    match channel {
        Channel::Control => control,
        Channel::Data => data,
        Channel::Relay => relay,
    }
}

/// Number of a channel in hellos.
pub(super) fn channel_number(channel: Channel) -> u8 {
    match channel {
        Channel::Control => 0,
        Channel::Data => 1,
        Channel::Relay => 2,
    }
}

fn lane_of(hello: &NodeHello) -> Option<Lane> {
    let channel = Channel::ALL.into_iter().find(|c| channel_number(*c) == hello.channel)?;
    Some((channel, hello.lane))
}

/// A peer by its hello.
pub(super) fn info_of(hello: &NodeHello) -> PeerInfo {
    PeerInfo {
        node: NodeId(hello.uuid),
        name: hello.name.clone(),
        incarnation: hello.incarnation,
        addresses: hello.addresses.clone(),
        capabilities: hello.capabilities.clone(),
    }
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
