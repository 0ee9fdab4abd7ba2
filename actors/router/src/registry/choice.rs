//! Which callee gets a call.
//!
//! What it is: the policies of shared registrations over this node's callees and other nodes as one list. Where another
//! node is chosen, that node then chooses among its own callees ([`Procedure::choose_local`]).
//!
//! What it guarantees: each policy does what its name says, across nodes: `first` and `last` by time of registration,
//! `roundrobin` one after the other, another node as often as it has callees, `random` uniformly. A callee that is busy or
//! excluded is as if not there. Where nodes disagree about a registration (each took one while they could not see each
//! other), the one with the oldest callee stands, of equals the one of the smallest node id, and only what is
//! compatible with it is chosen.
//!
//! What it refuses: to know calls: who is busy, and who was tried already, is passed in. As of another node's callees only
//! the number and the ages of the oldest and the newest are known, a call that all of its callees refuse has
//! tried them all before one of ours that lies between them in age.

use smallvec::SmallVec;
use weald_storage::ids::NodeId;
use weald_wamp::SessionId;
use weald_wamp::message::InvokePolicy;

use super::effect::Interest;
use super::row::{Callee, Down, Registration, Subscriber};

/// A registration as a call sees it.
#[derive(Debug, Clone, Copy)]
pub struct Procedure<'a, S> {
    node: NodeId,
    row: &'a Registration<S>,
    down: &'a Down,
}

/// Whom a call has tried already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Excluded<'a> {
    /// Callees of this node.
    pub sessions: &'a [SessionId],
    /// Other nodes, with all of their callees.
    pub nodes: &'a [NodeId],
}

/// Where a call goes.
#[derive(Debug)]
pub enum Choice<'a, S> {
    /// To a callee of this node.
    Local(&'a Callee<S>),
    /// To another node, which chooses one of its callees.
    Node(NodeId),
    /// All that are not excluded have as many calls as they want at a time.
    Busy,
    /// Nobody is left.
    Nobody,
}

/// Other nodes a call may go to.
type Nodes<'a> = SmallVec<[(NodeId, &'a Interest); 4]>;

/// What there is to choose from, in order: callees here, then nodes by their ids.
struct Pool<'a, 'b, S, B> {
    local: Option<&'a Registration<S>>,
    nodes: Nodes<'a>,
    excluded: Excluded<'b>,
    is_busy: B,
    /// Whether somebody was passed over for being busy, and for nothing else.
    met_busy: bool,
}

impl<'a, S: Subscriber> Procedure<'a, S> {
    pub(super) fn new(node: NodeId, row: &'a Registration<S>, down: &'a Down) -> Self {
        Self { node, row, down }
    }

    /// The registration.
    pub fn registration(&self) -> &'a Registration<S> {
        self.row
    }

    /// Other nodes with callees, in order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &'a Interest)> {
        self.row.remote(self.down)
    }

    /// The node whose registration stands, and how its callees share the calls. None: nobody is there.
    pub fn standing(&self) -> Option<(NodeId, InvokePolicy)> {
        let local = self
            .row
            .local()
            .first()
            .map(|callee| (callee.registered_ms, self.node, self.row.extra.invoke));
        let remote = self.nodes().map(|(node, row)| (row.oldest_ms, node, row.invoke));
        let (_, node, invoke) = remote.chain(local).min_by_key(|(ms, node, _)| (*ms, *node))?;
        Some((node, invoke))
    }

    /// Chooses where a call of one of this node's clients goes. `random` is drawn anew for each call, over all 64 bits.
    ///
    /// `is_busy` is asked only of callees that limit their calls.
    pub fn choose(
        &self,
        random: u64,
        excluded: Excluded<'_>,
        is_busy: impl FnMut(&Callee<S>) -> bool,
    ) -> Choice<'a, S> {
        let Some((standing, invoke)) = self.standing() else {
            return Choice::Nobody;
        };
        let fits = |node, other| node == standing || joins(invoke, other);
        let nodes: Nodes<'a> = self
            .nodes()
            .filter(|(node, row)| fits(*node, row.invoke) && !excluded.nodes.contains(node))
            .collect();
        let local = fits(self.node, self.row.extra.invoke).then_some(self.row);
        let mut pool = Pool { local, nodes, excluded, is_busy, met_busy: false };
        match invoke {
            InvokePolicy::Single | InvokePolicy::First => pool.first(self.node),
            InvokePolicy::Last => pool.last(self.node),
            InvokePolicy::RoundRobin => match pool.len() {
                0 => pool.nobody(),
                len => pool.from(self.row.extra.cursors.calls.next(len)),
            },
            InvokePolicy::Random => pool.random(random),
        }
    }

    /// Chooses which of this node's callees gets a call that another node sent here.
    pub fn choose_local(
        &self,
        random: u64,
        excluded: &[SessionId],
        is_busy: impl FnMut(&Callee<S>) -> bool,
    ) -> Choice<'a, S> {
        let excluded = Excluded { sessions: excluded, nodes: &[] };
        let (local, nodes) = (Some(self.row), Nodes::new());
        let mut pool = Pool { local, nodes, excluded, is_busy, met_busy: false };
        match self.row.extra.invoke {
            InvokePolicy::Single | InvokePolicy::First => pool.first(self.node),
            InvokePolicy::Last => pool.last(self.node),
            InvokePolicy::RoundRobin => match pool.len() {
                0 => pool.nobody(),
                len => pool.from(self.row.extra.cursors.relayed.next(len)),
            },
            InvokePolicy::Random => pool.random(random),
        }
    }
}

/// Whether callees of another node share calls with those of the registration that stands.
pub(super) fn joins(standing: InvokePolicy, other: InvokePolicy) -> bool {
    standing == other && standing != InvokePolicy::Single
}

impl<'a, S: Subscriber, B: FnMut(&Callee<S>) -> bool> Pool<'a, '_, S, B> {
    fn local_len(&self) -> u64 {
        self.local.map_or(0, |row| row.local().len() as u64)
    }

    /// How many callees there are, excluded and busy ones too.
    fn len(&self) -> u64 {
        self.nodes.iter().fold(self.local_len(), |len, (_, row)| len.saturating_add(row.count))
    }

    fn may(&mut self, callee: &Callee<S>) -> bool {
        if self.excluded.sessions.contains(&callee.session.id()) {
            return false;
        }
        let busy = callee.options.concurrency.is_some() && (self.is_busy)(callee);
        self.met_busy |= busy;
        !busy
    }

    fn nobody(&self) -> Choice<'a, S> {
        if self.met_busy { Choice::Busy } else { Choice::Nobody }
    }

    fn first(&mut self, here: NodeId) -> Choice<'a, S> {
        let local = self.local.and_then(|row| row.local().iter().find(|callee| self.may(callee)));
        let node = self.nodes.iter().map(|(node, row)| (row.oldest_ms, *node)).min();
        match (local, node) {
            (Some(callee), Some(there)) if there < (callee.registered_ms, here) => {
                Choice::Node(there.1)
            }
            (Some(callee), _) => Choice::Local(callee),
            (None, Some((_, node))) => Choice::Node(node),
            (None, None) => self.nobody(),
        }
    }

    fn last(&mut self, here: NodeId) -> Choice<'a, S> {
        let newest = |row: &'a Registration<S>| row.local().iter().rev();
        let local = self.local.and_then(|row| newest(row).find(|callee| self.may(callee)));
        let node = self.nodes.iter().map(|(node, row)| (row.newest_ms, *node)).max();
        match (local, node) {
            (Some(callee), Some(there)) if there > (callee.registered_ms, here) => {
                Choice::Node(there.1)
            }
            (Some(callee), _) => Choice::Local(callee),
            (None, Some((_, node))) => Choice::Node(node),
            (None, None) => self.nobody(),
        }
    }

    /// Whoever is at that place of the list, or the next one after it, around the end.
    fn from(&mut self, place: u64) -> Choice<'a, S> {
        let local_len = self.local_len();
        if place < local_len {
            return match self.local_between(place, local_len) {
                Some(callee) => Choice::Local(callee),
                None => match self.nodes.first() {
                    Some((node, _)) => Choice::Node(*node),
                    None => self.local_or_nobody(place),
                },
            };
        }
        let mut before = local_len;
        for (node, row) in &self.nodes {
            before = before.saturating_add(row.count);
            if place < before {
                return Choice::Node(*node);
            }
        }
        self.local_or_nobody(local_len)
    }

    fn local_or_nobody(&mut self, end: u64) -> Choice<'a, S> {
        self.local_between(0, end).map_or_else(|| self.nobody(), Choice::Local)
    }

    /// The first of the callees here who may, from a place on and before another.
    fn local_between(&mut self, start: u64, end: u64) -> Option<&'a Callee<S>> {
        let (skip, len) = (usize::try_from(start).ok()?, usize::try_from(end - start).ok()?);
        self.local?.local().iter_from(skip).take(len).find(|callee| self.may(callee))
    }

    fn random(&mut self, random: u64) -> Choice<'a, S> {
        let len = self.len();
        if len == 0 {
            return self.nobody();
        }
        let place = scale(random, len);
        let Some(row) = self.local.filter(|row| place < row.local().len() as u64) else {
            return self.from(place);
        };
        let at = usize::try_from(place).ok().and_then(|place| row.local().iter_from(place).next());
        if let Some(callee) = at.filter(|callee| self.may(callee)) {
            return Choice::Local(callee);
        }
        // Drawn again, among those who may only: then each of them has been given the same chance.
        let free: SmallVec<[&Callee<S>; 16]> =
            row.local().iter().filter(|callee| self.may(callee)).collect();
        let nodes = self.nodes.iter().fold(0, |len: u64, (_, row)| len.saturating_add(row.count));
        match nodes.saturating_add(free.len() as u64) {
            0 => self.nobody(),
            len => {
                let place = scale(mixed(random), len);
                match usize::try_from(place).ok().and_then(|place| free.get(place)) {
                    Some(callee) => Choice::Local(callee),
                    None => self.from(place - free.len() as u64 + row.local().len() as u64),
                }
            }
        }
    }
}

/// A number below `len` from one over all 64 bits.
fn scale(random: u64, len: u64) -> u64 {
    let product = u128::from(random) * u128::from(len);
    u64::try_from(product >> 64).expect("the upper half of a product of two u64")
}

/// Another number from a random one (the finaliser of `SplitMix64`).
fn mixed(random: u64) -> u64 {
    let z = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
