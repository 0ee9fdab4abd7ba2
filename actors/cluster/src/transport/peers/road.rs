//! Ways for frames of clients in a partial mesh, where a connection is made when there is something to send over it.
//!
//! What it guarantees: frames of one lane leave in the order in which they were sent, whether they had to wait or not; what
//! waits is bounded; a road is shut and opened between two frames, never beside one.
//!
//! What it refuses: dialling, and time.

use super::link::Link;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use weald_peers::SendError;
use weald_proto::Frame;
use weald_storage::NodeId;

/// Bytes that wait for one connection. // guess
const WAITING_BYTES_MAX: usize = 4 << 20;
/// After a failed dial nothing is taken for so long. // guess
const REFUSAL: Duration = Duration::from_millis(500);

/// All roads of a node.
#[derive(Default)]
pub(super) struct Roads(ArcSwap<BTreeMap<NodeId, Arc<Road>>>);

/// The way to one node.
#[derive(Default)]
pub(super) struct Road(Mutex<Gate>);

#[derive(Default)]
struct Gate {
    /// The connections for frames of clients, by lane; none while there are none.
    links: Vec<Arc<Link>>,
    /// Whether nothing goes through for now: the other end is asked whether it needs the connections.
    is_shut: bool,
    /// Whether a connection was asked for.
    is_demanded: bool,
    waiting: VecDeque<(u64, Frame)>,
    waiting_bytes: usize,
    refused_until: Option<Instant>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It has left, or waits with others.
    Well,
    /// It is the first that waits: a connection has to be made.
    Demands,
}

impl Roads {
    /// The road to a node, if there has been one.
    pub(super) fn get(&self, node: NodeId) -> Option<Arc<Road>> {
        self.0.load().get(&node).cloned()
    }

    /// The road to a node, a new one if need be.
    pub(super) fn make(&self, node: NodeId) -> Arc<Road> {
        if let Some(road) = self.get(node) {
            return road;
        }
        let fresh = Arc::new(Road::default());
        self.0.rcu(|roads| {
            let mut roads = BTreeMap::clone(roads);
            roads.entry(node).or_insert_with(|| Arc::clone(&fresh));
            roads
        });
        self.get(node).unwrap_or(fresh)
    }

    /// All of them.
    pub(super) fn all(&self) -> Arc<BTreeMap<NodeId, Arc<Road>>> {
        self.0.load_full()
    }

    /// Forgets roads that lead nowhere, but for those that are to be kept.
    pub(super) fn forget(&self, is_kept: impl Fn(NodeId) -> bool) {
        let is_over =
            |(node, road): (&NodeId, &Arc<Road>)| !is_kept(*node) && road.gate().is_idle();
        if self.all().iter().any(is_over) {
            self.0.rcu(|roads| {
                let mut roads = BTreeMap::clone(roads);
                // One that somebody holds may be about to be used.
                roads.retain(|node, road| {
                    is_kept(*node) || Arc::strong_count(road) > 2 || !road.gate().is_idle()
                });
                roads
            });
        }
    }
}

impl Road {
    /// Takes a frame. `may_demand` is asked when a connection has to be made for it.
    pub(super) fn send(
        &self,
        lane: u64,
        frame: &Frame,
        now: Instant,
        may_demand: impl FnOnce() -> bool,
    ) -> Result<Taken, SendError> {
        let mut gate = self.gate();
        if !gate.links.is_empty() && !gate.is_shut {
            return over(&gate.links, lane, frame).map(|()| Taken::Well);
        }
        let demands = gate.links.is_empty() && !gate.is_demanded;
        let is_refused = gate.refused_until.is_some_and(|until| now < until);
        if demands && (is_refused || !may_demand()) {
            return Err(SendError::NotConnected);
        }
        let waiting = gate.waiting_bytes;
        if waiting > 0 && waiting + frame.encoded_len() > WAITING_BYTES_MAX {
            return Err(SendError::Full { waiting });
        }
        gate.waiting_bytes += frame.encoded_len();
        gate.waiting.push_back((lane, frame.clone()));
        gate.is_demanded |= demands;
        Ok(if demands { Taken::Demands } else { Taken::Well })
    }

    /// There are connections: what waits leaves. Gives back what they did not take. Nothing happens when they are known.
    pub(super) fn open(&self, links: Vec<Arc<Link>>) -> Vec<Frame> {
        let mut gate = self.gate();
        if gate.links.iter().map(|link| link.id).eq(links.iter().map(|link| link.id)) {
            return Vec::new();
        }
        gate.links = links;
        gate.is_shut = false;
        gate.is_demanded = false;
        gate.refused_until = None;
        gate.pass()
    }

    /// The connections are gone. Whether new ones are needed for what waits, which is as if it had been asked for.
    pub(super) fn lost(&self) -> bool {
        let mut gate = self.gate();
        if gate.links.is_empty() {
            return false;
        }
        gate.links.clear();
        gate.is_shut = false;
        gate.is_demanded = !gate.waiting.is_empty();
        gate.is_demanded
    }

    /// No connection could be made: gives back what waits for one.
    pub(super) fn give_up(&self, now: Instant) -> Vec<Frame> {
        let mut gate = self.gate();
        if !gate.links.is_empty() {
            return Vec::new();
        }
        gate.is_demanded = false;
        gate.refused_until = Some(now + REFUSAL);
        gate.waiting_bytes = 0;
        std::mem::take(&mut gate.waiting).into_iter().map(|(_, frame)| frame).collect()
    }

    /// Lets nothing through until it is opened again, if `is_unused` while nothing can. Whether it is shut now; a road that
    /// leads nowhere is.
    pub(super) fn shut(&self, is_unused: impl FnOnce() -> bool) -> bool {
        let mut gate = self.gate();
        if !gate.is_shut && gate.links.iter().all(|link| link.waiting() == 0) && is_unused() {
            gate.is_shut = !gate.links.is_empty();
            return true;
        }
        false
    }

    /// Lets everything through again. Gives back what was not taken.
    pub(super) fn reopen(&self) -> Vec<Frame> {
        let mut gate = self.gate();
        gate.is_shut = false;
        gate.pass()
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    fn is_idle(&self) -> bool {
        self.links.is_empty() && !self.is_demanded && self.waiting.is_empty()
    }

    fn pass(&mut self) -> Vec<Frame> {
        if self.links.is_empty() {
            return Vec::new();
        }
        self.waiting_bytes = 0;
        let mut failed = Vec::new();
        for (lane, frame) in std::mem::take(&mut self.waiting) {
            if over(&self.links, lane, &frame).is_err() {
                failed.push(frame);
            }
        }
        failed
    }
}

/// Queues a frame at the connection of its lane.
pub(super) fn over(links: &[Arc<Link>], lane: u64, frame: &Frame) -> Result<(), SendError> {
    let count = u64::try_from(links.len()).unwrap_or(u64::MAX);
    let index = lane.checked_rem(count).and_then(|index| usize::try_from(index).ok());
    let link = index.and_then(|index| links.get(index)).ok_or(SendError::NotConnected)?;
    let outbound = link.outbound().ok_or(SendError::NotConnected)?;
    match outbound.send(frame) {
        Ok(()) => {
            link.channel_counters().sent(frame.encoded_len());
            Ok(())
        }
        Err(weald_link::SendError::Full { waiting }) => {
            link.channel_counters().overflowed();
            Err(SendError::Full { waiting })
        }
        Err(weald_link::SendError::Frame(error)) => Err(SendError::Frame(error)),
        Err(_ended) => Err(SendError::NotConnected),
    }
}
