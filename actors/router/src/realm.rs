//! A realm on this node: its sessions, its registry, and what connects the two.
//!
//! Guarantees: routing reads an immutable snapshot and takes no lock of the realm; changes of the registry are made under
//! one lock, told to other nodes in their order, and visible to routing before the change is announced to anybody.
//! SUBSCRIBED and REGISTERED leave before the first EVENT or INVOCATION, and nothing comes after UNSUBSCRIBED and UNREGISTERED.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::{ArcSwap, Guard};
use bytestring::ByteString;
use weald_supervision::TasksHandle;
use weald_wamp::message::{InvokePolicy, MatchPolicy};
use weald_wamp::roles::Roles;
use weald_wamp::{Limits, SessionId, uri};

use crate::auth::{Action, Authenticator, Authorizer, Disclosure};
use crate::broker::history::{self, History};
use crate::broker::publication::{Fanout, Publication};
use crate::broker::publish;
use crate::broker::retained::{self, Retained, Shelf};
use crate::clock::Clock;
use crate::dealer::{Caller, Refusal, answer, call, cancel};
use crate::error;
use crate::meta::events;
use crate::registry::{
    Conflict, Effects, Interest, InterestChange, InterestKey, Kind, Snapshot, Tables,
};
use crate::relay::Relay;
use crate::session::Work;
use crate::session::handle::{Ending, Handle};
use crate::session::welcome;

/// How a realm behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which URIs are accepted.
    pub uri_rules: uri::Strictness,
    /// Whether request ids must be sequential, as the specification says. Old clients may need that they need not.
    pub strict_request_ids: bool,
    /// Topics whose events are kept for `wamp.subscription.get_events`.
    pub history: Vec<history::Topic>,
    /// Bounds of what is kept for later subscribers.
    pub retention: retained::Bounds,
    /// Time limits of calls.
    pub calls: call::Times,
    /// What one session may have.
    pub session: SessionLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            uri_rules: uri::Strictness::Loose,
            strict_request_ids: true,
            history: Vec::new(),
            retention: retained::Bounds::default(),
            calls: call::Times::default(),
            session: SessionLimits::default(),
        }
    }
}

/// What one session may have at a time. One more is refused with [`error::LIMIT_EXCEEDED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Subscriptions.
    pub subscriptions: usize,
    /// Registrations.
    pub registrations: usize,
    /// Calls in flight.
    pub calls: usize,
    /// Testaments.
    pub testaments: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        // guess: what a gateway for a whole site may need
        Self { subscriptions: 100_000, registrations: 100_000, calls: 100_000, testaments: 100 }
    }
}

/// What a realm is made of.
pub struct Parts {
    /// Its name.
    pub name: ByteString,
    /// How it behaves.
    pub settings: Settings,
    /// What a message may cost.
    pub limits: Limits,
    /// Who decides who a client is.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who decides what it may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// The way to other nodes.
    pub relay: Arc<Relay>,
    /// Where events are kept for later subscribers.
    pub shelf: Arc<dyn Shelf>,
    /// What time it is.
    pub clock: Clock,
    /// Runs what no session's task can wait for.
    pub errands: TasksHandle,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The writer's side of the registry.
struct Writer {
    tables: Tables<Handle>,
    /// Snapshots that somebody may be reading still, oldest first.
    retired: VecDeque<Weak<Snapshot<Handle>>>,
}

/// A realm.
pub struct Realm {
    parts: Parts,
    writer: Mutex<Writer>,
    snapshot: ArcSwap<Snapshot<Handle>>,
    sessions: ArcSwap<imbl::HashMap<SessionId, Handle>>,
    history: History,
    retained: Retained,
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realm").field("name", &self.parts.name).finish_non_exhaustive()
    }
}

/// Snapshots that were read before a change.
pub(crate) struct Readers(Vec<Weak<Snapshot<Handle>>>);

impl Readers {
    /// Waits until whoever routed by an older snapshot is done: microseconds, unless a thread was put to sleep meanwhile.
    pub(crate) async fn done(&self) {
        while self.0.iter().any(|snapshot| snapshot.strong_count() > 0) {
            tokio::task::yield_now().await;
        }
    }
}

impl Realm {
    /// A realm without sessions.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let tables = Tables::new(&parts.name, parts.relay.own());
        let snapshot = ArcSwap::from_pointee(tables.snapshot());
        let history = History::new(&parts.settings.history, &parts.name);
        Arc::new(Self {
            writer: Mutex::new(Writer { tables, retired: VecDeque::new() }),
            snapshot,
            sessions: ArcSwap::default(),
            history,
            retained: Retained::new(
                Arc::clone(&parts.shelf),
                &parts.name,
                parts.settings.retention,
            ),
            parts,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ByteString {
        &self.parts.name
    }

    /// How it behaves.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// What it says of itself in WELCOME.
    pub(crate) fn roles(&self) -> Roles {
        welcome::roles(&self.parts.settings, &*self.parts.authorizer)
    }

    /// Which URIs are accepted.
    pub(crate) fn uri_rules(&self) -> uri::Strictness {
        self.parts.settings.uri_rules
    }

    /// What a message may cost.
    pub(crate) fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    pub(crate) fn authenticator(&self) -> &Arc<dyn Authenticator> {
        &self.parts.authenticator
    }

    pub(crate) fn relay(&self) -> &Arc<Relay> {
        &self.parts.relay
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn retained(&self) -> &Retained {
        &self.retained
    }

    /// Milliseconds since the process started.
    pub(crate) fn now_ms(&self) -> u64 {
        self.parts.clock.now_ms()
    }

    /// Unix milliseconds.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.parts.clock.wall_ms()
    }

    /// What routing reads.
    pub(crate) fn snapshot(&self) -> Guard<Arc<Snapshot<Handle>>> {
        self.snapshot.load()
    }

    /// The sessions of this node.
    pub(crate) fn sessions(&self) -> Guard<Arc<imbl::HashMap<SessionId, Handle>>> {
        self.sessions.load()
    }

    /// How many sessions this node has in the realm.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.sessions.load().len()
    }

    /// A session of this node.
    pub(crate) fn session(&self, id: SessionId) -> Option<Handle> {
        self.sessions.load().get(&id).cloned()
    }

    /// What the rules of access say.
    pub(crate) fn decide(
        &self,
        session: &Handle,
        action: Action,
        uri: &str,
        policy: MatchPolicy,
    ) -> Result<(Disclosure, Option<u64>), Refusal> {
        let decision = self.parts.authorizer.decide(session.principal(), action, uri, policy);
        call::verdict(&decision, action, uri)
    }

    /// Changes the registry. What `change` sends leaves before anything that the change brings about. Answers with those who
    /// still route by what was before.
    pub(crate) fn change<T>(
        self: &Arc<Self>,
        work: &mut Work,
        change: impl FnOnce(&mut Tables<Handle>, &mut Work, &mut Effects) -> T,
    ) -> (T, Readers) {
        let mut effects = Effects::default();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let value = change(&mut writer.tables, work, &mut effects);
        let old = self.snapshot.swap(Arc::new(writer.tables.snapshot()));
        writer.retired.retain(|snapshot| snapshot.strong_count() > 0);
        writer.retired.push_back(Arc::downgrade(&old));
        drop(old);
        let readers = Readers(writer.retired.iter().cloned().collect());
        self.parts.relay.interest_changed(self, &effects.interest);
        drop(writer);
        events::registry(self, work, &effects.meta);
        (value, readers)
    }

    /// Registrations of this node that yield to another node's.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).tables.conflicts()
    }

    /// Whether a topic is wanted here although nobody subscribes to it: its events are kept.
    pub(crate) fn keeps(&self, key: &InterestKey) -> bool {
        key.kind == Kind::Subscription
            && self
                .history
                .topics()
                .any(|topic| topic.policy == key.policy && *topic.uri == *key.uri)
    }

    /// What this node wants although nobody subscribes to it.
    pub(crate) fn history_rows(&self) -> Vec<InterestChange> {
        let now_ms = self.wall_ms();
        let row = |topic: &history::Topic| InterestChange {
            key: InterestKey {
                kind: Kind::Subscription,
                policy: topic.policy,
                uri: (&*topic.uri).into(),
            },
            row: Some(Interest {
                invoke: InvokePolicy::Single,
                count: 1,
                oldest_ms: now_ms,
                newest_ms: now_ms,
                cleared_ms: 0,
            }),
        };
        self.history.topics().map(row).collect()
    }

    /// A session has begun.
    pub(crate) fn join(self: &Arc<Self>, session: &Handle, work: &mut Work) {
        self.sessions.rcu(|sessions| sessions.update(session.id(), session.clone()));
        events::joined(self, work, session);
    }

    /// A session has ended, however it did. Nothing of it stays behind.
    pub(crate) fn leave(self: &Arc<Self>, session: &Handle, work: &mut Work) {
        if !session.mark_gone() {
            return;
        }
        self.sessions.rcu(|sessions| sessions.without(&session.id()));
        self.change(work, |tables, _, effects| {
            tables.session_gone(session.id(), effects);
        });
        let callers = session.invocations().close();
        for caller in callers {
            let refusal = Refusal::new(error::CANCELED, "the callee is gone");
            self.fail(work, session, caller, &refusal);
        }
        cancel::abandon(self, work, session);
        let is_announced = session.ending().is_none_or(|ending| ending.is_announced);
        let testaments = session.testaments().take();
        if is_announced {
            for testament in testaments {
                publish::testament(self, work, session, testament);
            }
            events::left(self, work, session);
        }
    }

    fn fail(self: &Arc<Self>, work: &mut Work, callee: &Handle, caller: Caller, refusal: &Refusal) {
        let reply = answer::Reply::refused(refusal);
        match caller {
            Caller::Local { session, request } => {
                answer::deliver(self, work, &session, request, reply);
            }
            Caller::Remote { node, key } => {
                crate::relay::incoming::answered(self, work, callee, node, key, &reply, false);
            }
        }
    }

    /// Ends all sessions of this node.
    pub(crate) fn end_all(&self, ending: &Ending) {
        for (_, session) in self.sessions.load().iter() {
            session.end(ending.clone());
        }
    }

    /// Publishes to all nodes.
    pub(crate) fn publish(self: &Arc<Self>, publication: &Publication, work: &mut Work) {
        let snapshot = self.snapshot.load();
        let found = snapshot.subscriptions(&publication.topic);
        self.deliver(&found, publication, work);
        self.parts.relay.publish(&found.nodes, &self.parts.name, publication);
    }

    /// Publishes to the sessions of this node.
    pub(crate) fn publish_here(self: &Arc<Self>, publication: &Publication, work: &mut Work) {
        let snapshot = self.snapshot.load();
        let found = snapshot.subscriptions(&publication.topic);
        self.deliver(&found, publication, work);
    }

    fn deliver(
        &self,
        found: &crate::registry::Matches<'_, Handle>,
        publication: &Publication,
        work: &mut Work,
    ) {
        if !self.history.is_empty() {
            self.history.record(publication, self.wall_ms(), self.now_ms());
        }
        let mut fanout = Fanout::new(publication, &self.parts.limits);
        for row in &found.rows {
            fanout.deliver(row.id(), row.policy(), row.local().iter(), &mut work.flushes);
        }
    }

    /// Keeps an event for later subscribers.
    pub(crate) async fn retain(&self, publication: &Publication) {
        self.retained.keep(publication, self.now_ms()).await;
    }

    /// Keeps an event for later subscribers, some time soon.
    pub(crate) fn retain_later(self: &Arc<Self>, publication: Publication) {
        let realm = Arc::clone(self);
        // Not kept: retention is best effort.
        self.run("retain", async move { realm.retain(&publication).await });
    }

    /// Runs what no session's task can wait for, under supervision. False when it does not: the node stops, or too much
    /// runs already.
    pub(crate) fn run(
        &self,
        what: &'static str,
        errand: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let started = self.parts.errands.start(what, |_context| async move {
            errand.await;
            Ok(())
        });
        if let Err(error) = &started {
            tracing::debug!(event = "errand_not_run", what, %error, "an errand was not run");
        }
        started.is_ok()
    }
}
