//! `HyParView`: a few neighbours each, and spare nodes to replace them.
//!
//! What it is: the *active view* holds the neighbours, is symmetric, and is what rumours and broadcasts go along; the *passive
//! view* holds spare nodes, refreshed by shuffles. Joins walk through the overlay, so that a new node gets neighbours from all
//! over.
//!
//! What it guarantees: one node never has more than `active_max` neighbours; a node without any is never refused by one that
//! takes it for its neighbour. The neighbourhoods are one graph over all members that know each other to be alive, whatever the
//! walks and shuffles do, within one and a quarter `ring_period_ms` and the time of a connection: 7 s or so. Members that cannot
//! be connected with each other take a period and a half more for each that is passed over, up to three.
//!
//! DEVIATES (`HyParView`):
//! - 4.2: everybody knows all members (changes of the view go to all), so spare nodes are ids, and an empty passive view is
//!   refilled from the members.
//! - 4.4: the answer to a shuffle goes back along the walk instead of over a connection of its own; it reaches the origin all
//!   the same.
//! - 4.3: refused or failed promotions back off, since in a cluster with full views a free slot may not exist.
//! - a ping says whether its receiver is a neighbour, which repairs a one-sided neighbourhood.
//! - a demoted neighbour stays connected for a while, so that what was sent to it arrives.
//! - a node keeps the next and the previous member by id among its neighbours, if they answer: all members know all others, so
//!   these links make a circle over all of them, and parts that are each content with their neighbours cannot stay apart. It
//!   costs one attempt a period at most, and none while the next member is a neighbour. The rest of the view is random as ever.
//! - lost members are contacted again, and now and then a neighbour is exchanged for any member: shuffles alone never leave a
//!   part that was cut off.
//! - now and then any member is contacted: one that died together with all its neighbours is noticed by nobody else.

use std::collections::{BTreeMap, BTreeSet};

use weald_storage::NodeId;

use crate::config;
use crate::messages::Overlay;
use crate::rng::Rng;

/// Time for a connection and an answer. // guess
const ATTEMPT_MS: u64 = 5_000;
/// A former neighbour stays connected for so long. // guess
const DRAIN_MS: u64 = 3_000;
/// The way back of a shuffle is remembered for so long. // guess
const CRUMB_MS: u64 = 10_000;
/// Most ways back that are remembered. // guess
const CRUMBS_MAX: usize = 256;
/// Shortest and longest time between promotions. // guess
const PROMOTE_MIN_MS: u64 = 500;
const PROMOTE_MAX_MS: u64 = 15_000;
/// Members after this one by id that are tried in turn, should the first ones not be reached. // guess
const RING_WALK: usize = 4;

/// What the overlay knows of the rest of the node.
pub trait Env {
    /// Whether there is a connection.
    fn is_connected(&self, node: NodeId) -> bool;
    /// Whether it is another member that is not down.
    fn is_alive(&self, node: NodeId) -> bool;
    /// Members that are not down, without this node.
    fn alive(&self) -> Vec<NodeId>;
    /// Members that are down.
    fn lost(&self) -> Vec<NodeId>;
}

/// An attempt to win a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    is_urgent: bool,
    is_asked: bool,
    until_ms: u64,
}

/// Where the answer to a shuffle goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Crumb {
    back: NodeId,
    until_ms: u64,
}

/// Messages to send.
pub type Outbox = Vec<(NodeId, Overlay)>;

/// The overlay of one node.
#[derive(Debug, Clone)]
pub struct HyParView {
    config: config::HyParView,
    own: NodeId,
    active: BTreeSet<NodeId>,
    passive: BTreeSet<NodeId>,
    attempts: BTreeMap<NodeId, Attempt>,
    draining: BTreeMap<NodeId, u64>,
    crumbs: BTreeMap<(NodeId, u64), Crumb>,
    /// The last shuffle of this node, and what it has sent.
    shuffled: (u64, Vec<NodeId>),
    promote_wait_ms: u64,
    promote_at_ms: u64,
    shuffle_at_ms: u64,
    recontact_at_ms: u64,
    check_at_ms: u64,
    mix_at_ms: u64,
    ring_at_ms: u64,
    /// Which of the members after this one is tried next.
    ring_step: usize,
    /// Members to whom no connection could be made.
    unreached: Vec<NodeId>,
}

impl HyParView {
    /// An overlay without neighbours.
    #[must_use]
    pub fn new(config: config::HyParView, own: NodeId, now_ms: u64, rng: &mut Rng) -> Self {
        Self {
            own,
            active: BTreeSet::new(),
            passive: BTreeSet::new(),
            attempts: BTreeMap::new(),
            draining: BTreeMap::new(),
            crumbs: BTreeMap::new(),
            shuffled: (0, Vec::new()),
            promote_wait_ms: PROMOTE_MIN_MS,
            promote_at_ms: now_ms,
            // The first ones come early and at different times.
            shuffle_at_ms: now_ms + rng.jitter(config.shuffle_period_ms / 2, 100),
            recontact_at_ms: now_ms + rng.jitter(config.recontact_period_ms / 2, 100),
            check_at_ms: now_ms + rng.jitter(config.check_period_ms, 50),
            unreached: Vec::new(),
            mix_at_ms: now_ms + rng.jitter(config.mix_period_ms, 50),
            ring_at_ms: now_ms + rng.jitter(config.ring_period_ms, 25),
            ring_step: 0,
            config,
        }
    }

    /// The neighbours.
    #[must_use]
    pub fn active(&self) -> &BTreeSet<NodeId> {
        &self.active
    }

    /// The spare nodes.
    #[must_use]
    pub fn passive(&self) -> &BTreeSet<NodeId> {
        &self.passive
    }

    /// Whom to be connected with.
    #[must_use]
    pub fn wanted(&self) -> BTreeSet<NodeId> {
        let others = self.attempts.keys().chain(self.draining.keys());
        self.active.iter().chain(others).copied().collect()
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        let attempts = self.attempts.values().map(|attempt| attempt.until_ms);
        let timers = [self.shuffle_at_ms, self.recontact_at_ms, self.check_at_ms];
        let timers = timers.into_iter().chain([self.mix_at_ms, self.ring_at_ms]);
        let promote = (!self.is_full()).then_some(self.promote_at_ms);
        let drains = self.draining.values().copied();
        attempts.chain(drains).chain(timers).chain(promote).min().unwrap_or(u64::MAX)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_ms: u64, env: &impl Env, rng: &mut Rng, out: &mut Outbox) {
        self.draining.retain(|_, until| *until > now_ms);
        self.crumbs.retain(|_, crumb| crumb.until_ms > now_ms);
        let late = self.attempts.iter().filter(|(_, attempt)| attempt.until_ms <= now_ms);
        for (node, is_asked) in late.map(|(node, a)| (*node, a.is_asked)).collect::<Vec<_>>() {
            self.attempts.remove(&node);
            self.passive.remove(&node);
            if !is_asked {
                self.unreached.push(node);
            }
        }
        if self.promote_at_ms <= now_ms {
            self.promote_at_ms = now_ms + self.promote_wait_ms;
            self.promote(now_ms, env, rng, out);
        }
        if self.shuffle_at_ms <= now_ms {
            self.shuffle_at_ms = now_ms + rng.jitter(self.config.shuffle_period_ms, 25);
            self.shuffle(rng, out);
        }
        if self.recontact_at_ms <= now_ms {
            self.recontact_at_ms = now_ms + rng.jitter(self.config.recontact_period_ms, 50);
            if let Some(node) = rng.pick(&env.lost()) {
                self.attempt(now_ms, node, true, env, out);
            }
        }
        if self.check_at_ms <= now_ms {
            self.check_at_ms = now_ms + rng.jitter(self.config.check_period_ms, 50);
            self.contact_any(now_ms, false, env, rng, out);
        }
        if self.mix_at_ms <= now_ms {
            self.mix_at_ms = now_ms + rng.jitter(self.config.mix_period_ms, 50);
            self.contact_any(now_ms, true, env, rng, out);
        }
        if self.ring_at_ms <= now_ms {
            self.ring_at_ms = now_ms + rng.jitter(self.config.ring_period_ms, 25);
            self.close_ring(now_ms, env, out);
        }
    }

    /// Wins the next member by id for a neighbour.
    fn close_ring(&mut self, now_ms: u64, env: &impl Env, out: &mut Outbox) {
        let ring = self.ring(env);
        if ring.first().is_none_or(|next| self.active.contains(next)) {
            self.ring_step = 0;
            return;
        }
        let node = ring[self.ring_step % ring.len().min(RING_WALK)];
        self.ring_step += 1;
        self.attempt(now_ms, node, true, env, out);
    }

    /// The other members that are alive, from the next one by id to the previous one.
    fn ring(&self, env: &impl Env) -> Vec<NodeId> {
        let mut ring = env.alive();
        ring.sort_unstable();
        let at = ring.partition_point(|node| *node <= self.own);
        ring.rotate_left(at);
        ring
    }

    /// Members that could not be connected since this was last asked: they may be dead.
    pub fn take_unreached(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.unreached)
    }

    fn contact_any(
        &mut self,
        now_ms: u64,
        is_urgent: bool,
        env: &impl Env,
        rng: &mut Rng,
        out: &mut Outbox,
    ) {
        let mut others = env.alive();
        others.retain(|node| !self.active.contains(node));
        if let Some(node) = rng.pick(&others) {
            self.attempt(now_ms, node, is_urgent, env, out);
        }
    }

    /// A peer is connected. `is_contact`: this node dialled it in order to join.
    pub fn on_connect(&mut self, now_ms: u64, node: NodeId, is_contact: bool, out: &mut Outbox) {
        if let Some(attempt) = self.attempts.get_mut(&node) {
            if !attempt.is_asked {
                attempt.is_asked = true;
                let is_urgent = attempt.is_urgent || self.active.is_empty();
                out.push((node, Overlay::Neighbour { is_urgent }));
            }
        } else if is_contact && self.active.is_empty() {
            let until_ms = now_ms + ATTEMPT_MS;
            self.attempts.insert(node, Attempt { is_urgent: true, is_asked: true, until_ms });
            out.push((node, Overlay::Join));
        }
    }

    /// The connection to a peer is gone, or the peer is down.
    pub fn on_disconnect(&mut self, now_ms: u64, node: NodeId, env: &impl Env, rng: &mut Rng) {
        self.draining.remove(&node);
        if self.attempts.get(&node).is_some_and(|attempt| attempt.is_asked) {
            self.attempts.remove(&node);
        }
        if self.active.remove(&node) {
            self.hurry(now_ms);
            if env.is_alive(node) {
                self.spare(node, &[], rng);
            }
        }
    }

    /// A node is down or gone: it is no spare any more.
    pub fn on_lost(&mut self, now_ms: u64, node: NodeId) {
        self.passive.remove(&node);
        if self.active.remove(&node) {
            self.hurry(now_ms);
        }
    }

    /// A node is no member any more.
    pub fn forget(&mut self, now_ms: u64, node: NodeId) {
        self.on_lost(now_ms, node);
        self.attempts.remove(&node);
        self.draining.remove(&node);
    }

    /// A ping says that the sender takes this node for its neighbour.
    pub fn on_neighbour_ping(&mut self, now_ms: u64, from: NodeId, out: &mut Outbox) {
        if self.active.contains(&from) || self.attempts.contains_key(&from) {
            return;
        }
        if self.is_full() {
            out.push((from, Overlay::Disconnect));
        } else {
            self.insert(now_ms, from);
        }
    }

    /// A message of a peer.
    pub fn on_message(
        &mut self,
        now_ms: u64,
        from: NodeId,
        message: Overlay,
        env: &impl Env,
        rng: &mut Rng,
        out: &mut Outbox,
    ) {
        match message {
            Overlay::Join => {
                self.make_room(now_ms, from, env, rng, out);
                self.insert(now_ms, from);
                out.push((from, Overlay::NeighbourReply { is_accepted: true }));
                let ttl = self.config.active_walk;
                let others = self.active.iter().filter(|node| **node != from);
                out.extend(others.map(|node| (*node, Overlay::ForwardJoin { node: from, ttl })));
            }
            Overlay::ForwardJoin { node, ttl } => {
                self.on_forward_join(now_ms, from, node, ttl, env, rng, out);
            }
            Overlay::Neighbour { is_urgent } => {
                let is_accepted = is_urgent || !self.is_full() || self.active.contains(&from);
                if is_accepted {
                    self.make_room(now_ms, from, env, rng, out);
                    self.insert(now_ms, from);
                }
                out.push((from, Overlay::NeighbourReply { is_accepted }));
            }
            Overlay::NeighbourReply { is_accepted } => {
                // Without an attempt of ours it is an old answer; if the sender counts us as a neighbour, its pings tell.
                if self.attempts.remove(&from).is_none() {
                    return;
                }
                if is_accepted {
                    self.make_room(now_ms, from, env, rng, out);
                    self.insert(now_ms, from);
                } else {
                    self.promote_wait_ms = (self.promote_wait_ms * 2).min(PROMOTE_MAX_MS);
                    self.spare(from, &[], rng);
                    self.draining.insert(from, now_ms + DRAIN_MS);
                }
            }
            Overlay::Disconnect => {
                if self.active.remove(&from) {
                    self.hurry(now_ms);
                    self.draining.insert(from, now_ms + DRAIN_MS);
                    self.spare(from, &[], rng);
                }
            }
            Overlay::Shuffle { origin, id, ttl, nodes } => {
                self.on_shuffle(now_ms, from, (origin, id, ttl), nodes, env, rng, out);
            }
            Overlay::ShuffleReply { origin, id, nodes } if origin == self.own => {
                if id == self.shuffled.0 {
                    let sent = std::mem::take(&mut self.shuffled.1);
                    self.keep(&nodes, &sent, env, rng);
                }
            }
            Overlay::ShuffleReply { origin, id, nodes } => {
                if let Some(crumb) = self.crumbs.remove(&(origin, id)) {
                    out.push((crumb.back, Overlay::ShuffleReply { origin, id, nodes }));
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message, and the surroundings")]
    fn on_forward_join(
        &mut self,
        now_ms: u64,
        from: NodeId,
        node: NodeId,
        ttl: u8,
        env: &impl Env,
        rng: &mut Rng,
        out: &mut Outbox,
    ) {
        if node == self.own || self.active.contains(&node) {
            return;
        }
        // A walk is never longer than our own would be, whatever the sender says.
        let ttl = ttl.min(self.config.active_walk);
        let next: Vec<NodeId> =
            self.active.iter().copied().filter(|n| *n != from && *n != node).collect();
        let Some(next) = rng.pick(&next).filter(|_| ttl > 0) else {
            self.attempt(now_ms, node, true, env, out);
            return;
        };
        if ttl == self.config.passive_walk {
            self.spare(node, &[], rng);
        }
        out.push((next, Overlay::ForwardJoin { node, ttl: ttl - 1 }));
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message, and the surroundings")]
    fn on_shuffle(
        &mut self,
        now_ms: u64,
        from: NodeId,
        (origin, id, ttl): (NodeId, u64, u8),
        nodes: Vec<NodeId>,
        env: &impl Env,
        rng: &mut Rng,
        out: &mut Outbox,
    ) {
        if origin == self.own {
            return;
        }
        let ttl = ttl.min(self.config.active_walk).saturating_sub(1);
        let next: Vec<NodeId> =
            self.active.iter().copied().filter(|n| *n != from && *n != origin).collect();
        if ttl > 0
            && !self.crumbs.contains_key(&(origin, id))
            && self.crumbs.len() < CRUMBS_MAX
            && let Some(next) = rng.pick(&next)
        {
            let crumb = Crumb { back: from, until_ms: now_ms + CRUMB_MS };
            self.crumbs.insert((origin, id), crumb);
            out.push((next, Overlay::Shuffle { origin, id, ttl, nodes }));
            return;
        }
        let answer = rng.sample(self.passive.iter().copied(), nodes.len());
        out.push((from, Overlay::ShuffleReply { origin, id, nodes: answer.clone() }));
        self.keep(&nodes, &answer, env, rng);
    }

    fn shuffle(&mut self, rng: &mut Rng, out: &mut Outbox) {
        let neighbours: Vec<NodeId> = self.active.iter().copied().collect();
        let Some(to) = rng.pick(&neighbours) else { return };
        let mut nodes = vec![self.own];
        let others = neighbours.into_iter().filter(|node| *node != to);
        nodes.extend(rng.sample(others, self.config.shuffle_active));
        nodes.extend(rng.sample(self.passive.iter().copied(), self.config.shuffle_passive));
        let id = self.shuffled.0 + 1;
        self.shuffled = (id, nodes.clone());
        let ttl = self.config.active_walk;
        out.push((to, Overlay::Shuffle { origin: self.own, id, ttl, nodes }));
    }

    /// Tries to fill a free slot.
    fn promote(&mut self, now_ms: u64, env: &impl Env, rng: &mut Rng, out: &mut Outbox) {
        if self.active.len() + self.attempts.len() >= self.config.active_max {
            return;
        }
        self.passive.retain(|node| env.is_alive(*node));
        if self.passive.is_empty() {
            let alive = env.alive().into_iter().filter(|node| !self.active.contains(node));
            self.passive = rng.sample(alive, self.config.passive_max).into_iter().collect();
        }
        let attempts = &self.attempts;
        let spares: Vec<NodeId> =
            self.passive.iter().copied().filter(|node| !attempts.contains_key(node)).collect();
        if let Some(node) = rng.pick(&spares) {
            self.attempt(now_ms, node, self.active.is_empty(), env, out);
        } else if self.active.is_empty()
            && let Some(node) = rng.pick(&env.lost())
        {
            // Nobody is left: somebody who was lost may be back.
            self.attempt(now_ms, node, true, env, out);
        }
    }

    fn attempt(
        &mut self,
        now_ms: u64,
        node: NodeId,
        is_urgent: bool,
        env: &impl Env,
        out: &mut Outbox,
    ) {
        let is_busy = self.attempts.len() >= self.config.active_max * 2;
        if node == self.own || self.active.contains(&node) || is_busy {
            return;
        }
        let is_asked = env.is_connected(node);
        if is_asked {
            out.push((node, Overlay::Neighbour { is_urgent }));
        }
        let attempt = Attempt { is_urgent, is_asked, until_ms: now_ms + ATTEMPT_MS };
        self.attempts.entry(node).or_insert(attempt);
    }

    fn insert(&mut self, now_ms: u64, node: NodeId) {
        if node == self.own {
            return;
        }
        self.attempts.remove(&node);
        self.draining.remove(&node);
        self.passive.remove(&node);
        self.active.insert(node);
        self.promote_wait_ms = PROMOTE_MIN_MS;
        self.promote_at_ms = self.promote_at_ms.min(now_ms + PROMOTE_MIN_MS);
    }

    /// Demotes a neighbour if there is no free slot; one of the circle only if there is no other.
    fn make_room(
        &mut self,
        now_ms: u64,
        newcomer: NodeId,
        env: &impl Env,
        rng: &mut Rng,
        out: &mut Outbox,
    ) {
        while self.is_full() && !self.active.contains(&newcomer) {
            let ring = self.ring(env);
            let is_kept = |node: &NodeId| Some(node) == ring.first() || Some(node) == ring.last();
            let mut neighbours: Vec<NodeId> =
                self.active.iter().copied().filter(|node| !is_kept(node)).collect();
            if neighbours.is_empty() {
                neighbours = self.active.iter().copied().collect();
            }
            let Some(node) = rng.pick(&neighbours) else { return };
            self.active.remove(&node);
            out.push((node, Overlay::Disconnect));
            self.draining.insert(node, now_ms + DRAIN_MS);
            self.spare(node, &[], rng);
        }
    }

    fn is_full(&self) -> bool {
        self.active.len() >= self.config.active_max
    }

    fn hurry(&mut self, now_ms: u64) {
        self.promote_wait_ms = PROMOTE_MIN_MS;
        self.promote_at_ms = now_ms;
    }

    /// Keeps what a shuffle brought; what was sent makes room first.
    fn keep(&mut self, nodes: &[NodeId], sent: &[NodeId], env: &impl Env, rng: &mut Rng) {
        for node in nodes {
            if env.is_alive(*node) {
                self.spare(*node, sent, rng);
            }
        }
    }

    fn spare(&mut self, node: NodeId, sent: &[NodeId], rng: &mut Rng) {
        if node == self.own || self.active.contains(&node) || self.passive.contains(&node) {
            return;
        }
        if self.passive.len() >= self.config.passive_max {
            let first = sent.iter().copied().find(|sent| self.passive.contains(sent));
            let spares: Vec<NodeId> = self.passive.iter().copied().collect();
            if let Some(node) = first.or_else(|| rng.pick(&spares)) {
                self.passive.remove(&node);
            }
        }
        self.passive.insert(node);
    }
}
