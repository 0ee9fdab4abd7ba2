//! The tables as they were at one moment: what routing reads.
//!
//! What it is: persistent maps, so that a clone costs a few pointers and any number of them may be alive.
//!
//! What it guarantees: it never changes. What goes to topics and procedures allocates nothing but where a URI matches more
//! patterns, or reaches more nodes, than nearly any does.

use std::sync::Arc;

use smallvec::SmallVec;
use weald_storage::ids::NodeId;
use weald_wamp::{RegistrationId, SubscriptionId};

use super::choice::Procedure;
use super::effect::Details;
use super::id::{self, Id};
use super::pattern::{Index, MatchPolicy, PatternTooLong, Uri};
use super::row::{Describe, Down, Registration, Row, Subscriber, Subscription};

/// Rows of one kind: by pattern, and by id.
#[derive(Debug, Clone)]
pub(super) struct Rows<I: Id, M, X = ()> {
    pub(super) index: Index<Arc<Row<I, M, X>>>,
    keys: imbl::HashMap<I, (MatchPolicy, Uri)>,
}

/// The tables of a realm at one moment. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Snapshot<S> {
    pub(super) node: NodeId,
    pub(super) subscriptions: Rows<SubscriptionId, S>,
    pub(super) registrations: Rows<RegistrationId, Callees<S>, super::row::Dispatch>,
    pub(super) down: Arc<Down>,
}

type Callees<S> = super::row::Callee<S>;

/// Where an event goes.
#[derive(Debug, Clone)]
pub struct Matches<'a, S> {
    /// Subscriptions with somebody here. Each subscriber of each gets an event.
    pub rows: SmallVec<[&'a Subscription<S>; 4]>,
    /// Other nodes with somebody, each once, in order of their ids.
    pub nodes: SmallVec<[NodeId; 8]>,
}

/// Ids by match policy, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids<I> {
    /// Of exact URIs.
    pub exact: Vec<I>,
    /// Of prefixes.
    pub prefix: Vec<I>,
    /// Of wildcards.
    pub wildcard: Vec<I>,
}

/// Who is on a subscription or registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberIds {
    /// Sessions of this node, in the order they came.
    pub local: Vec<weald_wamp::SessionId>,
    /// Other nodes that have somebody, in order of their ids, with their count (of subscriptions: unknown, 1). Whose sessions
    /// they are only they can tell.
    pub nodes: Vec<(NodeId, u64)>,
}

impl<S: Subscriber> Snapshot<S> {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            subscriptions: Rows::default(),
            registrations: Rows::default(),
            down: Arc::default(),
        }
    }

    /// Where an event on `topic` goes.
    pub fn subscriptions(&self, topic: &str) -> Matches<'_, S> {
        let mut matches = Matches { rows: SmallVec::new(), nodes: SmallVec::new() };
        self.subscriptions.index.all(topic, |_, row| {
            if !row.local().is_empty() {
                matches.rows.push(row);
            }
            for (node, _) in row.remote(&self.down) {
                if let Err(at) = matches.nodes.binary_search(&node) {
                    matches.nodes.insert(at, node);
                }
            }
        });
        matches
    }

    /// Which registration a call of `uri` goes to, over this node's and the others'.
    pub fn procedure(&self, uri: &str) -> Option<Procedure<'_, S>> {
        let (_, row) = self.registrations.index.best(uri, |row| row.is_there(&self.down))?;
        Some(Procedure::new(self.node, row, &self.down))
    }

    /// The subscription of exactly this topic or pattern, if anybody is on it.
    pub fn subscription(&self, policy: MatchPolicy, topic: &str) -> Option<&Subscription<S>> {
        self.subscriptions.get(policy, topic, &self.down)
    }

    /// The registration of exactly this procedure or pattern, if anybody is on it.
    pub fn registration(&self, policy: MatchPolicy, uri: &str) -> Option<Procedure<'_, S>> {
        let row = self.registrations.get(policy, uri, &self.down)?;
        Some(Procedure::new(self.node, row, &self.down))
    }

    /// The subscription of an id.
    pub fn subscription_by_id(&self, id: SubscriptionId) -> Option<&Subscription<S>> {
        self.subscriptions.by_id(id, &self.down)
    }

    /// The registration of an id.
    pub fn registration_by_id(&self, id: RegistrationId) -> Option<Procedure<'_, S>> {
        let row = self.registrations.by_id(id, &self.down)?;
        Some(Procedure::new(self.node, row, &self.down))
    }

    /// All subscriptions with anybody on them, here or elsewhere.
    pub fn subscription_ids(&self) -> Ids<SubscriptionId> {
        self.subscriptions.ids(&self.down)
    }

    /// All registrations with anybody on them, here or elsewhere.
    pub fn registration_ids(&self) -> Ids<RegistrationId> {
        self.registrations.ids(&self.down)
    }

    /// The ids of all subscriptions that an event on `topic` meets, here or elsewhere.
    pub fn matching_subscriptions(&self, topic: &str) -> Vec<SubscriptionId> {
        let mut ids = Vec::new();
        self.subscriptions.index.all(topic, |_, row| {
            if row.is_there(&self.down) {
                ids.push(row.id());
            }
        });
        ids
    }

    /// What the meta API tells of a subscription.
    pub fn subscription_details(&self, id: SubscriptionId) -> Option<Details> {
        Some(self.subscription_by_id(id)?.details(&self.down))
    }

    /// What the meta API tells of a registration.
    pub fn registration_details(&self, id: RegistrationId) -> Option<Details> {
        Some(self.registrations.by_id(id, &self.down)?.details(&self.down))
    }

    /// Who is on a subscription.
    pub fn subscribers(&self, id: SubscriptionId) -> Option<MemberIds> {
        let row = self.subscription_by_id(id)?;
        let local = row.local().iter().map(Subscriber::id).collect();
        let nodes = row.remote(&self.down).map(|(node, there)| (node, there.count)).collect();
        Some(MemberIds { local, nodes })
    }

    /// Who is on a registration.
    pub fn callees(&self, id: RegistrationId) -> Option<MemberIds> {
        let row = self.registrations.by_id(id, &self.down)?;
        let local = row.local().iter().map(|callee| callee.session.id()).collect();
        let nodes = row.remote(&self.down).map(|(node, there)| (node, there.count)).collect();
        Some(MemberIds { local, nodes })
    }

    /// How many ids lead to rows.
    #[cfg(test)]
    pub(super) fn keys_len(&self) -> usize {
        self.subscriptions.keys.len() + self.registrations.keys.len()
    }

    /// How many subscriptions and registrations there are, those of nodes that are down included.
    pub fn len(&self) -> (usize, usize) {
        (self.subscriptions.index.len(), self.registrations.index.len())
    }
}

impl<I: Id, M, X> Default for Rows<I, M, X> {
    fn default() -> Self {
        Self { index: Index::default(), keys: imbl::HashMap::new() }
    }
}

impl<I: Id, M, X> Rows<I, M, X> {
    fn get(&self, policy: MatchPolicy, uri: &str, down: &Down) -> Option<&Row<I, M, X>> {
        self.index.get(policy, uri).map(|row| &**row).filter(|row| row.is_there(down))
    }

    fn by_id(&self, id: I, down: &Down) -> Option<&Row<I, M, X>> {
        let (policy, uri) = self.keys.get(&id)?;
        self.get(*policy, uri, down)
    }

    /// What a row of that id is on.
    pub(super) fn key(&self, id: I) -> Option<&(MatchPolicy, Uri)> {
        self.keys.get(&id)
    }

    fn ids(&self, down: &Down) -> Ids<I> {
        let of = |policy| {
            let mut ids = Vec::new();
            self.index.each(policy, |row| {
                if row.is_there(down) {
                    ids.push(row.id());
                }
            });
            ids.sort_unstable();
            ids
        };
        Ids {
            exact: of(MatchPolicy::Exact),
            prefix: of(MatchPolicy::Prefix),
            wildcard: of(MatchPolicy::Wildcard),
        }
    }
}

impl<I: Id, M: Clone, X: Clone + Default> Rows<I, M, X> {
    /// The row of a URI, to be changed.
    pub(super) fn edit(&mut self, policy: MatchPolicy, uri: &str) -> Option<&mut Row<I, M, X>> {
        self.index.get_mut(policy, uri).map(Arc::make_mut)
    }

    /// The row of a URI, made if there is none.
    ///
    /// # Errors
    /// [`PatternTooLong`]: nothing has changed.
    pub(super) fn edit_or_make(
        &mut self,
        realm: &str,
        policy: MatchPolicy,
        uri: &str,
        now_ms: u64,
    ) -> Result<&mut Row<I, M, X>, PatternTooLong> {
        if self.index.get(policy, uri).is_none() {
            let id = id::draw(realm, policy, uri, |id| self.keys.contains_key(&id));
            let uri = Uri::from(uri);
            let row = Row::new(id, policy, Uri::clone(&uri), now_ms);
            self.index.insert(policy, Uri::clone(&uri), Arc::new(row))?;
            self.keys.insert(id, (policy, uri));
        }
        Ok(self.edit(policy, uri).expect("it is there or was just put there"))
    }

    /// Takes a row out on which nobody is.
    pub(super) fn sweep(&mut self, policy: MatchPolicy, uri: &str) {
        if let Some(row) = self.index.get(policy, uri).filter(|row| row.is_vacant()) {
            self.keys.remove(&row.id());
            self.index.remove(policy, uri);
        }
    }
}

// The compiler would ask this of what routes over threads anyway; here it says where it broke.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Snapshot<Arc<()>>>();
    is_shared::<Registration<Arc<()>>>();
};
