//! An overlay in two parts, each of which has all the neighbours it wants, heals by itself.
//!
//! Method: overlays alone, in virtual time; everybody knows of everybody that it is alive, and connections are made as they are
//! wanted. Neighbourhoods are put in place by the messages that make them. Seeded.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use weald_membership::config;
use weald_membership::messages::Overlay;
use weald_membership::overlay::{Env, HyParView, Outbox};
use weald_membership::rng::Rng;
use weald_storage::NodeId;

const TICK_MS: u64 = 100;
/// The bound that the overlay gives: one and a quarter periods, and the time of a connection, with a little to spare.
const WITHIN_MS: u64 = 8_500;

fn id(number: usize) -> NodeId {
    let mut id = [0; 16];
    id[15] = u8::try_from(number).unwrap();
    NodeId(id)
}

struct Rest<'a> {
    own: NodeId,
    all: &'a BTreeSet<NodeId>,
    connected: &'a BTreeSet<NodeId>,
}

impl Env for Rest<'_> {
    fn is_connected(&self, node: NodeId) -> bool {
        self.connected.contains(&node)
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node != self.own && self.all.contains(&node)
    }

    fn alive(&self) -> Vec<NodeId> {
        self.all.iter().copied().filter(|node| *node != self.own).collect()
    }

    fn lost(&self) -> Vec<NodeId> {
        Vec::new()
    }
}

struct Node {
    overlay: HyParView,
    connected: BTreeSet<NodeId>,
}

struct World {
    now_ms: u64,
    rng: Rng,
    all: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, Node>,
    queue: Vec<(NodeId, NodeId, Overlay)>,
    /// Pairs that cannot connect.
    walls: BTreeSet<(NodeId, NodeId)>,
}

impl World {
    /// Two parts with nobody between them: in each, everybody has the neighbours it wants.
    fn split(seed: u64, sides: [Vec<usize>; 2]) -> Self {
        let all: BTreeSet<NodeId> = sides.iter().flatten().map(|number| id(*number)).collect();
        let mut rng = Rng::new(seed);
        let config = config::HyParView::default();
        let nodes = all.iter().map(|own| {
            let overlay = HyParView::new(config.clone(), *own, 0, &mut rng);
            (*own, Node { overlay, connected: BTreeSet::new() })
        });
        let (nodes, queue, walls) = (nodes.collect(), Vec::new(), BTreeSet::new());
        let mut world = Self { now_ms: 0, rng, all, nodes, queue, walls };
        for side in sides {
            // Each with the next two on both sides of a circle, and with the one opposite.
            let count = side.len();
            for (at, number) in side.iter().enumerate() {
                for step in [1, 2, count / 2] {
                    let other = side[(at + step) % count];
                    world.befriend(id(*number), id(other));
                }
            }
        }
        assert_eq!(world.parts(), 2);
        world
    }

    fn befriend(&mut self, one: NodeId, other: NodeId) {
        let is_full = |node: &Node| node.overlay.active().len() >= 5;
        if is_full(&self.nodes[&one]) || is_full(&self.nodes[&other]) {
            return;
        }
        for (to, from) in [(one, other), (other, one)] {
            self.nodes.get_mut(&to).unwrap().connected.insert(from);
            self.on(to, |overlay, now_ms, rest, rng, out| {
                let message = Overlay::Neighbour { is_urgent: true };
                overlay.on_message(now_ms, from, message, rest, rng, out);
                out.clear();
            });
        }
    }

    fn on(
        &mut self,
        node: NodeId,
        change: impl FnOnce(&mut HyParView, u64, &Rest<'_>, &mut Rng, &mut Outbox),
    ) {
        let mut out = Outbox::new();
        let Node { overlay, connected } = self.nodes.get_mut(&node).unwrap();
        let rest = Rest { own: node, all: &self.all, connected };
        change(overlay, self.now_ms, &rest, &mut self.rng, &mut out);
        for (to, message) in out {
            self.queue.push((node, to, message));
        }
    }

    fn step(&mut self) {
        self.now_ms += TICK_MS;
        for (from, to, message) in std::mem::take(&mut self.queue) {
            self.on(to, |overlay, now_ms, rest, rng, out| {
                overlay.on_message(now_ms, from, message, rest, rng, out);
            });
        }
        let ids: Vec<NodeId> = self.all.iter().copied().collect();
        for node in &ids {
            if self.nodes[node].overlay.next_deadline() <= self.now_ms {
                self.on(*node, |overlay, now_ms, rest, rng, out| {
                    overlay.tick(now_ms, rest, rng, out);
                });
            }
            self.connect(*node);
        }
    }

    fn connect(&mut self, node: NodeId) {
        let wanted = self.nodes[&node].overlay.wanted();
        let new: Vec<NodeId> = wanted.difference(&self.nodes[&node].connected).copied().collect();
        for other in new {
            if self.walls.contains(&(node, other)) || self.walls.contains(&(other, node)) {
                continue;
            }
            for (one, peer) in [(node, other), (other, node)] {
                self.nodes.get_mut(&one).unwrap().connected.insert(peer);
                self.on(one, |overlay, now_ms, _, _, out| {
                    overlay.on_connect(now_ms, peer, false, out);
                });
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.step();
        }
    }

    /// Connected parts of the overlay, by neighbourhoods that both ends agree on.
    fn parts(&self) -> usize {
        let mut left = self.all.clone();
        let mut parts = 0;
        while let Some(first) = left.pop_first() {
            parts += 1;
            let mut next = vec![first];
            while let Some(node) = next.pop() {
                for other in self.nodes[&node].overlay.active() {
                    let is_mutual = self.nodes[other].overlay.active().contains(&node);
                    if is_mutual && left.remove(other) {
                        next.push(*other);
                    }
                }
            }
        }
        parts
    }

    /// Whether everybody is the neighbour of the next by id.
    fn is_circle(&self) -> bool {
        let next = self.all.iter().cycle().skip(1);
        self.all.iter().zip(next).all(|(node, next)| {
            let are = |one, other| self.nodes[one].overlay.active().contains(other);
            are(node, next) && are(next, node)
        })
    }

    fn heal(&mut self, within_ms: u64) -> u64 {
        let began_ms = self.now_ms;
        while self.parts() > 1 {
            let took_ms = self.now_ms - began_ms;
            assert!(took_ms <= within_ms, "{} parts after {took_ms} ms", self.parts());
            self.step();
        }
        self.now_ms - began_ms
    }
}

#[test]
fn two_satisfied_cliques_find_each_other_in_time() {
    let mut longest_ms = 0;
    for seed in 0..200 {
        let mut world = World::split(seed, [(1..=6).collect(), (7..=12).collect()]);
        assert!(world.nodes.values().all(|node| node.overlay.active().len() == 5));
        longest_ms = longest_ms.max(world.heal(WITHIN_MS));
    }
    assert!(longest_ms > 0);
}

#[test]
fn halves_of_a_hundred_find_each_other_and_stay_together() {
    for seed in 0..5 {
        let mut numbers: Vec<usize> = (1..=100).collect();
        Rng::new(seed).shuffle(&mut numbers);
        let right = numbers.split_off(20 + 6 * usize::try_from(seed).unwrap());
        let mut world = World::split(seed, [numbers, right]);
        world.heal(WITHIN_MS);
        // All links of the circle are made by then, and those are given up for nobody.
        world.run(20_000);
        for _ in 0..150 {
            world.run(1_000);
            assert_eq!(world.parts(), 1);
            assert!(world.is_circle(), "seed {seed}, {} ms", world.now_ms);
            assert!(world.nodes.values().all(|node| node.overlay.active().len() <= 5));
        }
    }
}

#[test]
fn those_that_cannot_be_connected_are_passed_over() {
    for seed in 0..50 {
        let mut world = World::split(seed, [(1..=6).collect(), (7..=12).collect()]);
        world.walls.extend([(id(6), id(7)), (id(12), id(1))]);
        // One period more, and one in which the connection was waited for.
        world.heal(WITHIN_MS + 15_000);
    }
}

#[test]
fn next_member_is_asked_once_a_period_and_not_at_all_when_it_is_a_neighbour() {
    let config = config::HyParView::default();
    let periods = 20;
    let until_ms = periods * config.ring_period_ms;
    // How often the node at the end of the first part asks in an urgent way, without ever being answered.
    let asked = |first: usize| {
        let mut world = World::split(1, [(first..=7).collect(), vec![20, 21]]);
        let own = if first == 1 { id(7) } else { id(2) };
        let mut asks = 0;
        while world.now_ms < until_ms {
            world.now_ms += TICK_MS;
            world.on(own, |overlay, now_ms, rest, rng, out| overlay.tick(now_ms, rest, rng, out));
            world.connect(own);
            let is_ask = |(from, _, message): &&(NodeId, NodeId, Overlay)| {
                *from == own && matches!(message, Overlay::Neighbour { is_urgent: true })
            };
            asks += std::mem::take(&mut world.queue).iter().filter(is_ask).count() as u64;
        }
        asks
    };
    // One neighbour is exchanged now and then in any case.
    let mixes = until_ms * 2 / config.mix_period_ms + 1;
    let most = periods * 5 / 4 + 2 + mixes;
    assert!((periods / 2..=most).contains(&asked(1)), "the next of 7 is 20: {}", asked(1));
    assert!(asked(2) <= mixes, "the next of 2 is 3, a neighbour: {}", asked(2));
}
