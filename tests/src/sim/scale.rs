//! A thousand nodes that only broadcast: the overlay and the trees, without stores, in virtual time.
//!
//! Measures what the papers measure: reliability (which part of the nodes that are up got a message), relative message
//! redundancy (payloads received per node beyond the one that is needed), last delivery hop, and bytes per node.
//!
//! # Source
//! Leitão, Pereira, Rodrigues: HyParView (2007), Epidemic Broadcast Trees (2007).

use std::collections::{BTreeMap, BTreeSet};

use weald_broadcast::core::{self as plumtree, Plumtree};
use weald_broadcast::messages::{self, Gossip, Graft, IHave, Prune};
use weald_membership::config;
use weald_membership::messages::{Body, Message, Overlay};
use weald_membership::overlay::{Env, HyParView, Outbox};
use weald_membership::rng::Rng;
use weald_peers::{Dots, WireDelta};
use weald_storage::{Actor, Dot, NodeId};

use super::queue::Queue;
use crate::seed::Seeded;

/// Between two joins.
const JOIN_MS: u64 = 20;
/// Broken connections to dead nodes are noticed after so long, at most.
const NOTICE_MS: u64 = 2_000;
/// The connection to the node one has joined through stays so long.
const CONTACT_MS: u64 = 30_000;
/// Size of a message's value.
const PAYLOAD_BYTES: usize = 256;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// How many nodes.
    pub nodes: usize,
    /// Everybody with everybody, or `HyParView`.
    pub is_full_mesh: bool,
    /// Seed of everything.
    pub seed: u64,
}

/// What became of one message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fate {
    /// When it was sent.
    pub sent_ms: u64,
    /// When the last node got it.
    pub last_ms: u64,
    /// Nodes that have it, its sender included.
    pub reached: usize,
    /// Nodes that were up when it was sent.
    pub alive: usize,
    /// Payloads received.
    pub payloads: u64,
    /// Greatest number of hops.
    pub last_hop: u16,
}

impl Fate {
    /// Which part of the nodes got it.
    #[must_use]
    pub fn reliability(&self) -> f64 {
        ratio(self.reached as u64, self.alive as u64)
    }

    /// Payloads per node beyond one.
    #[must_use]
    pub fn redundancy(&self) -> f64 {
        ratio(self.payloads, self.reached.saturating_sub(1).max(1) as u64) - 1.0
    }
}

/// A quotient of counts.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
#[must_use]
pub fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}

#[derive(Debug)]
enum Event {
    Join(usize),
    Wake(usize),
    Overlay {
        from: usize,
        to: usize,
        message: Overlay,
    },
    Gossip {
        from: usize,
        to: usize,
        root: NodeId,
        round: u16,
        dots: Dots,
    },
    IHave {
        from: usize,
        to: usize,
        items: Vec<plumtree::Announcement>,
    },
    Graft {
        from: usize,
        to: usize,
        root: NodeId,
        stream: u16,
        dots: Dots,
    },
    Prune {
        from: usize,
        to: usize,
        root: NodeId,
    },
    /// A connection that was made; whether to join through it.
    Connected {
        a: usize,
        b: usize,
        is_contact: bool,
    },
    Noticed {
        node: usize,
        dead: usize,
    },
    ContactOver {
        a: usize,
        b: usize,
    },
}

struct Node {
    overlay: Option<HyParView>,
    plumtree: Plumtree,
    seen: BTreeSet<Dot>,
    connected: BTreeSet<NodeId>,
    contacts: BTreeSet<NodeId>,
    neighbours: BTreeSet<NodeId>,
    rng: Rng,
    is_up: bool,
    wake_ms: u64,
    counter: u64,
}

/// The nodes.
#[expect(missing_debug_implementations, reason = "too large to be printed")]
pub struct Swarm {
    setup: Setup,
    queue: Queue<Event>,
    rng: Seeded,
    nodes: Vec<Node>,
    ids: Vec<NodeId>,
    joined: BTreeSet<NodeId>,
    down: BTreeSet<NodeId>,
    fates: BTreeMap<Dot, Fate>,
    payload_bytes: u64,
    /// Bytes of payloads, announcements and the rest of the trees, and of the overlay.
    pub bytes: [u64; 3],
}

/// What a node's overlay knows of the rest.
struct Rest<'a> {
    own: NodeId,
    connected: &'a BTreeSet<NodeId>,
    joined: &'a BTreeSet<NodeId>,
    down: &'a BTreeSet<NodeId>,
}

impl Env for Rest<'_> {
    fn is_connected(&self, node: NodeId) -> bool {
        self.connected.contains(&node)
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node != self.own && self.joined.contains(&node) && !self.down.contains(&node)
    }

    fn alive(&self) -> Vec<NodeId> {
        self.joined.iter().copied().filter(|node| self.is_alive(*node)).collect()
    }

    fn lost(&self) -> Vec<NodeId> {
        self.down.iter().copied().collect()
    }
}

impl Swarm {
    /// The nodes, not yet joined.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let mut rng = Seeded::new(setup.seed);
        let mut queue = Queue::default();
        let ids: Vec<NodeId> = (0..setup.nodes)
            .map(|number| {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&rng.any().to_be_bytes());
                id[8..].copy_from_slice(&(number as u64).to_be_bytes());
                NodeId(id)
            })
            .collect();
        let nodes = ids.iter().map(|id| {
            let mut own = Rng::new(rng.any());
            let overlay = (!setup.is_full_mesh)
                .then(|| HyParView::new(config::HyParView::default(), *id, 0, &mut own));
            Node {
                overlay,
                plumtree: Plumtree::new(*id, plumtree::Config::default()),
                seen: BTreeSet::new(),
                connected: BTreeSet::new(),
                contacts: BTreeSet::new(),
                neighbours: BTreeSet::new(),
                rng: own,
                is_up: false,
                wake_ms: u64::MAX,
                counter: 0,
            }
        });
        let nodes = nodes.collect();
        for node in 0..setup.nodes {
            let at_ms = if setup.is_full_mesh { 0 } else { node as u64 * JOIN_MS };
            queue.at(at_ms, Event::Join(node));
        }
        let value = vec![0; PAYLOAD_BYTES];
        let delta = WireDelta {
            table: "scale".into(),
            key: vec![0; 16],
            object: value,
            dots: Dots::default(),
        };
        let gossip = Gossip { root: ids[0], round: 0, stream: 0, events: vec![delta] };
        let payload_bytes = gossip.encode().map_or(0, |bytes| bytes.len() as u64 + 28);
        Self {
            setup,
            queue,
            rng,
            nodes,
            ids,
            joined: BTreeSet::new(),
            down: BTreeSet::new(),
            fates: BTreeMap::new(),
            payload_bytes,
            bytes: [0; 3],
        }
    }

    /// Virtual time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.queue.now_ms()
    }

    /// Lets time pass.
    pub fn run_until(&mut self, until_ms: u64) {
        while let Some(event) = self.queue.next(until_ms) {
            self.handle(event);
        }
    }

    /// A node that is up, at random.
    pub fn any_up(&mut self) -> usize {
        loop {
            let node = self.rng.below(self.setup.nodes);
            if self.nodes[node].is_up {
                return node;
            }
        }
    }

    /// A node publishes a message; its name.
    pub fn publish(&mut self, node: usize) -> Dot {
        self.nodes[node].counter += 1;
        let actor = Actor { node: self.ids[node], incarnation: 1 };
        let dot = Dot { actor, counter: self.nodes[node].counter };
        let alive = self.nodes.iter().filter(|node| node.is_up).count();
        let sent_ms = self.now_ms();
        self.fates
            .insert(dot, Fate { sent_ms, last_ms: sent_ms, reached: 1, alive, ..Fate::default() });
        self.nodes[node].seen.insert(dot);
        let dots = Dots::from_iter([dot]);
        self.plumtree(node, plumtree::Input::Published { stream: 0, dots });
        dot
    }

    /// What became of a message so far.
    #[must_use]
    pub fn fate(&self, dot: Dot) -> Fate {
        self.fates.get(&dot).copied().unwrap_or_default()
    }

    /// Ends so many nodes in a hundred at once; the others notice as connections break.
    pub fn fail(&mut self, percent: usize) {
        let mut up: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].is_up).collect();
        for _ in 0..up.len() * percent / 100 {
            let dead = up.swap_remove(self.rng.below(up.len()));
            self.nodes[dead].is_up = false;
            for peer in self.nodes[dead].connected.clone() {
                let in_ms = self.rng.any() % NOTICE_MS;
                self.queue.after(in_ms, Event::Noticed { node: number(peer), dead });
            }
        }
    }

    /// Nodes that are up, and the fewest and most neighbours of one of them.
    #[must_use]
    pub fn degrees(&self) -> (usize, usize, usize) {
        let up: Vec<usize> =
            self.nodes.iter().filter(|n| n.is_up).map(|n| n.neighbours.len()).collect();
        let (least, most) = (up.iter().min(), up.iter().max());
        (up.len(), least.copied().unwrap_or(0), most.copied().unwrap_or(0))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Join(node) => self.join(node),
            Event::Wake(node) => self.wake(node),
            Event::Overlay { from, to, message } => {
                let from = self.ids[from];
                self.overlay(to, |overlay, now_ms, rest, rng, out| {
                    overlay.on_message(now_ms, from, message, rest, rng, out);
                });
            }
            Event::Gossip { from, to, root, round, dots } => {
                self.gossip(from, to, root, round, &dots)
            }
            Event::IHave { from, to, items } => {
                for announced in items {
                    let has = &self.nodes[to].seen;
                    let missing = announced.dots.iter().filter(|dot| !has.contains(dot)).collect();
                    let from = self.ids[from];
                    self.plumtree(to, plumtree::Input::IHave { from, announced, missing });
                }
            }
            Event::Graft { from, to, root, stream, dots } => {
                let from = self.ids[from];
                self.plumtree(to, plumtree::Input::Graft { from, root, stream, dots });
            }
            Event::Prune { from, to, root } => {
                let from = self.ids[from];
                self.plumtree(to, plumtree::Input::Prune { from, root });
            }
            Event::Connected { a, b, is_contact } => self.connected(a, b, is_contact),
            Event::Noticed { node, dead } => self.noticed(node, dead),
            Event::ContactOver { a, b } => {
                let (x, y) = (self.ids[a], self.ids[b]);
                self.nodes[a].contacts.remove(&y);
                self.nodes[b].contacts.remove(&x);
                self.settle(a);
                self.settle(b);
            }
        }
    }

    fn join(&mut self, node: usize) {
        let own = self.ids[node];
        self.joined.insert(own);
        self.nodes[node].is_up = true;
        if self.setup.is_full_mesh {
            let all: BTreeSet<NodeId> = self.ids.iter().copied().filter(|id| *id != own).collect();
            self.nodes[node].connected.clone_from(&all);
            self.neighbours(node, all);
        } else if node > 0 {
            let through = self.rng.below(node);
            self.queue.after(1, Event::Connected { a: node, b: through, is_contact: true });
        }
        self.set_timer(node);
    }

    fn connected(&mut self, a: usize, b: usize, is_contact: bool) {
        if !self.nodes[a].is_up || !self.nodes[b].is_up {
            return;
        }
        let (x, y) = (self.ids[a], self.ids[b]);
        self.nodes[a].connected.insert(y);
        self.nodes[b].connected.insert(x);
        if is_contact {
            self.nodes[a].contacts.insert(y);
            self.nodes[b].contacts.insert(x);
            self.queue.after(CONTACT_MS, Event::ContactOver { a, b });
        }
        self.overlay(b, |overlay, now_ms, _, _, out| overlay.on_connect(now_ms, x, false, out));
        self.overlay(a, |overlay, now_ms, _, _, out| {
            overlay.on_connect(now_ms, y, is_contact, out)
        });
    }

    fn noticed(&mut self, node: usize, dead: usize) {
        let lost = self.ids[dead];
        self.down.insert(lost);
        if !self.nodes[node].is_up || !self.nodes[node].connected.remove(&lost) {
            return;
        }
        self.overlay(node, |overlay, now_ms, rest, rng, _| {
            overlay.on_disconnect(now_ms, lost, rest, rng);
            overlay.on_lost(now_ms, lost);
        });
        if self.setup.is_full_mesh {
            let mut neighbours = self.nodes[node].neighbours.clone();
            neighbours.remove(&lost);
            self.neighbours(node, neighbours);
        }
    }

    fn overlay(
        &mut self,
        at: usize,
        step: impl FnOnce(&mut HyParView, u64, &Rest<'_>, &mut Rng, &mut Outbox),
    ) {
        let now_ms = self.queue.now_ms();
        let node = &mut self.nodes[at];
        let (Some(overlay), true) = (&mut node.overlay, node.is_up) else { return };
        let rest = Rest {
            own: self.ids[at],
            connected: &node.connected,
            joined: &self.joined,
            down: &self.down,
        };
        let mut out = Outbox::new();
        step(overlay, now_ms, &rest, &mut node.rng, &mut out);
        for (to, message) in out {
            if self.nodes[at].connected.contains(&to) {
                self.bytes[2] +=
                    Message::bare(Body::Overlay(message.clone())).encode().len() as u64;
                self.post(at, to, |from, to| Event::Overlay { from, to, message });
            }
        }
        self.settle(at);
        self.set_timer(at);
    }

    /// Makes the connections that a node wants, ends those that neither side wants, and tells the trees.
    fn settle(&mut self, at: usize) {
        let Some(overlay) = &self.nodes[at].overlay else { return };
        let (wanted, active) = (overlay.wanted(), overlay.active().clone());
        let own = self.ids[at];
        for peer in wanted.iter().filter(|peer| !self.nodes[at].connected.contains(peer)) {
            let in_ms = 1 + self.rng.any() % 20;
            self.queue
                .after(in_ms, Event::Connected { a: at, b: number(*peer), is_contact: false });
        }
        let unwanted = self.nodes[at].connected.iter().filter(|peer| {
            let other = &self.nodes[number(**peer)];
            let is_wanted = other.overlay.as_ref().is_some_and(|o| o.wanted().contains(&own));
            !wanted.contains(peer) && !is_wanted && !self.nodes[at].contacts.contains(peer)
        });
        for peer in unwanted.copied().collect::<Vec<_>>() {
            self.nodes[at].connected.remove(&peer);
            self.nodes[number(peer)].connected.remove(&own);
            self.overlay(number(peer), |overlay, now_ms, rest, rng, _| {
                overlay.on_disconnect(now_ms, own, rest, rng);
            });
        }
        let neighbours: BTreeSet<NodeId> =
            active.into_iter().filter(|peer| self.nodes[at].connected.contains(peer)).collect();
        if neighbours != self.nodes[at].neighbours {
            self.neighbours(at, neighbours);
        }
    }

    fn neighbours(&mut self, at: usize, peers: BTreeSet<NodeId>) {
        self.nodes[at].neighbours.clone_from(&peers);
        let is_full_mesh = self.setup.is_full_mesh;
        self.plumtree(at, plumtree::Input::Neighbours { peers, is_full_mesh });
    }

    fn gossip(&mut self, from: usize, to: usize, root: NodeId, round: u16, dots: &Dots) {
        let (mut fresh, mut duplicate) = (Vec::new(), Vec::new());
        for dot in dots.iter() {
            let Some(fate) = self.fates.get_mut(&dot) else { continue };
            fate.payloads += 1;
            if self.nodes[to].seen.insert(dot) {
                fate.reached += 1;
                fate.last_ms = self.queue.now_ms();
                fate.last_hop = fate.last_hop.max(round + 1);
                fresh.push(dot);
            } else {
                duplicate.push(dot);
            }
        }
        let (fresh, duplicate) = (Dots::from_iter(fresh), Dots::from_iter(duplicate));
        let from = self.ids[from];
        let input = plumtree::Input::Gossip { from, root, round, stream: 0, fresh, duplicate };
        self.plumtree(to, input);
    }

    fn wake(&mut self, at: usize) {
        let now_ms = self.queue.now_ms();
        if !self.nodes[at].is_up || self.nodes[at].wake_ms > now_ms {
            return;
        }
        self.nodes[at].wake_ms = u64::MAX;
        if self.nodes[at].overlay.as_ref().is_some_and(|o| o.next_deadline() <= now_ms) {
            self.overlay(at, |overlay, now_ms, rest, rng, out| {
                overlay.tick(now_ms, rest, rng, out)
            });
        }
        if self.nodes[at].plumtree.next_deadline().is_some_and(|at| at <= now_ms) {
            for (stream, dots) in self.nodes[at].plumtree.due(now_ms) {
                let seen = &self.nodes[at].seen;
                let dots = Dots::from_iter(dots.iter().filter(|dot| seen.contains(dot)));
                self.plumtree(at, plumtree::Input::Known { stream, dots });
            }
            self.plumtree(at, plumtree::Input::Tick);
        }
        self.set_timer(at);
    }

    fn set_timer(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let overlay = node.overlay.as_ref().map_or(u64::MAX, HyParView::next_deadline);
        let deadline = overlay.min(node.plumtree.next_deadline().unwrap_or(u64::MAX));
        let deadline = deadline.max(self.queue.now_ms() + 1);
        if deadline < node.wake_ms {
            node.wake_ms = deadline;
            self.queue.at(deadline, Event::Wake(at));
        }
    }

    fn plumtree(&mut self, at: usize, input: plumtree::Input) {
        if !self.nodes[at].is_up {
            return;
        }
        let mut out = Vec::new();
        self.nodes[at].plumtree.handle(self.queue.now_ms(), input, &mut out);
        for output in out {
            self.perform(at, output);
        }
        self.set_timer(at);
    }

    fn perform(&mut self, at: usize, output: plumtree::Output) {
        let control = |bytes: Result<Vec<u8>, _>| bytes.map_or(0, |bytes| bytes.len() as u64);
        match output {
            plumtree::Output::Push { to, root, round, dots, .. } => {
                for to in to {
                    self.bytes[0] += self.payload_bytes * dots.count();
                    let dots = dots.clone();
                    self.post(at, to, |from, to| Event::Gossip { from, to, root, round, dots });
                }
            }
            plumtree::Output::Answer { to, root, round, dots, .. } => {
                let seen = &self.nodes[at].seen;
                let dots = Dots::from_iter(dots.iter().filter(|dot| seen.contains(dot)));
                self.bytes[0] += self.payload_bytes * dots.count();
                self.post(at, to, |from, to| Event::Gossip { from, to, root, round, dots });
            }
            plumtree::Output::SendIHave { to, items } => {
                self.bytes[1] += control(messages::encode(&IHave(items.clone())));
                self.post(at, to, |from, to| Event::IHave { from, to, items });
            }
            plumtree::Output::SendGraft { to, root, stream, dots } => {
                let graft = Graft { root, stream, dots: dots.clone() };
                self.bytes[1] += control(messages::encode(&graft));
                self.post(at, to, |from, to| Event::Graft { from, to, root, stream, dots });
            }
            plumtree::Output::SendPrune { to, root } => {
                self.bytes[1] += control(messages::encode(&Prune { root }));
                self.post(at, to, |from, to| Event::Prune { from, to, root });
            }
            // An exchange would follow; here it is what is not measured.
            plumtree::Output::Behind { .. } => {}
        }
    }

    /// Sends on a link: each pair of nodes has a latency of its own, and a little jitter.
    fn post(&mut self, from: usize, to: NodeId, event: impl FnOnce(usize, usize) -> Event) {
        let to = number(to);
        let apart = (from.wrapping_mul(31) ^ to.wrapping_mul(17)) % 20;
        let delay_ms = 2 + apart as u64 + self.rng.any() % 5;
        if self.nodes[to].is_up {
            self.queue.after(delay_ms, event(from, to));
        }
    }
}

fn number(id: NodeId) -> usize {
    let low = id.0.last_chunk::<8>().copied().unwrap_or_default();
    usize::try_from(u64::from_be_bytes(low)).unwrap_or_default()
}
