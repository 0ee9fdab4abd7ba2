//! Plumtree with a tree per root. Pure.
//!
//! # Source
//! Leitão, Pereira, Rodrigues: Epidemic Broadcast Trees (2007).
//!
//! What differs from the paper:
//! - Links have a direction, as a tree has one root: what is pruned one way may serve the other way in other trees.
//! - A message is a batch of events of one stream, named by their dots. The store is the message cache and knows what has
//!   arrived: whoever drives the core tells it with each announcement what is missing.
//! - In a full mesh a node pushes its own events to all and nobody forwards, so a new member changes nothing for the
//!   others. In a partial overlay a tree begins with all neighbours, as in the paper; one that comes later is told of events
//!   and asks if it gets them from nobody else.
//! - A link is cut after several duplicates in a row, so a race between two paths does not cut both.
//! - In a full mesh only the next `announce_max` neighbours by id are told of events of others.
//!
//! Guarantees: every table has a bound; what falls out of one is told as [`Output::Behind`], for an exchange to heal.

use std::collections::{BTreeMap, BTreeSet};

use weald_peers::Dots;
use weald_storage::NodeId;

pub use crate::config::Config;
use crate::config::GRAFT_MS_MAX;
use crate::dots::{DotSet, difference};
use crate::graft::{Ask, Wants};
use crate::lazy::{Lazy, Queued};
use crate::messages::ANNOUNCEMENTS_MAX;
pub use crate::messages::Announcement;
use crate::tree::Tree;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This node has committed events of its own.
    Published {
        /// Which stream the dots count in.
        stream: u16,
        /// The events.
        dots: Dots,
    },
    /// A gossip was merged.
    Gossip {
        /// Who sent it.
        from: NodeId,
        /// Whose tree.
        root: NodeId,
        /// How often it was forwarded.
        round: u16,
        /// Which stream the dots count in.
        stream: u16,
        /// Events that were new. What could not be merged is in neither.
        fresh: Dots,
        /// Events that were known.
        duplicate: Dots,
    },
    /// A peer announces events.
    IHave {
        /// The peer.
        from: NodeId,
        /// What it has.
        announced: Announcement,
        /// The part that the store does not have.
        missing: Dots,
    },
    /// A peer asks for events.
    Graft {
        /// The peer.
        from: NodeId,
        /// Whose tree.
        root: NodeId,
        /// Which stream the dots count in.
        stream: u16,
        /// What it lacks; may be nothing.
        dots: Dots,
    },
    /// A peer does not want events of `root`.
    Prune {
        /// The peer.
        from: NodeId,
        /// Whose tree.
        root: NodeId,
    },
    /// The neighbours have changed.
    Neighbours {
        /// All of them.
        peers: BTreeSet<NodeId>,
        /// Whether these are meant to be all members.
        is_full_mesh: bool,
    },
    /// Events have arrived another way. For those that [`Plumtree::due`] names: what is told is not asked for.
    Known {
        /// Which stream the dots count in.
        stream: u16,
        /// The events.
        dots: Dots,
    },
    /// Events of a stream that [`Plumtree::due`] names wait to be merged: what is due may be among them. Puts off its grafts
    /// for a moment, a few times.
    Busy {
        /// The stream.
        stream: u16,
    },
    /// The queue of a peer is full: something was not sent.
    Refused {
        /// The peer.
        peer: NodeId,
    },
    /// Something for a peer was not sent for another reason.
    Unsent {
        /// The peer.
        peer: NodeId,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send the events of the input, or those of them that are named, to all of these.
    Push {
        /// To whom; never empty.
        to: Vec<NodeId>,
        /// Whose tree.
        root: NodeId,
        /// How often they were forwarded, with this.
        round: u16,
        /// Which stream the dots count in.
        stream: u16,
        /// The events.
        dots: Dots,
    },
    /// Send events that a peer has asked for, from the store.
    Answer {
        /// To whom.
        to: NodeId,
        /// Whose tree.
        root: NodeId,
        /// How often they were forwarded, with this.
        round: u16,
        /// Which stream the dots count in.
        stream: u16,
        /// The events.
        dots: Dots,
    },
    /// Announce events to a peer.
    SendIHave {
        /// To whom.
        to: NodeId,
        /// At most [`ANNOUNCEMENTS_MAX`].
        items: Vec<Announcement>,
    },
    /// Ask a peer for events and for all that follow.
    SendGraft {
        /// Whom.
        to: NodeId,
        /// Whose tree.
        root: NodeId,
        /// Which stream the dots count in.
        stream: u16,
        /// What is missing; may be nothing.
        dots: Dots,
    },
    /// Ask a peer to send no more events of `root`.
    SendPrune {
        /// Whom.
        to: NodeId,
        /// Whose tree.
        root: NodeId,
    },
    /// Something was dropped that this peer or this node lacks now: an exchange with it is due. Once per peer and tick.
    Behind {
        /// The peer.
        peer: NodeId,
    },
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Copies of batches handed out for pushing.
    pub pushed: u64,
    /// Batches received with something new.
    pub fresh: u64,
    /// Batches received with nothing new.
    pub duplicate: u64,
    /// Announcements received.
    pub ihave: u64,
    /// Announcements handed out.
    pub announced: u64,
    /// Grafts sent.
    pub graft: u64,
    /// Grafts received.
    pub grafted: u64,
    /// Prunes sent.
    pub prune: u64,
    /// Prunes received.
    pub pruned: u64,
    /// Paths replaced by shorter ones.
    pub optimised: u64,
    /// Trees repaired when a neighbour went.
    pub repaired: u64,
    /// Times something did not fit a bound or was given up.
    pub overflow: u64,
    /// Trees dropped for the bound on roots.
    pub roots_dropped: u64,
}

/// The state of a node.
#[derive(Debug, Clone)]
pub struct Plumtree {
    own: NodeId,
    config: Config,
    neighbours: BTreeSet<NodeId>,
    is_full_mesh: bool,
    /// The neighbours that are told of events of others.
    told: BTreeSet<NodeId>,
    trees: BTreeMap<NodeId, Tree>,
    lazy: Lazy,
    wants: Wants,
    /// Peers whose queue was full, and until when they are not pushed to unless they ask.
    demoted: BTreeMap<NodeId, u64>,
    behind: BTreeSet<NodeId>,
    next_tick_ms: u64,
    inputs: u64,
    counters: Counters,
}

impl Plumtree {
    /// A node without neighbours.
    #[must_use]
    pub fn new(own: NodeId, config: Config) -> Self {
        Self {
            own,
            config,
            neighbours: BTreeSet::new(),
            is_full_mesh: true,
            told: BTreeSet::new(),
            trees: BTreeMap::new(),
            lazy: Lazy::default(),
            wants: Wants::default(),
            demoted: BTreeMap::new(),
            behind: BTreeSet::new(),
            next_tick_ms: 0,
            inputs: 0,
            counters: Counters::default(),
        }
    }

    /// Takes an input and says what to do, in order. `now_ms` never goes back.
    pub fn handle(&mut self, now_ms: u64, input: Input, out: &mut Vec<Output>) {
        self.inputs += 1;
        if self.next_tick_ms <= now_ms && !self.awaits_tick() && input != Input::Tick {
            // The first announcement after a pause collects for a whole period, too: most peers have shown by then that they
            // need none.
            self.next_tick_ms = now_ms.saturating_add(self.config.lazy_tick_ms);
        }
        match input {
            Input::Published { stream, dots } => {
                self.spread(None, (self.own, 0, stream), dots, out);
            }
            Input::Gossip { from, root, round, stream, fresh, duplicate } => {
                self.arrived(now_ms, (from, root, stream), &fresh, &duplicate);
                if !fresh.is_empty() {
                    self.on_fresh(from, (root, round, stream), fresh, out);
                } else if !duplicate.is_empty() {
                    self.on_duplicate(from, root, out);
                }
            }
            Input::IHave { from, announced, missing } => {
                self.on_i_have(now_ms, from, &announced, &missing, out);
            }
            Input::Graft { from, root, stream, dots } => {
                self.on_graft(from, root, stream, dots, out);
            }
            Input::Prune { from, root } => {
                self.counters.pruned += 1;
                self.tree(root).children.remove(&from);
            }
            Input::Neighbours { peers, is_full_mesh } => {
                self.on_neighbours(now_ms, peers, is_full_mesh, out);
            }
            Input::Known { stream, dots } => {
                let wait_ms = self.config.graft_ms;
                self.wants.arrived(stream, &dots, wait_ms, now_ms);
            }
            Input::Busy { stream } => {
                self.wants.postpone(stream, now_ms, self.config.graft_ms);
            }
            Input::Refused { peer } => {
                for tree in self.trees.values_mut() {
                    tree.children.remove(&peer);
                }
                self.demoted.insert(peer, now_ms.saturating_add(self.config.demote_ms));
                self.overflow(peer, out);
            }
            Input::Unsent { peer } => self.overflow(peer, out),
            Input::Tick => self.on_tick(now_ms, out),
        }
    }

    /// Events whose timers are due: tell with [`Input::Known`] which of them have arrived another way before the tick.
    #[must_use]
    pub fn due(&self, now_ms: u64) -> Vec<(u16, Dots)> {
        self.wants.due(now_ms)
    }

    /// When a tick has something to do; `None` when nothing waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let tick = self.awaits_tick().then_some(self.next_tick_ms);
        tick.into_iter().chain(self.wants.next_deadline()).min()
    }

    /// What has happened since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Peers to which events of `root` are pushed, if anything is known of it.
    #[must_use]
    pub fn children(&self, root: &NodeId) -> Option<&BTreeSet<NodeId>> {
        self.trees.get(root).map(|tree| &tree.children)
    }

    /// Who has brought the newest event of `root`.
    #[must_use]
    pub fn parent(&self, root: &NodeId) -> Option<NodeId> {
        self.trees.get(root)?.parent
    }

    fn awaits_tick(&self) -> bool {
        !self.lazy.is_empty() || !self.behind.is_empty() || !self.demoted.is_empty()
    }

    fn tree(&mut self, root: NodeId) -> &mut Tree {
        if !self.trees.contains_key(&root) {
            self.make_room();
            let eager = !self.is_full_mesh || root == self.own;
            let first = |peer: &NodeId| eager && *peer != root && !self.demoted.contains_key(peer);
            let children = self.neighbours.iter().copied().filter(first).collect();
            self.trees.insert(root, Tree { children, ..Tree::default() });
        }
        let tree = self.trees.entry(root).or_default();
        tree.used = self.inputs;
        tree
    }

    fn make_room(&mut self) {
        if self.trees.len() < self.config.roots_max {
            return;
        }
        let others = self.trees.iter().filter(|(root, _)| **root != self.own);
        if let Some(oldest) = others.min_by_key(|(_, tree)| tree.used).map(|(root, _)| *root) {
            self.trees.remove(&oldest);
            self.counters.roots_dropped += 1;
        }
    }

    /// Pushes events to the children and announces them to the others.
    fn spread(
        &mut self,
        from: Option<NodeId>,
        (root, round, stream): (NodeId, u16, u16),
        dots: Dots,
        out: &mut Vec<Output>,
    ) {
        let children = &self.tree(root).children;
        let to: Vec<NodeId> = children.iter().copied().filter(|p| Some(*p) != from).collect();
        let told = if root == self.own { &self.neighbours } else { &self.told };
        let is_lazy =
            |peer: &NodeId| Some(*peer) != from && *peer != root && to.binary_search(peer).is_err();
        let lazy: Vec<NodeId> = told.iter().copied().filter(is_lazy).collect();
        for peer in lazy {
            match self.lazy.add(peer, (root, round, stream), &dots) {
                Queued::Waiting => {}
                Queued::Large => {
                    let items = self.lazy.take(peer);
                    self.announce(peer, items, out);
                }
                Queued::Overflow => self.overflow(peer, out),
            }
        }
        if !to.is_empty() {
            self.counters.pushed += to.len() as u64;
            out.push(Output::Push { to, root, round, stream, dots });
        }
    }

    /// Notes what arrived for timers and announcements.
    fn arrived(
        &mut self,
        now_ms: u64,
        (from, root, stream): (NodeId, NodeId, u16),
        fresh: &Dots,
        duplicate: &Dots,
    ) {
        let default_ms = self.config.graft_ms;
        for dots in [fresh, duplicate].into_iter().filter(|dots| !dots.is_empty()) {
            self.lazy.has(from, root, stream, dots);
            let asked = self.wants.arrived(stream, dots, default_ms, now_ms);
            let Some(asked) = asked else { continue };
            let tree = self.tree(root);
            if asked == from {
                tree.was_lost();
            } else {
                tree.was_late(default_ms);
            }
        }
    }

    fn on_fresh(
        &mut self,
        from: NodeId,
        (root, round, stream): (NodeId, u16, u16),
        fresh: Dots,
        out: &mut Vec<Output>,
    ) {
        self.counters.fresh += 1;
        if root != self.own {
            let tree = self.tree(root);
            tree.duplicates.remove(&from);
            tree.children.remove(&from);
            tree.parent = Some(from);
            tree.round = round;
        }
        self.spread(Some(from), (root, round.saturating_add(1), stream), fresh, out);
    }

    /// Nothing new came from `from`: after some of these in a row one of two paths is cut.
    fn on_duplicate(&mut self, from: NodeId, root: NodeId, out: &mut Vec<Output>) {
        self.counters.duplicate += 1;
        let (prune_after, is_star) = (self.config.prune_after, self.is_full_mesh && from == root);
        let tree = self.tree(root);
        if tree.parent == Some(from) {
            // The only path: what it brings was known from an exchange, or was sent twice.
            return;
        }
        let count = tree.duplicates.entry(from).or_default();
        *count = count.saturating_add(1);
        if *count < prune_after {
            return;
        }
        tree.duplicates.remove(&from);
        // In a full mesh the root itself is the best parent there is.
        let detour = if is_star { tree.parent.replace(from) } else { None };
        if is_star {
            tree.round = 0;
        }
        if !is_star || detour.is_some() {
            self.counters.prune += 1;
            out.push(Output::SendPrune { to: detour.unwrap_or(from), root });
        }
    }

    fn on_i_have(
        &mut self,
        now_ms: u64,
        from: NodeId,
        announced: &Announcement,
        missing: &Dots,
        out: &mut Vec<Output>,
    ) {
        self.counters.ihave += 1;
        let Announcement { root, round, stream, dots } = announced;
        let (root, own, threshold) = (*root, self.own, self.config.optimise_threshold);
        self.lazy.has(from, root, *stream, dots);
        let default_ms = self.config.graft_ms;
        let tree = self.tree(root);
        tree.note_candidate(from);
        if tree.parent.is_none() && root != own {
            // A newcomer need not push to who has the events already.
            tree.children.remove(&from);
        }
        if !missing.is_empty() {
            let wait_ms = tree.graft_ms.clamp(default_ms, GRAFT_MS_MAX.max(default_ms));
            let key = (*stream, root);
            if !self.wants.announced(key, from, missing, (now_ms, wait_ms)) {
                self.overflow(from, out);
            }
            return;
        }
        let is_shorter = round.saturating_add(threshold) <= tree.round && root != own;
        if is_shorter && let Some(parent) = tree.parent.filter(|parent| *parent != from) {
            tree.parent = Some(from);
            tree.round = *round;
            tree.children.remove(&from);
            self.counters.optimised += 1;
            self.counters.prune += 1;
            self.graft(from, root, *stream, Dots::default(), out);
            out.push(Output::SendPrune { to: parent, root });
        }
    }

    fn on_graft(
        &mut self,
        from: NodeId,
        root: NodeId,
        stream: u16,
        dots: Dots,
        out: &mut Vec<Output>,
    ) {
        self.counters.grafted += 1;
        let (own, is_neighbour) = (self.own, self.neighbours.contains(&from));
        self.demoted.remove(&from);
        self.lazy.has(from, root, stream, &dots);
        let tree = self.tree(root);
        tree.duplicates.remove(&from);
        if is_neighbour && from != root {
            tree.children.insert(from);
        }
        if tree.parent == Some(from) {
            tree.parent = None;
        }
        let round = if root == own { 0 } else { tree.round.saturating_add(1) };
        if !dots.is_empty() {
            out.push(Output::Answer { to: from, root, round, stream, dots });
        }
        // It has lost its way to some root, and may lack more than it knows.
        let items = self.lazy.take(from);
        self.announce(from, items, out);
    }

    fn on_neighbours(
        &mut self,
        now_ms: u64,
        peers: BTreeSet<NodeId>,
        is_full_mesh: bool,
        out: &mut Vec<Output>,
    ) {
        let gone: Vec<NodeId> = self.neighbours.difference(&peers).copied().collect();
        let known_own = self.trees.contains_key(&self.own);
        if is_full_mesh && known_own {
            let fresh: Vec<NodeId> = peers.difference(&self.neighbours).copied().collect();
            let all = if self.is_full_mesh { fresh } else { peers.iter().copied().collect() };
            let own = self.own;
            self.tree(own).children.extend(all);
        }
        self.neighbours = peers;
        self.neighbours.remove(&self.own);
        self.is_full_mesh = is_full_mesh;
        let own = self.own;
        if let Some(tree) = self.trees.get_mut(&own) {
            tree.children.remove(&own);
        }
        let next = self.neighbours.range(own..).chain(self.neighbours.range(..own));
        self.told = next.copied().take(self.config.announce_max).collect();
        if gone.is_empty() {
            return;
        }
        for peer in gone {
            self.lost(now_ms, peer, out);
        }
        // Others may have lost the same parent: they learn now what they lack.
        self.announce_all(out);
    }

    /// A neighbour is gone: trees in which it was the parent get another one.
    fn lost(&mut self, now_ms: u64, peer: NodeId, out: &mut Vec<Output>) {
        self.lazy.forget(peer);
        self.demoted.remove(&peer);
        self.behind.remove(&peer);
        self.wants.forget(peer, now_ms);
        let mut grafts = Vec::new();
        for (root, tree) in &mut self.trees {
            if !tree.forget(peer) || *root == peer || *root == self.own {
                continue;
            }
            let is_near = |next: &NodeId| self.neighbours.contains(next);
            grafts.extend(tree.successor().filter(is_near).map(|next| (next, *root)));
        }
        for (next, root) in grafts {
            self.counters.repaired += 1;
            self.graft(next, root, 0, Dots::default(), out);
        }
    }

    fn on_tick(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let (trees, default_ms) = (&self.trees, self.config.graft_ms);
        let wait_ms = |root: NodeId| {
            let learnt_ms = trees.get(&root).map_or(0, |tree| tree.graft_ms);
            learnt_ms.clamp(default_ms, GRAFT_MS_MAX.max(default_ms)) / 2
        };
        for ask in self.wants.tick(now_ms, wait_ms) {
            match ask {
                Ask::Graft { to, root, stream, dots } => self.graft(to, root, stream, dots, out),
                Ask::GiveUp { asked } => self.overflow(asked, out),
            }
        }
        if now_ms < self.next_tick_ms {
            return;
        }
        self.next_tick_ms = now_ms.saturating_add(self.config.lazy_tick_ms);
        self.behind.clear();
        self.announce_all(out);
        let over: Vec<NodeId> =
            self.demoted.iter().filter(|(_, until)| **until <= now_ms).map(|(p, _)| *p).collect();
        for peer in over {
            self.demoted.remove(&peer);
            if self.is_full_mesh && self.neighbours.contains(&peer) {
                let own = self.own;
                self.tree(own).children.insert(peer);
            }
        }
    }

    fn graft(&mut self, to: NodeId, root: NodeId, stream: u16, dots: Dots, out: &mut Vec<Output>) {
        self.counters.graft += 1;
        out.push(Output::SendGraft { to, root, stream, dots });
    }

    fn announce_all(&mut self, out: &mut Vec<Output>) {
        for (peer, items) in self.lazy.take_all() {
            self.announce(peer, items, out);
        }
    }

    fn announce(&mut self, to: NodeId, mut items: Vec<Announcement>, out: &mut Vec<Output>) {
        self.counters.announced += items.len() as u64;
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(ANNOUNCEMENTS_MAX));
            out.push(Output::SendIHave { to, items });
            items = rest;
        }
    }

    fn overflow(&mut self, peer: NodeId, out: &mut Vec<Output>) {
        self.counters.overflow += 1;
        if self.behind.insert(peer) {
            out.push(Output::Behind { peer });
        }
    }
}

/// Splits dots into those that are in `known` and the rest.
#[must_use]
pub fn split(dots: &Dots, known: &Dots) -> (Dots, Dots) {
    let rest = difference(dots, known);
    (DotSet::from(dots).intersect(&DotSet::from(known)).to_dots(), rest)
}
