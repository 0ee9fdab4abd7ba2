//! Peers that are not wanted for good: who is dialled, and who may go.

use super::table::{NEVER_USED, Peer, Table};
use std::time::{Duration, Instant};
use weald_peers::Channel;
use weald_storage::NodeId;

impl Table {
    /// Dials a node until then, unless it is there.
    pub(super) fn demand(&mut self, node: NodeId, addresses: Vec<String>, until: Instant) {
        if self.peer(node).is_none_or(|peer| peer.up_since.is_none()) {
            self.demanded.insert(node, (addresses, until));
        }
    }

    /// It is not dialled any more, unless it is wanted. Whether it was to be.
    pub(super) fn demand_over(&mut self, node: NodeId) -> bool {
        self.demanded.remove(&node).is_some()
    }

    /// Whether a node is dialled because something waits for it.
    pub(super) fn is_demanded(&self, node: NodeId) -> bool {
        self.demanded.contains_key(&node)
    }

    /// Who is to be dialled.
    pub(super) fn to_dial(&self) -> Vec<NodeId> {
        self.wanted.keys().chain(self.demanded.keys()).copied().collect()
    }

    /// Those whose time is over.
    pub(super) fn demands_over(&self, now: Instant) -> Vec<NodeId> {
        let late = self.demanded.iter().filter(|(_, (_, until))| *until <= now);
        late.map(|(node, _)| *node).collect()
    }

    /// Peers that are not wanted, connected or about to be.
    pub(super) fn far_count(&self) -> usize {
        let connected = self.peers().filter(|(node, _)| !self.wanted.contains_key(node)).count();
        let dialled = self.demanded.keys().filter(|node| self.peer(**node).is_none()).count();
        connected + dialled
    }

    /// Notes which peers were used since it was last noted.
    pub(super) fn note_use(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            let frames = peer.frames();
            if peer.used.0 != frames {
                peer.used = (frames, now);
            }
        }
    }

    /// Peers that nobody wants and nobody has used for so long.
    pub(super) fn unused(&self, now: Instant, after: Duration) -> Vec<NodeId> {
        let nodes = self.peers().map(|(node, _)| *node);
        nodes.filter(|node| self.is_unused(*node, now, after)).collect()
    }

    /// Whether it is one.
    pub(super) fn is_unused(&self, node: NodeId, now: Instant, after: Duration) -> bool {
        let Some(peer) = self.peer(node).filter(|peer| peer.up_since.is_some()) else {
            return false;
        };
        let is_free = !self.wanted.contains_key(&node);
        let after = if peer.used.0 == peer.used_before { after.min(NEVER_USED) } else { after };
        let is_quiet = peer.used.0 == peer.frames() && now.duration_since(peer.used.1) >= after;
        is_free && is_quiet && peer.leaving.is_none()
    }

    /// Notes that a peer is told that it may go. Whether it is there.
    pub(super) fn leave(&mut self, node: NodeId, now: Instant) -> bool {
        let peer = self.peers.get_mut(&node).filter(|peer| peer.up_since.is_some());
        peer.map(|peer| peer.leaving = Some(now)).is_some()
    }

    /// It has a use for the connections. Whether it was told that it may go.
    pub(super) fn stay(&mut self, node: NodeId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        peer.used.1 = now;
        peer.leaving.take().is_some()
    }

    /// Peers that were told so by then, and have not answered.
    pub(super) fn leaving_since(&self, by: Option<Instant>) -> Vec<NodeId> {
        let is_late = |peer: &Peer| peer.leaving.zip(by).is_some_and(|(since, by)| since <= by);
        self.peers().filter(|(_, peer)| is_late(peer)).map(|(node, _)| *node).collect()
    }
}

impl Peer {
    fn frames(&self) -> u64 {
        let link = self.links(Channel::Relay).into_iter().next();
        link.map_or(self.used.0, |link| link.channel_counters().frames())
    }
}
