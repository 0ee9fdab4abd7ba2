//! A network of cores in memory: virtual time, one seed, no exchange.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weald_broadcast::core::{Announcement, Config, Counters, Input, Output, Plumtree};
use weald_broadcast::dots::{difference, missing};
use weald_peers::Dots;
use weald_storage::{Actor, Clock, NodeId};

#[derive(Debug, Clone)]
enum Message {
    Gossip { root: NodeId, round: u16, stream: u16, dots: Dots },
    IHave(Vec<Announcement>),
    Graft { root: NodeId, stream: u16, dots: Dots },
    Prune { root: NodeId },
}

/// What goes wrong, in thousandths, and how long a message takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) lost: u32,
    pub(crate) twice: u32,
    pub(crate) delay_ms: (u64, u64),
}

pub(crate) const NONE: Faults = Faults { lost: 0, twice: 0, delay_ms: (1, 3) };

struct Node {
    core: Plumtree,
    clocks: BTreeMap<u16, Clock>,
    issued: BTreeMap<u16, u64>,
    is_up: bool,
}

pub(crate) struct Net {
    pub(crate) now_ms: u64,
    pub(crate) faults: Faults,
    nodes: Vec<Node>,
    flying: BTreeMap<(u64, u64), (usize, usize, Message)>,
    sent: u64,
    random: ChaCha8Rng,
    /// Gossip messages sent, and all events that were behind.
    pub(crate) copies: u64,
    pub(crate) behind: u64,
}

fn id(n: usize) -> NodeId {
    let mut bytes = [0; 16];
    bytes[14..].copy_from_slice(&u16::try_from(n).expect("few nodes").to_be_bytes());
    NodeId(bytes)
}

fn index(node: NodeId) -> usize {
    let (_, [a, b]) = node.0.split_last_chunk::<2>().expect("16 bytes");
    usize::from(u16::from_be_bytes([*a, *b]))
}

impl Net {
    pub(crate) fn new(nodes: usize, seed: u64, config: &Config) -> Self {
        let node = |n| Node {
            core: Plumtree::new(id(n), config.clone()),
            clocks: BTreeMap::new(),
            issued: BTreeMap::new(),
            is_up: true,
        };
        Self {
            now_ms: 0,
            faults: NONE,
            nodes: (0..nodes).map(node).collect(),
            flying: BTreeMap::new(),
            sent: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
            copies: 0,
            behind: 0,
        }
    }

    /// The other nodes of the first `count`, for each of them.
    pub(crate) fn full_mesh(&mut self, count: usize) {
        for n in 0..count {
            let others = (0..count).filter(|m| *m != n).collect();
            self.neighbours(n, &others, true);
        }
    }

    /// A ring with `chords` random links per node.
    pub(crate) fn partial(&mut self, chords: usize) -> Vec<BTreeSet<usize>> {
        let count = self.nodes.len();
        let mut links = vec![BTreeSet::new(); count];
        for n in 0..count {
            for chord in 0..=chords {
                let other = if chord == 0 { n + 1 } else { self.below(count) } % count;
                if other != n {
                    links[n].insert(other);
                    links[other].insert(n);
                }
            }
        }
        for (n, others) in links.iter().enumerate() {
            self.neighbours(n, others, false);
        }
        links
    }

    pub(crate) fn neighbours(&mut self, n: usize, others: &BTreeSet<usize>, is_full_mesh: bool) {
        let peers = others.iter().map(|m| id(*m)).collect();
        self.give(n, Input::Neighbours { peers, is_full_mesh });
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.random.next_u32() as usize % n
    }

    fn hits(&mut self, thousandths: u32) -> bool {
        self.random.next_u32() % 1000 < thousandths
    }

    pub(crate) fn kill(&mut self, n: usize) {
        self.nodes[n].is_up = false;
    }

    pub(crate) fn parent(&self, n: usize, root: usize) -> Option<usize> {
        self.nodes[n].core.parent(&id(root)).map(index)
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for c in self.nodes.iter().map(|n| n.core.counters()) {
            sum.graft += c.graft;
            sum.prune += c.prune;
            sum.duplicate += c.duplicate;
            sum.announced += c.announced;
            sum.optimised += c.optimised;
            sum.repaired += c.repaired;
            sum.overflow += c.overflow;
        }
        sum
    }

    /// Commits `count` events at a node and pushes them as one batch.
    pub(crate) fn publish(&mut self, n: usize, stream: u16, count: u64) {
        let actor = Actor { node: id(n), incarnation: 1 };
        let last = self.nodes[n].issued.entry(stream).or_default();
        let dots = Dots(vec![(actor, vec![(*last + 1, *last + count)])]);
        *last += count;
        self.know(n, stream, &dots);
        self.give(n, Input::Published { stream, dots });
    }

    fn know(&mut self, n: usize, stream: u16, dots: &Dots) {
        let clock = self.nodes[n].clocks.entry(stream).or_default();
        for dot in dots.iter() {
            clock.insert(dot);
        }
    }

    fn lacks(&self, n: usize, stream: u16, dots: &Dots) -> Dots {
        self.nodes[n].clocks.get(&stream).map_or_else(|| dots.clone(), |c| missing(dots, c))
    }

    fn give(&mut self, n: usize, input: Input) {
        let mut out = Vec::new();
        self.nodes[n].core.handle(self.now_ms, input, &mut out);
        for output in out {
            match output {
                Output::Push { to, root, round, stream, dots } => {
                    for to in to {
                        let dots = dots.clone();
                        self.send(n, to, &Message::Gossip { root, round, stream, dots });
                    }
                }
                Output::Answer { to, root, round, stream, dots } => {
                    assert!(self.lacks(n, stream, &dots).is_empty(), "asked for what it has");
                    self.send(n, to, &Message::Gossip { root, round, stream, dots });
                }
                Output::SendIHave { to, items } => self.send(n, to, &Message::IHave(items)),
                Output::SendGraft { to, root, stream, dots } => {
                    self.send(n, to, &Message::Graft { root, stream, dots });
                }
                Output::SendPrune { to, root } => self.send(n, to, &Message::Prune { root }),
                Output::Behind { .. } => self.behind += 1,
            }
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        self.copies += u64::from(matches!(message, Message::Gossip { .. }));
        if self.hits(self.faults.lost) {
            return;
        }
        let copies = 1 + u64::from(self.hits(self.faults.twice));
        for _ in 0..copies {
            let (from_ms, to_ms) = self.faults.delay_ms;
            let delay_ms = from_ms + u64::from(self.random.next_u32()) % (to_ms - from_ms + 1);
            self.sent += 1;
            let at = (self.now_ms + delay_ms, self.sent);
            self.flying.insert(at, (from, index(to), message.clone()));
        }
    }

    fn receive(&mut self, from: usize, n: usize, message: Message) {
        let from = id(from);
        match message {
            Message::Gossip { root, round, stream, dots } => {
                let fresh = self.lacks(n, stream, &dots);
                let duplicate = difference(&dots, &fresh);
                self.know(n, stream, &fresh);
                self.give(n, Input::Gossip { from, root, round, stream, fresh, duplicate });
            }
            Message::IHave(items) => {
                for announced in items {
                    let missing = self.lacks(n, announced.stream, &announced.dots);
                    self.give(n, Input::IHave { from, announced, missing });
                }
            }
            Message::Graft { root, stream, dots } => {
                self.give(n, Input::Graft { from, root, stream, dots });
            }
            Message::Prune { root } => self.give(n, Input::Prune { from, root }),
        }
    }

    /// Runs for some time; ends early when nothing is left to do.
    pub(crate) fn run(&mut self, for_ms: u64) {
        let end_ms = self.now_ms + for_ms;
        loop {
            let message = self.flying.keys().next().map(|(at, _)| *at);
            let up = |n: &usize| self.nodes[*n].is_up;
            let timer = (0..self.nodes.len())
                .filter(up)
                .filter_map(|n| Some((self.nodes[n].core.next_deadline()?, n)))
                .min();
            let next = message.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|at| *at <= end_ms) else { break };
            self.now_ms = self.now_ms.max(next);
            if message == Some(next) {
                let Some((_, (from, to, message))) = self.flying.pop_first() else { break };
                if self.nodes[to].is_up {
                    self.receive(from, to, message);
                }
            } else if let Some((_, n)) = timer {
                self.give(n, Input::Tick);
            }
        }
        self.now_ms = end_ms;
    }

    /// Nodes that are up and lack events of `root`, the stream, and how many.
    pub(crate) fn lacking(&self, root: usize) -> Vec<(usize, u16, u64)> {
        let mut lacking = Vec::new();
        for (stream, last) in &self.nodes[root].issued {
            let actor = Actor { node: id(root), incarnation: 1 };
            let all = Dots(vec![(actor, vec![(1, *last)])]);
            let up = (0..self.nodes.len()).filter(|n| self.nodes[*n].is_up);
            let counts = up.map(|n| (n, *stream, self.lacks(n, *stream, &all).count()));
            lacking.extend(counts.filter(|(_, _, count)| *count > 0));
        }
        lacking
    }
}
