//! The exchanges of a simulated node: sessions, when they begin, and what members have acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use weald_exchange::core::{
    self as exchange, Limits, Mode, Repaired, Repairs, Scheduler, Session, Settings, Shard,
    Stability,
};
use weald_peers::{Channel, Cluster, Status, kind};
use weald_storage::{Actor, Clock, NodeId, Replicated};

use super::history::{EqualExchange, Place};
use super::process::{Process, Times};
use super::replicas::{Notes, places};

/// Frames of sessions: the side that began it (16 bytes), its number (8 bytes), the frame.
const SESSION: u16 = kind::of(kind::EXCHANGE, 1);
/// Acknowledged clocks.
const CLOCKS: u16 = kind::of(kind::EXCHANGE, 2);
/// Every so many times clocks are told that have not changed.
const RETELL: u64 = 10;
/// Events swept at a time.
const SWEEP_MAX: usize = 64;

/// A session: who began it, with whom, and its number there.
type SessionAt = (NodeId, NodeId, u64);
/// Clocks on the wire.
type Told = Vec<(u16, Actor, Clock)>;

/// Everything about exchanges that a node keeps in memory.
#[derive(Debug)]
pub(super) struct Exchanges {
    running: BTreeMap<SessionAt, (Session, u64)>,
    last_id: u64,
    pub(super) scheduler: Scheduler,
    pub(super) stability: Stability,
    repairs: Repairs,
    /// What was told to whom, by digest.
    told: BTreeMap<(NodeId, Place), u64>,
    next_ack_ms: u64,
    acks: u64,
}

impl Exchanges {
    /// None yet.
    pub(super) fn new(own: NodeId, times: &Times, now_ms: u64, seed: u64) -> Self {
        let settings = Settings {
            enabled: true,
            timer_ms: times.exchange_ms,
            outgoing_max: 2,
            incoming_max: 4,
        };
        Self {
            running: BTreeMap::new(),
            last_id: 0,
            scheduler: Scheduler::new(settings, seed, now_ms),
            stability: Stability::new(own),
            repairs: Repairs::default(),
            told: BTreeMap::new(),
            next_ack_ms: now_ms + times.ack_ms,
            acks: 0,
        }
    }

    /// When something is due.
    pub(super) fn next_deadline(&self) -> u64 {
        let sessions = self.running.values().filter_map(|(session, _)| session.next_deadline());
        let first = sessions.min().unwrap_or(u64::MAX);
        first.min(self.scheduler.next_deadline()).min(self.next_ack_ms)
    }

    /// The cluster has changed.
    pub(super) fn set_cluster(&mut self, cluster: &Cluster, now_ms: u64) {
        self.stability.set_cluster(cluster);
        self.repairs.set_cluster(cluster);
        let members: BTreeSet<NodeId> = cluster.peers().map(|member| member.node).collect();
        for peer in self.scheduler.set_neighbours(cluster.neighbours.clone(), members) {
            self.up(peer, now_ms);
        }
    }

    /// A connection has come.
    pub(super) fn up(&mut self, peer: NodeId, now_ms: u64) {
        self.scheduler.up(peer, now_ms);
        self.stability.forget(peer);
        self.told.retain(|(node, _), _| *node != peer);
    }
}

impl Process {
    /// A connection is gone, and all sessions over it.
    pub(super) fn exchanges_down(&mut self, peer: NodeId, notes: &mut Notes<'_>) {
        self.exchanges.scheduler.down(peer);
        let over =
            self.exchanges.running.keys().filter(|(by, with, _)| *by == peer || *with == peer);
        for at in over.copied().collect::<Vec<_>>() {
            self.session(at, exchange::Input::Disconnected, notes);
        }
    }

    /// Timers of exchanges.
    pub(super) fn exchanges_wake(&mut self, notes: &mut Notes<'_>) {
        let late = self.exchanges.running.iter().filter(|(_, (session, _))| {
            session.next_deadline().is_some_and(|at| at <= notes.now_ms)
        });
        for at in late.map(|(at, _)| *at).collect::<Vec<_>>() {
            self.session(at, exchange::Input::Tick, notes);
        }
        for peer in self.exchanges.scheduler.tick(notes.now_ms) {
            self.begin_exchange(peer, notes);
        }
        if self.exchanges.next_ack_ms <= notes.now_ms {
            self.exchanges.next_ack_ms = notes.now_ms + self.times.ack_ms;
            self.exchanges.acks += 1;
            // Connections lose nothing while they stand; those of a storm do, and a real node need not do this.
            if self.exchanges.acks.is_multiple_of(RETELL) {
                self.exchanges.told.clear();
            }
            self.tell_clocks();
            self.sweep(notes);
        }
    }

    /// An exchange with this peer is due soon.
    pub(super) fn behind(&mut self, peer: NodeId, notes: &mut Notes<'_>) {
        notes.sometimes.hit("behind");
        self.exchanges.scheduler.behind(peer, notes.now_ms);
    }

    /// Somebody waits for what this node lacks.
    pub(super) fn pull(&mut self, notes: &mut Notes<'_>) {
        self.exchanges.scheduler.pull(self.identity.node, notes.now_ms);
    }

    fn begin_exchange(&mut self, peer: NodeId, notes: &mut Notes<'_>) {
        self.exchanges.last_id += 1;
        let id = self.exchanges.last_id;
        let first = u16::try_from(id % 64).unwrap_or_default();
        let resort = Arc::new(self.exchanges.repairs.resort(peer));
        let (session, out) = Session::initiate(
            Mode::Exchange,
            first,
            self.limits(),
            resort,
            &self.replicas,
            notes.now_ms,
        );
        notes.sometimes.hit("exchange");
        let at = (self.identity.node, peer, id);
        self.exchanges.running.insert(at, (session, notes.now_ms));
        self.perform_exchange(at, out, notes);
    }

    fn limits(&self) -> Limits {
        Limits { idle_ms: self.times.idle_ms, total_ms: 20 * self.times.idle_ms }
    }

    fn session(&mut self, at: SessionAt, input: exchange::Input, notes: &mut Notes<'_>) {
        let Some((session, _)) = self.exchanges.running.get_mut(&at) else { return };
        let out = session.handle(&self.replicas, notes.now_ms, input);
        self.perform_exchange(at, out, notes);
    }

    fn perform_exchange(
        &mut self,
        at: SessionAt,
        out: Vec<exchange::Output>,
        notes: &mut Notes<'_>,
    ) {
        let (by, with, id) = at;
        let peer = if by == self.identity.node { with } else { by };
        let mut todo: VecDeque<exchange::Output> = out.into();
        while let Some(output) = todo.pop_front() {
            let input = match output {
                exchange::Output::Send(frame) => {
                    let mut body = by.0.to_vec();
                    body.extend_from_slice(&id.to_be_bytes());
                    body.extend_from_slice(&frame);
                    self.send(peer, Channel::Data, SESSION, body);
                    continue;
                }
                exchange::Output::Merge { id, shard, items } => {
                    let results = self.merge(Place(shard.number()), items, notes);
                    exchange::Input::Merged { id, results }
                }
                exchange::Output::Adopt { id, shard, clock, swept, watch } => {
                    notes.sometimes.hit("adopt");
                    let replica = self.replicas.of_mut(Place(shard.number()));
                    let ok = replica.adopt(&clock, &swept, Some(&watch)).is_ok();
                    exchange::Input::Adopted { id, ok }
                }
                exchange::Output::Renew { highest } => {
                    self.renew(highest, notes);
                    continue;
                }
                exchange::Output::Finished(outcome) => {
                    self.finished(at, &outcome, notes);
                    continue;
                }
            };
            if let Some((session, _)) = self.exchanges.running.get_mut(&at) {
                todo.extend(session.handle(&self.replicas, notes.now_ms, input));
            }
        }
    }

    fn finished(&mut self, at: SessionAt, outcome: &exchange::Outcome, notes: &mut Notes<'_>) {
        let Some((_, begun_ms)) = self.exchanges.running.remove(&at) else { return };
        let own = self.identity.node;
        let is_mine = at.0 == own;
        let peer = if is_mine { at.1 } else { at.0 };
        notes.sometimes.add("tree_walk", outcome.counters.walks);
        for (shard, actor, clock) in &outcome.clocks {
            self.exchanges.stability.acknowledge(peer, *shard, *actor, clock.clone());
        }
        for Repaired { shard, buckets } in self.exchanges.repairs.compared(peer, &outcome.compared)
        {
            notes.sometimes.hit("repaired");
            self.replicas.compared(Place(shard.number()), &buckets);
        }
        if is_mine {
            self.exchanges.scheduler.finished(peer, outcome, notes.now_ms);
        } else {
            self.exchanges.scheduler.answered(peer, outcome, begun_ms, notes.now_ms);
        }
        // Fenced ones, too: after a split that was long enough, each side has fenced the other, and nobody else is left.
        let is_member = self.cluster.members.get(&peer).is_some_and(|m| m.status.is_member());
        match &outcome.result {
            Ok(true) => {
                if outcome.counters.shards_differing == 0 && is_mine {
                    notes.sometimes.hit("exchange_equal");
                    notes.history.equal_exchanges.push(EqualExchange {
                        node: notes.node,
                        frames: outcome.counters.frames_in + outcome.counters.frames_out,
                        bytes: outcome.counters.bytes_in + outcome.counters.bytes_out,
                    });
                }
                if is_member && self.drain_since_ms.is_some_and(|since| since <= begun_ms) {
                    self.leave(notes);
                }
                if is_member {
                    self.rejoined(notes);
                }
            }
            Ok(false) => {}
            Err(_) => notes.sometimes.hit("exchange_failed"),
        }
    }

    pub(super) fn on_exchange(
        &mut self,
        from: NodeId,
        kind: u16,
        body: &[u8],
        notes: &mut Notes<'_>,
    ) {
        if kind == CLOCKS {
            let Ok(told) = postcard::from_bytes::<Told>(body) else { return };
            for (number, actor, clock) in told {
                let shard = Shard::of_number(number);
                self.exchanges.stability.acknowledge(from, shard, actor, clock.into());
            }
            return;
        }
        let Some((by, rest)) = body.split_first_chunk::<16>() else { return };
        let Some((id, frame)) = rest.split_first_chunk::<8>() else { return };
        let (by, own) = (NodeId(*by), self.identity.node);
        let at = (by, if by == own { from } else { own }, u64::from_be_bytes(*id));
        if by == from && !self.exchanges.running.contains_key(&at) {
            // The rest of a session that is over here.
            if frame.first_chunk::<4>().is_none_or(|number| *number != [0; 4])
                || !self.exchanges.scheduler.admit(from)
            {
                return;
            }
            let resort = Arc::new(self.exchanges.repairs.resort(from));
            let session = Session::respond(self.limits(), resort, notes.now_ms);
            self.exchanges.running.insert(at, (session, notes.now_ms));
        }
        self.session(at, exchange::Input::Frame(frame.to_vec()), notes);
    }

    /// Tells the clocks that have changed since they were told.
    fn tell_clocks(&mut self) {
        let told: BTreeMap<Place, (u64, Actor, Clock)> = places()
            .map(|place| {
                let (actor, clock) = (self.replicas.of(place).actor(), self.replicas.clock(place));
                (place, (clock.digest(), actor, clock))
            })
            .collect();
        for peer in self.connected.clone() {
            let mut news: Told = Vec::new();
            for (place, (digest, actor, clock)) in &told {
                if self.exchanges.told.insert((peer, *place), *digest) != Some(*digest) {
                    news.push((place.0, *actor, clock.clone()));
                }
            }
            if !news.is_empty()
                && let Ok(body) = postcard::to_stdvec(&news)
            {
                self.send(peer, Channel::Control, CLOCKS, body);
            }
        }
    }

    /// Forgets what everybody has.
    fn sweep(&mut self, notes: &mut Notes<'_>) {
        if self.cluster.members.get(&self.identity.node).is_none_or(|m| m.status != Status::Joined)
        {
            return;
        }
        for place in places() {
            let (actor, clock) = (self.replicas.of(place).actor(), self.replicas.clock(place));
            let shard = Shard::of_number(place.0);
            let stable = self.exchanges.stability.stable(shard, actor, &clock);
            let Some(stable) = stable else { continue };
            let min_age_ms = self.times.min_age_ms;
            let replica = self.replicas.of_mut(place);
            let report = replica.sweep(&stable, notes.wall_ms, min_age_ms, SWEEP_MAX);
            if report.swept > 0 {
                notes.history.swept(place, &replica.swept().unwrap_or_default());
            }
            notes.sometimes.add("sweep", report.swept);
            notes.sometimes.add("strip", report.stripped);
            notes.sometimes.add("reap", report.reaped);
        }
    }
}
