//! Any divergence converges, and no write is lost or undone on the way.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use weald_exchange::core::{Input, Limits, Mode, Session};

use crate::nodes::{A, B, Node, Run, assert_equal, exchange};

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u64),
    Delete(usize, u64),
    Exchange(usize, usize),
    /// All sweep what the first so many have.
    Sweep(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_usize..3, 0_u64..12).prop_map(|(node, n)| Step::Put(node, n)),
        3 => (0_usize..3, 0_u64..12).prop_map(|(node, n)| Step::Delete(node, n)),
        2 => (0_usize..3, 0_usize..3).prop_map(|(a, b)| Step::Exchange(a, b)),
        1 => (1_usize..4).prop_map(Step::Sweep),
    ];
    prop::collection::vec(step, 0..60)
}

fn meet(nodes: &mut [Node], a: usize, b: usize, now_ms: u64) {
    let run = exchange([nodes[a].clone(), nodes[b].clone()], now_ms);
    let [x, y] = run.nodes;
    (nodes[a], nodes[b]) = (x, y);
}

/// Who does not take part in a sweep is fenced: it is a member no more until it has met those that do.
fn play(steps: &[Step]) -> Vec<Node> {
    let mut nodes: Vec<Node> = (1..=3).map(Node::new).collect();
    let mut fenced = [false; 3];
    let mut now_ms = 1_000;
    for (number, step) in steps.iter().enumerate() {
        now_ms += 10;
        match *step {
            Step::Put(node, n) => nodes[node].put(n, format!("v{number}").as_bytes(), now_ms),
            Step::Delete(node, n) => nodes[node].delete(n, now_ms),
            Step::Exchange(a, b) if a != b => {
                meet(&mut nodes, a, b, now_ms);
                if !fenced[a] || !fenced[b] {
                    (fenced[a], fenced[b]) = (false, false);
                }
            }
            Step::Exchange(..) => {}
            Step::Sweep(with) => {
                fenced[with..].fill(true);
                let members: Vec<usize> = (0..3).filter(|n| !fenced[*n]).collect();
                let mut swept: Vec<Node> = members.iter().map(|n| nodes[*n].clone()).collect();
                if !swept.is_empty() {
                    Node::sweep_all(&mut swept, now_ms);
                }
                for (at, node) in members.into_iter().zip(swept) {
                    nodes[at] = node;
                }
            }
        }
    }
    for _ in 0..3 {
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            now_ms += 10;
            meet(&mut nodes, a, b, now_ms);
        }
    }
    nodes
}

/// What happens to three nodes, also in the middle of an exchange.
#[derive(Debug, Clone)]
enum Event {
    /// A new key.
    Put(usize),
    /// One of the keys so far, if the node has it.
    Delete(usize, usize),
    /// An exchange, with one of the following events after every so many of its steps.
    Meet(usize, usize, usize),
    /// Members sweep what all of them have.
    Sweep,
    /// The node is no member any more, until it has met one.
    Fence(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0_usize..3).prop_map(Event::Put),
        4 => (0_usize..3, 0_usize..40).prop_map(|(node, n)| Event::Delete(node, n)),
        3 => (0_usize..3, 1_usize..3, 1_usize..9).prop_map(|(a, by, every)| Event::Meet(a, (a + by) % 3, every)),
        3 => Just(Event::Sweep),
        1 => (0_usize..3).prop_map(Event::Fence),
    ];
    prop::collection::vec(event, 0..80)
}

struct World {
    /// Those of an exchange that runs are there.
    nodes: Vec<Node>,
    fenced: [bool; 3],
    /// Whether a key was deleted by a node that had it.
    deleted: BTreeMap<u64, bool>,
    now_ms: u64,
}

impl World {
    fn new() -> Self {
        let nodes = (1..=3).map(Node::new).collect();
        Self { nodes, fenced: [false; 3], deleted: BTreeMap::new(), now_ms: 1_000 }
    }

    /// Anything but an exchange.
    fn happen(&mut self, event: &Event) {
        self.now_ms += 1;
        match *event {
            Event::Put(node) => {
                let n = self.deleted.len() as u64;
                self.deleted.insert(n, false);
                self.nodes[node].put(n, b"once", self.now_ms);
            }
            Event::Delete(node, n) => {
                let n = n as u64;
                if self.nodes[node].get(n).is_some() {
                    self.deleted.insert(n, true);
                    self.nodes[node].delete(n, self.now_ms);
                }
            }
            Event::Sweep => {
                let members: Vec<usize> = (0..3).filter(|n| !self.fenced[*n]).collect();
                let mut swept: Vec<Node> = members.iter().map(|n| self.nodes[*n].clone()).collect();
                Node::sweep_all(&mut swept, self.now_ms);
                for (at, node) in members.into_iter().zip(swept) {
                    self.nodes[at] = node;
                }
            }
            // One stays, or nobody would know what was deleted.
            Event::Fence(node) => self.fenced[node] = node != 0,
            Event::Meet(..) => {}
        }
    }

    fn meet<'a>(
        &mut self,
        (a, b, every): (usize, usize, usize),
        events: &mut impl Iterator<Item = &'a Event>,
    ) {
        let pair = [self.nodes[a].clone(), self.nodes[b].clone()];
        let mut run = Run::new(pair, Mode::Exchange, self.now_ms);
        let mut steps = 0;
        while run.step() {
            steps += 1;
            if steps % every == 0
                && let Some(event) = events.next()
            {
                [self.nodes[a], self.nodes[b]] = run.nodes;
                self.happen(event);
                run.nodes = [self.nodes[a].clone(), self.nodes[b].clone()];
            }
        }
        let well = run.ended.iter().all(|ended| ended.as_ref().unwrap().result == Ok(true));
        [self.nodes[a], self.nodes[b]] = run.nodes;
        if well && (!self.fenced[a] || !self.fenced[b]) {
            // It counts as a member again from what it has now.
            (self.fenced[a], self.fenced[b]) = (false, false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_divergence_converges(steps in steps()) {
        let nodes = play(&steps);
        assert_equal(&nodes[0], &nodes[1]);
        assert_equal(&nodes[1], &nodes[2]);
        let mut nodes = nodes;
        Node::sweep_all(&mut nodes, 1_000_000);
        for node in &nodes {
            prop_assert_eq!(node.rows(), node.state().len(), "no tombstone is left");
        }
        let run = exchange([nodes[0].clone(), nodes[2].clone()], 2_000_000);
        prop_assert_eq!(run.messages, [1, 1]);
        prop_assert!(run.ended[A].is_some() && run.ended[B].is_some());
    }

    #[test]
    fn no_value_is_lost_and_none_comes_back(events in events()) {
        let mut world = World::new();
        let mut rest = events.iter();
        while let Some(event) = rest.next() {
            match *event {
                Event::Meet(a, b, every) => world.meet((a, b, every), &mut rest),
                _ => world.happen(event),
            }
        }
        for _ in 0..3 {
            for (a, b) in [(0, 1), (1, 2), (2, 0)] {
                world.meet((a, b, 1), &mut std::iter::empty());
            }
        }
        for node in &mut world.nodes {
            for (n, deleted) in &world.deleted {
                prop_assert_eq!(node.get(*n).is_none(), *deleted, "key {}", n);
            }
        }
        assert_equal(&world.nodes[0], &world.nodes[1]);
        assert_equal(&world.nodes[1], &world.nodes[2]);
    }

    #[test]
    fn any_frames_are_survived(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
        tag in 0_u8..16,
    ) {
        let limits = Limits { idle_ms: 10, total_ms: 100 };
        let mut node = Node::new(1);
        node.put(1, b"x", 1);
        for begins in [true, false] {
            let mut session = if begins {
                Session::initiate(Mode::Exchange, 0, limits, Arc::default(), &node, 0).0
            } else {
                Session::respond(limits, Arc::default(), 0)
            };
            for (number, body) in (0_u32..).zip(&frames) {
                let mut frame = number.to_be_bytes().to_vec();
                frame.extend([0, tag]);
                frame.extend(body);
                session.handle(&node, 1, Input::Frame(frame));
            }
            session.handle(&node, 50, Input::Tick);
            prop_assert!(session.is_finished());
        }
    }
}
