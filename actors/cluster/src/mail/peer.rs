//! What is under way between this node and another.

use super::core::{AnswerTo, Context, How, Letter, Limits, Output, Ticket, error};
use super::wire::{Item, Message, Subject};
use std::collections::BTreeMap;
use weald_peers::delivery::{acknowledged, monotonic};
use weald_proto::{ErrorCode, Reply};
use weald_storage::NodeId;

/// Pause before a node is asked again which life it is.
const HELLO_PAUSE_MS: u64 = 300; // guess: above a round trip
/// For how long the outcome of a message is worth telling: as long as a client may wait.
const TOLD_MS: u64 = weald_proto::limits::WAIT_MS_MAX;
/// Bytes of packets that are not acknowledged, outcomes included, over those of messages.
const OUTCOMES_BYTES: usize = 4 << 20; // guess

/// A message that was sent once.
#[derive(Debug)]
struct Ask {
    deadline_ms: u64,
    bytes: usize,
    node: String,
}

/// An acknowledged message.
#[derive(Debug)]
struct Tell {
    deadline_ms: u64,
    bytes: usize,
    node: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nobody knows yet which life of the node it is for.
    Waiting(Vec<u8>),
    /// Given to the sender, and so often to the network, less what came back.
    Sent { seq: u64, handed: u32 },
}

/// The other node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    is_up: bool,
    /// Which life of its process is known.
    life: Option<u64>,
    /// When it may be asked for it again.
    hello_ms: u64,
    asks: BTreeMap<u64, Ask>,
    tells: BTreeMap<u64, Tell>,
    by_seq: BTreeMap<u64, u64>,
    bytes: usize,
    sender: acknowledged::Sender,
    receiver: acknowledged::Receiver,
    newest: monotonic::Sender,
    newest_received: monotonic::Receiver,
    /// Counts of `newest` that are in the totals.
    counted: (u64, u64),
    serving: usize,
}

impl Peer {
    pub(super) fn new(node: NodeId, life: u64, limits: Limits) -> Self {
        Self {
            node,
            is_up: false,
            life: None,
            hello_ms: 0,
            asks: BTreeMap::new(),
            tells: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            bytes: 0,
            sender: acknowledged::Sender::new(life, limits.bytes_max + OUTCOMES_BYTES),
            receiver: acknowledged::Receiver::new(),
            newest: monotonic::Sender::new(life, limits.newest_max, limits.newest_bytes_max),
            newest_received: monotonic::Receiver::new(limits.known_max),
            counted: (0, 0),
            serving: 0,
        }
    }

    /// Whether time has to be looked at.
    pub(super) fn is_busy(&self) -> bool {
        let is_waited_for = !self.asks.is_empty() || !self.tells.is_empty();
        is_waited_for || self.sender.next_deadline().is_some() || self.newest.is_waiting()
    }

    /// Whether something would be lost, or made late, with the connection.
    pub(super) fn is_needed(&self) -> bool {
        self.is_busy() || self.serving > 0
    }

    // Messages of clients.

    pub(super) fn send(&mut self, id: u64, letter: Letter, cx: &mut Context<'_>) {
        let Letter { node, name, payload, timeout_ms, how } = letter;
        let bytes = payload.len() + name.len();
        let deadline_ms = cx.now_ms.saturating_add(timeout_ms);
        let is_newest = matches!(how, How::Newest { .. });
        let in_flight = self.asks.len() + self.tells.len();
        let is_full = in_flight >= cx.limits.in_flight_max
            || (in_flight > 0 && self.bytes + bytes > cx.limits.bytes_max);
        if is_full && !is_newest {
            cx.stats.refused += 1;
            let text = format!("{in_flight} messages to node {node:?} are under way");
            return cx.done(id, Err(error(ErrorCode::Overloaded, text)));
        }
        cx.stats.taken += 1;
        match how {
            How::Once { reply } => {
                self.bytes += bytes;
                self.asks.insert(id, Ask { deadline_ms, bytes, node });
                let lane = lane(&name);
                let message = Message::Ask { corr: id, name, payload, reply, timeout_ms };
                cx.out.push(Output::Send { to: self.node, lane, message });
            }
            How::Acknowledged { token } => {
                self.bytes += bytes;
                let item = Item::Tell { corr: id, name, payload, token, timeout_ms };
                let stage = Stage::Waiting(item.encode());
                self.tells.insert(id, Tell { deadline_ms, bytes, node, stage });
                if self.life.is_some() {
                    self.hand_over(id, cx);
                } else {
                    self.ask_for_life(cx);
                }
            }
            How::Newest { key } => {
                self.newest.send(Subject { name, key }.encode(), payload);
                self.count_newest(cx);
                if !self.is_up {
                    self.ask_for_life(cx);
                }
                cx.done(id, Ok(Vec::new()));
            }
        }
    }

    /// Gives a message that waits to the sender.
    fn hand_over(&mut self, id: u64, cx: &mut Context<'_>) {
        let (Some(to_life), Some(tell)) = (self.life, self.tells.get_mut(&id)) else { return };
        let Stage::Waiting(body) = &mut tell.stage else { return };
        let body = std::mem::take(body);
        match self.sender.send(cx.now_ms, body, tell.deadline_ms) {
            Ok(packet) => {
                tell.stage = Stage::Sent { seq: packet.seq, handed: 1 };
                self.by_seq.insert(packet.seq, id);
                let message = Message::Packet { to_life, packet };
                cx.out.push(Output::Send { to: self.node, lane: 0, message });
            }
            Err(full) => {
                cx.stats.refused += 1;
                let text = format!("node {:?} does not keep up: {full}", tell.node);
                self.end_tell(id, Err(error(ErrorCode::Overloaded, text)), cx);
            }
        }
    }

    /// Lets messages of which the newest counts go, while the node takes them.
    pub(super) fn pump(&mut self, has_room: &dyn Fn(NodeId) -> bool, cx: &mut Context<'_>) {
        while self.is_up && self.newest.is_waiting() && has_room(self.node) {
            let Some(packet) = self.newest.take() else { return };
            let lane = lane_of(&packet.key);
            let message = Message::Newest { packet };
            cx.out.push(Output::Send { to: self.node, lane, message });
            if cx.out.len() >= cx.limits.newest_max {
                // The room is looked at again when these are with the network.
                return;
            }
        }
    }

    fn count_newest(&mut self, cx: &mut Context<'_>) {
        let (replaced, dropped) = self.newest.counts();
        cx.stats.replaced += replaced - self.counted.0;
        cx.stats.dropped += dropped - self.counted.1;
        self.counted = (replaced, dropped);
    }

    // What the other node says.

    pub(super) fn answered(&mut self, corr: u64, result: Reply<Vec<u8>>, cx: &mut Context<'_>) {
        // An answer that nobody waits for came too late.
        if let Some(ask) = self.asks.remove(&corr) {
            self.bytes -= ask.bytes;
            cx.done(corr, result);
        }
    }

    pub(super) fn told(&mut self, corr: u64, result: Reply<()>, cx: &mut Context<'_>) {
        self.end_tell(corr, result.map(|()| Vec::new()), cx);
    }

    pub(super) fn acknowledged(&mut self, from_life: u64, ack: &acknowledged::Ack) {
        // One of a former process may name numbers that are given out again.
        if self.life == Some(from_life) {
            for seq in self.sender.acknowledged(ack) {
                self.by_seq.remove(&seq);
            }
        }
    }

    /// Takes a packet; what is in it if it is new.
    pub(super) fn receive(
        &mut self,
        packet: acknowledged::Packet,
        cx: &mut Context<'_>,
    ) -> Option<Vec<u8>> {
        let (body, ack) = self.receiver.receive(packet);
        if let Some(ack) = ack {
            let message = Message::Ack { from_life: cx.life, ack };
            cx.out.push(Output::Send { to: self.node, lane: 0, message });
        }
        body
    }

    pub(super) fn receive_newest(&mut self, packet: monotonic::Packet) -> Option<Vec<u8>> {
        self.newest_received.receive(packet)
    }

    /// Has a message delivered here, if not too many are.
    pub(super) fn deliver(&mut self, deliver: Output, ticket: Ticket, cx: &mut Context<'_>) {
        self.serving += 1;
        if self.serving > cx.limits.serving_max {
            let text = format!("{} messages are being delivered", cx.limits.serving_max);
            return self.delivered(ticket, Err(error(ErrorCode::Overloaded, text)), cx);
        }
        cx.stats.delivered += 1;
        cx.out.push(deliver);
    }

    /// A message has been delivered here, or not.
    pub(super) fn delivered(
        &mut self,
        ticket: Ticket,
        result: Reply<Vec<u8>>,
        cx: &mut Context<'_>,
    ) {
        self.serving = self.serving.saturating_sub(1);
        match ticket.answer {
            AnswerTo::Ask { corr } => {
                let message = Message::Answer { corr, result };
                cx.out.push(Output::Send { to: self.node, lane: corr, message });
            }
            AnswerTo::Tell { corr, life } if self.life == Some(life) => {
                let item = Item::Told { corr, result: result.map(drop) };
                let until_ms = cx.now_ms.saturating_add(TOLD_MS);
                match self.sender.send(cx.now_ms, item.encode(), until_ms) {
                    Ok(packet) => {
                        let message = Message::Packet { to_life: life, packet };
                        cx.out.push(Output::Send { to: self.node, lane: 0, message });
                    }
                    // Whoever waits for it finds that the outcome is unknown.
                    Err(_full) => cx.stats.refused += 1,
                }
            }
            // The process that has sent it is gone.
            AnswerTo::Tell { .. } => {}
            AnswerTo::Nobody => cx.stats.dropped += u64::from(result.is_err()),
        }
    }

    // Lives.

    pub(super) fn hello(&mut self, asks: bool, cx: &mut Context<'_>) {
        let message = Message::Hello { life: cx.life, knows: self.life, asks };
        cx.out.push(Output::Send { to: self.node, lane: 0, message });
    }

    fn ask_for_life(&mut self, cx: &mut Context<'_>) {
        if cx.now_ms >= self.hello_ms {
            self.hello_ms = cx.now_ms.saturating_add(HELLO_PAUSE_MS);
            self.hello(true, cx);
        }
    }

    /// The node is of this life. False when a later one is known: it is told so, and nothing of it is taken.
    pub(super) fn learn(&mut self, life: u64, cx: &mut Context<'_>) -> bool {
        match self.life {
            Some(known) if known == life => return true,
            Some(known) if known > life => {
                self.hello(true, cx);
                return false;
            }
            Some(_) => self.restart("it was restarted", cx),
            None => {}
        }
        self.life = Some(life);
        let waiting: Vec<u64> = self
            .tells
            .iter()
            .filter(|(_, tell)| matches!(tell.stage, Stage::Waiting(_)))
            .map(|(id, _)| *id)
            .collect();
        waiting.into_iter().for_each(|id| self.hand_over(id, cx));
        true
    }

    /// What was sent to a life that is over, or from one, is not sent again.
    fn restart(&mut self, why: &str, cx: &mut Context<'_>) {
        let sent: Vec<u64> = self
            .tells
            .iter()
            .filter(|(_, tell)| matches!(tell.stage, Stage::Sent { .. }))
            .map(|(id, _)| *id)
            .collect();
        sent.into_iter().for_each(|id| self.fail_tell(id, ErrorCode::Unknown, why, cx));
        self.by_seq.clear();
        self.sender = acknowledged::Sender::new(cx.life, cx.limits.bytes_max + OUTCOMES_BYTES);
    }

    /// This node goes on as another life.
    pub(super) fn renew(&mut self, cx: &mut Context<'_>) {
        self.restart("this node goes on as another life", cx);
        let mut newest =
            monotonic::Sender::new(cx.life, cx.limits.newest_max, cx.limits.newest_bytes_max);
        while let Some(packet) = self.newest.take() {
            newest.send(packet.key, packet.body);
        }
        (self.newest, self.counted) = (newest, (0, 0));
        if self.is_up || self.is_busy() {
            self.hello(true, cx);
        }
    }

    // Connections.

    pub(super) fn up(&mut self, cx: &mut Context<'_>) {
        self.is_up = true;
        self.hello(true, cx);
        let due = self.sender.reconnected(cx.now_ms);
        self.repeat(due, cx);
    }

    pub(super) fn down(&mut self, is_agreed: bool, cx: &mut Context<'_>) {
        self.is_up = false;
        if !is_agreed {
            self.end_asks("the link was cut", cx);
        }
    }

    fn end_asks(&mut self, why: &str, cx: &mut Context<'_>) {
        for (id, ask) in std::mem::take(&mut self.asks) {
            self.bytes -= ask.bytes;
            let text =
                format!("node {:?}: {why}; the actor may or may not have the message", ask.node);
            cx.done(id, Err(error(ErrorCode::Unknown, text)));
        }
    }

    pub(super) fn unsent(&mut self, message: Message, cx: &mut Context<'_>) {
        match message {
            Message::Ask { corr, .. } => {
                if let Some(ask) = self.asks.remove(&corr) {
                    self.bytes -= ask.bytes;
                    let text = format!("node {:?} cannot be reached; nothing was sent", ask.node);
                    cx.done(corr, Err(error(ErrorCode::Unavailable, text)));
                }
            }
            Message::Packet { to_life, packet } if self.life == Some(to_life) => {
                let tell = self.by_seq.get(&packet.seq).and_then(|id| self.tells.get_mut(id));
                if let Some(Stage::Sent { handed, .. }) = tell.map(|tell| &mut tell.stage) {
                    *handed = handed.saturating_sub(1);
                }
            }
            Message::Newest { packet } => {
                // A newer one may have come meanwhile.
                self.newest.put_back(packet);
                self.count_newest(cx);
            }
            // Those that are not repeated by time are missed by nobody.
            Message::Packet { .. }
            | Message::Answer { .. }
            | Message::Hello { .. }
            | Message::Ack { .. } => {}
        }
    }

    // Time.

    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        let late = |deadline_ms: u64| deadline_ms <= cx.now_ms;
        let asks: Vec<u64> =
            self.asks.iter().filter(|(_, a)| late(a.deadline_ms)).map(|(id, _)| *id).collect();
        let tells: Vec<u64> =
            self.tells.iter().filter(|(_, t)| late(t.deadline_ms)).map(|(id, _)| *id).collect();
        for id in asks {
            if let Some(ask) = self.asks.remove(&id) {
                self.bytes -= ask.bytes;
                let text = format!("no answer of node {:?} in time", ask.node);
                cx.done(id, Err(error(ErrorCode::TimedOut, text)));
            }
        }
        for id in tells {
            self.fail_tell(id, ErrorCode::TimedOut, "no answer in time", cx);
        }
        let is_waiting = self.tells.values().any(|tell| matches!(tell.stage, Stage::Waiting(_)));
        if is_waiting || (self.newest.is_waiting() && !self.is_up) {
            self.ask_for_life(cx);
        }
        let due = self.sender.tick(cx.now_ms);
        self.repeat(due, cx);
    }

    fn repeat(&mut self, due: acknowledged::Due, cx: &mut Context<'_>) {
        for seq in &due.expired {
            self.by_seq.remove(seq);
        }
        let Some(to_life) = self.life else { return };
        for packet in due.packets {
            cx.stats.repeated += 1;
            let tell = self.by_seq.get(&packet.seq).and_then(|id| self.tells.get_mut(id));
            if let Some(Stage::Sent { handed, .. }) = tell.map(|tell| &mut tell.stage) {
                *handed = handed.saturating_add(1);
            }
            let message = Message::Packet { to_life, packet };
            cx.out.push(Output::Send { to: self.node, lane: 0, message });
        }
    }

    /// The node is no member any more.
    pub(super) fn gone(&mut self, cx: &mut Context<'_>) {
        self.end_asks("it is no member any more", cx);
        let tells: Vec<u64> = self.tells.keys().copied().collect();
        for id in tells {
            self.fail_tell(id, ErrorCode::Unknown, "it is no member any more", cx);
        }
        while self.newest.take().is_some() {
            cx.stats.dropped += 1;
        }
    }

    /// Ends a message without an answer, as what is known of it: `code` if the actor may have it.
    fn fail_tell(&mut self, id: u64, code: ErrorCode, why: &str, cx: &mut Context<'_>) {
        let Some(tell) = self.tells.get(&id) else { return };
        let was_sent = matches!(tell.stage, Stage::Sent { handed: 1.., .. });
        let failed = if was_sent {
            let text =
                format!("node {:?}: {why}; the actor may or may not have the message", tell.node);
            error(code, text)
        } else {
            let text = format!("node {:?}: {why}; nothing was sent", tell.node);
            error(ErrorCode::Unavailable, text)
        };
        self.end_tell(id, Err(failed), cx);
    }

    fn end_tell(&mut self, id: u64, result: Reply<Vec<u8>>, cx: &mut Context<'_>) {
        if let Some(tell) = self.tells.remove(&id) {
            self.bytes -= tell.bytes;
            if let Stage::Sent { seq, .. } = tell.stage {
                self.by_seq.remove(&seq);
            }
            cx.done(id, result);
        }
    }
}

impl Context<'_> {
    fn done(&mut self, id: u64, result: Reply<Vec<u8>>) {
        self.out.push(Output::Done { id, result });
    }
}

fn lane(name: &str) -> u64 {
    lane_of(name.as_bytes())
}

/// FNV-1a: messages to one actor keep their order.
fn lane_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
