//! One topic or procedure under one match policy: who is on it here, and which other nodes have somebody.
//!
//! What it guarantees: rows are values; a row in a snapshot never changes (but for the cursors of its round-robin, which all
//! snapshots share).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weald_storage::ids::NodeId;
use weald_wamp::message::InvokePolicy;
use weald_wamp::{RegistrationId, SessionId, SubscriptionId};

use super::effect::{Details, Interest};
use super::id::{Id, Kind};
use super::members::Members;
use super::pattern::{MatchPolicy, Uri};

/// The handle of a session of this node, as routing needs it: cheap to clone.
pub trait Subscriber: Clone {
    /// Whose it is. Two handles of one id are the same session.
    fn id(&self) -> SessionId;
}

/// Nodes whose rows are known and not used for now.
pub(super) type Down = BTreeSet<NodeId>;

/// A session that serves a procedure, and how it wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callee<S> {
    /// The session.
    pub session: S,
    /// Since when, in Unix milliseconds; in the order of registration, whatever the clock did.
    pub registered_ms: u64,
    /// What it asked for.
    pub options: CalleeOptions,
}

/// What a callee asked for with REGISTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CalleeOptions {
    /// Tell it who calls.
    pub disclose_caller: bool,
    /// Pass timeouts on instead of keeping them.
    pub forward_timeout: bool,
    /// Most calls at a time.
    pub concurrency: Option<u64>,
}

/// What a registration has beyond a subscription.
#[derive(Debug, Clone, Default)]
pub struct Dispatch {
    /// How this node's callees share; of no meaning while there are none.
    pub(super) invoke: InvokePolicy,
    pub(super) cursors: Arc<Cursors>,
}

/// Where round-robins are. Shared by all snapshots, so that the next call goes on where the one before was.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// Calls of this node's clients, over all callees of the cluster.
    pub(super) calls: Cursor,
    /// Calls that another node sent here, over the callees here. Of its own, lest the two take turns in step.
    pub(super) relayed: Cursor,
}

/// A counter that wraps.
#[derive(Debug, Default)]
pub(super) struct Cursor(AtomicU64);

impl Cursor {
    /// The next place among `len`, which is not 0.
    pub(super) fn next(&self, len: u64) -> u64 {
        // Only that no two calls get the same number matters; nothing else is read after it.
        self.0.fetch_add(1, Ordering::Relaxed) % len
    }
}

/// One topic or procedure under one match policy. See [`Subscription`] and [`Registration`].
#[derive(Debug, Clone)]
pub struct Row<I, M, X = ()> {
    id: I,
    uri: Uri,
    policy: MatchPolicy,
    created_ms: u64,
    /// Before when callees elsewhere were replaced by those here; 0: never.
    pub(super) cleared_ms: u64,
    pub(super) local: Members<M>,
    /// By node, in order.
    remote: Vec<(NodeId, Interest)>,
    pub(super) extra: X,
}

/// Who wants the events of a topic or pattern.
pub type Subscription<S> = Row<SubscriptionId, S>;

/// Who serves a procedure or pattern.
pub type Registration<S> = Row<RegistrationId, Callee<S>, Dispatch>;

impl<I: Id, M, X> Row<I, M, X> {
    /// Its id, the same on every node (collisions excepted).
    pub fn id(&self) -> I {
        self.id
    }

    /// The topic, the procedure, or a pattern of them.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// How the URI is compared.
    pub fn policy(&self) -> MatchPolicy {
        self.policy
    }

    /// When the first one came, here or elsewhere, in Unix milliseconds.
    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// Who is on it here, in the order they came.
    pub fn local(&self) -> &Members<M> {
        &self.local
    }

    /// What nodes have, in order of their ids. Those that are down are left out, and what was replaced, which its node has yet
    /// to hear of.
    pub(super) fn remote<'a>(
        &'a self,
        down: &'a Down,
    ) -> impl Iterator<Item = (NodeId, &'a Interest)> {
        let cleared = self.cleared(down).map_or(0, |(_, ms)| ms).max(self.cleared_ms);
        self.usable(down).filter(move |(_, row)| row.newest_ms >= cleared)
    }

    /// The node whose callees were the last to replace all others, and when.
    pub(super) fn cleared(&self, down: &Down) -> Option<(NodeId, u64)> {
        let cleared = self.usable(down).map(|(node, row)| (row.cleared_ms, node));
        cleared.filter(|(ms, _)| *ms > 0).max().map(|(ms, node)| (node, ms))
    }

    /// The newest time that is known of any node, those that are down, too.
    pub(super) fn newest_remote_ms(&self) -> u64 {
        self.remote.iter().map(|(_, row)| row.newest_ms.max(row.cleared_ms)).max().unwrap_or(0)
    }

    fn usable<'a>(&'a self, down: &'a Down) -> impl Iterator<Item = (NodeId, &'a Interest)> {
        let usable = |node: &NodeId| down.is_empty() || !down.contains(node);
        self.remote.iter().filter(move |(node, _)| usable(node)).map(|(node, row)| (*node, row))
    }

    /// What nodes have, the row of a node that is down, too.
    pub(super) fn has_remote(&self) -> bool {
        !self.remote.is_empty()
    }

    /// Whether anybody is on it who can be reached.
    pub(super) fn is_there(&self, down: &Down) -> bool {
        !self.local.is_empty() || self.remote(down).next().is_some()
    }

    /// Whether it is of use no more, not even once a node comes back.
    pub(super) fn is_vacant(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty()
    }
}

impl<I: Id, M, X: Default> Row<I, M, X> {
    pub(super) fn new(id: I, policy: MatchPolicy, uri: Uri, created_ms: u64) -> Self {
        let (local, remote) = (Members::default(), Vec::new());
        Self { id, uri, policy, created_ms, cleared_ms: 0, local, remote, extra: X::default() }
    }

    /// Puts what a node has in place of what it had.
    pub(super) fn set_remote(&mut self, node: NodeId, row: Option<Interest>) {
        let at = self.remote.binary_search_by_key(&node, |(node, _)| *node);
        match (at, row) {
            (Ok(at), Some(row)) => self.remote[at].1 = row,
            (Err(at), Some(row)) => self.remote.insert(at, (node, row)),
            (Ok(at), None) => drop(self.remote.remove(at)),
            (Err(_), None) => {}
        }
        if let Some(row) = row {
            self.created_ms = self.created_ms.min(row.oldest_ms);
        }
    }
}

/// What sets subscriptions and registrations apart for the meta API and for other nodes.
pub(super) trait Describe {
    /// What the meta API tells.
    fn details(&self, down: &Down) -> Details;

    /// What other nodes are told; none where nobody is here.
    fn interest(&self) -> Option<Interest>;
}

impl<S: Subscriber> Describe for Subscription<S> {
    fn details(&self, _: &Down) -> Details {
        let (uri, policy) = (Uri::clone(&self.uri), self.policy);
        Details { id: self.id.into(), created_ms: self.created_ms, uri, policy, invoke: None }
    }

    fn interest(&self) -> Option<Interest> {
        let here = Interest {
            invoke: InvokePolicy::Single,
            count: 1,
            oldest_ms: self.created_ms,
            newest_ms: self.created_ms,
            cleared_ms: 0,
        };
        (!self.local.is_empty()).then_some(here)
    }
}

impl<S: Subscriber> Describe for Registration<S> {
    fn details(&self, down: &Down) -> Details {
        let (uri, policy) = (Uri::clone(&self.uri), self.policy);
        let elsewhere = || self.remote(down).min_by_key(|(node, row)| (row.oldest_ms, *node));
        let invoke = if self.local.is_empty() {
            elsewhere().map(|(_, row)| row.invoke)
        } else {
            Some(self.extra.invoke)
        };
        Details { id: self.id.into(), created_ms: self.created_ms, uri, policy, invoke }
    }

    fn interest(&self) -> Option<Interest> {
        let (oldest, newest) = (self.local.first()?, self.local.last()?);
        Some(Interest {
            invoke: self.extra.invoke,
            count: self.local.len() as u64,
            oldest_ms: oldest.registered_ms,
            newest_ms: newest.registered_ms,
            cleared_ms: self.cleared_ms,
        })
    }
}

impl<S: Subscriber> Registration<S> {
    /// How this node's callees share the calls; none where there are none.
    pub fn invoke(&self) -> Option<InvokePolicy> {
        (!self.local.is_empty()).then_some(self.extra.invoke)
    }
}

/// Whether the meta API announces changes of it. Subscriptions to the router's own topics are not announced: a client that
/// listens to them would hear of itself.
pub(super) fn is_announced(kind: Kind, uri: &str) -> bool {
    let own = uri.strip_prefix("wamp").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    kind == Kind::Registration || !own
}
