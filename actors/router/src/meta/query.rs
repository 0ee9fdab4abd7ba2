//! Questions about a realm that every node answers for its own sessions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weald_wamp::message::MatchPolicy;
use weald_wamp::{
    ByteString, Dict, Limits, Payload, RegistrationId, Serializer, SessionId, SubscriptionId,
    Value, uri,
};

use super::arguments::Arguments;
use super::events::session_details;
use super::{Outcome, Returned};
use crate::dealer::{Refusal, register};
use crate::error;
use crate::realm::Realm;
use crate::registry::{Details, RowId, iso8601};
use crate::session::handle::{Ending, Handle};
use crate::session::{Work, reply};

/// Ids in one part of an answer at most. // guess: what fits a frame between nodes
const IDS_MAX: usize = 100_000;

/// Whose sessions are to be ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Whom {
    Session(u64),
    Authid(String),
    Authrole(String),
    All,
}

/// Sessions are to be ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kill {
    pub(crate) whom: Whom,
    /// Who asks, and goes on.
    pub(crate) but: u64,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Query {
    /// How many sessions there are.
    Count { roles: Option<Vec<String>> },
    /// Which.
    List { roles: Option<Vec<String>> },
    /// Who one is.
    Get { id: u64 },
    /// End some.
    Kill(Kill),
    /// Which sessions are on a subscription or a registration.
    Members { is_registration: bool, id: u64, counts: bool },
    /// Take a session off a subscription or a registration.
    Remove { is_registration: bool, id: u64, session: u64, reason: Option<String> },
}

/// What one node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Part {
    /// Ids of sessions, all there are or those it was done to.
    Ids(Vec<u64>),
    /// A dictionary in CBOR, as the arguments of a payload.
    Session(Vec<u8>),
    /// There is none such.
    Nothing,
}

/// Answers for the sessions of this node.
pub(crate) fn answer(realm: &Arc<Realm>, query: &Query) -> Part {
    let role_is = |session: &Handle, roles: &Option<Vec<String>>| {
        let role = &session.principal().authrole;
        roles.as_ref().is_none_or(|roles| roles.iter().any(|one| *role == one.as_str()))
    };
    match query {
        Query::Count { roles } | Query::List { roles } => ids(realm, |one| role_is(one, roles)),
        Query::Get { id } => {
            let found = SessionId::new(*id).and_then(|id| realm.session(id));
            found.map_or(Part::Nothing, |session| {
                let details = Value::Map(session_details(&session));
                let payload = reply::values(Serializer::Cbor, &[details], &Dict::new());
                Part::Session(payload.raw().to_vec())
            })
        }
        Query::Kill(kill) => killed(realm, kill),
        Query::Members { is_registration, id, .. } => {
            let snapshot = realm.snapshot();
            let members = match row(*is_registration, *id) {
                Some(RowId::Registration(id)) => snapshot.callees(id),
                Some(RowId::Subscription(id)) => snapshot.subscribers(id),
                None => None,
            };
            let local = members.map(|members| members.local).unwrap_or_default();
            Part::Ids(local.into_iter().map(SessionId::get).take(IDS_MAX).collect())
        }
        Query::Remove { is_registration, id, session, reason } => {
            removed(realm, *is_registration, *id, *session, reason.as_deref())
        }
    }
}

fn row(is_registration: bool, id: u64) -> Option<RowId> {
    if is_registration {
        RegistrationId::new(id).map(RowId::Registration)
    } else {
        SubscriptionId::new(id).map(RowId::Subscription)
    }
}

fn ids(realm: &Arc<Realm>, wanted: impl Fn(&Handle) -> bool) -> Part {
    let sessions = realm.sessions();
    let mut ids: Vec<u64> =
        sessions.values().filter(|one| wanted(one)).map(|one| one.id().get()).collect();
    ids.sort_unstable();
    ids.truncate(IDS_MAX);
    Part::Ids(ids)
}

fn killed(realm: &Arc<Realm>, kill: &Kill) -> Part {
    let part = ids(realm, |one| {
        one.id().get() != kill.but
            && match &kill.whom {
                Whom::Session(id) => one.id().get() == *id,
                Whom::Authid(authid) => one.principal().authid == authid.as_str(),
                Whom::Authrole(authrole) => one.principal().authrole == authrole.as_str(),
                Whom::All => true,
            }
    });
    let ending = Ending {
        reason: kill.reason.clone(),
        message: kill.message.clone(),
        is_announced: kill.whom != Whom::All,
    };
    if let Part::Ids(ids) = &part {
        let found = ids.iter().filter_map(|id| realm.session(SessionId::new(*id)?));
        found.for_each(|session| session.end(ending.clone()));
    }
    part
}

fn removed(
    realm: &Arc<Realm>,
    is_registration: bool,
    id: u64,
    session: u64,
    reason: Option<&str>,
) -> Part {
    let Some(session) = SessionId::new(session) else { return Part::Nothing };
    let work = &mut Work::new();
    let is_removed = match row(is_registration, id) {
        Some(RowId::Registration(id)) => {
            let (removed, readers) =
                realm.change(work, |tables, _, effects| tables.unregister(session, id, effects));
            if removed.is_ok() {
                register::told_revoked(realm, id, &[session], reason, readers);
            }
            removed.is_ok()
        }
        Some(RowId::Subscription(id)) => {
            let (removed, readers) =
                realm.change(work, |tables, _, effects| tables.unsubscribe(session, id, effects));
            if removed.is_ok() {
                crate::broker::subscribe::told_revoked(realm, id, session, reason, readers);
            }
            removed.is_ok()
        }
        None => false,
    };
    if is_removed { Part::Ids(vec![session.get()]) } else { Part::Nothing }
}

/// Makes one answer of those of all nodes.
pub(crate) fn merge(query: &Query, parts: Vec<Part>) -> Result<Returned, Refusal> {
    let mut all = Vec::new();
    let mut session = None;
    for part in parts {
        match part {
            Part::Ids(mut ids) => all.append(&mut ids),
            Part::Session(details) => session = Some(details),
            Part::Nothing => {}
        }
    }
    let no_such_session =
        |id: u64| Err(Refusal::new(error::NO_SUCH_SESSION, format!("there is no session {id}")));
    let list = |ids: Vec<u64>| Value::List(ids.into_iter().map(Value::from).collect());
    let count = |ids: &Vec<u64>| Value::from(ids.len() as u64);
    Ok(match query {
        Query::Count { .. } => Returned::one(count(&all)),
        Query::List { .. } => Returned::one(list(all)),
        Query::Get { id } => {
            let Some(details) = session else { return no_such_session(*id) };
            let payload = Payload::from_raw_checked(
                Serializer::Cbor,
                weald_wamp::Parts::Args,
                details.into(),
                &Limits::default(),
            );
            let decoded = payload
                .map_err(|error| Refusal::new(error::NETWORK_FAILURE, error.to_string()))?
                .decode(&Limits::default())
                .map_err(|error| Refusal::new(error::NETWORK_FAILURE, error.to_string()))?;
            Returned { args: decoded.0, kwargs: Dict::new() }
        }
        Query::Kill(Kill { whom: Whom::Session(id), .. }) if all.is_empty() => {
            return no_such_session(*id);
        }
        Query::Kill(Kill { whom: Whom::Session(_), .. }) => Returned::default(),
        Query::Kill(Kill { whom: Whom::Authid(_), .. }) => Returned::one(list(all)),
        Query::Kill(Kill { whom: Whom::Authrole(_) | Whom::All, .. }) => Returned::one(count(&all)),
        Query::Members { counts: true, .. } => Returned::one(count(&all)),
        Query::Members { .. } => Returned::one(list(all)),
        Query::Remove { session, .. } if all.is_empty() => return no_such_session(*session),
        Query::Remove { .. } => Returned::default(),
    })
}

/// Calls a procedure of `wamp.registration` or `wamp.subscription`. None when there is no such procedure.
pub(crate) fn call(
    realm: &Arc<Realm>,
    group: &str,
    name: &str,
    arguments: &Arguments,
) -> Option<Result<Outcome, Refusal>> {
    let is_registration = group == "registration";
    Some(match (name, is_registration) {
        ("list", _) => Ok(Outcome::Done(Ok(listed(realm, is_registration)))),
        ("lookup", _) => lookup(realm, is_registration, arguments),
        ("match", _) => matching(realm, is_registration, arguments),
        ("get", _) => get(realm, is_registration, arguments),
        ("list_callees", true) | ("list_subscribers", false) => {
            members(realm, is_registration, arguments, false)
        }
        ("count_callees", true) | ("count_subscribers", false) => {
            members(realm, is_registration, arguments, true)
        }
        ("remove_callee", true) | ("remove_subscriber", false) => {
            remove(realm, is_registration, arguments)
        }
        _ => return None,
    })
}

fn listed(realm: &Arc<Realm>, is_registration: bool) -> Returned {
    let snapshot = realm.snapshot();
    let [exact, prefix, wildcard]: [Vec<Value>; 3] = if is_registration {
        let ids = snapshot.registration_ids();
        [ids.exact, ids.prefix, ids.wildcard]
            .map(|ids| ids.into_iter().map(|id| Value::from(id.get())).collect())
    } else {
        let ids = snapshot.subscription_ids();
        [ids.exact, ids.prefix, ids.wildcard]
            .map(|ids| ids.into_iter().map(|id| Value::from(id.get())).collect())
    };
    let lists = [("exact", exact), ("prefix", prefix), ("wildcard", wildcard)];
    Returned::one(lists.into_iter().collect::<Dict>())
}

fn lookup(
    realm: &Arc<Realm>,
    is_registration: bool,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let uri = arguments.need_text(0, "uri")?;
    let options = arguments.dict(1, "options")?;
    let policy = match options.get("match") {
        None => MatchPolicy::Exact,
        Some(policy) => {
            policy.as_text().and_then(|name| MatchPolicy::from_name(name)).ok_or_else(|| {
                Refusal::new(
                    error::INVALID_ARGUMENT,
                    "options.match must be exact, prefix or wildcard",
                )
            })?
        }
    };
    let snapshot = realm.snapshot();
    let found = if is_registration {
        snapshot.registration(policy, &uri).map(|found| found.registration().id().get())
    } else {
        snapshot.subscription(policy, &uri).map(|row| row.id().get())
    };
    Ok(Outcome::Done(Ok(Returned::one(found.map_or(Value::Null, Value::from)))))
}

fn matching(
    realm: &Arc<Realm>,
    is_registration: bool,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let uri: ByteString = arguments.need_text(0, "uri")?;
    if uri::check(&uri, realm.uri_rules(), MatchPolicy::Exact).is_err() {
        return Err(Refusal::new(error::INVALID_URI, format!("{uri:?} is no URI")));
    }
    let snapshot = realm.snapshot();
    let value = if is_registration {
        let found = snapshot.procedure(&uri);
        found.map_or(Value::Null, |found| Value::from(found.registration().id().get()))
    } else {
        let ids = snapshot.matching_subscriptions(&uri);
        let ids: Vec<Value> = ids.into_iter().map(|id| Value::from(id.get())).collect();
        if ids.is_empty() { Value::Null } else { Value::List(ids) }
    };
    Ok(Outcome::Done(Ok(Returned::one(value))))
}

fn known(
    realm: &Arc<Realm>,
    is_registration: bool,
    arguments: &Arguments,
) -> Result<Details, Refusal> {
    let name = if is_registration { "registration" } else { "subscription" };
    let id = arguments.need_id(0, name)?;
    let snapshot = realm.snapshot();
    let found = match row(is_registration, id) {
        Some(RowId::Registration(id)) => snapshot.registration_details(id),
        Some(RowId::Subscription(id)) => snapshot.subscription_details(id),
        None => None,
    };
    found.ok_or_else(|| {
        let no_such =
            if is_registration { error::NO_SUCH_REGISTRATION } else { error::NO_SUCH_SUBSCRIPTION };
        Refusal::new(no_such, format!("there is no {name} {id}"))
    })
}

fn get(
    realm: &Arc<Realm>,
    is_registration: bool,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let details = known(realm, is_registration, arguments)?;
    Ok(Outcome::Done(Ok(Returned::one(details_dict(&details)))))
}

/// What the meta API tells of a row.
pub(crate) fn details_dict(details: &Details) -> Dict {
    let mut dict = Dict::new()
        .with("id", details.id.get())
        .with("created", iso8601(details.created_ms))
        .with("uri", &*details.uri)
        .with("match", details.policy.name());
    if let Some(invoke) = details.invoke {
        dict.insert("invoke", invoke.name());
    }
    dict
}

fn members(
    realm: &Arc<Realm>,
    is_registration: bool,
    arguments: &Arguments,
    counts: bool,
) -> Result<Outcome, Refusal> {
    let id = known(realm, is_registration, arguments)?.id.get();
    Ok(Outcome::Ask(Query::Members { is_registration, id, counts }))
}

fn remove(
    realm: &Arc<Realm>,
    is_registration: bool,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let id = known(realm, is_registration, arguments)?.id.get();
    let session = arguments.need_id(1, "session")?;
    let reason = arguments.text(usize::MAX, "reason")?.map(|reason| reason.to_string());
    Ok(Outcome::Ask(Query::Remove { is_registration, id, session, reason }))
}
