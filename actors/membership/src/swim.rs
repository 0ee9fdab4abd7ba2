//! Who is alive: a failure detector after SWIM, with parts of Lifeguard.
//!
//! What it is: every period some members are probed, in a random order that covers all before it starts again; without an answer
//! in time, `k` others are asked to probe it; without an answer from them, either, it is *suspect* and may refute; then it is
//! *down*. Nobody is removed from the membership by this, and whoever is down comes back with the first sign of life.
//!
//! What it guarantees: who has a connection to a node believes its own probes, not rumours; so a link that is cut between two
//! nodes makes nobody suspect while a third reaches both. After a pause of this process nobody is blamed for the time it slept.
//!
//! ```text
//! up ── no answer, directly or through others, or a rumour about an unconnected node ──► suspect ── time over ──► down
//! up ◄── an answer, a message, a connection; a rumour with a higher counter ── suspect, down
//! ```
//!
//! DEVIATES (SWIM 4.2): down is not final, and counted by the same counter as the rest. (Lifeguard IV.A) the local health scales
//! timeouts only, not the period.

use std::collections::{BTreeMap, BTreeSet};

use weald_peers::Liveness;
use weald_storage::NodeId;

use crate::config;
use crate::messages::{Body, Rumour};
use crate::rng::Rng;

/// Most probes for others at a time; more requests get no answer. // guess
pub const RELAYS_MAX: usize = 256;
/// Most probes of one's own at a time. // guess
pub const PROBES_MAX: usize = 256;
/// Highest local health score. // Lifeguard: 8; guess: timeouts here are checked against 6 s
pub const HEALTH_MAX: u64 = 3;
/// Independent suspicions after which the shortest timeout holds. // Lifeguard IV.B: K = 3
const CONFIRMATIONS_MAX: usize = 2;
/// A pause between two ticks above which this process was not running. // guess
const PAUSE_MS: u64 = 1_000;
/// Every so many periods one that is down is probed, too. // guess
const DOWN_EVERY: u64 = 4;

/// Whom the detector may talk to.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Peers with a connection.
    pub connected: &'a BTreeSet<NodeId>,
    /// Only these are probed; everybody if `None`.
    pub probed: Option<&'a BTreeSet<NodeId>>,
}

/// What the detector wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this.
    Send(NodeId, Body),
    /// Let the subject of a rumour know of it, so that it refutes.
    Tell(NodeId, Rumour),
    /// Tell everybody.
    Spread(Rumour),
    /// A node is now thought to be what the rumour says.
    Turned(NodeId, Liveness),
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Peer {
    liveness: Liveness,
    refute: u32,
    /// When a suspicion began, and its longest duration.
    suspect_since_ms: u64,
    suspect_max_ms: u64,
    /// Who else suspects it.
    confirmed_by: BTreeSet<NodeId>,
    /// Smoothed round trip and its deviation, milliseconds; `None` before the first.
    rtt: Option<(u64, u64)>,
}

/// A probe under way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Probe {
    target: NodeId,
    sent_ms: u64,
    /// When others are asked, if they were not.
    ask_at_ms: Option<u64>,
    fail_at_ms: u64,
    /// Whether the connection to it broke.
    is_hinted: bool,
    /// Others who were asked, and how many of them answered at all.
    asked: usize,
    failed: usize,
}

/// A probe for another node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Relay {
    origin: NodeId,
    origin_seq: u64,
    target: NodeId,
    fail_at_ms: u64,
}

/// The failure detector.
#[derive(Debug, Clone)]
pub struct Detector {
    config: config::Swim,
    own: NodeId,
    own_refute: u32,
    health: u64,
    peers: BTreeMap<NodeId, Peer>,
    /// Those of them that are suspect.
    suspects: BTreeSet<NodeId>,
    ring: Vec<NodeId>,
    probes: BTreeMap<u64, Probe>,
    relays: BTreeMap<u64, Relay>,
    next_seq: u64,
    next_probe_ms: u64,
    last_tick_ms: u64,
    periods: u64,
}

impl Detector {
    /// A detector that knows nobody.
    #[must_use]
    pub fn new(config: config::Swim, own: NodeId, now_ms: u64) -> Self {
        Self {
            config,
            own,
            own_refute: 0,
            health: 0,
            peers: BTreeMap::new(),
            suspects: BTreeSet::new(),
            ring: Vec::new(),
            probes: BTreeMap::new(),
            relays: BTreeMap::new(),
            next_seq: 1,
            next_probe_ms: now_ms,
            last_tick_ms: now_ms,
            periods: 0,
        }
    }

    /// Watches a node. One that is only remembered starts as a suspect.
    pub fn add(&mut self, now_ms: u64, node: NodeId, is_remembered: bool) {
        if node == self.own || self.peers.contains_key(&node) {
            return;
        }
        let liveness = if is_remembered { Liveness::Suspect } else { Liveness::Up };
        let peer = Peer {
            liveness,
            refute: 0,
            suspect_since_ms: now_ms,
            suspect_max_ms: self.config.boot_grace_ms,
            confirmed_by: BTreeSet::new(),
            rtt: None,
        };
        self.peers.insert(node, peer);
        if is_remembered {
            self.suspects.insert(node);
        }
    }

    /// Forgets a node.
    pub fn remove(&mut self, node: NodeId) {
        self.peers.remove(&node);
        self.suspects.remove(&node);
        self.probes.retain(|_, probe| probe.target != node);
    }

    /// What is thought of a node; unknown nodes are down, this one is up.
    #[must_use]
    pub fn liveness(&self, node: NodeId) -> Liveness {
        if node == self.own {
            return Liveness::Up;
        }
        self.peers.get(&node).map_or(Liveness::Down, |peer| peer.liveness)
    }

    /// The rumour that this node would spread about a node.
    #[must_use]
    pub fn rumour_of(&self, node: NodeId) -> Rumour {
        let refute = self.peers.get(&node).map_or(0, |peer| peer.refute);
        let refute = if node == self.own { self.own_refute } else { refute };
        Rumour { node, refute, liveness: self.liveness(node) }
    }

    /// Smoothed round trip to a node, milliseconds.
    #[must_use]
    pub fn rtt_ms(&self, node: NodeId) -> Option<u64> {
        self.peers.get(&node)?.rtt.map(|(smoothed, _)| smoothed)
    }

    /// Local health: 0 is well; each point makes timeouts longer by their first value.
    #[must_use]
    pub fn health(&self) -> u64 {
        self.health
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        let probes = self.probes.values().map(|p| p.ask_at_ms.unwrap_or(p.fail_at_ms));
        let relays = self.relays.values().map(|relay| relay.fail_at_ms);
        let suspects = self.suspects.iter().filter_map(|node| self.peers.get(node));
        let suspects = suspects.map(|peer| self.suspicion_ends(peer));
        probes.chain(relays).chain(suspects).fold(self.next_probe_ms, u64::min)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_ms: u64, around: Around<'_>, rng: &mut Rng, out: &mut Vec<Effect>) {
        self.forgive_pause(now_ms);
        self.advance_probes(now_ms, around, rng, out);
        let late: Vec<u64> =
            self.relays.iter().filter(|(_, r)| r.fail_at_ms <= now_ms).map(|(s, _)| *s).collect();
        for relay in late.iter().filter_map(|seq| self.relays.remove(seq)) {
            out.push(Effect::Send(relay.origin, Body::PingFailed { seq: relay.origin_seq }));
        }
        let is_over =
            |node: &NodeId| self.peers.get(node).is_some_and(|p| self.suspicion_ends(p) <= now_ms);
        let over: Vec<NodeId> = self.suspects.iter().copied().filter(is_over).collect();
        for node in over {
            self.turn(now_ms, node, Liveness::Down, None, out);
            out.push(Effect::Spread(self.rumour_of(node)));
        }
        if self.next_probe_ms <= now_ms {
            self.next_probe_ms = now_ms + self.config.period_ms;
            self.periods += 1;
            let probes = if around.probed.is_some() { 1 } else { self.config.probes };
            for _ in 0..probes {
                let Some(target) = self.next_target(around, rng) else { break };
                self.probe(now_ms, target, false, around, out);
            }
            if self.periods.is_multiple_of(DOWN_EVERY)
                && let Some(target) = self.any_down(around, rng)
            {
                self.probe(now_ms, target, false, around, out);
            }
        }
    }

    /// A ping of a peer; the answer is the caller's, as news ride on it.
    pub fn on_ping_request(
        &mut self,
        now_ms: u64,
        origin: NodeId,
        origin_seq: u64,
        target: NodeId,
        around: Around<'_>,
        out: &mut Vec<Effect>,
    ) {
        if !around.connected.contains(&target) || self.relays.len() >= RELAYS_MAX {
            out.push(Effect::Send(origin, Body::PingFailed { seq: origin_seq }));
            return;
        }
        let seq = self.take_seq();
        let fail_at_ms = now_ms + self.config.ack_min_ms;
        self.relays.insert(seq, Relay { origin, origin_seq, target, fail_at_ms });
        out.push(Effect::Send(target, Body::Ping { seq, is_neighbour: false }));
    }

    /// An answer to a ping.
    pub fn on_ack(&mut self, now_ms: u64, from: NodeId, seq: u64, out: &mut Vec<Effect>) {
        if self.relays.get(&seq).is_some_and(|relay| relay.target == from)
            && let Some(relay) = self.relays.remove(&seq)
        {
            out.push(Effect::Send(relay.origin, Body::PingReached { seq: relay.origin_seq }));
        }
        if self.probes.get(&seq).is_some_and(|probe| probe.target == from)
            && let Some(probe) = self.probes.remove(&seq)
        {
            self.health = self.health.saturating_sub(1);
            self.measured(from, now_ms.saturating_sub(probe.sent_ms));
        }
        self.alive(now_ms, from, out);
    }

    /// Another node has reached the target of a probe.
    pub fn on_reached(&mut self, now_ms: u64, seq: u64, out: &mut Vec<Effect>) {
        if let Some(probe) = self.probes.remove(&seq) {
            self.alive(now_ms, probe.target, out);
        }
    }

    /// Another node has not reached the target of a probe, but has answered.
    pub fn on_failed(&mut self, seq: u64) {
        if let Some(probe) = self.probes.get_mut(&seq) {
            probe.failed += 1;
            if probe.is_hinted && probe.failed >= probe.asked {
                // The connection broke, and nobody else is to be waited for.
                probe.fail_at_ms = 0;
            }
        }
    }

    /// A sign of life of a node: a message, a connection.
    pub fn alive(&mut self, now_ms: u64, node: NodeId, out: &mut Vec<Effect>) {
        let before = self.rumour_of(node);
        self.probes.retain(|_, probe| probe.target != node);
        if self.peers.contains_key(&node) && before.liveness != Liveness::Up {
            // Whoever has heard the rumour only believes the node itself: it shall raise its counter.
            out.push(Effect::Tell(node, before));
            self.turn(now_ms, node, Liveness::Up, None, out);
        }
    }

    /// The connection to a node broke: others are asked at once.
    pub fn on_disconnect(
        &mut self,
        now_ms: u64,
        node: NodeId,
        around: Around<'_>,
        rng: &mut Rng,
        out: &mut Vec<Effect>,
    ) {
        if self.liveness(node) != Liveness::Down && self.peers.contains_key(&node) {
            self.probes.retain(|_, probe| probe.target != node);
            self.probe(now_ms, node, true, around, out);
            self.advance_probes(now_ms, around, rng, out);
        }
    }

    /// What `from` says about a node.
    pub fn on_rumour(
        &mut self,
        now_ms: u64,
        from: NodeId,
        rumour: Rumour,
        around: Around<'_>,
        out: &mut Vec<Effect>,
    ) {
        if rumour.node == self.own {
            self.refute(rumour, out);
            return;
        }
        let Some(peer) = self.peers.get_mut(&rumour.node) else { return };
        let is_newer = rumour.refute > peer.refute;
        match rumour.liveness {
            Liveness::Up if is_newer => {
                peer.refute = rumour.refute;
                // The answer proves it to whoever is connected; for the others the counter is the proof.
                self.turn(now_ms, rumour.node, Liveness::Up, None, out);
                out.push(Effect::Spread(rumour));
            }
            Liveness::Suspect | Liveness::Down if rumour.refute >= peer.refute => {
                let is_known = !is_newer && peer.liveness >= rumour.liveness;
                peer.refute = rumour.refute;
                peer.confirmed_by.insert(from);
                if is_known {
                    return;
                }
                if around.connected.contains(&rumour.node) {
                    if !self.probes.values().any(|probe| probe.target == rumour.node) {
                        self.probe(now_ms, rumour.node, false, around, out);
                        out.push(Effect::Tell(rumour.node, rumour));
                    }
                } else {
                    self.turn(now_ms, rumour.node, rumour.liveness, Some(from), out);
                    out.push(Effect::Spread(rumour));
                }
            }
            Liveness::Up | Liveness::Suspect | Liveness::Down => {}
        }
    }

    fn refute(&mut self, rumour: Rumour, out: &mut Vec<Effect>) {
        let is_wrong = rumour.liveness != Liveness::Up && rumour.refute >= self.own_refute;
        if is_wrong || rumour.refute > self.own_refute {
            self.own_refute = rumour.refute.saturating_add(1);
            // Lifeguard IV.A: whoever has to refute may be the slow one.
            self.health = (self.health + 1).min(HEALTH_MAX);
            out.push(Effect::Spread(self.rumour_of(self.own)));
        }
    }

    fn forgive_pause(&mut self, now_ms: u64) {
        let gap = now_ms.saturating_sub(self.last_tick_ms);
        self.last_tick_ms = now_ms;
        if gap < PAUSE_MS.max(self.config.period_ms + self.config.ack_max_ms) {
            return;
        }
        // What was asked before is asked again; the answers may still wait to be read.
        self.probes.clear();
        for peer in self.peers.values_mut() {
            peer.suspect_since_ms += gap;
        }
    }

    fn advance_probes(
        &mut self,
        now_ms: u64,
        around: Around<'_>,
        rng: &mut Rng,
        out: &mut Vec<Effect>,
    ) {
        let due = |p: &Probe| p.ask_at_ms.is_some_and(|at| at <= now_ms) || p.fail_at_ms <= now_ms;
        let seqs: Vec<u64> =
            self.probes.iter().filter(|(_, p)| due(p)).map(|(seq, _)| *seq).collect();
        for seq in seqs {
            let Some(mut probe) = self.probes.remove(&seq) else { continue };
            if probe.fail_at_ms <= now_ms {
                self.failed(now_ms, &probe, around, out);
                continue;
            }
            probe.ask_at_ms = None;
            let others = around
                .connected
                .iter()
                .copied()
                .filter(|node| *node != probe.target && self.liveness(*node) == Liveness::Up);
            let helpers = rng.sample(others, self.config.helpers);
            probe.asked = helpers.len();
            if helpers.is_empty() && !around.connected.contains(&probe.target) {
                self.failed(now_ms, &probe, around, out);
                continue;
            }
            for helper in helpers {
                let body = Body::PingRequest { seq, target: probe.target };
                out.push(Effect::Send(helper, body));
            }
            self.probes.insert(seq, probe);
        }
    }

    fn failed(&mut self, now_ms: u64, probe: &Probe, around: Around<'_>, out: &mut Vec<Effect>) {
        // Lifeguard IV.A: nobody answered, not even with a failure: it may be this node that is cut off.
        if probe.asked > 0 && probe.failed == 0 {
            self.health = (self.health + 1).min(HEALTH_MAX);
        }
        let Some(peer) = self.peers.get_mut(&probe.target) else { return };
        if peer.liveness != Liveness::Up {
            return;
        }
        let scale = suspicion_scale(self.peers.len() + 1);
        let max_ms = match (probe.is_hinted, around.probed) {
            // Where everybody is connected, the others say whether they reach it.
            (true, None) => self.config.suspect_hinted_ms,
            // Where not, the refutation takes its way.
            (true, Some(_)) => self.config.suspect_hinted_ms * scale / 100,
            (false, _) => self.config.suspect_ms * scale / 100,
        };
        self.turn(now_ms, probe.target, Liveness::Suspect, None, out);
        if let Some(peer) = self.peers.get_mut(&probe.target) {
            peer.suspect_max_ms = max_ms;
        }
        let rumour = self.rumour_of(probe.target);
        out.push(Effect::Tell(probe.target, rumour));
        out.push(Effect::Spread(rumour));
    }

    /// When a suspicion is over: sooner the more others share it (Lifeguard IV.B, linear instead of logarithmic).
    fn suspicion_ends(&self, peer: &Peer) -> u64 {
        let max_ms = peer.suspect_max_ms;
        let min_ms = self.config.suspect_hinted_ms.min(max_ms);
        let confirmed = peer.confirmed_by.len().min(CONFIRMATIONS_MAX) as u64;
        let off_ms = (max_ms - min_ms) * confirmed / CONFIRMATIONS_MAX as u64;
        peer.suspect_since_ms + (max_ms - off_ms)
    }

    fn turn(
        &mut self,
        now_ms: u64,
        node: NodeId,
        liveness: Liveness,
        because_of: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        let scale = suspicion_scale(self.peers.len() + 1);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if liveness == Liveness::Up {
            peer.confirmed_by.clear();
        }
        if peer.liveness == liveness {
            return;
        }
        peer.liveness = liveness;
        self.suspects.remove(&node);
        if liveness == Liveness::Suspect {
            self.suspects.insert(node);
            peer.suspect_since_ms = now_ms;
            peer.suspect_max_ms = self.config.suspect_ms * scale / 100;
            peer.confirmed_by.extend(because_of);
        }
        out.push(Effect::Turned(node, liveness));
    }

    fn probe(
        &mut self,
        now_ms: u64,
        target: NodeId,
        is_hinted: bool,
        around: Around<'_>,
        out: &mut Vec<Effect>,
    ) {
        if self.probes.len() >= PROBES_MAX {
            return;
        }
        let wait_ms = self.ack_timeout(target);
        let seq = self.take_seq();
        let is_direct = around.connected.contains(&target) && !is_hinted;
        let ask_at_ms = if is_direct { now_ms + wait_ms } else { now_ms };
        let probe = Probe {
            target,
            sent_ms: now_ms,
            ask_at_ms: Some(ask_at_ms),
            fail_at_ms: ask_at_ms + self.config.ack_max_ms * (1 + self.health),
            is_hinted,
            asked: 0,
            failed: 0,
        };
        self.probes.insert(seq, probe);
        if is_direct {
            let is_neighbour = around.probed.is_some_and(|probed| probed.contains(&target));
            out.push(Effect::Send(target, Body::Ping { seq, is_neighbour }));
        }
    }

    fn ack_timeout(&self, target: NodeId) -> u64 {
        let rtt = self.peers.get(&target).and_then(|peer| peer.rtt);
        let wanted = rtt.map_or(self.config.ack_max_ms, |(smoothed, spread)| smoothed + 4 * spread);
        wanted.clamp(self.config.ack_min_ms, self.config.ack_max_ms) * (1 + self.health)
    }

    /// Round trip estimation as in TCP (RFC 6298).
    fn measured(&mut self, node: NodeId, rtt_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.rtt = Some(match peer.rtt {
                None => (rtt_ms, rtt_ms / 2),
                Some((smoothed, spread)) => {
                    ((7 * smoothed + rtt_ms) / 8, (3 * spread + smoothed.abs_diff(rtt_ms)) / 4)
                }
            });
        }
    }

    /// The next of a random order of all that are to be probed.
    fn next_target(&mut self, around: Around<'_>, rng: &mut Rng) -> Option<NodeId> {
        let is_probed = |node: &NodeId| around.probed.is_none_or(|probed| probed.contains(node));
        for _round in 0..2 {
            while let Some(node) = self.ring.pop() {
                let is_open = self.probes.values().any(|probe| probe.target == node);
                if is_probed(&node) && self.is_not_down(node) && !is_open {
                    return Some(node);
                }
            }
            let candidates: Vec<NodeId> = match around.probed {
                Some(probed) => probed.iter().copied().collect(),
                None => self.peers.keys().copied().collect(),
            };
            self.ring = candidates.into_iter().filter(|node| self.is_not_down(*node)).collect();
            rng.shuffle(&mut self.ring);
        }
        None
    }

    fn is_not_down(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.liveness != Liveness::Down)
    }

    fn any_down(&self, around: Around<'_>, rng: &mut Rng) -> Option<NodeId> {
        if around.probed.is_some() {
            return None;
        }
        let down = self.peers.iter().filter(|(_, p)| p.liveness == Liveness::Down);
        let down: Vec<NodeId> = down.map(|(node, _)| *node).collect();
        rng.pick(&down)
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }
}

/// Percent by which suspicions last longer in larger clusters: `100 * max(1, log10(members))`.
fn suspicion_scale(members: usize) -> u64 {
    // log10 by thirds of a doubling: exact enough, and the same on every machine.
    let doublings = u64::from(usize::BITS - members.leading_zeros());
    (doublings * 30).max(100)
}
