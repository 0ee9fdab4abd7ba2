//! The state machine: messages of this node's clients to actors at other nodes, and theirs to actors here. Pure.
//!
//! What it guarantees
//! - Every message that is taken ends once: with what the other node answered, or with an error that says whether the actor
//!   may have it ([`ErrorCode::Unknown`], [`ErrorCode::TimedOut`]) or does not ([`ErrorCode::Unavailable`]).
//! - An acknowledged message is delivered at most once, whatever links, and either process, do: it is for one life of the
//!   other process, and a later life does not take it.
//! - Messages of one key of which the newest counts are delivered in their order, with gaps.
//! - What waits is bounded for each node, in number and in bytes; what does not fit is refused, or dropped and counted.
//!
//! What it refuses: to look for another holder of a name, and to wait longer than it was told.

use super::peer::Peer;
use super::wire::{Item, Message, Subject};
use std::collections::{BTreeMap, BTreeSet};
use weald_proto::{ErrorCode, Reply, WireError};
use weald_storage::NodeId;

/// What each other node may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages to it in flight, beside those of which the newest counts.
    pub in_flight_max: usize,
    /// Their bytes.
    pub bytes_max: usize,
    /// Messages of it that are being delivered here.
    pub serving_max: usize,
    /// Keys of which the newest message waits for it.
    pub newest_max: usize,
    /// Their bytes.
    pub newest_bytes_max: usize,
    /// Keys of its messages that are remembered, so that no older one comes after a newer one.
    pub known_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_max: 1024,       // as one client may have
            bytes_max: 16 << 20,       // guess: two of the largest
            serving_max: 1024,         // as one client takes
            newest_max: 1024,          // guess
            newest_bytes_max: 4 << 20, // guess
            known_max: 4096,           // guess: four times what may wait
        }
    }
}

/// How a message is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Sent once.
    Once {
        /// Whether the actor's answer is awaited.
        reply: bool,
    },
    /// Sent until it is acknowledged, delivered once the node has seen what the token names.
    Acknowledged {
        /// The token.
        token: Option<Vec<u8>>,
    },
    /// The newest of this key.
    Newest {
        /// The key.
        key: Vec<u8>,
    },
}

/// A message to an actor at another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Name of the node, for errors.
    pub node: String,
    /// Name of the actor.
    pub name: String,
    /// The message.
    pub payload: Vec<u8>,
    /// Time for it.
    pub timeout_ms: u64,
    /// How.
    pub how: How,
}

/// A message of another node that is being delivered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The node.
    pub from: NodeId,
    pub(super) answer: AnswerTo,
}

/// Who is told what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerTo {
    Ask { corr: u64 },
    Tell { corr: u64, life: u64 },
    Nobody,
}

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// A client's message. Numbers are never used twice by a process.
    Send {
        /// Its number.
        id: u64,
        /// To which node.
        to: NodeId,
        /// The message.
        letter: Letter,
    },
    /// Another node has said something.
    Said {
        /// Which.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A node is connected.
    Up(NodeId),
    /// It is not any more. Agreed: neither end had anything under way.
    Down {
        /// Which.
        node: NodeId,
        /// Whether that was agreed.
        is_agreed: bool,
    },
    /// A message has not been sent, and will not be.
    Unsent {
        /// To whom.
        to: NodeId,
        /// Which.
        message: Message,
    },
    /// What became of a message that was to be delivered here.
    Delivered {
        /// Which.
        ticket: Ticket,
        /// What the actor, or its client, said.
        result: Reply<Vec<u8>>,
    },
    /// These nodes are members; others are gone for good.
    Members(BTreeSet<NodeId>),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this. What is not sent comes back as [`Input::Unsent`].
    Send {
        /// To whom.
        to: NodeId,
        /// Equal numbers keep their order.
        lane: u64,
        /// What.
        message: Message,
    },
    /// A client's message has ended.
    Done {
        /// Its number.
        id: u64,
        /// How.
        result: Reply<Vec<u8>>,
    },
    /// Deliver this to an actor here, and say what became of it.
    Deliver {
        /// To say it with.
        ticket: Ticket,
        /// Name of the actor.
        name: String,
        /// The message.
        payload: Vec<u8>,
        /// Whether the actor's answer is awaited.
        reply: bool,
        /// What this node has to have seen first.
        token: Option<Vec<u8>>,
        /// Time for it.
        timeout_ms: u64,
    },
}

/// What it has done since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages of clients that were taken.
    pub taken: u64,
    /// Messages of clients that were refused, as too much was under way.
    pub refused: u64,
    /// Messages that were sent again.
    pub repeated: u64,
    /// Messages of other nodes that were handed to actors here.
    pub delivered: u64,
    /// Messages of which the newest counts that a newer one replaced while they waited.
    pub replaced: u64,
    /// Those that were dropped: too many waited, or their actor or its node was gone.
    pub dropped: u64,
    /// Messages of other nodes that could not be read.
    pub malformed: u64,
}

/// What goes out, as it is made.
pub(super) struct Context<'a> {
    pub(super) now_ms: u64,
    pub(super) life: u64,
    pub(super) limits: Limits,
    pub(super) out: &'a mut Vec<Output>,
    pub(super) stats: &'a mut Stats,
}

/// Messages to and from actors at other nodes.
#[derive(Debug)]
pub struct Mail {
    life: u64,
    limits: Limits,
    peers: BTreeMap<NodeId, Peer>,
    stats: Stats,
}

impl Mail {
    /// Nothing is under way. `life` is greater than that of any mail of this node before, as far as is known; peers that know
    /// of a greater one say so.
    #[must_use]
    pub fn new(life: u64, limits: Limits) -> Self {
        Self { life, limits, peers: BTreeMap::new(), stats: Stats::default() }
    }

    /// Takes an input; what follows is added to `out`. `has_room` says whether a node takes messages without a queue.
    pub fn handle(
        &mut self,
        now_ms: u64,
        input: Input,
        has_room: &dyn Fn(NodeId) -> bool,
        out: &mut Vec<Output>,
    ) {
        let mut renew = None;
        let (life, limits) = (self.life, self.limits);
        let mut cx = Context { now_ms, life, limits, out, stats: &mut self.stats };
        let peers = &mut self.peers;
        match input {
            Input::Send { id, to, letter } => {
                let peer = peer_of(peers, to, &cx);
                peer.send(id, letter, &mut cx);
                peer.pump(has_room, &mut cx);
            }
            Input::Said { from, message } => {
                renew = said(peer_of(peers, from, &cx), message, &mut cx)
            }
            Input::Up(node) => {
                let peer = peer_of(peers, node, &cx);
                peer.up(&mut cx);
                peer.pump(has_room, &mut cx);
            }
            Input::Down { node, is_agreed } => peer_of(peers, node, &cx).down(is_agreed, &mut cx),
            Input::Unsent { to, message } => peer_of(peers, to, &cx).unsent(message, &mut cx),
            Input::Delivered { ticket, result } => {
                peer_of(peers, ticket.from, &cx).delivered(ticket, result, &mut cx)
            }
            Input::Members(members) => {
                for (node, peer) in peers.iter_mut() {
                    if !members.contains(node) {
                        peer.gone(&mut cx);
                    }
                }
                peers.retain(|node, _| members.contains(node));
            }
            Input::Tick => {
                for peer in peers.values_mut() {
                    peer.tick(&mut cx);
                    peer.pump(has_room, &mut cx);
                }
            }
        }
        if let Some(above) = renew {
            self.renew(now_ms, above, out);
        }
    }

    /// Whether [`Input::Tick`] has something to do.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.peers.values().any(Peer::is_busy)
    }

    /// Nodes with whom something is under way.
    #[must_use]
    pub fn needed(&self) -> BTreeSet<NodeId> {
        let needed = self.peers.iter().filter(|(_, peer)| peer.is_needed());
        needed.map(|(node, _)| *node).collect()
    }

    /// Which life this is.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// A node knows a later life of this one, whose clock was set back: goes on as a later one still.
    fn renew(&mut self, now_ms: u64, above: u64, out: &mut Vec<Output>) {
        self.life = above.saturating_add(1);
        let (life, limits) = (self.life, self.limits);
        let mut cx = Context { now_ms, life, limits, out, stats: &mut self.stats };
        for peer in self.peers.values_mut() {
            peer.renew(&mut cx);
        }
    }
}

fn peer_of<'a>(
    peers: &'a mut BTreeMap<NodeId, Peer>,
    node: NodeId,
    cx: &Context<'_>,
) -> &'a mut Peer {
    peers.entry(node).or_insert_with(|| Peer::new(node, cx.life, cx.limits))
}

/// Takes what a node says. The life under which it knows this one, if that is a later one.
fn said(peer: &mut Peer, message: Message, cx: &mut Context<'_>) -> Option<u64> {
    match message {
        Message::Ask { corr, name, payload, reply, timeout_ms } => {
            let ticket = Ticket { from: peer.node, answer: AnswerTo::Ask { corr } };
            let deliver = Output::Deliver { ticket, name, payload, reply, token: None, timeout_ms };
            peer.deliver(deliver, ticket, cx);
        }
        Message::Answer { corr, result } => peer.answered(corr, result, cx),
        Message::Hello { life, knows, asks } => {
            let later = knows.filter(|known| *known > cx.life);
            if peer.learn(life, cx) && asks && later.is_none() {
                peer.hello(false, cx);
            }
            return later;
        }
        Message::Packet { to_life, packet } => {
            if to_life > cx.life {
                return Some(to_life);
            }
            if to_life < cx.life {
                // It is for a process that is gone; nothing of it is taken.
                peer.hello(false, cx);
                return None;
            }
            if !peer.learn(packet.epoch, cx) {
                return None;
            }
            let life = packet.epoch;
            let item = peer.receive(packet, cx)?;
            match Item::decode(&item) {
                Ok(Item::Tell { corr, name, payload, token, timeout_ms }) => {
                    let ticket = Ticket { from: peer.node, answer: AnswerTo::Tell { corr, life } };
                    let deliver =
                        Output::Deliver { ticket, name, payload, reply: false, token, timeout_ms };
                    peer.deliver(deliver, ticket, cx);
                }
                Ok(Item::Told { corr, result }) => peer.told(corr, result, cx),
                Err(_malformed) => cx.stats.malformed += 1,
            }
        }
        Message::Ack { from_life, ack } => peer.acknowledged(from_life, &ack),
        Message::Newest { packet } => {
            let Ok(subject) = Subject::decode(&packet.key) else {
                cx.stats.malformed += 1;
                return None;
            };
            if let Some(payload) = peer.receive_newest(packet) {
                let ticket = Ticket { from: peer.node, answer: AnswerTo::Nobody };
                let (name, timeout_ms) = (subject.name, NEWEST_MS);
                let deliver = Output::Deliver {
                    ticket,
                    name,
                    payload,
                    reply: false,
                    token: None,
                    timeout_ms,
                };
                peer.deliver(deliver, ticket, cx);
            }
        }
    }
    None
}

/// Time of a client to take a message of which the newest counts.
const NEWEST_MS: u64 = 10_000;

pub(super) fn error(code: ErrorCode, text: impl Into<String>) -> WireError {
    WireError::new(code, text)
}
