//! The tables against a naive model: random operations, everything looked up after each.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weald_wamp::{RegistrationId, SubscriptionId};

use super::*;
use crate::registry::choice::joins;

const POLICIES: [MatchPolicy; 3] = [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard];

const URIS: [&str; 7] = ["a", "a.b", "a..c", "a.b.c", "", "wamp.x", "a.b."];

#[derive(Debug, Clone, Copy)]
enum Op {
    Subscribe(u64, usize, MatchPolicy),
    Unsubscribe(u64, usize, MatchPolicy),
    Register(u64, usize, MatchPolicy, InvokePolicy, bool),
    Unregister(u64, usize, MatchPolicy),
    Gone(u64),
    Revoke(usize, MatchPolicy),
    Resolve,
    Remote(u8, Kind, usize, MatchPolicy, Option<(InvokePolicy, u64, u64)>),
    Drop(u8),
    Usable(u8, bool),
    Snapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Callee {
    session: u64,
    invoke: InvokePolicy,
    ms: u64,
}

type Key = (MatchPolicy, &'static str);

/// What there is, in plain lists.
#[derive(Debug, Clone, Default)]
struct Model {
    subscribers: BTreeMap<Key, Vec<u64>>,
    callees: BTreeMap<Key, Vec<Callee>>,
    remote: BTreeMap<(u8, Kind, Key), Interest>,
    /// When a callee here has replaced all others.
    cleared: BTreeMap<Key, u64>,
    down: BTreeSet<u8>,
}

impl Model {
    fn usable(&self, kind: Kind, key: Key) -> Vec<(u8, Interest)> {
        let here = |(node, of, at): &(u8, Kind, Key)| {
            *of == kind && *at == key && !self.down.contains(node)
        };
        let of_kind = |_: &&u64| kind == Kind::Registration && self.callees.contains_key(&key);
        let cleared = self.cleared.get(&key).filter(of_kind).copied().unwrap_or(0);
        let fits = |row: &Interest| row.newest_ms >= cleared;
        let rows = self.remote.iter().filter(|(at, row)| here(at) && fits(row));
        rows.map(|(at, row)| (at.0, *row)).collect()
    }

    fn is_there(&self, kind: Kind, key: Key) -> bool {
        let local = match kind {
            Kind::Subscription => self.subscribers.contains_key(&key),
            Kind::Registration => self.callees.contains_key(&key),
        };
        local || !self.usable(kind, key).is_empty()
    }

    fn keys(&self, kind: Kind) -> Vec<Key> {
        let all = POLICIES.iter().flat_map(|policy| URIS.iter().map(|uri| (*policy, *uri)));
        all.filter(|key| self.is_there(kind, *key)).collect()
    }

    /// What other nodes are to know of this one.
    fn interest(&self) -> BTreeMap<InterestKey, Interest> {
        let mut told = BTreeMap::new();
        for (policy, uri) in self.subscribers.keys() {
            let (kind, policy, uri) = (Kind::Subscription, *policy, Uri::from(*uri));
            let row = row(InvokePolicy::Single, 1, 0, 0).unwrap();
            told.insert(InterestKey { kind, policy, uri }, row);
        }
        for ((policy, uri), callees) in &self.callees {
            let cleared_ms = self.cleared.get(&(*policy, *uri)).copied().unwrap_or(0);
            let (kind, policy, uri) = (Kind::Registration, *policy, Uri::from(*uri));
            let (oldest, newest) = (callees.first().unwrap(), callees.last().unwrap());
            let row = row(oldest.invoke, callees.len() as u64, oldest.ms, newest.ms).unwrap();
            let row = Interest { cleared_ms, ..row };
            told.insert(InterestKey { kind, policy, uri }, row);
        }
        told
    }

    fn remove(&mut self, session: u64) {
        for subscribers in self.subscribers.values_mut() {
            subscribers.retain(|known| *known != session);
        }
        for callees in self.callees.values_mut() {
            callees.retain(|callee| callee.session != session);
        }
        self.subscribers.retain(|_, subscribers| !subscribers.is_empty());
        self.callees.retain(|_, callees| !callees.is_empty());
    }

    fn register(&mut self, callee: Callee, key: Key, force: bool) -> Result<(), RegisterError> {
        let here = self.callees.get(&key).cloned().unwrap_or_default();
        let there = self.usable(Kind::Registration, key);
        if force || here.is_empty() {
            self.cleared.remove(&key);
        }
        if force {
            let rows = self
                .remote
                .iter()
                .filter(|((_, kind, at), _)| *kind == Kind::Registration && *at == key);
            let newest = rows.map(|(_, row)| row.newest_ms).chain(here.iter().map(|c| c.ms)).max();
            let ms = callee.ms.max(newest.unwrap_or(0) + 1);
            let callee = Callee { ms, ..callee };
            self.cleared.insert(key, ms);
            for (node, _) in there {
                self.remote.remove(&(node, Kind::Registration, key));
            }
            self.callees.insert(key, vec![callee]);
            return Ok(());
        }
        if here.iter().any(|known| known.session == callee.session) {
            return Err(RegisterError::AlreadyExists);
        }
        let here_invoke = here.first().map(|known| known.invoke);
        let invokes: Vec<_> =
            here_invoke.into_iter().chain(there.iter().map(|(_, row)| row.invoke)).collect();
        let single = |invoke: &InvokePolicy| *invoke == InvokePolicy::Single;
        for invoke in invokes {
            if single(&invoke) || single(&callee.invoke) {
                return Err(RegisterError::AlreadyExists);
            }
            if invoke != callee.invoke {
                return Err(RegisterError::PolicyConflict(invoke));
            }
        }
        let ms = here.last().map_or(callee.ms, |last| last.ms.max(callee.ms));
        self.callees.entry(key).or_default().push(Callee { ms, ..callee });
        Ok(())
    }

    /// Which of this node's registrations lose against others, and to whom.
    fn conflicts(&self) -> Vec<(Key, NodeId, Vec<SessionId>)> {
        let mut lost = Vec::new();
        for (key, callees) in &self.callees {
            let (oldest, invoke) = (callees[0].ms, callees[0].invoke);
            let there = self.usable(Kind::Registration, *key);
            let rival = there.iter().map(|(id, row)| (row.oldest_ms, node(*id), row.invoke));
            let stands = rival.chain([(oldest, node(HERE), invoke)]);
            let (_, winner, policy) = stands.min_by_key(|(ms, id, _)| (*ms, *id)).unwrap();
            if winner != node(HERE) && !joins(policy, invoke) {
                let ids = callees.iter().map(|callee| session(callee.session).0).collect();
                lost.push((*key, winner, ids));
            }
        }
        lost
    }
}

/// The number of the node under test, between those of the others.
const HERE: u8 = 2;

fn fits(policy: MatchPolicy, pattern: &str, uri: &str) -> bool {
    match policy {
        MatchPolicy::Exact => pattern == uri,
        MatchPolicy::Prefix => uri.starts_with(pattern),
        MatchPolicy::Wildcard => {
            let (pattern, uri): (Vec<_>, Vec<_>) =
                (pattern.split('.').collect(), uri.split('.').collect());
            pattern.len() == uri.len()
                && pattern.iter().zip(&uri).all(|(p, u)| p.is_empty() || p == u)
        }
    }
}

fn rank((policy, pattern): Key) -> (u8, usize, Vec<bool>) {
    match policy {
        MatchPolicy::Exact => (2, 0, Vec::new()),
        MatchPolicy::Prefix => (1, pattern.len(), Vec::new()),
        MatchPolicy::Wildcard => (0, 0, pattern.split('.').map(|c| !c.is_empty()).collect()),
    }
}

/// Everything that can be asked of a snapshot, asked.
fn assert_lookups(snapshot: &Snapshot<Session>, model: &Model) {
    for uri in ["a", "a.b", "a.x.c", "a.b.c", "", "wamp.x", "b", "a.b.c.d"] {
        let fitting = |key: &Key| fits(key.0, key.1, uri);
        let keys: Vec<_> =
            model.keys(Kind::Subscription).into_iter().filter(|key| fitting(key)).collect();
        let matches = snapshot.subscriptions(uri);
        let mut rows: Vec<_> = matches
            .rows
            .iter()
            .map(|row| {
                ((row.policy(), row.uri().to_string()), row.local().iter().copied().collect())
            })
            .collect::<Vec<(_, Vec<_>)>>();
        rows.sort();
        let mut expected: Vec<_> = keys
            .iter()
            .filter_map(|key| Some((key, model.subscribers.get(key)?)))
            .map(|(key, ids)| {
                ((key.0, key.1.to_owned()), ids.iter().map(|id| session(*id)).collect::<Vec<_>>())
            })
            .collect();
        expected.sort();
        assert_eq!(rows, expected, "subscriptions of {uri:?}");
        let nodes: BTreeSet<_> = keys
            .iter()
            .flat_map(|key| model.usable(Kind::Subscription, *key))
            .map(|(id, _)| node(id))
            .collect();
        assert!(matches.nodes.iter().eq(&nodes), "nodes of {uri:?}");
        let mut ids: Vec<_> =
            keys.iter().map(|key| snapshot.subscription(key.0, key.1).unwrap().id()).collect();
        let mut matching = snapshot.matching_subscriptions(uri);
        ids.sort_unstable();
        matching.sort_unstable();
        assert_eq!(matching, ids);

        let best =
            model.keys(Kind::Registration).into_iter().filter(fitting).max_by_key(|key| rank(*key));
        let found = snapshot.procedure(uri);
        let found_key =
            found.map(|p| (p.registration().policy(), p.registration().uri().to_string()));
        assert_eq!(found_key, best.map(|key| (key.0, key.1.to_owned())), "procedure of {uri:?}");
        let (Some(found), Some(key)) = (found, best) else {
            continue;
        };
        let here: Vec<_> = found
            .registration()
            .local()
            .iter()
            .map(|callee| (callee.session.0.get(), callee.registered_ms))
            .collect();
        let known = model.callees.get(&key).cloned().unwrap_or_default();
        assert_eq!(here, known.iter().map(|c| (c.session, c.ms)).collect::<Vec<_>>());
        let there: Vec<_> = found.nodes().map(|(node, row)| (node, *row)).collect();
        let usable = model.usable(Kind::Registration, key);
        assert_eq!(there, usable.iter().map(|(id, row)| (node(*id), *row)).collect::<Vec<_>>());
    }
    assert_meta(snapshot, model);
}

/// What the meta API asks.
fn assert_meta(snapshot: &Snapshot<Session>, model: &Model) {
    let keys = model.keys(Kind::Subscription);
    let ids = snapshot.subscription_ids();
    assert_eq!(ids.exact.len() + ids.prefix.len() + ids.wildcard.len(), keys.len());
    for (policy, uri) in keys {
        let row = snapshot.subscription(policy, uri).unwrap();
        let listed = match policy {
            MatchPolicy::Exact => &ids.exact,
            MatchPolicy::Prefix => &ids.prefix,
            MatchPolicy::Wildcard => &ids.wildcard,
        };
        assert!(listed.contains(&row.id()));
        let details = snapshot.subscription_details(row.id()).unwrap();
        assert_eq!((details.policy, &*details.uri, details.invoke), (policy, uri, None));
        let members = snapshot.subscribers(row.id()).unwrap();
        let known = model.subscribers.get(&(policy, uri)).cloned().unwrap_or_default();
        assert_eq!(members.local, known.iter().map(|id| session(*id).0).collect::<Vec<_>>());
        assert_eq!(members.nodes.len(), model.usable(Kind::Subscription, (policy, uri)).len());
    }
    let keys = model.keys(Kind::Registration);
    let ids = snapshot.registration_ids();
    assert_eq!(ids.exact.len() + ids.prefix.len() + ids.wildcard.len(), keys.len());
    for (policy, uri) in keys {
        let id = snapshot.registration(policy, uri).unwrap().registration().id();
        let details = snapshot.registration_details(id).unwrap();
        let usable = model.usable(Kind::Registration, (policy, uri));
        let invoke = match model.callees.get(&(policy, uri)) {
            Some(callees) => callees[0].invoke,
            None => usable.iter().min_by_key(|(id, row)| (row.oldest_ms, *id)).unwrap().1.invoke,
        };
        assert_eq!((details.policy, &*details.uri, details.invoke), (policy, uri, Some(invoke)));
        let members = snapshot.callees(id).unwrap();
        let nodes: Vec<_> = usable.iter().map(|(id, row)| (node(*id), row.count)).collect();
        assert_eq!(members.nodes, nodes);
        assert_eq!(members.local.len(), model.callees.get(&(policy, uri)).map_or(0, Vec::len));
    }
}

/// The other side of effects: what nodes and clients believe who heard all of them.
#[derive(Debug, Default)]
struct Listener {
    interest: BTreeMap<InterestKey, Interest>,
    rows: BTreeSet<RowId>,
    members: BTreeSet<(RowId, SessionId)>,
}

impl Listener {
    fn hear(&mut self, effects: Effects) {
        for InterestChange { key, row } in effects.interest {
            match row {
                Some(row) => {
                    // Times of subscriptions are those of the row, which the model does not keep.
                    let times = key.kind == Kind::Registration;
                    let row =
                        if times { row } else { Interest { oldest_ms: 0, newest_ms: 0, ..row } };
                    assert_ne!(self.interest.insert(key, row), Some(row), "told twice");
                }
                None => assert!(self.interest.remove(&key).is_some(), "{key:?} was not told of"),
            }
        }
        for event in effects.meta {
            assert!(event.topic().starts_with("wamp."));
            match event.change {
                MetaChange::Created(details) => {
                    assert_eq!(details.id, event.id);
                    assert!(self.rows.insert(event.id), "created twice");
                }
                MetaChange::Joined => {
                    assert!(self.rows.contains(&event.id), "joined before it was created");
                    assert!(
                        self.members.insert((event.id, event.session.unwrap())),
                        "joined twice"
                    );
                }
                MetaChange::Left => {
                    assert!(self.members.remove(&(event.id, event.session.unwrap())), "left twice");
                }
                MetaChange::Deleted => assert!(self.rows.remove(&event.id), "deleted twice"),
            }
        }
    }

    /// What other nodes' own announcements would have told.
    fn hear_remote(&mut self, tables: &Tables<Session>, model: &Model) {
        self.rows = announced(&tables.snapshot(), model);
    }
}

/// Rows that clients know of.
fn announced(snapshot: &Snapshot<Session>, model: &Model) -> BTreeSet<RowId> {
    let topics = model.keys(Kind::Subscription).into_iter().filter(|(_, uri)| *uri != "wamp.x");
    let topics =
        topics.map(|(policy, uri)| snapshot.subscription(policy, uri).unwrap().id().into());
    let procedures = model.keys(Kind::Registration).into_iter();
    let id = |(policy, uri)| snapshot.registration(policy, uri).unwrap().registration().id().into();
    topics.chain(procedures.map(id)).collect()
}

fn topic_id(tables: &Tables<Session>, (policy, uri): Key) -> SubscriptionId {
    let none = SubscriptionId::new(1).unwrap();
    tables.snapshot().subscription(policy, uri).map_or(none, Subscription::id)
}

fn procedure_id(tables: &Tables<Session>, (policy, uri): Key) -> RegistrationId {
    let none = RegistrationId::new(1).unwrap();
    tables.snapshot().registration(policy, uri).map_or(none, |p| p.registration().id())
}

/// Does an operation to both, and compares what they answer.
fn step(
    tables: &mut Tables<Session>,
    model: &mut Model,
    heard: &mut Listener,
    op: Op,
    now_ms: u64,
) {
    let mut effects = Effects::default();
    match op {
        Op::Subscribe(who, uri, policy) => {
            let key = (policy, URIS[uri]);
            let here = model.subscribers.entry(key).or_default();
            let (created, joined) = (here.is_empty(), !here.contains(&who));
            if joined {
                here.push(who);
            }
            let done = tables.subscribe(&session(who), URIS[uri], policy, now_ms, &mut effects);
            let done = done.unwrap();
            assert_eq!((done.created, done.joined), (created, joined));
            assert_eq!(done.id, topic_id(tables, key));
        }
        Op::Unsubscribe(who, uri, policy) => {
            let key = (policy, URIS[uri]);
            let id = topic_id(tables, key);
            let done = tables.unsubscribe(session(who).0, id, &mut effects);
            let known = model.subscribers.get(&key).is_some_and(|here| here.contains(&who));
            assert_eq!(done, if known { Ok(()) } else { Err(NoSuchSubscription) });
            if let Some(here) = model.subscribers.get_mut(&key) {
                here.retain(|known| *known != who);
            }
            model.subscribers.retain(|_, here| !here.is_empty());
        }
        Op::Register(who, uri, policy, invoke, force) => {
            let key = (policy, URIS[uri]);
            let before = model.callees.get(&key).cloned().unwrap_or_default();
            let nodes = model.usable(Kind::Registration, key);
            let request = Register { policy, force, ..callee(URIS[uri], invoke, now_ms) };
            let done = tables.register(&session(who), &request, &mut effects);
            let expected = model.register(Callee { session: who, invoke, ms: now_ms }, key, force);
            assert_eq!(done.as_ref().err(), expected.as_ref().err());
            if let Ok(done) = done {
                assert_eq!(done.id, procedure_id(tables, key));
                assert_eq!(done.created, before.is_empty() || force);
                let others = before.iter().map(|c| c.session).filter(|id| force && *id != who);
                assert_eq!(done.revoked, others.map(|id| session(id).0).collect::<Vec<_>>());
                let told = nodes.iter().filter(|_| force).map(|(id, _)| node(*id));
                assert_eq!(done.revoked_nodes, told.collect::<Vec<_>>());
            }
        }
        Op::Unregister(who, uri, policy) => {
            let key = (policy, URIS[uri]);
            let id = procedure_id(tables, key);
            let done = tables.unregister(session(who).0, id, &mut effects);
            let here = model.callees.get(&key).cloned().unwrap_or_default();
            let known = here.iter().any(|callee| callee.session == who);
            assert_eq!(done, if known { Ok(()) } else { Err(NoSuchRegistration) });
            if let Some(here) = model.callees.get_mut(&key) {
                here.retain(|callee| callee.session != who);
            }
            model.callees.retain(|_, here| !here.is_empty());
        }
        Op::Gone(who) => {
            tables.session_gone(session(who).0, &mut effects);
            model.remove(who);
        }
        Op::Revoke(uri, policy) => {
            let key = (policy, URIS[uri]);
            let done = tables.revoke(policy, URIS[uri], u64::MAX, &mut effects);
            let here = model.callees.remove(&key);
            let ids =
                here.map(|here| here.iter().map(|c| session(c.session).0).collect::<Vec<_>>());
            assert_eq!(done.map(|(_, callees)| callees), ids);
        }
        Op::Resolve => {
            let lost = tables.conflicts();
            let mut found: Vec<_> = lost
                .iter()
                .map(|c| ((c.policy, c.procedure.to_string()), c.winner, c.callees.clone()))
                .collect();
            found.sort();
            let named = |(key, winner, ids): (Key, _, _)| ((key.0, key.1.to_owned()), winner, ids);
            let expected: Vec<_> = model.conflicts().into_iter().map(named).collect();
            assert_eq!(found, expected);
            for conflict in lost {
                for callee in &conflict.callees {
                    tables.unregister(*callee, conflict.id, &mut effects).unwrap();
                }
                model
                    .callees
                    .retain(|key, _| (key.0, key.1) != (conflict.policy, &*conflict.procedure));
            }
            assert_eq!(tables.conflicts(), []);
        }
        Op::Remote(from, kind, uri, policy, there) => {
            let there = there.and_then(|(invoke, count, oldest_ms)| {
                row(invoke, count, oldest_ms, oldest_ms + count)
            });
            let key = InterestKey { kind, policy, uri: URIS[uri].into() };
            assert_eq!(tables.apply_remote(node(from), [InterestChange { key, row: there }]), 0);
            let at = (from, kind, (policy, URIS[uri]));
            match there {
                Some(there) => drop(model.remote.insert(at, there)),
                None => drop(model.remote.remove(&at)),
            }
            heard.hear_remote(tables, model);
        }
        Op::Drop(from) => {
            tables.drop_node(node(from), &mut effects);
            model.remote.retain(|(known, _, _), _| *known != from);
            model.down.remove(&from);
        }
        Op::Usable(from, usable) => {
            tables.set_node_usable(node(from), usable, &mut effects);
            if usable {
                model.down.remove(&from)
            } else {
                model.down.insert(from)
            };
        }
        Op::Snapshot => {}
    }
    heard.hear(effects);
    assert_eq!(heard.interest, model.interest());
    assert_eq!(heard.rows, announced(&tables.snapshot(), model));
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 1..6_u64;
    let uri = || 0..URIS.len();
    let policy = || prop::sample::select(&POLICIES[..]);
    let from = || prop::sample::select(&[1_u8, 3, 4][..]);
    let kind = prop::sample::select(&[Kind::Subscription, Kind::Registration][..]);
    let invoke = || {
        use InvokePolicy::{First, Last, Random, RoundRobin, Single};
        prop::sample::select(&[Single, First, Last, RoundRobin, RoundRobin, RoundRobin, Random][..])
    };
    let there = prop::option::weighted(0.7, (invoke(), 1..4_u64, 0..60_u64));
    prop_oneof![
        8 => (who(), uri(), policy()).prop_map(|(w, u, p)| Op::Subscribe(w, u, p)),
        4 => (who(), uri(), policy()).prop_map(|(w, u, p)| Op::Unsubscribe(w, u, p)),
        8 => (who(), uri(), policy(), invoke(), prop::bool::weighted(0.15))
            .prop_map(|(w, u, p, i, f)| Op::Register(w, u, p, i, f)),
        4 => (who(), uri(), policy()).prop_map(|(w, u, p)| Op::Unregister(w, u, p)),
        2 => who().prop_map(Op::Gone),
        1 => (uri(), policy()).prop_map(|(u, p)| Op::Revoke(u, p)),
        2 => Just(Op::Resolve),
        8 => (from(), kind, uri(), policy(), there)
            .prop_map(|(n, k, u, p, t)| Op::Remote(n, k, u, p, t)),
        1 => from().prop_map(Op::Drop),
        3 => (from(), any::<bool>()).prop_map(|(n, usable)| Op::Usable(n, usable)),
        2 => Just(Op::Snapshot),
    ]
}

proptest! {
    #[test]
    fn tables_random_operations_agree_with_the_model(ops in prop::collection::vec(op(), 0..60)) {
        let (mut tables, mut model) = (tables(HERE), Model::default());
        let mut heard = Listener::default();
        let mut snapshots = Vec::new();
        for (now_ms, op) in (0..).zip(ops) {
            if matches!(op, Op::Snapshot) {
                snapshots.push((tables.snapshot(), model.clone()));
            }
            step(&mut tables, &mut model, &mut heard, op, now_ms);
        }
        snapshots.push((tables.snapshot(), model.clone()));
        for who in 1..6 {
            step(&mut tables, &mut model, &mut heard, Op::Gone(who), 100);
        }
        for from in [1, 3, 4] {
            step(&mut tables, &mut model, &mut heard, Op::Drop(from), 100);
        }
        prop_assert!(heard.members.is_empty());
        assert_empty(&tables);
        for (snapshot, model) in &snapshots {
            assert_lookups(snapshot, model);
        }
    }
}
