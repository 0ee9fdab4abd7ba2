//! The ractor shell of the scheduler: brings frames to sessions, starts them, tells clocks, ends waits.

mod clocks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use weald_peers::{Channel, Cluster, ClusterWatch, PeerEvent, Permit};
use weald_proto::Frame;
use weald_storage::{Actor as DotActor, Clock, Dot, NodeId, VersionVector};
use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};

use crate::config::ms;
use crate::core::{
    Compared, Counters, Ended, Failed, Input, Mode, Outcome, Relay, Repaired, Repairs, Scheduler,
    Settings, Shard, Stability, Waiters,
};
use crate::frames::{
    ASK_CLOCKS, ASK_RELAYED, CLOCKS, FROM_INITIATOR, FROM_RESPONDER, NO_SESSION, RELAYED,
};
use crate::handle::{PeerReport, Shared, Status};
use crate::running::{self, Begin, FRAMES_MAX, Mail, SessionKey};
use crate::token::SessionToken;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(20);
/// For how long a peer that has asked is told clocks at once.
const EAGER_MS: u64 = 1_000;
/// Longest wait for a session to be started.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages of the scheduler.
#[derive(Debug)]
pub(crate) enum Msg {
    /// Time has passed.
    Tick,
    /// A frame of a peer.
    Frame { from: NodeId, frame: Frame, permit: Permit },
    /// A peer has come or gone.
    Peer(PeerEvent),
    /// Something of a peer was missed.
    Behind(NodeId),
    /// Something was committed; see [`Shared::take_dirty`].
    Committed,
    /// A session with a peer, now.
    Run { peer: NodeId, mode: Mode, reply: RpcReplyPort<Box<Outcome>> },
    /// Say when the clocks cover the token.
    CaughtUp { token: SessionToken, deadline_ms: u64, reply: RpcReplyPort<Ended> },
    /// Say when so many peers have these events.
    WaitAcked {
        shard: Shard,
        dots: Vec<Dot>,
        needed: usize,
        deadline_ms: u64,
        reply: RpcReplyPort<Ended>,
    },
    /// A session is over.
    Ended { key: SessionKey, outcome: Box<Outcome> },
    /// How things stand.
    Status(RpcReplyPort<Status>),
}

impl Message for Msg {}

/// The scheduler. Restart type `Permanent`, first under the supervisor `exchange`.
#[derive(Debug)]
pub(crate) struct ExchangeActor;

struct Running {
    mail: mpsc::Sender<Mail>,
    begun_ms: u64,
    reply: Option<RpcReplyPort<Box<Outcome>>>,
}

pub(crate) struct State {
    shared: Arc<Shared>,
    scheduler: Scheduler,
    stability: Stability,
    relay: Relay,
    repairs: Repairs,
    waiters: Waiters,
    replies: BTreeMap<u64, RpcReplyPort<Ended>>,
    waits: u64,
    running: BTreeMap<SessionKey, Running>,
    /// This node's clocks, as last read.
    clocks: BTreeMap<Shard, (DotActor, Arc<Clock>)>,
    /// Shards that have changed since members were told.
    untold: BTreeSet<Shard>,
    /// Members that are to be told everything.
    fresh: BTreeSet<NodeId>,
    /// Members that want to be told at once, and until when.
    eager: BTreeMap<NodeId, u64>,
    tell_ms: u64,
    asked_ms: Option<u64>,
    watch: ClusterWatch,
}

impl Actor for ExchangeActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        let config = &shared.config;
        let settings = Settings {
            enabled: config.enabled,
            timer_ms: ms(config.exchange_timer),
            outgoing_max: config.concurrency,
            incoming_max: config.incoming_max,
        };
        let now_ms = shared.now_ms();
        let mut state = State {
            scheduler: Scheduler::new(settings, shared.deps.seed, now_ms),
            stability: Stability::new(shared.deps.own),
            relay: Relay::new(ms(config.clocks_timer)),
            repairs: Repairs::default(),
            waiters: Waiters::new(),
            replies: BTreeMap::new(),
            waits: 0,
            running: BTreeMap::new(),
            clocks: BTreeMap::new(),
            untold: BTreeSet::new(),
            fresh: BTreeSet::new(),
            eager: BTreeMap::new(),
            tell_ms: now_ms,
            asked_ms: None,
            watch: shared.deps.cluster.clone(),
            shared,
        };
        let cluster = Arc::clone(&state.watch.borrow_and_update());
        state.cluster(&cluster);
        for peer in state.shared.connected() {
            state.up(peer);
        }
        let all: Vec<Shard> = Shard::all(state.shared.deps.stores.partitions()).collect();
        state.read_clocks(all).await?;
        myself.send_interval(TICK, || Msg::Tick);
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Tick => state.tick().await?,
            Msg::Frame { from, frame, permit } => state.frame(from, frame, permit).await?,
            Msg::Peer(PeerEvent::Up(info)) => state.up(info.node),
            Msg::Peer(PeerEvent::Down { node, .. }) => state.down(node),
            Msg::Behind(peer) => state.scheduler.behind(peer, state.shared.now_ms()),
            Msg::Committed => state.committed().await?,
            Msg::Run { peer, mode, reply } => state.run(peer, mode, reply).await,
            Msg::CaughtUp { token, deadline_ms, reply } => {
                state.wait_token(token, deadline_ms, reply).await?;
            }
            Msg::WaitAcked { shard, dots, needed, deadline_ms, reply } => {
                state.wait_acked(shard, dots, needed, deadline_ms, reply);
            }
            Msg::Ended { key, outcome } => state.ended(key, outcome),
            Msg::Status(reply) => drop(reply.send(state.status())),
        }
        Ok(())
    }
}

impl State {
    async fn tick(&mut self) -> Result<(), ActorProcessingErr> {
        let now_ms = self.shared.now_ms();
        if self.watch.has_changed().unwrap_or(false) {
            let cluster = Arc::clone(&self.watch.borrow_and_update());
            self.cluster(&cluster);
        }
        for peer in self.scheduler.tick(now_ms) {
            self.begin(peer, Mode::Exchange, None).await;
        }
        let (ended, pulls) = self.waiters.tick(now_ms, &self.stability);
        self.end_waits(ended);
        for peer in pulls {
            self.scheduler.pull(peer, now_ms);
        }
        self.eager.retain(|_, until| *until > now_ms);
        self.attend();
        if now_ms >= self.tell_ms {
            self.tell_ms = now_ms.saturating_add(ms(self.shared.config.clocks_timer));
            self.committed().await?;
            self.tell();
            self.ask_unknown();
            self.ask_relayed();
            self.publish_stable();
        }
        Ok(())
    }

    fn cluster(&mut self, cluster: &Cluster) {
        self.stability.set_cluster(cluster);
        self.repairs.set_cluster(cluster);
        let members = cluster.peers().map(|member| member.node).collect();
        // A peer may be connected before it is a member, and is not announced again when it becomes one.
        for peer in self.scheduler.set_neighbours(cluster.neighbours.clone(), members) {
            self.up(peer);
        }
    }

    fn up(&mut self, peer: NodeId) {
        // It may have been restored while it was away: what it has acknowledged is what it tells now.
        self.stability.forget(peer);
        self.scheduler.up(peer, self.shared.now_ms());
        self.fresh.insert(peer);
        self.tell_ms = 0;
    }

    fn down(&mut self, peer: NodeId) {
        self.scheduler.down(peer);
        self.eager.remove(&peer);
        self.fresh.remove(&peer);
        self.relay.gone(peer);
        for (_, running) in self.running.iter().filter(|(key, _)| key.peer == peer) {
            drop(running.mail.try_send(Mail::Input(Input::Disconnected)));
        }
    }

    // Sessions.

    async fn frame(
        &mut self,
        from: NodeId,
        frame: Frame,
        permit: Permit,
    ) -> Result<(), ActorProcessingErr> {
        let ours = match frame.kind {
            FROM_INITIATOR => false,
            FROM_RESPONDER | NO_SESSION => true,
            CLOCKS => {
                self.told(from, &frame.body);
                return Ok(());
            }
            ASK_RELAYED => {
                self.asked_relayed(from, &frame.body);
                return Ok(());
            }
            RELAYED => {
                self.told_relayed(from, &frame.body);
                return Ok(());
            }
            ASK_CLOCKS => return self.asked(from, frame.body == [1]).await,
            _ => return Ok(()),
        };
        let key = SessionKey { peer: from, number: frame.corr, ours };
        if frame.kind == FROM_INITIATOR
            && !self.running.contains_key(&key)
            && !self.answer(key, &frame.body).await
        {
            return Ok(());
        }
        let Some(running) = self.running.get(&key) else { return Ok(()) };
        let mail = if frame.kind == NO_SESSION {
            Mail::Input(Input::Refused { busy: frame.body == [1] })
        } else {
            Mail::Frame(frame.body, permit)
        };
        // A frame too many is a gap, and the session ends by its deadline.
        drop(running.mail.try_send(mail));
        Ok(())
    }

    /// A peer begins a session, or believes in one that is no more. Whether it runs now.
    async fn answer(&mut self, key: SessionKey, body: &[u8]) -> bool {
        let begins = body.starts_with(&[0; 4]);
        let busy = begins && !self.scheduler.admit(key.peer);
        if !begins || busy {
            let frame = Frame { kind: NO_SESSION, corr: key.number, body: vec![u8::from(busy)] };
            drop(self.shared.deps.network.send(key.peer, Channel::Data, key.number, &frame));
            return false;
        }
        let resort = Arc::new(self.repairs.resort(key.peer));
        self.start(key, Begin::Theirs { resort }, None).await;
        self.running.contains_key(&key)
    }

    async fn run(&mut self, peer: NodeId, mode: Mode, reply: RpcReplyPort<Box<Outcome>>) {
        match self.scheduler.ask(peer, self.shared.now_ms()) {
            Ok(()) => self.begin(peer, mode, Some(reply)).await,
            Err(failed) => drop(reply.send(Box::new(failure(failed)))),
        }
    }

    async fn begin(&mut self, peer: NodeId, mode: Mode, reply: Option<RpcReplyPort<Box<Outcome>>>) {
        let number = self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        let first = u16::try_from(number % u64::from(u16::MAX)).unwrap_or(0);
        let key = SessionKey { peer, number, ours: true };
        let resort = Arc::new(self.repairs.resort(peer));
        self.start(key, Begin::Ours { mode, first, resort }, reply).await;
    }

    async fn start(
        &mut self,
        key: SessionKey,
        begin: Begin,
        reply: Option<RpcReplyPort<Box<Outcome>>>,
    ) {
        let (mail, receiver) = mpsc::channel(FRAMES_MAX);
        let spec = running::child_spec(Arc::clone(&self.shared), key, begin, receiver);
        let running = Running { mail, begun_ms: self.shared.now_ms(), reply };
        self.running.insert(key, running);
        let started = self.shared.exchanges.start_child(spec);
        let started = tokio::time::timeout(START_TIMEOUT, started).await;
        if !matches!(started, Ok(Ok(_))) {
            let why = "the session could not be started".to_owned();
            self.ended(key, Box::new(failure(Failed::Aborted(why))));
        }
    }

    fn ended(&mut self, key: SessionKey, outcome: Box<Outcome>) {
        let Some(running) = self.running.remove(&key) else { return };
        let now_ms = self.shared.now_ms();
        if let Err(failed) = &outcome.result {
            tracing::debug!(event = "exchange_failed", peer = %key.peer, ours = key.ours, error = %failed);
        }
        for (shard, actor, clock) in &outcome.clocks {
            // What a peer has told since is newer.
            if self.stability.clock_of(key.peer, *shard).is_none_or(|known| clock.descends(known)) {
                self.stability.acknowledge(key.peer, *shard, *actor, Arc::clone(clock));
            }
        }
        if key.ours {
            self.scheduler.finished(key.peer, &outcome, now_ms);
        } else {
            self.scheduler.answered(key.peer, &outcome, running.begun_ms, now_ms);
        }
        self.repaired(key.peer, &outcome.compared);
        if let Some(reply) = running.reply {
            drop(reply.send(outcome));
        }
    }

    /// Takes the marks off buckets that have been compared with every member.
    fn repaired(&mut self, peer: NodeId, compared: &[Compared]) {
        for Repaired { shard, buckets } in self.repairs.compared(peer, compared) {
            let upkeep = Arc::clone(&self.shared.deps.upkeep);
            drop(tokio::task::spawn_blocking(move || {
                // If it fails, the marks stay, and the comparisons begin anew.
                if let Err(error) = upkeep.compared(shard, &buckets) {
                    tracing::warn!(event = "marks_not_removed", shard = %shard, %error);
                }
            }));
        }
    }

    // Waits.

    async fn wait_token(
        &mut self,
        token: SessionToken,
        deadline_ms: u64,
        reply: RpcReplyPort<Ended>,
    ) -> Result<(), ActorProcessingErr> {
        let id = self.wait(reply);
        self.shared.set_attentive(true);
        if !self.waiters.add_token(id, token, self.shared.now_ms(), deadline_ms) {
            self.end_waits(vec![(id, Ended::NotCaughtUp)]);
            return Ok(());
        }
        // It may have come between the question and this message; then no commit would say so.
        self.committed().await?;
        let clocks = &self.clocks;
        let bases =
            |shard| clocks.get(&shard).map_or_else(VersionVector::new, |(_, clock)| clock.bases());
        let ended = self.waiters.clocks_changed(bases);
        self.end_waits(ended);
        Ok(())
    }

    fn wait_acked(
        &mut self,
        shard: Shard,
        dots: Vec<Dot>,
        needed: usize,
        deadline_ms: u64,
        reply: RpcReplyPort<Ended>,
    ) {
        let id = self.wait(reply);
        if !self.waiters.add_acks(id, shard, dots, needed, deadline_ms) {
            return self.end_waits(vec![(id, Ended::NotAcked(0))]);
        }
        let ended = self.waiters.acked(&self.stability);
        self.end_waits(ended);
        let now_ms = self.shared.now_ms();
        // One question makes a peer tell at once for EAGER_MS; it is repeated in time for the next write.
        let is_due = self.asked_ms.is_none_or(|at| now_ms >= at.saturating_add(EAGER_MS / 2));
        if self.waiters.waits_for_acks() && is_due {
            self.asked_ms = Some(now_ms);
            let frame = Frame { kind: ASK_CLOCKS, corr: 0, body: Vec::new() };
            for peer in self.stability.counting() {
                drop(self.shared.deps.network.send(*peer, Channel::Data, 0, &frame));
            }
        }
    }

    fn wait(&mut self, reply: RpcReplyPort<Ended>) -> u64 {
        self.waits += 1;
        self.replies.insert(self.waits, reply);
        self.waits
    }

    fn end_waits(&mut self, ended: Vec<(u64, Ended)>) {
        for (id, how) in ended {
            if let Some(reply) = self.replies.remove(&id) {
                drop(reply.send(how));
            }
        }
    }

    fn status(&self) -> Status {
        let now_ms = self.shared.now_ms();
        let age = |at: Option<u64>| at.map(|at| now_ms.saturating_sub(at));
        let peers = self.scheduler.status().map(|(node, status, up)| {
            let report = PeerReport {
                up,
                running: status.running,
                success_age_ms: age(status.last_success_ms),
                convergence_age_ms: age(status.converged_ms),
                sessions: status.sessions,
                failures: status.failures,
                last_error: status.last_error.clone(),
                counters: status.counters,
            };
            (node, report)
        });
        let shards = Shard::all(self.shared.deps.stores.partitions());
        let unknown: BTreeSet<NodeId> =
            shards.flat_map(|shard| self.stability.unknown(shard)).collect();
        let totals = &self.shared.totals;
        Status {
            enabled: self.shared.config.enabled,
            running: self.running.len(),
            waiting: self.waiters.len(),
            overflow: 0,
            unknown: unknown.into_iter().collect(),
            swept: totals.swept.load(Ordering::Relaxed),
            stripped: totals.stripped.load(Ordering::Relaxed),
            reaped: totals.reaped.load(Ordering::Relaxed),
            peers: peers.collect(),
        }
    }
}

fn failure(failed: Failed) -> Outcome {
    Outcome {
        result: Err(failed),
        counters: Counters::default(),
        diff: None,
        compared: Vec::new(),
        clocks: Vec::new(),
    }
}
