//! Peers that are connected because frames of clients go between them and this node, and for no other reason.
//!
//! What it guarantees: nobody is dialled but members; a dial that fails gives back what waited for it; a connection is closed
//! when neither end has used it for a while and neither waits for anything, which both agree on first: the node with the
//! smaller id asks, and sends nothing until it is answered.
//!
//! ```text
//! smaller                          greater
//!   RELEASE, sends nothing ─►        unused, too: closes; what came in between is dialled for
//!                     ◄─ KEEP        otherwise
//! ```

use super::link::{KEEP, RELEASE};
use super::road::{Taken, over};
use super::{Shared, Transport};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use weald_peers::{Channel, Network, SendError};
use weald_proto::Frame;
use weald_storage::NodeId;

/// Time of the other end to say whether it needs the connections; they are closed then.
const ANSWER_TIME: Duration = Duration::from_secs(5); // guess
/// With more peers than half of the bound, those that were not used for so long go.
const CROWDED_IDLE: Duration = Duration::from_secs(1); // guess

/// How members are reached that are no neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Far {
    /// A connection that was not used for so long is closed.
    pub idle: Duration,
    /// Most of them at a time; what would need another is refused.
    pub peers_max: usize,
    /// Time to connect. What waits for it comes back then.
    pub dial_time: Duration,
}

impl Default for Far {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),     // guess
            peers_max: 256,                    // guess: five connections each
            dial_time: Duration::from_secs(3), // guess: a handshake on a bad line
        }
    }
}

impl Shared {
    /// Where a member is reached that need not be connected; none when it must be, or is no member.
    pub(super) fn way_to(&self, node: NodeId) -> Option<Vec<String>> {
        self.config.far.as_ref()?;
        self.admission.load().as_ref()?.way_to(node)
    }

    fn send_far(&self, node: NodeId, lane: u64, frame: &Frame) -> Result<(), SendError> {
        let road = match self.roads.get(node) {
            Some(road) => road,
            None if self.way_to(node).is_some() => self.roads.make(node),
            None => return Err(SendError::NotConnected),
        };
        let far_max = self.config.far.as_ref().map_or(0, |far| far.peers_max);
        let may_demand = || self.way_to(node).is_some() && self.table().far_count() < far_max;
        if road.send(lane, frame, Instant::now(), may_demand)? == Taken::Demands {
            self.demand(node);
        }
        Ok(())
    }

    /// Something waits for a connection with a node.
    fn demand(&self, node: NodeId) {
        let until =
            Instant::now() + self.config.far.as_ref().map_or(Duration::ZERO, |f| f.dial_time);
        let addresses = self.way_to(node).unwrap_or_default();
        self.change(|table, _| table.demand(node, addresses, until));
    }

    /// A connection that something waits for could not be made.
    pub(super) fn give_up(&self, node: NodeId, why: &str) {
        let was_demanded = self.change(|table, _| table.demand_over(node));
        let Some(road) = self.roads.get(node).filter(|_| was_demanded) else { return };
        let frames = road.give_up(Instant::now());
        tracing::debug!(event = "far_peer_not_reached", peer = %node, reason = why, frames = frames.len(), "a member could not be reached");
        self.bounce(node, frames);
    }

    /// Gives frames back that were not sent.
    pub(super) fn bounce(&self, node: NodeId, frames: Vec<Frame>) {
        let inboxes = self.inboxes.load();
        for frame in frames {
            if let Some(inbox) = inboxes.get(&weald_peers::kind::service(frame.kind)) {
                inbox.unsent(node, frame);
            }
        }
    }

    /// Whether a service would lose something with the connections of a peer.
    fn is_needed(&self, peer: NodeId) -> bool {
        self.inboxes.load().values().any(|inbox| inbox.needs(peer))
    }

    /// Looks after far peers: from time to time, by the keeper.
    pub(super) fn look_at_far(&self) {
        let Some(far) = &self.config.far else { return };
        let now = Instant::now();
        let (late, idle, silent) = {
            let mut table = self.table();
            table.note_use(now);
            let is_crowded = table.far_count() > far.peers_max / 2;
            let after = if is_crowded { CROWDED_IDLE.min(far.idle) } else { far.idle };
            let silent = table.leaving_since(now.checked_sub(ANSWER_TIME));
            (table.demands_over(now), table.unused(now, after), silent)
        };
        for node in late {
            self.give_up(node, "it took too long");
        }
        let is_mine = |node: &NodeId| self.own < *node && self.way_to(*node).is_some();
        for node in idle.into_iter().filter(is_mine) {
            if self.leave(node, far.idle) {
                self.tell(node, RELEASE);
            }
        }
        for node in silent {
            self.change(|table, effects| table.take_down(node, "it does not answer", effects));
        }
        self.roads.forget(|node| self.way_to(node).is_some());
    }

    /// Stops sending to a peer, unless somebody has used the connection lately or needs it. Whether it did.
    fn leave(&self, node: NodeId, idle: Duration) -> bool {
        let now = Instant::now();
        let road = self.roads.make(node);
        let is_unused = || self.table().is_unused(node, now, idle / 2);
        if !road.shut(is_unused) {
            return false;
        }
        // Asked after the road is shut: what is begun from now on waits.
        let is_left = !self.is_needed(node) && self.table().leave(node, now);
        if !is_left {
            self.bounce(node, road.reopen());
        }
        is_left
    }

    /// The other end has no use for its connections.
    pub(super) fn on_release(&self, node: NodeId) {
        let idle = self.config.far.as_ref().filter(|_| self.way_to(node).is_some());
        let idle = idle.map(|far| far.idle);
        if idle.is_some_and(|idle| self.leave(node, idle)) {
            self.change(|table, effects| table.take_down(node, "not used any more", effects));
        } else {
            self.tell(node, KEEP);
        }
    }

    /// The other end has a use for its connections.
    pub(super) fn on_keep(&self, node: NodeId) {
        let was_leaving = self.table().stay(node, Instant::now());
        if let Some(road) = self.roads.get(node).filter(|_| was_leaving) {
            self.bounce(node, road.reopen());
        }
    }

    /// Opens the roads to peers that are up, and closes those to peers that are not. Called without the table's lock, which is
    /// taken while a road's is held.
    pub(super) fn follow_roads(&self) {
        let (mut again, mut failed) = (Vec::new(), Vec::new());
        {
            // One at a time: what is read first is not done last.
            let _following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
            let live = self.live.load();
            let roads = self.roads.all();
            let gone = roads.iter().filter(|(node, _)| !live.contains_key(node));
            again.extend(gone.filter(|(_, road)| road.lost()).map(|(node, _)| *node));
            for (node, peer) in live.iter() {
                let links = peer.channel(Channel::Relay).to_vec();
                failed.push((*node, self.roads.make(*node).open(links)));
            }
        }
        again.into_iter().for_each(|node| self.demand(node));
        failed.into_iter().for_each(|(node, frames)| self.bounce(node, frames));
    }

    fn tell(&self, node: NodeId, kind: u16) {
        let live = self.live.load();
        let control = live.get(&node).and_then(|live| live.channel(Channel::Control).first());
        if let Some(outbound) = control.and_then(|link| link.outbound()) {
            // One that is lost is missed after a while.
            outbound.send(&Frame { kind, corr: 0, body: Vec::new() }).ok();
        }
    }
}

impl Network for Transport {
    fn send(
        &self,
        to: NodeId,
        channel: Channel,
        lane: u64,
        frame: &Frame,
    ) -> Result<(), SendError> {
        if channel == Channel::Relay && self.shared.config.far.is_some() {
            return self.shared.send_far(to, lane, frame);
        }
        let live = self.shared.live.load();
        let live = live.get(&to).ok_or(SendError::NotConnected)?;
        over(live.channel(channel), lane, frame)
    }

    fn has_room(&self, to: NodeId, channel: Channel) -> bool {
        let live = self.shared.live.load();
        let Some(peer) = live.get(&to) else { return false };
        peer.channel(channel).iter().all(|link| link.outbound().is_some_and(|o| o.has_room()))
    }
}
