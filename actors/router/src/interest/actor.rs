//! The ractor shell of interest.
//!
//! Restart type `Permanent`, under the router's supervisor. It owns nothing: the core and what it has said and was not done
//! yet outlive it. In: changes of this node's rows, frames of peers, who is connected, the membership, time. Out: frames,
//! rows for [`Routes`](super::Routes), the status.
//!
//! Guarantees: outputs are carried out in their order, each at least once, whatever crashes in between.
//! Refuses: to wait for a peer. What the network does not take is lost, and healed by a digest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weald_peers::{Channel, Cluster, ClusterWatch, Liveness, Permit};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message};

use super::core::{Input, Output, Presence};
use super::handle::{Running, Shared, Status, Totals};
use super::wire::{self, Reason};

/// How often time, and what may have been missed, is looked at.
const TICK: Duration = Duration::from_millis(50);
/// All frames about interest go one way, in their order.
const LANE: u64 = 0;
/// Rows that are applied before others may run.
const APPLY_ROWS: usize = 1024;

/// Messages of the interest actor.
#[derive(Debug)]
pub(super) enum Msg {
    /// Time has passed.
    Tick,
    /// Changes are due to be told.
    Due,
    /// Rows of this node have changed; see [`Shared::take_changed`].
    Changed,
    /// Somebody has come or gone; see [`Shared::connected`].
    Peers,
    /// A frame of a peer.
    Frame { from: NodeId, frame: Frame, permit: Permit },
}

impl Message for Msg {}

/// The actor.
#[derive(Debug)]
pub(super) struct InterestActor;

/// The actor's state.
#[derive(Debug)]
pub(super) struct State {
    shared: Arc<Shared>,
    watch: ClusterWatch,
    /// The connections that the core was told of.
    told: BTreeMap<NodeId, u64>,
    /// When [`Msg::Due`] comes.
    armed_ms: Option<u64>,
}

impl Actor for InterestActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        let watch = shared.parts.cluster.clone();
        let told = links(&shared, &watch.borrow());
        let mut state = State { watch, told, armed_ms: None, shared };
        // Outputs that a predecessor has left come first.
        let is_whole = !state.shared.running.is_poisoned();
        state.shared.running.clear_poison();
        state.on_cluster();
        let connected = state.told.keys().copied().collect();
        state.with(|now_ms, running, out| {
            running.interest.restart(now_ms, is_whole, connected, out);
        });
        state.on_changed();
        state.perform().await;
        myself.send_interval(TICK, || Msg::Tick);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Tick => {
                if state.watch.has_changed().unwrap_or(false) {
                    state.on_cluster();
                }
                // Messages about these may have been lost while nobody was here to take them.
                state.on_peers();
                state.on_changed();
                state.input(Input::Tick);
            }
            Msg::Due => {
                state.armed_ms = None;
                state.input(Input::Tick);
            }
            Msg::Changed => state.on_changed(),
            Msg::Peers => state.on_peers(),
            Msg::Frame { from, frame, permit } => {
                state.on_frame(from, &frame);
                drop(permit);
            }
        }
        state.perform().await;
        state.arm(&myself);
        Ok(())
    }
}

impl State {
    fn on_cluster(&mut self) {
        let cluster = Arc::clone(&self.watch.borrow_and_update());
        let members = presences(&cluster);
        self.input(Input::Members { members, is_full_mesh: cluster.is_full_mesh });
        self.on_peers();
    }

    fn on_peers(&mut self) {
        let connected = links(&self.shared, &self.watch.borrow());
        if connected == self.told {
            return;
        }
        let told = std::mem::replace(&mut self.told, connected);
        let connected = self.told.clone();
        for (peer, _) in told.iter().filter(|(peer, number)| connected.get(*peer) != Some(number)) {
            self.input(Input::Down(*peer));
        }
        for (peer, _) in connected.iter().filter(|(peer, number)| told.get(*peer) != Some(number)) {
            self.input(Input::Up(*peer));
        }
    }

    fn on_changed(&mut self) {
        let changed = self.shared.take_changed();
        if !changed.is_empty() {
            self.input(Input::Changed(&changed));
        }
        drop(changed);
        self.shared.changed_done();
    }

    fn on_frame(&mut self, from: NodeId, frame: &Frame) {
        match wire::Message::decode(frame) {
            Ok(message) => self.input(Input::Said { from, message }),
            Err(error) => {
                Totals::add(&self.shared.totals.malformed, 1);
                tracing::debug!(event = "interest_malformed", peer = %from, %error, "a message cannot be read");
            }
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.with(|now_ms, running, out| running.interest.handle(now_ms, input, out));
    }

    fn with(&mut self, change: impl FnOnce(u64, &mut Running, &mut Vec<Output>)) {
        let now_ms = self.shared.now_ms();
        let mut out = Vec::new();
        let mut running = self.shared.running();
        change(now_ms, &mut running, &mut out);
        running.outputs.extend(out.into_iter().map(Arc::new));
    }

    /// Carries out what the core has said. An output is taken off only when it is done, so a successor does what is left.
    async fn perform(&mut self) {
        let mut has_news = self.shared.status.borrow().own.is_none();
        loop {
            let Some(output) = self.shared.running().outputs.front().map(Arc::clone) else { break };
            match &*output {
                Output::Send { to, message } => self.send(to, message),
                Output::Apply { node, rows } => {
                    for chunk in rows.chunks(APPLY_ROWS) {
                        self.shared.parts.routes.apply(*node, chunk.to_vec());
                        if rows.len() > APPLY_ROWS {
                            tokio::task::yield_now().await;
                        }
                    }
                    Totals::add(&self.shared.totals.applied, rows.len());
                }
                Output::Drop(node) => self.shared.parts.routes.drop_node(*node),
                Output::Usable(node, is_usable) => {
                    tracing::info!(event = "interest_usable", peer = %node, is_usable, "routes of a node may be used, or not");
                    self.shared.parts.routes.usable(*node, *is_usable);
                }
                Output::Trouble(node, trouble) => {
                    Totals::add(&self.shared.totals.troubles, 1);
                    tracing::warn!(event = "interest_trouble", peer = %node, error = %trouble, "rows of a node are not as they should be");
                }
            }
            has_news |= !matches!(&*output, Output::Send { .. });
            self.shared.running().outputs.pop_front();
        }
        self.publish(has_news);
    }

    fn send(&self, to: &[NodeId], message: &wire::Message) {
        let totals = &self.shared.totals;
        let frame = match message.encode() {
            Ok(frame) => frame,
            Err(error) => {
                Totals::add(&totals.unsent, to.len());
                tracing::error!(event = "interest_not_encoded", %error, "a message of this node cannot be sent");
                return;
            }
        };
        let channel = match message {
            wire::Message::Delta(delta) if delta.reason == Reason::Answer => Channel::Data,
            wire::Message::Delta(_)
            | wire::Message::Digest { .. }
            | wire::Message::Pull(_)
            | wire::Message::Prune(_) => Channel::Control,
        };
        for peer in to {
            let counter = match self.shared.parts.network.send(*peer, channel, LANE, &frame) {
                Ok(()) => &totals.sent,
                Err(_lost) => &totals.unsent,
            };
            Totals::add(counter, 1);
        }
    }

    /// Says how things stand, if that is different.
    fn publish(&self, has_news: bool) {
        let status = {
            let running = self.shared.running();
            let interest = &running.interest;
            let before = self.shared.status.borrow();
            if !has_news
                && before.own == Some(interest.own())
                && interest.awaited() == before.awaited
            {
                return;
            }
            Status {
                own: Some(interest.own()),
                nodes: interest.others().collect(),
                awaited: interest.awaited(),
            }
        };
        self.shared.status.send_replace(Arc::new(status));
    }

    /// Sees to it that changes are told when they may be, before the next tick.
    fn arm(&mut self, myself: &ActorRef<Msg>) {
        let Some(due_ms) = self.shared.running().interest.next_deadline() else { return };
        if self.armed_ms.is_none() {
            self.armed_ms = Some(due_ms);
            let wait_ms = due_ms.saturating_sub(self.shared.now_ms()).max(1);
            myself.send_after(Duration::from_millis(wait_ms), || Msg::Due);
        }
    }
}

/// The connections along which rows go: all in a full mesh, otherwise those with neighbours. Others come and go with the calls
/// that need them.
fn links(shared: &Shared, cluster: &Cluster) -> BTreeMap<NodeId, u64> {
    let mut connected = shared.connected();
    connected.retain(|node, _| cluster.is_full_mesh || cluster.neighbours.contains(node));
    connected
}

fn presences(cluster: &Cluster) -> BTreeMap<NodeId, Presence> {
    let others = cluster.members.values().filter(|member| member.node != cluster.own);
    let presence = |member: &weald_peers::Member| match member.liveness {
        _ if !member.status.is_member() => Presence::Gone,
        Liveness::Up | Liveness::Suspect => Presence::Answers,
        Liveness::Down => Presence::Silent,
    };
    others.map(|member| (member.node, presence(member))).collect()
}
