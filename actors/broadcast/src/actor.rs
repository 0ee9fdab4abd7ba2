//! The ractor shell of the broadcast.
//!
//! Restart type `Permanent`, under the cluster's supervisor. It owns the trees; streams and what was pushed of them outlive
//! it ([`Shared`]). In: commits, frames of peers, the membership, results of jobs. Out: frames, jobs, peers that are behind.
//!
//! Guarantees: events of a stream are pushed, merged and forwarded in order; different streams go side by side. It never
//! reads the store or waits for a merge itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use weald_peers::{Channel, Dots, Malformed, Permit, SendError};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message};

use crate::core::{Announcement, Input, Output, Plumtree};
use crate::handle::{Shared, Totals};
use crate::jobs::{self, Answer, Merged, Read, Received};
use crate::messages::{GOSSIP, GRAFT, Gossip, Graft, I_HAVE, IHave, PRUNE, Prune, decode, encode};

/// Gossips of a stream that are merged at once. // guess
const MERGE_GOSSIPS: usize = 64;
/// Bytes of gossips of a stream that are merged at once. // guess: a commit of some ms
const MERGE_BYTES: usize = 2 << 20;
/// Grafts that are answered at the same time; who asks beyond it is behind. // guess
const ANSWERS_MAX: usize = 16;
/// Announcements that are looked up at the same time; more of them are dropped, as they are only hints. // guess
const HEARD_MAX: usize = 256;

/// Peers with which an exchange is asked for after a restart: one may be behind itself. // guess
const ASK_AFTER_RESTART: usize = 2;

/// Messages of the broadcast actor. Those with a generation are results of jobs; a result for a predecessor is dropped.
#[derive(Debug)]
pub(crate) enum Msg {
    /// A stream may have new events of this node.
    Committed { stream: u16 },
    /// A peer has sent something.
    Frame { from: NodeId, frame: Frame, permit: Permit },
    /// The membership has changed.
    Cluster,
    /// Something is due.
    Tick,
    /// New events of this node were read, up to `pushed`.
    Read { generation: u64, stream: u16, read: Read, pushed: (weald_storage::Actor, u64) },
    /// Gossips were merged.
    Merged { generation: u64, stream: u16, merged: Vec<Merged> },
    /// Announcements, each with what is missing of it.
    Heard { generation: u64, from: NodeId, heard: Vec<(Announcement, Dots)> },
    /// What has arrived of that which was due to be asked for.
    Checked { generation: u64, known: Vec<(u16, Dots)> },
    /// A job has panicked.
    Broken { generation: u64 },
    /// The queue of a peer is full.
    Refused { peer: NodeId },
}

impl Message for Msg {}

/// The actor.
#[derive(Debug)]
pub(crate) struct BroadcastActor;

/// The actor's state.
#[derive(Debug)]
pub(crate) struct State {
    shared: Arc<Shared>,
    generation: u64,
    core: Plumtree,
    lanes: BTreeMap<u16, Lane>,
    answers: Arc<Semaphore>,
    hearing: usize,
    /// When the next tick comes.
    armed_ms: Option<u64>,
    is_checking: bool,
    watcher: JoinHandle<()>,
}

/// What is going on with a stream.
#[derive(Debug, Default)]
struct Lane {
    is_reading: bool,
    is_merging: bool,
    /// Bounded by the meter of the inbox.
    waiting: VecDeque<Received>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Actor for BroadcastActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        let mut cluster = shared.cluster.clone();
        cluster.mark_changed();
        let watcher = tokio::spawn(async move {
            while cluster.changed().await.is_ok() && myself.cast(Msg::Cluster).is_ok() {
                cluster.borrow_and_update();
            }
        });
        let state = State {
            generation: shared.generations.fetch_add(1, Ordering::Relaxed),
            core: Plumtree::new(shared.own, shared.config.clone()),
            lanes: shared.streams.keys().map(|stream| (*stream, Lane::default())).collect(),
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            hearing: 0,
            armed_ms: None,
            is_checking: false,
            watcher,
            shared,
        };
        Ok(state)
    }

    async fn post_start(
        &self,
        _myself: ActorRef<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // Before anything is pushed the neighbours must be known.
        state.on_cluster();
        if state.generation > 0 {
            // What the predecessor had taken and not merged is lost.
            let cluster = Arc::clone(&state.shared.cluster.borrow());
            let some = cluster.neighbours.iter().take(ASK_AFTER_RESTART);
            some.for_each(|peer| state.shared.behind.behind(*peer));
        }
        let streams: Vec<u16> = state.lanes.keys().copied().collect();
        streams.into_iter().for_each(|stream| state.on_committed(stream));
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            // A lane would wait for its job for ever; the successor begins with empty hands.
            Msg::Broken { generation } if generation == state.generation => {
                return Err("a job of the broadcast has panicked".into());
            }
            message => state.on_message(message),
        }
        state.arm(&myself);
        let mut trees = state.shared.totals.trees.lock().unwrap_or_else(PoisonError::into_inner);
        *trees = state.core.counters();
        Ok(())
    }
}

impl State {
    fn on_message(&mut self, message: Msg) {
        match message {
            Msg::Committed { stream } => self.on_committed(stream),
            Msg::Frame { from, frame, permit } => self.on_frame(from, frame, permit),
            Msg::Cluster => self.on_cluster(),
            Msg::Tick => self.on_tick(),
            Msg::Refused { peer } => self.give(Input::Refused { peer }, None),
            Msg::Read { generation, .. }
            | Msg::Merged { generation, .. }
            | Msg::Heard { generation, .. }
            | Msg::Checked { generation, .. }
            | Msg::Broken { generation }
                if generation != self.generation => {}
            Msg::Broken { .. } => {}
            Msg::Read { stream, read, pushed, .. } => self.on_read(stream, read, pushed),
            Msg::Merged { stream, merged, .. } => self.on_merged(stream, merged),
            Msg::Heard { from, heard, .. } => {
                self.hearing = self.hearing.saturating_sub(1);
                for (announced, missing) in heard {
                    self.give(Input::IHave { from, announced, missing }, None);
                }
            }
            Msg::Checked { known, .. } => {
                self.is_checking = false;
                for (stream, dots) in known.into_iter().filter(|(_, dots)| !dots.is_empty()) {
                    self.give(Input::Known { stream, dots }, None);
                }
                self.give(Input::Tick, None);
            }
        }
    }

    fn on_committed(&mut self, stream: u16) {
        let Some(lane) = self.lanes.get_mut(&stream).filter(|lane| !lane.is_reading) else {
            // A read is under way: its end looks at the mark again.
            return;
        };
        let Some(source) = self.shared.streams.get(&stream) else { return };
        lane.is_reading = true;
        jobs::read(&self.shared, self.generation, stream, source);
    }

    fn on_read(&mut self, stream: u16, read: Read, pushed: (weald_storage::Actor, u64)) {
        for batch in read.batches {
            let count = usize::try_from(batch.dots.count()).unwrap_or(usize::MAX);
            Totals::add(&self.shared.totals.published, count);
            self.give(Input::Published { stream, dots: batch.dots }, Some(batch.bytes));
        }
        let Some(source) = self.shared.streams.get(&stream) else { return };
        source.set_pushed(pushed);
        let again = read.more || source.is_dirty.load(Ordering::Acquire);
        if let Some(lane) = self.lanes.get_mut(&stream) {
            lane.is_reading = false;
        }
        if again {
            self.on_committed(stream);
        }
    }

    fn on_frame(&mut self, from: NodeId, frame: Frame, permit: Permit) {
        match frame.kind {
            GOSSIP => {
                let stream = Gossip::stream_of(&frame.body);
                let lane = stream.and_then(|stream| Some((stream, self.lanes.get_mut(&stream)?)));
                let Some((stream, lane)) = lane else {
                    return self.malformed(from, &Malformed::new("gossip", "of no known stream"));
                };
                lane.waiting.push_back(Received { from, bytes: frame.body, permit });
                self.merge(stream);
            }
            I_HAVE => {
                let Some(IHave(items)) = self.read_control(from, &frame) else { return };
                if self.hearing < HEARD_MAX {
                    self.hearing += 1;
                    jobs::hear(&self.shared, self.generation, from, items, permit);
                } else {
                    Totals::add(&self.shared.totals.refused, 1);
                    self.shared.behind.behind(from);
                }
            }
            GRAFT => {
                let Some(Graft { root, stream, dots }) = self.read_control(from, &frame) else {
                    return;
                };
                self.give(Input::Graft { from, root, stream, dots }, None);
            }
            PRUNE => {
                let Some(Prune { root }) = self.read_control(from, &frame) else { return };
                self.give(Input::Prune { from, root }, None);
            }
            // A newer peer may send more than is known here.
            kind => self.malformed(from, &Malformed::new("frame", format!("kind {kind:#06x}"))),
        }
    }

    fn read_control<T: DeserializeOwned>(&self, from: NodeId, frame: &Frame) -> Option<T> {
        decode(&frame.body).map_err(|error| self.malformed(from, &error)).ok()
    }

    fn malformed(&self, from: NodeId, error: &Malformed) {
        Totals::add(&self.shared.totals.malformed, 1);
        tracing::debug!(event = "broadcast_malformed", peer = %from, %error, "a message cannot be read");
    }

    /// Starts to merge what waits, unless a merge of the stream is under way.
    fn merge(&mut self, stream: u16) {
        let Some(lane) = self.lanes.get_mut(&stream) else { return };
        let Some(source) = self.shared.streams.get(&stream) else { return };
        if lane.is_merging || lane.waiting.is_empty() {
            return;
        }
        let mut bytes = 0;
        let fits = lane.waiting.iter().take(MERGE_GOSSIPS).take_while(|received| {
            bytes += received.bytes.len();
            bytes <= MERGE_BYTES
        });
        let count = fits.count().max(1);
        let part = lane.waiting.drain(..count).collect();
        lane.is_merging = true;
        jobs::merge(&self.shared, self.generation, stream, source, part);
    }

    fn on_merged(&mut self, stream: u16, merged: Vec<Merged>) {
        for Merged { from, root, round, fresh, duplicate, bytes } in merged {
            let input = Input::Gossip { from, root, round, stream, fresh, duplicate };
            self.give(input, Some(bytes));
        }
        if let Some(lane) = self.lanes.get_mut(&stream) {
            lane.is_merging = false;
        }
        self.merge(stream);
    }

    fn on_cluster(&mut self) {
        let cluster = Arc::clone(&self.shared.cluster.borrow());
        let (peers, is_full_mesh) = (cluster.neighbours.clone(), cluster.is_full_mesh);
        let count = peers.len() as u64;
        self.give(Input::Neighbours { peers, is_full_mesh }, None);
        self.shared.totals.neighbours.store(count, Ordering::Relaxed);
    }

    fn on_tick(&mut self) {
        self.armed_ms = None;
        let mut due = self.core.due(self.shared.now_ms());
        for (stream, _) in &due {
            if self.lanes.get(stream).is_some_and(|lane| lane.is_merging) {
                self.give(Input::Busy { stream: *stream }, None);
            }
        }
        if !due.is_empty() {
            due = self.core.due(self.shared.now_ms());
        }
        if due.is_empty() {
            self.give(Input::Tick, None);
        } else if !self.is_checking {
            self.is_checking = true;
            jobs::check(&self.shared, self.generation, due);
        }
    }

    /// Sees to it that a tick comes when something is due.
    fn arm(&mut self, myself: &ActorRef<Msg>) {
        let Some(deadline_ms) = self.core.next_deadline().filter(|_| !self.is_checking) else {
            return;
        };
        if self.armed_ms.is_none_or(|armed_ms| deadline_ms < armed_ms) {
            self.armed_ms = Some(deadline_ms);
            let wait_ms = deadline_ms.saturating_sub(self.shared.now_ms());
            // One that is overtaken by an earlier one does no harm. At least 1 ms, so that no clock can make it a busy loop.
            myself.send_after(Duration::from_millis(wait_ms.max(1)), || Msg::Tick);
        }
    }

    /// Hands an input to the core and does what it says. `bytes` are the gossip that the input is about.
    fn give(&mut self, input: Input, bytes: Option<Vec<u8>>) {
        let mut outputs = Vec::new();
        self.core.handle(self.shared.now_ms(), input, &mut outputs);
        let mut bytes = bytes;
        let mut lost = Vec::new();
        for output in outputs {
            self.perform(output, &mut bytes, &mut lost);
        }
        // Peers whose queue is full get less, which may say something in turn, but sends nothing.
        let mut said = Vec::new();
        for input in lost {
            self.core.handle(self.shared.now_ms(), input, &mut said);
        }
        for output in said {
            self.perform(output, &mut None, &mut Vec::new());
        }
    }

    fn perform(&self, output: Output, bytes: &mut Option<Vec<u8>>, lost: &mut Vec<Input>) {
        match output {
            Output::Push { to, round, stream, .. } => {
                let Some(mut body) = bytes.take() else { return };
                Gossip::set_round(&mut body, round);
                let frame = Frame { kind: GOSSIP, corr: 0, body };
                for peer in to {
                    self.send(peer, Channel::Data, u64::from(stream), &frame, lost);
                }
            }
            Output::Answer { to, root, round, stream, dots } => {
                let slot = Arc::clone(&self.answers).try_acquire_owned();
                match (self.shared.streams.get(&stream), slot) {
                    (Some(source), Ok(slot)) => {
                        let answer = Answer { to, root, round, stream, dots };
                        jobs::answer(&self.shared, source, answer, slot);
                    }
                    _ => lost.push(Input::Unsent { peer: to }),
                }
            }
            Output::SendIHave { to, items } => {
                self.control(to, I_HAVE, encode(&IHave(items)), lost)
            }
            Output::SendGraft { to, root, stream, dots } => {
                self.control(to, GRAFT, encode(&Graft { root, stream, dots }), lost);
            }
            Output::SendPrune { to, root } => {
                self.control(to, PRUNE, encode(&Prune { root }), lost)
            }
            Output::Behind { peer } => self.shared.behind.behind(peer),
        }
    }

    fn control(
        &self,
        to: NodeId,
        kind: u16,
        body: Result<Vec<u8>, Malformed>,
        lost: &mut Vec<Input>,
    ) {
        match body {
            Ok(body) => self.send(to, Channel::Control, 0, &Frame { kind, corr: 0, body }, lost),
            // Too scattered to be told.
            Err(_too_large) => lost.push(Input::Unsent { peer: to }),
        }
    }

    fn send(
        &self,
        peer: NodeId,
        channel: Channel,
        lane: u64,
        frame: &Frame,
        lost: &mut Vec<Input>,
    ) {
        match self.shared.network.send(peer, channel, lane, frame) {
            Ok(()) => {}
            Err(SendError::Full { .. }) => lost.push(Input::Refused { peer }),
            Err(_not_sent) => lost.push(Input::Unsent { peer }),
        }
    }
}
