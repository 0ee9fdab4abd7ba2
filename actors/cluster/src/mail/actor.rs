//! The ractor shell: mail in, frames, deliveries and answers out.
//!
//! Restart type `Permanent`, under the root. It owns what is in flight; a successor is another life, so that nothing which a
//! predecessor may have delivered is delivered again, and peers end what they had sent to it.

use super::core::{Input, Letter, Mail, Output, Ticket};
use super::handle::{Delivering, Shared};
use super::wire::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use weald_peers::{Channel, ClusterWatch, PeerEvent, Permit};
use weald_proto::{Frame, Reply};
use weald_storage::NodeId;
use weald_supervision::ractor::{
    Actor, ActorProcessingErr, ActorRef, Message as Mailed, RpcReplyPort,
};

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(50);

/// Messages of the mail actor.
#[derive(Debug)]
pub enum Msg {
    /// A client's message to an actor at another node.
    Send {
        /// Its number.
        id: u64,
        /// Which node.
        to: NodeId,
        /// The message.
        letter: Letter,
        /// Who waits.
        reply: RpcReplyPort<Reply<Vec<u8>>>,
        /// Bounds what waits here.
        _permit: Permit,
    },
    /// A frame of another node.
    Frame {
        /// Which.
        from: NodeId,
        /// The frame.
        frame: Frame,
        /// Bounds what waits here.
        permit: Permit,
    },
    /// A frame that was not sent.
    Unsent {
        /// To whom.
        to: NodeId,
        /// The frame.
        frame: Frame,
    },
    /// A node has come or gone.
    Peer(PeerEvent),
    /// A message of another node was delivered here, or not.
    Delivered {
        /// Which.
        ticket: Ticket,
        /// What the actor said.
        result: Reply<Vec<u8>>,
    },
    /// Time has passed.
    Tick,
}

impl Mailed for Msg {}

/// The actor.
#[derive(Debug)]
pub struct MailActor;

/// The actor's state.
#[derive(Debug)]
pub struct State {
    mail: Mail,
    waiting: BTreeMap<u64, RpcReplyPort<Reply<Vec<u8>>>>,
    cluster: ClusterWatch,
    shared: Arc<Shared>,
    myself: ActorRef<Msg>,
}

impl Actor for MailActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        let life = shared.life.fetch_add(1, Ordering::AcqRel) + 1;
        let mut cluster = shared.parts.cluster.clone();
        cluster.mark_changed();
        let mail = Mail::new(life, shared.limits);
        let waiting = BTreeMap::new();
        let mut state = State { mail, waiting, cluster, shared, myself };
        let connected = state.shared.connected().clone();
        for node in connected {
            state.input(Input::Up(node));
        }
        state.myself.send_interval(TICK, || Msg::Tick);
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Send { id, to, letter, reply, .. } => {
                state.waiting.insert(id, reply);
                state.input(Input::Send { id, to, letter });
            }
            Msg::Frame { from, frame, permit } => {
                match Message::decode(&frame) {
                    Ok(message) => state.input(Input::Said { from, message }),
                    Err(error) => state.malformed(from, &error),
                }
                drop(permit);
            }
            Msg::Unsent { to, frame } => {
                // It is this node's own, and was readable.
                if let Ok(message) = Message::decode(&frame) {
                    state.input(Input::Unsent { to, message });
                }
            }
            Msg::Peer(PeerEvent::Up(info)) => state.input(Input::Up(info.node)),
            Msg::Peer(PeerEvent::Down { node, is_agreed, .. }) => {
                state.input(Input::Down { node, is_agreed });
            }
            Msg::Delivered { ticket, result } => state.input(Input::Delivered { ticket, result }),
            Msg::Tick => state.on_tick(),
        }
        Ok(())
    }
}

impl State {
    fn on_tick(&mut self) {
        if self.cluster.has_changed().unwrap_or(false) {
            let cluster = Arc::clone(&self.cluster.borrow_and_update());
            let members = cluster.members.values().filter(|member| member.status.is_member());
            // Who is connected may be about to be a member.
            let mut members: BTreeSet<NodeId> = members.map(|member| member.node).collect();
            members.extend(self.shared.connected().iter().copied());
            self.input(Input::Members(members));
        }
        if self.mail.is_busy() {
            self.input(Input::Tick);
        }
    }

    fn malformed(&self, from: NodeId, why: &dyn std::fmt::Display) {
        self.shared.stats().malformed += 1;
        if let Some(suppressed) = self.shared.logs.admit() {
            tracing::warn!(event = "mail_malformed", peer = %from, %why, suppressed, "a message of a node could not be read");
        }
    }

    /// Takes an input and does what follows, also from what could not be done.
    fn input(&mut self, input: Input) {
        let shared = Arc::clone(&self.shared);
        let network = &shared.parts.network;
        let has_room = |node| network.has_room(node, Channel::Relay);
        let mut inputs = VecDeque::from([input]);
        let mut out = Vec::new();
        let before = self.mail.stats();
        while let Some(input) = inputs.pop_front() {
            self.mail.handle(shared.now_ms(), input, &has_room, &mut out);
            for output in out.drain(..) {
                if let Some(input) = self.perform(output) {
                    inputs.push_back(input);
                }
            }
        }
        shared.life.fetch_max(self.mail.life(), Ordering::AcqRel);
        add(&mut shared.stats(), before, self.mail.stats());
        let needed = self.mail.needed();
        if **shared.needed.load() != needed {
            shared.needed.store(Arc::new(needed));
        }
    }

    fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send { to, lane, message } => {
                let sent =
                    self.shared.parts.network.send(to, Channel::Relay, lane, &message.encode());
                return sent.err().map(|_why| Input::Unsent { to, message });
            }
            Output::Done { id, result } => {
                if let Some(reply) = self.waiting.remove(&id) {
                    // Whoever gave up waiting does not want it.
                    drop(reply.send(result));
                }
            }
            Output::Deliver { ticket, name, payload, reply, token, timeout_ms } => {
                let delivering = Delivering { name, payload, reply, token, timeout_ms };
                let delivered = self.shared.deliver(delivering);
                let actor = self.myself.clone();
                // Bounded by the core.
                tokio::spawn(async move {
                    let result = delivered.await;
                    drop(actor.cast(Msg::Delivered { ticket, result }));
                });
            }
        }
        None
    }
}

/// Adds what was done between two looks to the totals, which outlive the actor.
fn add(totals: &mut super::Stats, before: super::Stats, after: super::Stats) {
    totals.taken += after.taken - before.taken;
    totals.refused += after.refused - before.refused;
    totals.repeated += after.repeated - before.repeated;
    totals.delivered += after.delivered - before.delivered;
    totals.replaced += after.replaced - before.replaced;
    totals.dropped += after.dropped - before.dropped;
    totals.malformed += after.malformed - before.malformed;
}
