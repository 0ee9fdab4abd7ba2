//! When there is an exchange, and with whom.
//!
//! What it guarantees: a first exchange soon after boot and after a peer has come up; then one with a random neighbour every
//! `aae.exchange_timer`, give or take a fifth; one soon when somebody says it is behind. At most `aae.concurrency` at a time,
//! and one with a peer; a peer with which it failed waits longer each time. A peer may be connected before it is a member: it
//! is not announced again then, so it is remembered, and its first exchange comes once it is one.
//! What it refuses: to count time by itself; [`Scheduler::tick`] is told. To begin one with a peer that is no member.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weald_storage::NodeId;

use super::{Counters, Failed, Outcome};

/// Longest wait before the first exchange with a peer that has come up; at least a tenth of it. // guess
const FIRST_MS_MAX: u64 = 1_000;
/// Least time between two exchanges with a peer because of being behind. // guess
pub const BEHIND_MS_MIN: u64 = 200;
/// Wait after a failure, doubled with each further one.
const BACKOFF_MS: u64 = 500; // guess
/// Longest such wait.
const BACKOFF_MS_MAX: u64 = 60_000; // guess

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether exchanges are begun at all, other than by [`Scheduler::ask`].
    pub enabled: bool,
    /// Mean time between two exchanges.
    pub timer_ms: u64,
    /// Most sessions at a time that were begun here.
    pub outgoing_max: usize,
    /// Most sessions at a time that others have begun.
    pub incoming_max: usize,
}

/// How things are with a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// When a session last went through.
    pub last_success_ms: Option<u64>,
    /// When both were last known to be equal, but for what was written meanwhile.
    pub converged_ms: Option<u64>,
    /// Why the last session failed, if it did.
    pub last_error: Option<String>,
    /// Sessions that went through.
    pub sessions: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Sessions that run, begun by either.
    pub running: u32,
    /// What all sessions have moved.
    pub counters: Counters,
}

#[derive(Debug, Default)]
struct Peer {
    status: PeerStatus,
    up: bool,
    /// When to begin a session, if one is wanted.
    due_ms: Option<u64>,
    /// Not before.
    not_before_ms: u64,
    begun_ms: Option<u64>,
}

/// When there is an exchange, and with whom.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    rng: ChaCha8Rng,
    peers: BTreeMap<NodeId, Peer>,
    neighbours: BTreeSet<NodeId>,
    members: BTreeSet<NodeId>,
    next_round_ms: u64,
    outgoing: usize,
    incoming: usize,
}

impl Scheduler {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, now_ms: u64) -> Self {
        let mut scheduler = Self {
            settings,
            rng: ChaCha8Rng::seed_from_u64(seed),
            peers: BTreeMap::new(),
            neighbours: BTreeSet::new(),
            members: BTreeSet::new(),
            next_round_ms: now_ms,
            outgoing: 0,
            incoming: 0,
        };
        scheduler.next_round_ms = now_ms.saturating_add(scheduler.jittered(settings.timer_ms));
        scheduler
    }

    /// Who is a neighbour now, and who a member. Peers that are no members any more are forgotten, unless they are connected:
    /// they may become members yet. Gives back those that have: they were connected before they were members.
    pub fn set_neighbours(
        &mut self,
        neighbours: BTreeSet<NodeId>,
        members: BTreeSet<NodeId>,
    ) -> Vec<NodeId> {
        let before = std::mem::replace(&mut self.members, members);
        self.neighbours = neighbours;
        let (members, neighbours) = (&self.members, &self.neighbours);
        self.peers.retain(|node, peer| {
            if members.contains(node) || neighbours.contains(node) || peer.status.running > 0 {
                return true;
            }
            // What is remembered is that it is connected, no more.
            *peer = Peer { up: peer.up, due_ms: peer.due_ms, ..Peer::default() };
            peer.up
        });
        let joined = members.difference(&before).copied();
        joined.filter(|node| self.is_up(*node)).collect()
    }

    /// The connection to a peer is there: a first exchange soon.
    pub fn up(&mut self, peer: NodeId, now_ms: u64) {
        let wait = FIRST_MS_MAX / 10 + self.below(FIRST_MS_MAX * 9 / 10);
        let enabled = self.settings.enabled;
        let entry = self.peers.entry(peer).or_default();
        entry.up = true;
        entry.not_before_ms = 0;
        if enabled {
            entry.due_ms = Some(now_ms.saturating_add(wait));
        }
    }

    /// The connection to a peer is gone.
    pub fn down(&mut self, peer: NodeId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.up = false;
            entry.due_ms = None;
        }
    }

    /// Whether a peer is connected, and a member.
    #[must_use]
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|entry| entry.up) && self.counts(&peer)
    }

    /// Peers that are connected, and members.
    pub fn peers_up(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied().filter(|node| self.is_up(*node))
    }

    /// Something of a peer was missed: an exchange soon, at most one in [`BEHIND_MS_MIN`] and never while one runs.
    pub fn behind(&mut self, peer: NodeId, now_ms: u64) {
        if self.settings.enabled {
            self.want(peer, now_ms);
        }
    }

    /// Somebody waits for events of this node, or of any node if it is not connected: an exchange soon.
    pub fn pull(&mut self, from: NodeId, now_ms: u64) {
        let to = if self.is_up(from) { Some(from) } else { self.random_up() };
        if let Some(to) = to {
            self.want(to, now_ms);
        }
    }

    /// An operator wants a session with this peer now.
    ///
    /// # Errors
    /// Why it cannot be begun.
    pub fn ask(&mut self, peer: NodeId, now_ms: u64) -> Result<(), Failed> {
        if !self.is_up(peer) {
            return Err(Failed::Disconnected);
        }
        self.begin(peer, now_ms);
        Ok(())
    }

    /// With whom to begin sessions now. Each is to be reported with [`Scheduler::finished`].
    pub fn tick(&mut self, now_ms: u64) -> Vec<NodeId> {
        if now_ms >= self.next_round_ms {
            self.next_round_ms = now_ms.saturating_add(self.jittered(self.settings.timer_ms));
            if self.settings.enabled
                && let Some(peer) = self.random_neighbour(now_ms)
                && let Some(entry) = self.peers.get_mut(&peer)
            {
                entry.due_ms.get_or_insert(now_ms);
            }
        }
        let mut due: Vec<(u64, NodeId)> = self
            .peers
            .iter()
            .filter(|(node, peer)| self.is_ready(node, peer))
            .filter_map(|(node, peer)| Some((peer.due_ms?.max(peer.not_before_ms), *node)))
            .filter(|(at, _)| *at <= now_ms)
            .collect();
        due.sort_unstable();
        let room = self.settings.outgoing_max.saturating_sub(self.outgoing);
        let begun: Vec<NodeId> = due.into_iter().take(room).map(|(_, node)| node).collect();
        for node in &begun {
            self.begin(*node, now_ms);
        }
        begun
    }

    /// When to call [`Scheduler::tick`] next. Sessions that end may make it earlier.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        let waiting = self.peers.iter().filter(|(node, peer)| self.is_ready(node, peer));
        let due = waiting.filter_map(|(_, peer)| Some(peer.due_ms?.max(peer.not_before_ms)));
        due.min().unwrap_or(u64::MAX).min(self.next_round_ms)
    }

    /// A session that was begun here is over.
    pub fn finished(&mut self, peer: NodeId, outcome: &Outcome, now_ms: u64) {
        self.outgoing = self.outgoing.saturating_sub(1);
        let entry = self.peers.entry(peer).or_default();
        entry.status.running = entry.status.running.saturating_sub(1);
        let begun_ms = entry.begun_ms.unwrap_or(now_ms);
        note(&mut entry.status, outcome, begun_ms, now_ms);
        if outcome.result.is_ok() {
            entry.not_before_ms = now_ms.saturating_add(BEHIND_MS_MIN);
            return;
        }
        let doubled = BACKOFF_MS << entry.status.failures.saturating_sub(1).min(16);
        let wait = self.jittered(doubled.min(BACKOFF_MS_MAX));
        let enabled = self.settings.enabled;
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.not_before_ms = now_ms.saturating_add(wait);
            if entry.up && enabled {
                entry.due_ms.get_or_insert(entry.not_before_ms);
            }
        }
    }

    /// A peer wants a session; false when there are enough. If true, it is to be reported with [`Scheduler::answered`].
    #[must_use]
    pub fn admit(&mut self, peer: NodeId) -> bool {
        if self.incoming >= self.settings.incoming_max {
            return false;
        }
        self.incoming += 1;
        self.peers.entry(peer).or_default().status.running += 1;
        true
    }

    /// A session that a peer had begun at `begun_ms` is over. It counts for convergence as one of ours does.
    pub fn answered(&mut self, peer: NodeId, outcome: &Outcome, begun_ms: u64, now_ms: u64) {
        self.incoming = self.incoming.saturating_sub(1);
        let entry = self.peers.entry(peer).or_default();
        entry.status.running = entry.status.running.saturating_sub(1);
        if outcome.result.is_ok() {
            note(&mut entry.status, outcome, begun_ms, now_ms);
        } else {
            entry.status.counters.add(&outcome.counters);
        }
    }

    /// How things are with each member, and whether it is connected.
    pub fn status(&self) -> impl Iterator<Item = (NodeId, &PeerStatus, bool)> {
        let known = self.peers.iter().filter(|(node, _)| self.counts(node));
        known.map(|(node, peer)| (*node, &peer.status, peer.up))
    }

    fn counts(&self, peer: &NodeId) -> bool {
        self.members.contains(peer) || self.neighbours.contains(peer)
    }

    /// Whether a session with a peer could begin.
    fn is_ready(&self, node: &NodeId, peer: &Peer) -> bool {
        peer.up && peer.status.running == 0 && self.counts(node)
    }

    fn want(&mut self, peer: NodeId, now_ms: u64) {
        if let Some(entry) = self.peers.get_mut(&peer)
            && entry.up
        {
            let due = entry.due_ms.unwrap_or(u64::MAX);
            entry.due_ms = Some(due.min(now_ms));
        }
    }

    fn begin(&mut self, peer: NodeId, now_ms: u64) {
        self.outgoing += 1;
        let entry = self.peers.entry(peer).or_default();
        entry.status.running += 1;
        entry.due_ms = None;
        entry.begun_ms = Some(now_ms);
    }

    fn random_neighbour(&mut self, now_ms: u64) -> Option<NodeId> {
        let ready = |node: &&NodeId| {
            let peer = self.peers.get(*node);
            peer.is_some_and(|peer| self.is_ready(node, peer) && peer.not_before_ms <= now_ms)
        };
        let ready: Vec<NodeId> = self.neighbours.iter().filter(ready).copied().collect();
        self.pick(&ready)
    }

    fn random_up(&mut self) -> Option<NodeId> {
        let up: Vec<NodeId> = self.peers_up().collect();
        self.pick(&up)
    }

    fn pick(&mut self, from: &[NodeId]) -> Option<NodeId> {
        let at = self.below(from.len() as u64);
        from.get(usize::try_from(at).unwrap_or(0)).copied()
    }

    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng.next_u64() % bound }
    }

    /// Between four fifths and six fifths of it.
    fn jittered(&mut self, mean_ms: u64) -> u64 {
        let spread = self.below(mean_ms / 5 * 2 + 1);
        mean_ms - mean_ms / 5 + spread
    }
}

fn note(status: &mut PeerStatus, outcome: &Outcome, begun_ms: u64, now_ms: u64) {
    status.counters.add(&outcome.counters);
    match &outcome.result {
        Ok(converged) => {
            status.last_success_ms = Some(now_ms);
            status.sessions += 1;
            status.last_error = None;
            status.failures = 0;
            if *converged && outcome.diff.is_none() {
                // What was compared is as old as the beginning of the session.
                status.converged_ms = Some(status.converged_ms.unwrap_or(0).max(begun_ms));
            }
        }
        Err(failed) => {
            status.last_error = Some(failed.to_string());
            status.failures = status.failures.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings =
        Settings { enabled: true, timer_ms: 10_000, outgoing_max: 2, incoming_max: 2 };

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    fn outcome(result: Result<bool, Failed>) -> Outcome {
        Outcome {
            result,
            counters: Counters::default(),
            diff: None,
            compared: Vec::new(),
            clocks: Vec::new(),
        }
    }

    /// With this many neighbours, all of them up at 0.
    fn scheduler(settings: Settings, peers: u8) -> Scheduler {
        let mut scheduler = Scheduler::new(settings, 7, 0);
        let all: BTreeSet<NodeId> = (1..=peers).map(node).collect();
        scheduler.set_neighbours(all.clone(), all.clone());
        all.into_iter().for_each(|peer| scheduler.up(peer, 0));
        scheduler
    }

    /// Runs until `to_ms`; each session takes `takes_ms` and ends with `result`.
    fn play(
        scheduler: &mut Scheduler,
        to_ms: u64,
        takes_ms: u64,
        result: &Result<bool, Failed>,
    ) -> Vec<(u64, NodeId)> {
        let (mut begun, mut running) = (Vec::new(), Vec::new());
        for now_ms in (0..to_ms).step_by(10) {
            running.retain(|(ends_ms, peer)| {
                let runs = *ends_ms > now_ms;
                if !runs {
                    scheduler.finished(*peer, &outcome(result.clone()), now_ms);
                }
                runs
            });
            for peer in scheduler.tick(now_ms) {
                assert!(running.iter().all(|(_, with)| *with != peer), "one with a peer");
                running.push((now_ms + takes_ms, peer));
                begun.push((now_ms, peer));
            }
            assert!(running.len() <= 2, "too many at once");
        }
        begun
    }

    #[test]
    fn first_exchange_comes_soon_and_then_one_per_timer() {
        let mut scheduler = scheduler(SETTINGS, 3);
        let begun = play(&mut scheduler, 100_000, 50, &Ok(true));
        let first: BTreeSet<NodeId> =
            begun.iter().filter(|(at, _)| *at <= 1_100).map(|(_, peer)| *peer).collect();
        assert_eq!(first.len(), 3, "{begun:?}");
        let later = begun.iter().filter(|(at, _)| *at > 1_100).count();
        assert!((8..=12).contains(&later), "{later}");
    }

    #[test]
    fn peer_that_is_connected_before_it_is_a_member_has_its_exchange_once_it_is_one() {
        let mut scheduler = Scheduler::new(SETTINGS, 7, 0);
        scheduler.up(node(1), 0);
        scheduler.up(node(2), 0);
        // The membership changes, and does not know of them yet.
        assert_eq!(scheduler.set_neighbours(BTreeSet::new(), BTreeSet::new()), []);
        assert_eq!(play(&mut scheduler, 5_000, 10, &Ok(true)), [], "nobody is a member");
        assert!(!scheduler.is_up(node(1)) && scheduler.peers_up().next().is_none());
        assert_eq!(scheduler.status().next(), None, "strangers are not shown");
        assert_eq!(scheduler.ask(node(1), 5_000), Err(Failed::Disconnected));
        let members = BTreeSet::from([node(1), node(3)]);
        assert_eq!(scheduler.set_neighbours(BTreeSet::new(), members.clone()), [node(1)]);
        assert_eq!(scheduler.set_neighbours(members.clone(), members), [], "it is known by now");
        assert_eq!(scheduler.tick(5_000), [node(1)]);
        // One that has left is not shown, and begins anew when it comes back on the same connection.
        assert_eq!(scheduler.set_neighbours(BTreeSet::new(), BTreeSet::new()), []);
        assert_eq!(scheduler.status().next(), None);
        let back = BTreeSet::from([node(1)]);
        assert_eq!(scheduler.set_neighbours(BTreeSet::new(), back), [node(1)]);
        assert_eq!(scheduler.status().next().unwrap().1.sessions, 0);
        // Of one that is gone without ever having been a member nothing is kept.
        scheduler.down(node(2));
        scheduler.set_neighbours(BTreeSet::new(), BTreeSet::new());
        assert!(scheduler.status().all(|(peer, ..)| peer != node(2)));
    }

    #[test]
    fn sessions_wait_for_each_other() {
        let mut scheduler = scheduler(SETTINGS, 10);
        let begun = play(&mut scheduler, 20_000, 2_000, &Ok(true));
        let all: BTreeSet<NodeId> = begun.iter().map(|(_, peer)| *peer).collect();
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn failures_back_off_and_a_new_connection_begins_anew() {
        let mut scheduler = scheduler(SETTINGS, 1);
        let begun = play(&mut scheduler, 120_000, 10, &Err(Failed::Busy));
        assert!((6..=12).contains(&begun.len()), "{}", begun.len());
        let status = scheduler.status().next().unwrap().1.clone();
        assert_eq!(status.failures as usize, begun.len());
        assert!(status.last_error.is_some() && status.converged_ms.is_none());
        scheduler.up(node(1), 120_000);
        assert!(scheduler.next_deadline() <= 121_000);
    }

    #[test]
    fn behind_is_at_once_but_not_all_the_time() {
        let mut scheduler = scheduler(SETTINGS, 1);
        play(&mut scheduler, 5_000, 10, &Ok(true));
        let mut begun = 0;
        for now_ms in (5_000..6_000).step_by(10) {
            scheduler.behind(node(1), now_ms);
            for peer in scheduler.tick(now_ms) {
                begun += 1;
                scheduler.finished(peer, &outcome(Ok(true)), now_ms);
            }
        }
        assert!((4..=6).contains(&begun), "{begun}");
        scheduler.behind(node(9), 7_000);
        assert!(!scheduler.tick(7_000).contains(&node(9)), "it is not connected");
    }

    #[test]
    fn convergence_is_as_old_as_the_beginning_of_the_session() {
        let mut scheduler = scheduler(SETTINGS, 1);
        let converged = |s: &Scheduler| s.status().next().unwrap().1.converged_ms;
        scheduler.ask(node(1), 1_000).unwrap();
        scheduler.finished(node(1), &outcome(Ok(true)), 3_000);
        assert_eq!(converged(&scheduler), Some(1_000));
        assert!(scheduler.admit(node(1)));
        scheduler.answered(node(1), &outcome(Ok(false)), 4_000, 5_000);
        assert_eq!(converged(&scheduler), Some(1_000), "something was refused");
        assert!(scheduler.admit(node(1)));
        scheduler.answered(node(1), &outcome(Ok(true)), 6_000, 7_000);
        assert_eq!(converged(&scheduler), Some(6_000));
    }

    #[test]
    fn limits_hold_for_others_and_when_it_is_off() {
        let mut scheduler = scheduler(Settings { enabled: false, ..SETTINGS }, 1);
        assert!(scheduler.admit(node(1)) && scheduler.admit(node(2)) && !scheduler.admit(node(3)));
        scheduler.answered(node(1), &outcome(Ok(true)), 0, 1);
        assert!(scheduler.admit(node(3)));
        assert!(play(&mut scheduler, 60_000, 10, &Ok(true)).is_empty());
        assert_eq!(scheduler.ask(node(5), 0), Err(Failed::Disconnected));
        assert_eq!(scheduler.ask(node(1), 0), Ok(()));
    }
}
