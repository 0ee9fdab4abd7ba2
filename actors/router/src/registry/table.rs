//! The writer of a realm's tables.
//!
//! What it is: plain methods that change the current state and tell what that means to others ([`Effects`]). One task owns
//! it; [`Tables::snapshot`] is what everybody else reads.
//!
//! What it guarantees: a session is on a topic or procedure at most once per match policy, and nothing is left of it after
//! [`Tables::session_gone`], which costs what the session owned. A refused request changes nothing. Meta events of a row come as
//! created, joined, left, deleted, and created and deleted take the whole cluster into account, as far as this node sees it.
//!
//! What it refuses: authorization, limits per session ([`Tables::owned`] is for them), reserved names, malformed URIs: all of
//! that is decided before. It sends nothing.

use std::collections::{BTreeMap, BTreeSet};

use weald_storage::ids::NodeId;
use weald_wamp::message::InvokePolicy;
use weald_wamp::{RegistrationId, SessionId, SubscriptionId};

use super::choice::joins;
use super::effect::{Conflict, Effects, InterestChange, InterestKey, MetaChange, MetaEvent};
use super::id::{Id, Kind};
use super::members::Turn;
use super::pattern::{MatchPolicy, PatternTooLong, Uri, check};
use super::row::{Callee, CalleeOptions, Describe, Registration, Row, Subscriber, is_announced};
use super::snapshot::Snapshot;

/// The tables of one realm on one node. See the module's documentation.
#[derive(Debug)]
pub struct Tables<S> {
    pub(super) realm: Uri,
    pub(super) state: Snapshot<S>,
    sessions: BTreeMap<SessionId, Owned>,
    /// What other nodes have rows on.
    pub(super) nodes: BTreeMap<NodeId, BTreeSet<InterestKey>>,
    /// Registrations with callees both here and on other nodes.
    pub(super) shared: BTreeSet<RegistrationId>,
    turns: u64,
}

/// What a session is on, and when it came.
#[derive(Debug, Default)]
struct Owned {
    subscriptions: BTreeMap<SubscriptionId, Turn>,
    registrations: BTreeMap<RegistrationId, Turn>,
}

/// A session is on a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// Which one.
    pub id: SubscriptionId,
    /// It is the first one of this node on it.
    pub created: bool,
    /// It was not on it before.
    pub joined: bool,
}

/// What a session asks for with REGISTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register<'a> {
    /// The procedure or pattern.
    pub procedure: &'a str,
    /// How it is compared.
    pub policy: MatchPolicy,
    /// How callees share the calls.
    pub invoke: InvokePolicy,
    /// What holds for this callee only.
    pub options: CalleeOptions,
    /// In place of everybody else, wherever they are (`force_reregister`).
    pub force: bool,
    /// Now, in Unix milliseconds.
    pub now_ms: u64,
}

/// A session is on a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Which one.
    pub id: RegistrationId,
    /// It is the first one of this node on it.
    pub created: bool,
    /// Callees of this node that had to make way, in the order they came: to be told.
    pub revoked: Vec<SessionId>,
    /// Other nodes whose callees have to make way: to be told, reliably. Until they say something new about the procedure their
    /// rows are not used.
    pub revoked_nodes: Vec<NodeId>,
}

/// Why a session may not register. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Somebody is on it, on a node that is up, and one of the two wants to be the only one; or the session is on it.
    #[error("procedure already exists")]
    AlreadyExists,
    /// Others share it in another way.
    #[error("procedure exists with invocation policy {0:?}")]
    PolicyConflict(InvokePolicy),
    /// The pattern is too long.
    #[error(transparent)]
    PatternTooLong(#[from] PatternTooLong),
}

/// The session is on no such subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such subscription")]
pub struct NoSuchSubscription;

/// The session is on no such registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such registration")]
pub struct NoSuchRegistration;

impl<S: Subscriber> Tables<S> {
    /// Empty tables of a realm, on a node.
    pub fn new(realm: &str, node: NodeId) -> Self {
        Self {
            realm: realm.into(),
            state: Snapshot::new(node),
            sessions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            shared: BTreeSet::new(),
            turns: 0,
        }
    }

    /// The tables as they are now, and stay in the snapshot.
    pub fn snapshot(&self) -> Snapshot<S> {
        self.state.clone()
    }

    /// How many subscriptions and registrations a session is on.
    pub fn owned(&self, session: SessionId) -> (usize, usize) {
        let count = |owned: &Owned| (owned.subscriptions.len(), owned.registrations.len());
        self.sessions.get(&session).map_or((0, 0), count)
    }

    /// Sessions that are on anything.
    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// Puts a session on a topic or pattern; once is enough.
    ///
    /// # Errors
    /// [`PatternTooLong`]: nothing has changed.
    pub fn subscribe(
        &mut self,
        session: &S,
        topic: &str,
        policy: MatchPolicy,
        now_ms: u64,
        effects: &mut Effects,
    ) -> Result<Subscribed, PatternTooLong> {
        check(policy, topic)?;
        let turn = self.turn();
        let rows = &mut self.state.subscriptions;
        let row = rows.edit_or_make(&self.realm, policy, topic, now_ms)?;
        let id = row.id();
        let owned = self.sessions.entry(session.id()).or_default();
        if owned.subscriptions.contains_key(&id) {
            return Ok(Subscribed { id, created: false, joined: false });
        }
        owned.subscriptions.insert(id, turn);
        let was_there = row.is_there(&self.state.down);
        row.local.push(turn, session.clone());
        let created = row.local.len() == 1;
        if created {
            effects.interest.push(change(Kind::Subscription, row));
        }
        joined(row, &self.state.down, session.id(), was_there, effects);
        Ok(Subscribed { id, created, joined: true })
    }

    /// Takes a session off a subscription.
    ///
    /// # Errors
    /// [`NoSuchSubscription`], also where others are on it: nothing has changed.
    pub fn unsubscribe(
        &mut self,
        session: SessionId,
        id: SubscriptionId,
        effects: &mut Effects,
    ) -> Result<(), NoSuchSubscription> {
        let owned = self.sessions.get_mut(&session).ok_or(NoSuchSubscription)?;
        let turn = owned.subscriptions.remove(&id).ok_or(NoSuchSubscription)?;
        if owned.is_empty() {
            self.sessions.remove(&session);
        }
        self.leave_subscription(session, id, turn, effects);
        Ok(())
    }

    /// Puts a session on a procedure or pattern.
    ///
    /// # Errors
    /// [`RegisterError`]: nothing has changed.
    pub fn register(
        &mut self,
        session: &S,
        request: &Register<'_>,
        effects: &mut Effects,
    ) -> Result<Registered, RegisterError> {
        let Register { procedure, policy, invoke, options, force, now_ms } = *request;
        check(policy, procedure)?;
        if !force && let Some(row) = self.state.registrations.index.get(policy, procedure) {
            self.may_join(session.id(), invoke, row)?;
        }
        let turn = self.turn();
        let rows = &mut self.state.registrations;
        let row = rows.edit_or_make(&self.realm, policy, procedure, now_ms)?;
        let id = row.id();
        let was_there = row.is_there(&self.state.down);
        let newest_here_ms = row.local.last().map_or(0, |last| last.registered_ms);
        let newest_ms = row.newest_remote_ms().max(newest_here_ms);
        let (revoked, revoked_nodes) =
            if force { self.make_way(id, effects) } else { (vec![], vec![]) };
        let row = self.state.registrations.edit(policy, procedure).expect("it was put there above");
        row.extra.invoke = invoke;
        let created = row.local.is_empty();
        // The order of registration and that of times are the same, even where the clock was set back.
        let registered_ms = now_ms.max(row.local.last().map_or(0, |last| last.registered_ms));
        // Callees that are known have come before one that replaces them, and after one that was replaced, whatever the
        // clocks of their nodes say.
        let registered_ms = if force {
            registered_ms.max(newest_ms + 1)
        } else {
            registered_ms.max(row.cleared(&self.state.down).map_or(0, |(_, ms)| ms))
        };
        if force || created {
            row.cleared_ms = if force { registered_ms } else { 0 };
        }
        row.local.push(turn, Callee { session: session.clone(), registered_ms, options });
        effects.interest.push(change(Kind::Registration, row));
        joined(row, &self.state.down, session.id(), was_there, effects);
        self.sessions.entry(session.id()).or_default().registrations.insert(id, turn);
        self.note_shared(policy, procedure);
        let revoked = revoked.into_iter().filter(|gone| *gone != session.id()).collect();
        Ok(Registered { id, created, revoked, revoked_nodes })
    }

    /// Takes a session off a registration.
    ///
    /// # Errors
    /// [`NoSuchRegistration`], also where others are on it: nothing has changed.
    pub fn unregister(
        &mut self,
        session: SessionId,
        id: RegistrationId,
        effects: &mut Effects,
    ) -> Result<(), NoSuchRegistration> {
        let owned = self.sessions.get_mut(&session).ok_or(NoSuchRegistration)?;
        let turn = owned.registrations.remove(&id).ok_or(NoSuchRegistration)?;
        if owned.is_empty() {
            self.sessions.remove(&session);
        }
        self.leave_registration(session, id, turn, effects);
        Ok(())
    }

    /// Takes a session off everything.
    pub fn session_gone(&mut self, session: SessionId, effects: &mut Effects) {
        let Some(owned) = self.sessions.remove(&session) else {
            return;
        };
        for (id, turn) in owned.subscriptions {
            self.leave_subscription(session, id, turn, effects);
        }
        for (id, turn) in owned.registrations {
            self.leave_registration(session, id, turn, effects);
        }
    }

    /// Takes callees of this node off a registration because another node's client replaced them (`force_reregister`), or
    /// because they yield to those of another: all that came before `before_ms`. Returns them, to be told.
    pub fn revoke(
        &mut self,
        policy: MatchPolicy,
        procedure: &str,
        before_ms: u64,
        effects: &mut Effects,
    ) -> Option<(RegistrationId, Vec<SessionId>)> {
        let row = self.state.registrations.index.get(policy, procedure)?;
        let id = row.id();
        let old = row.local().iter().filter(|callee| callee.registered_ms < before_ms);
        let callees: Vec<_> = old.map(|callee| callee.session.id()).collect();
        for session in &callees {
            let gone = self.unregister(*session, id, effects);
            debug_assert_eq!(gone, Ok(()), "callees own their registrations");
        }
        (!callees.is_empty()).then_some((id, callees))
    }

    /// Registrations of this node that yield to another node's: both were taken while the nodes could not see each other, or one
    /// was replaced while its node could not be told. Otherwise the one with the oldest callee stands; of equals that of the
    /// smallest node id. All nodes come to the same result, and the callees named are to be unregistered and told.
    //
    // DEVIATES (house style, time): clocks of two nodes are compared. Nothing but the choice of the loser hangs on it.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let lost = |id: &RegistrationId| {
            let procedure = self.state.registration_by_id(*id)?;
            if let Some(replaced) = self.replaced(procedure.registration()) {
                return Some(replaced);
            }
            let (winner, invoke) = procedure.standing()?;
            let row = procedure.registration();
            if winner == self.state.node || joins(invoke, row.extra.invoke) {
                return None;
            }
            Some(Conflict {
                id: *id,
                procedure: Uri::clone(row.uri()),
                policy: row.policy(),
                winner,
                replaced_ms: None,
                callees: row.local().iter().map(|callee| callee.session.id()).collect(),
            })
        };
        self.shared.iter().filter_map(lost).collect()
    }

    /// Callees of this node that another node's client has replaced.
    fn replaced(&self, row: &Registration<S>) -> Option<Conflict> {
        let (winner, cleared_ms) = row.cleared(&self.state.down)?;
        let old = row.local().iter().filter(|callee| callee.registered_ms < cleared_ms);
        let callees: Vec<_> = old.map(|callee| callee.session.id()).collect();
        (!callees.is_empty()).then(|| Conflict {
            id: row.id(),
            procedure: Uri::clone(row.uri()),
            policy: row.policy(),
            winner,
            replaced_ms: Some(cleared_ms),
            callees,
        })
    }

    /// Keeps the list of registrations that more than one node has.
    pub(super) fn note_shared(&mut self, policy: MatchPolicy, procedure: &str) {
        if let Some(row) = self.state.registrations.index.get(policy, procedure) {
            if !row.local().is_empty() && row.has_remote() {
                self.shared.insert(row.id());
            } else {
                self.shared.remove(&row.id());
            }
        }
    }

    fn turn(&mut self) -> Turn {
        self.turns += 1;
        Turn(self.turns)
    }

    fn may_join(
        &self,
        session: SessionId,
        invoke: InvokePolicy,
        row: &Registration<S>,
    ) -> Result<(), RegisterError> {
        let owned = self.sessions.get(&session);
        if owned.is_some_and(|owned| owned.registrations.contains_key(&row.id())) {
            return Err(RegisterError::AlreadyExists);
        }
        let elsewhere = row.remote(&self.state.down).map(|(_, there)| there.invoke);
        for taken in row.invoke().into_iter().chain(elsewhere) {
            if taken == InvokePolicy::Single || invoke == InvokePolicy::Single {
                return Err(RegisterError::AlreadyExists);
            }
            if taken != invoke {
                return Err(RegisterError::PolicyConflict(taken));
            }
        }
        Ok(())
    }

    /// Takes everybody off a registration but keeps it: callees here, and what is known of other nodes.
    fn make_way(
        &mut self,
        id: RegistrationId,
        effects: &mut Effects,
    ) -> (Vec<SessionId>, Vec<NodeId>) {
        let Some((policy, uri)) = self.state.registrations.key(id).cloned() else {
            return (Vec::new(), Vec::new());
        };
        let row = self.state.registrations.edit(policy, &uri).expect("a key leads to its row");
        let nodes: Vec<_> = row.remote(&self.state.down).map(|(node, _)| node).collect();
        for node in &nodes {
            row.set_remote(*node, None);
        }
        let callees = std::mem::take(&mut row.local);
        let gone: Vec<_> = callees.iter().map(|callee| callee.session.id()).collect();
        for session in &gone {
            if let Some(owned) = self.sessions.get_mut(session) {
                owned.registrations.remove(&id);
                if owned.is_empty() {
                    self.sessions.remove(session);
                }
            }
            left(id, Some(*session), MetaChange::Left, &uri, effects);
        }
        let key = InterestKey { kind: Kind::Registration, policy, uri };
        for node in &nodes {
            self.forget(*node, &key);
        }
        (gone, nodes)
    }

    fn leave_subscription(
        &mut self,
        session: SessionId,
        id: SubscriptionId,
        turn: Turn,
        effects: &mut Effects,
    ) {
        let (policy, uri) = self.state.subscriptions.key(id).expect("owned rows are there").clone();
        let row = self.state.subscriptions.edit(policy, &uri).expect("a key leads to its row");
        row.local.remove(turn);
        if row.local.is_empty() {
            effects.interest.push(change(Kind::Subscription, row));
        }
        let is_there = row.is_there(&self.state.down);
        left(id, Some(session), MetaChange::Left, &uri, effects);
        if !is_there {
            left(id, Some(session), MetaChange::Deleted, &uri, effects);
        }
        self.state.subscriptions.sweep(policy, &uri);
    }

    fn leave_registration(
        &mut self,
        session: SessionId,
        id: RegistrationId,
        turn: Turn,
        effects: &mut Effects,
    ) {
        let (policy, uri) = self.state.registrations.key(id).expect("owned rows are there").clone();
        let row = self.state.registrations.edit(policy, &uri).expect("a key leads to its row");
        row.local.remove(turn);
        if row.local.is_empty() {
            row.cleared_ms = 0;
        }
        effects.interest.push(change(Kind::Registration, row));
        let is_there = row.is_there(&self.state.down);
        left(id, Some(session), MetaChange::Left, &uri, effects);
        if !is_there {
            left(id, Some(session), MetaChange::Deleted, &uri, effects);
        }
        self.note_shared(policy, &uri);
        self.state.registrations.sweep(policy, &uri);
    }
}

impl Owned {
    fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.registrations.is_empty()
    }
}

/// This node's interest in what a row is on, as it is now.
fn change<I: Id, M, X>(kind: Kind, row: &Row<I, M, X>) -> InterestChange
where
    Row<I, M, X>: Describe,
{
    let key = InterestKey { kind, policy: row.policy(), uri: Uri::clone(row.uri()) };
    InterestChange { key, row: row.interest() }
}

fn joined<I: Id, M, X>(
    row: &Row<I, M, X>,
    down: &BTreeSet<NodeId>,
    session: SessionId,
    was_there: bool,
    effects: &mut Effects,
) where
    Row<I, M, X>: Describe,
{
    if !is_announced(I::KIND, row.uri()) {
        return;
    }
    let (id, session) = (row.id().into(), Some(session));
    if !was_there {
        let change = MetaChange::Created(Box::new(row.details(down)));
        effects.meta.push(MetaEvent { id, session, change });
    }
    effects.meta.push(MetaEvent { id, session, change: MetaChange::Joined });
}

pub(super) fn left<I: Id>(
    id: I,
    session: Option<SessionId>,
    change: MetaChange,
    uri: &str,
    effects: &mut Effects,
) {
    if is_announced(I::KIND, uri) {
        effects.meta.push(MetaEvent { id: id.into(), session, change });
    }
}
