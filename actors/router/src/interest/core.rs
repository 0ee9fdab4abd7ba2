//! The state machine: which rows this node has told, and which it knows of others.
//!
//! What it guarantees
//! - Each node is the only writer of its rows. A change goes to all connected peers at once, or with others within the batch
//!   time; whatever is lost on the way is noticed by the next digest and pulled.
//! - Rows of a node are applied in the order of their versions, and as one when they come as a whole; rows that are in use
//!   are replaced, never emptied first, unless the node has begun a new life.
//! - `Usable(node, true)` is said only after all its rows have come since it was reached, `Usable(node, false)` the moment it
//!   is not reached any more.
//! - Nothing of a node that has left, or that stays away too long, remains.
//!
//! What it refuses: rows of nodes that are neither members nor connected, and more rows of one node than allowed.
//!
//! A node is reached when it is connected, in a full mesh, and when it answers the failure detector; in an overlay the latter
//! is enough, as its rows are passed on by others: news along its tree ([`weald_peers::tree`]), which are announced with the
//! next digest to whoever did not get them so.

use std::collections::{BTreeMap, BTreeSet};

use weald_peers::Tree;
use weald_storage::NodeId;

mod event;
mod receive;

pub use event::{Input, Output, Presence, Standing, Trouble};

use super::config::{Config, ms};
use super::ledger::{Ledger, Part};
use super::origin::Origin;
use super::row::{Change, Row, Value};
use super::wire::{Delta, KNOWN_MAX, Known, Message, NUMBER_MAX, Reason};

/// Bytes of rows that are pushed in one frame, about: a frame of it does not hold up probes. // guess
pub const PUSH_BYTES: usize = 64 << 10;
/// Frames that are pushed at once; peers pull what is beyond them. // guess
pub const PUSHES_MAX: usize = 16;
/// Bytes of rows in one answer to a pull, about. // guess
pub const ANSWER_BYTES: usize = 512 << 10;

/// Interest.
#[derive(Debug)]
pub struct Interest {
    own: NodeId,
    config: Config,
    /// State of the generator (Steele et al., splitmix).
    seed: u64,
    ledger: Ledger,
    /// Up to which version peers were told.
    told: u64,
    /// When they may be told again.
    tell_ms: u64,
    /// Along which connections they are told.
    tree: Tree,
    origins: BTreeMap<NodeId, Origin>,
    connected: BTreeSet<NodeId>,
    members: BTreeMap<NodeId, Presence>,
    is_full_mesh: bool,
    digest_ms: u64,
}

impl Interest {
    /// Interest of a node. `incarnation` should be larger than in any life of it before; if it is not, peers that remember say
    /// so, and it goes on as a larger one.
    #[must_use]
    pub fn new(own: NodeId, incarnation: u64, seed: u64, config: Config) -> Self {
        Self {
            own,
            config,
            seed,
            ledger: Ledger::new(incarnation.clamp(1, NUMBER_MAX - 1)),
            told: 0,
            tell_ms: 0,
            tree: Tree::default(),
            origins: BTreeMap::new(),
            connected: BTreeSet::new(),
            members: BTreeMap::new(),
            is_full_mesh: true,
            digest_ms: 0,
        }
    }

    /// Takes an input; what follows is added to `out`.
    pub fn handle(&mut self, now_ms: u64, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Up(peer) => self.up(now_ms, peer, out),
            Input::Down(peer) => {
                self.connected.remove(&peer);
                self.review(now_ms, out);
                self.replace_parent(now_ms, peer, out);
            }
            Input::Members { members, is_full_mesh } => {
                self.members = members;
                self.members.remove(&self.own);
                self.is_full_mesh = is_full_mesh;
                self.review(now_ms, out);
            }
            Input::Changed(rows) => {
                for (row, value) in rows.iter().filter(|(row, _)| row.fits()) {
                    self.ledger.change(row, *value, now_ms);
                }
                if !rows.keys().all(Row::fits) {
                    out.push(Output::Trouble(self.own, Trouble::TooLong));
                }
                self.tell(now_ms, out);
            }
            Input::Said { from, message } => match message {
                Message::Digest { is_first, known } => {
                    self.on_digest(now_ms, from, is_first, &known, out);
                }
                Message::Pull(wanted) => self.on_pull(from, &wanted, out),
                Message::Delta(delta) => self.on_delta(now_ms, from, delta, out),
                Message::Prune(node) => self.on_prune(from, node),
            },
            Input::Tick => self.tick(now_ms, out),
        }
    }

    /// Goes on after the process that ran it has crashed, with these peers connected. What is known of others is used on, and
    /// fetched again as a whole. `is_whole` is false when the crash has come in the middle of [`Self::handle`]: then nothing is
    /// taken for granted, and everything is said again.
    pub fn restart(
        &mut self,
        now_ms: u64,
        is_whole: bool,
        connected: BTreeSet<NodeId>,
        out: &mut Vec<Output>,
    ) {
        if !is_whole && !self.ledger.is_sound() {
            self.begin_new_life(0, out);
        }
        for (node, origin) in &mut self.origins {
            origin.distrust();
            if is_whole {
                continue;
            }
            drop_rows(*node, origin, out);
            if origin.ledger.is_sound() {
                let rows = origin.ledger.live().map(|(row, value)| (row.clone(), *value));
                apply(*node, origin, rows.collect(), out);
            } else {
                *origin = Origin::new(now_ms);
            }
            settle(*node, origin, out);
        }
        self.connected.clear();
        for peer in connected {
            self.up(now_ms, peer, out);
            self.ask(now_ms, peer, peer, out);
        }
        self.review(now_ms, out);
    }

    /// When [`Input::Tick`] is needed for changes to be told.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        (self.ledger.version() > self.told).then_some(self.tell_ms)
    }

    /// How this node's own rows stand; they are always usable.
    #[must_use]
    pub fn own(&self) -> Standing {
        standing(&self.ledger, true)
    }

    /// How the rows of others stand.
    pub fn others(&self) -> impl Iterator<Item = (NodeId, Standing)> {
        let one = |(node, origin): (&NodeId, &Origin)| {
            (*node, standing(&origin.ledger, origin.is_usable()))
        };
        self.origins.iter().map(one)
    }

    /// Nodes whose rows have not come once since the start: those that are reached, and members that may answer yet. After a
    /// start nobody is connected for a moment; members that do not come are silent soon.
    #[must_use]
    pub fn awaited(&self) -> BTreeSet<NodeId> {
        let may_answer = |(node, presence): (&NodeId, &Presence)| {
            (*presence == Presence::Answers && *node != self.own).then_some(*node)
        };
        let members = self.members.iter().filter_map(may_answer);
        let reached = self.origins.iter().filter(|(_, origin)| origin.is_reached);
        let was_synced =
            |node: &NodeId| self.origins.get(node).is_some_and(|origin| origin.was_synced);
        members.chain(reached.map(|(node, _)| *node)).filter(|node| !was_synced(node)).collect()
    }

    /// This node's own rows that are not gone.
    pub fn own_rows(&self) -> impl Iterator<Item = (&Row, &Value)> {
        self.ledger.live()
    }

    // Peers.

    fn up(&mut self, now_ms: u64, peer: NodeId, out: &mut Vec<Output>) {
        if peer == self.own {
            return;
        }
        self.connected.insert(peer);
        let message = Message::Digest { is_first: true, known: self.known(peer, true) };
        out.push(Output::Send { to: vec![peer], message });
        let was_reached = self.origins.get(&peer).is_some_and(|origin| origin.is_reached);
        self.review(now_ms, out);
        if was_reached {
            // Through others: that is not noticed as a change.
            self.ask(now_ms, peer, peer, out);
        }
    }

    fn is_reached(&self, node: NodeId) -> bool {
        let is_connected = self.connected.contains(&node);
        match self.members.get(&node) {
            Some(Presence::Answers) => is_connected || !self.is_full_mesh,
            Some(Presence::Silent | Presence::Gone) => false,
            // A peer may be connected before it is a member.
            None => is_connected,
        }
    }

    /// Who is reached, and who is gone for good.
    fn review(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let absence_ms = ms(self.config.absence_max);
        let mut origins = std::mem::take(&mut self.origins);
        for node in self.members.keys().chain(&self.connected) {
            if self.is_reached(*node) {
                origins.entry(*node).or_insert_with(|| Origin::new(now_ms));
            }
        }
        let mut found = Vec::new();
        origins.retain(|node, origin| {
            let (was_reached, is_reached) = (origin.is_reached, self.is_reached(*node));
            let is_connected = self.connected.contains(node);
            origin.is_reached = is_reached;
            if was_reached && !is_reached {
                origin.away_ms = now_ms;
                origin.gathering = None;
                origin.asked = None;
            }
            if was_reached != is_reached {
                origin.is_synced = false;
                settle(*node, origin, out);
            }
            if is_reached && !was_reached && is_connected {
                found.push(*node);
            }
            let is_away_for_long =
                !is_reached && now_ms.saturating_sub(origin.away_ms) >= absence_ms;
            let is_kept = match self.members.get(node) {
                Some(Presence::Answers | Presence::Silent) => !is_away_for_long,
                Some(Presence::Gone) => false,
                None => is_connected,
            };
            if !is_kept {
                drop_rows(*node, origin, out);
            }
            is_kept
        });
        self.origins = origins;
        for node in found {
            self.ask(now_ms, node, node, out);
        }
    }

    // This node's rows.

    fn tell(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if self.ledger.version() <= self.told || now_ms < self.tell_ms {
            return;
        }
        let is_told = |peer: &&NodeId| self.is_full_mesh || self.tree.is_eager(**peer);
        let peers: Vec<NodeId> = self.connected.iter().filter(is_told).copied().collect();
        let begun = self.ledger.version();
        let mut from = std::mem::replace(&mut self.told, begun);
        self.tell_ms = now_ms.saturating_add(ms(self.config.batch_timer));
        if peers.is_empty() {
            return;
        }
        for number in 1..=PUSHES_MAX {
            let part = self.ledger.since(from, begun, PUSH_BYTES);
            from = part.version;
            let is_last = from >= self.ledger.version() || number == PUSHES_MAX;
            let reason = if is_last { Reason::News } else { Reason::NewsWithMore };
            let delta = of_part(self.own, &self.ledger, reason, part);
            out.push(Output::Send { to: peers.clone(), message: Message::Delta(delta) });
            if is_last {
                break;
            }
        }
    }

    /// Goes on as a life after this one and after `past`.
    fn renew(&mut self, past: u64) {
        let incarnation = past.max(self.ledger.incarnation()).saturating_add(1);
        self.ledger.renew(incarnation.min(NUMBER_MAX - 1));
        self.told = self.ledger.version();
    }

    /// Somebody claims to know this node's rows. Whether it is right.
    fn is_own_past(&self, incarnation: u64, version: u64, digest: Option<u64>) -> bool {
        let own = (self.ledger.incarnation(), self.ledger.version());
        (incarnation, version) > own
            || (incarnation, version) == own && digest.is_some_and(|d| d != self.ledger.digest())
    }

    fn begin_new_life(&mut self, past: u64, out: &mut Vec<Output>) {
        out.push(Output::Trouble(self.own, Trouble::PastLife));
        self.renew(past);
        for peer in self.connected.clone() {
            let message = Message::Digest { is_first: false, known: self.known(peer, false) };
            out.push(Output::Send { to: vec![peer], message });
        }
    }

    // What is said.

    /// What this node knows of its own rows and the peer's, or of everybody's.
    fn known(&self, peer: NodeId, wants_all: bool) -> Vec<Known> {
        let of = |node: NodeId, ledger: &Ledger| Known {
            origin: node,
            incarnation: ledger.incarnation(),
            version: ledger.version(),
            digest: ledger.digest(),
        };
        let mut known = vec![of(self.own, &self.ledger)];
        let wants_all = wants_all && !self.is_full_mesh;
        let others = self.origins.iter().filter(|(node, o)| {
            let is_asked_for = (wants_all || o.has_news) && o.is_reached;
            o.is_settled && (**node == peer || is_asked_for)
        });
        known.extend(others.map(|(node, origin)| of(*node, &origin.ledger)));
        known.truncate(KNOWN_MAX);
        known
    }

    // Time.

    fn tick(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        self.tell(now_ms, out);
        if now_ms < self.digest_ms {
            return;
        }
        let timer_ms = ms(self.config.digest_timer);
        let jitter_ms = self.random() % (timer_ms / 5 + 1);
        self.digest_ms = now_ms.saturating_add(timer_ms - timer_ms / 10 + jitter_ms);
        self.review(now_ms, out);
        let forgotten_ms = now_ms.checked_sub(ms(self.config.marker_age));
        if let Some(before_ms) = forgotten_ms {
            self.ledger.forget(before_ms);
            self.origins.values_mut().for_each(|origin| origin.ledger.forget(before_ms));
        }
        let peers: Vec<NodeId> = self.connected.iter().copied().collect();
        let count = (peers.len() as u64).max(1);
        let told_all = usize::try_from(self.random() % count).unwrap_or(0);
        for (index, peer) in peers.iter().enumerate() {
            let known = self.known(*peer, index == told_all);
            let message = Message::Digest { is_first: false, known };
            out.push(Output::Send { to: vec![*peer], message });
        }
        self.origins.values_mut().for_each(|origin| origin.has_news = false);
        let lacking =
            self.origins.iter().filter(|(_, o)| o.is_reached && !(o.is_synced && o.is_trusted));
        let lacking: Vec<NodeId> = lacking.map(|(node, _)| *node).collect();
        for node in lacking.into_iter().filter(|node| peers.contains(node)) {
            self.ask(now_ms, node, node, out);
        }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

fn of_part(origin: NodeId, ledger: &Ledger, reason: Reason, part: Part) -> Delta {
    let (incarnation, end) = (ledger.incarnation(), ledger.version());
    Delta { origin, incarnation, end, digest: ledger.digest(), reason, part }
}

fn standing(ledger: &Ledger, is_usable: bool) -> Standing {
    Standing {
        incarnation: ledger.incarnation(),
        version: ledger.version(),
        rows: ledger.live_count(),
        markers: ledger.markers_count(),
        is_usable,
    }
}

/// Says whether the rows of a node may be used, if that is news.
fn settle(node: NodeId, origin: &mut Origin, out: &mut Vec<Output>) {
    let is_usable = origin.is_usable();
    if is_usable != origin.said.unwrap_or(false) {
        origin.said = Some(is_usable);
        out.push(Output::Usable(node, is_usable));
    }
}

/// Says what rows of a node are now, and before the first that they may not be used yet.
fn apply(node: NodeId, origin: &mut Origin, rows: Vec<Change>, out: &mut Vec<Output>) {
    if rows.is_empty() {
        return;
    }
    if origin.said.is_none() {
        origin.said = Some(false);
        out.push(Output::Usable(node, false));
    }
    out.push(Output::Apply { node, rows });
}

/// Says that all that was said of a node is void, if anything was.
fn drop_rows(node: NodeId, origin: &mut Origin, out: &mut Vec<Output>) {
    if origin.said.take().is_some() {
        out.push(Output::Drop(node));
    }
}
