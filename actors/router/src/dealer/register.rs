//! REGISTER and UNREGISTER, and registrations taken away.

use std::sync::Arc;

use weald_wamp::message::{
    MatchPolicy, Register, Registered, RequestType, Unregister, Unregistered,
};
use weald_wamp::roles::Features;
use weald_wamp::{Dict, Message, RegistrationId, SessionId, uri};

use super::Refusal;
use crate::auth::Action;
use crate::error;
use crate::realm::{Readers, Realm};
use crate::registry::{CalleeOptions, Register as Wanted, RegisterError};
use crate::session::handle::Handle;
use crate::session::{Violation, Work, reply};

/// Why a registration is taken from a callee that was replaced.
pub(crate) const REPLACED: &str = "wamp.registration.replaced";
/// Why it is taken from one that lost to a callee of another node.
pub(crate) const CONFLICT: &str = "wamp.registration.conflict";

/// Takes a REGISTER.
pub(crate) fn register(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    message: Register,
) -> Result<(), Violation> {
    let request = message.request;
    let unknown = |option: &str, what: &dyn std::fmt::Display| {
        Violation(format!("REGISTER option {option}: {what}"))
    };
    let policy = message.options.match_policy.get().map_err(|what| unknown("match", &what))?;
    message.options.invoke.get().map_err(|what| unknown("invoke", &what))?;
    if let Err(refusal) = begin(realm, work, session, message, policy) {
        reply::error(realm, work, session, RequestType::Register, request, &refusal);
    }
    Ok(())
}

fn begin(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    message: Register,
    policy: MatchPolicy,
) -> Result<(), Refusal> {
    let Register { request, options, procedure } = message;
    if uri::check(&procedure, realm.uri_rules(), policy).is_err() {
        let message = format!("{procedure:?} is no procedure for match {}", policy.name());
        return Err(Refusal::new(error::INVALID_URI, message));
    }
    if uri::is_reserved(&procedure) {
        return Err(Refusal::new(error::INVALID_URI, format!("{procedure} is the router's own")));
    }
    realm.decide(session, Action::Register, &procedure, policy)?;
    let wanted = Wanted {
        procedure: &procedure,
        policy,
        invoke: options.invoke.get().unwrap_or_default(),
        options: CalleeOptions {
            disclose_caller: options.disclose_caller,
            forward_timeout: options.forward_timeout,
            concurrency: options.concurrency,
        },
        force: options.force_reregister,
        now_ms: realm.wall_ms(),
    };
    let registrations_max = realm.settings().session.registrations;
    let (registered, readers) = realm.change(work, |tables, work, effects| {
        if tables.owned(session.id()).1 >= registrations_max {
            let message = format!("a session has at most {registrations_max} registrations");
            return Err(Refusal::new(error::LIMIT_EXCEEDED, message));
        }
        let registered = tables.register(session, &wanted, effects).map_err(refused)?;
        let message = Message::Registered(Registered { request, registration: registered.id });
        session.send(&message, &mut work.flushes);
        Ok(registered)
    });
    let registered = registered?;
    if !registered.revoked.is_empty() {
        told_revoked(realm, registered.id, &registered.revoked, Some(REPLACED), readers);
    }
    for node in registered.revoked_nodes {
        realm.relay().revoke(node, realm.name(), policy, &procedure, REPLACED);
    }
    Ok(())
}

fn refused(why: RegisterError) -> Refusal {
    let error = match why {
        RegisterError::PatternTooLong(_) => error::INVALID_URI,
        RegisterError::AlreadyExists | RegisterError::PolicyConflict(_) => {
            error::PROCEDURE_ALREADY_EXISTS
        }
    };
    Refusal::new(error, why.to_string())
}

/// Takes an UNREGISTER, and waits until nobody makes invocations of it any more. Those in flight go on.
pub(crate) async fn unregister(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    message: Unregister,
) {
    let Unregister { request, registration } = message;
    let (removed, readers) = realm
        .change(work, |tables, _, effects| tables.unregister(session.id(), registration, effects));
    if removed.is_err() {
        let message = format!("the session is not on registration {registration}");
        let refusal = Refusal::new(error::NO_SUCH_REGISTRATION, message);
        reply::error(realm, work, session, RequestType::Unregister, request, &refusal);
        return;
    }
    work.flushes.flush();
    readers.done().await;
    let message = Message::Unregistered(Unregistered { request: Some(request), revocation: None });
    session.send(&message, &mut work.flushes);
}

/// Takes the callees of this node that came before then off a registration, and tells them.
pub(crate) fn revoked(
    realm: &Arc<Realm>,
    work: &mut Work,
    policy: MatchPolicy,
    procedure: &str,
    before_ms: u64,
    reason: Option<&str>,
) {
    let (revoked, readers) = realm
        .change(work, |tables, _, effects| tables.revoke(policy, procedure, before_ms, effects));
    if let Some((registration, callees)) = revoked {
        told_revoked(realm, registration, &callees, reason, readers);
    }
}

/// Tells callees that a registration was taken from them, once nobody calls them through it any more. Those that did not
/// announce registration revocation are not told (advanced profile).
pub(crate) fn told_revoked(
    realm: &Arc<Realm>,
    registration: RegistrationId,
    callees: &[SessionId],
    reason: Option<&str>,
    readers: Readers,
) {
    let callees: Vec<Handle> = callees
        .iter()
        .filter_map(|id| realm.session(*id))
        .filter(|callee| {
            let features = callee.roles().callee.unwrap_or_default();
            features.contains(Features::REGISTRATION_REVOCATION)
        })
        .collect();
    if callees.is_empty() {
        return;
    }
    let mut details = Dict::new().with("registration", registration.get());
    if let Some(reason) = reason {
        details.insert("reason", reason);
    }
    let message = Message::Unregistered(Unregistered { request: None, revocation: Some(details) });
    // Not run, the node stops: the session hears of that anyway.
    realm.run("tell-revoked", async move {
        readers.done().await;
        let mut work = Work::new();
        for callee in callees {
            callee.send(&message, &mut work.flushes);
        }
    });
}
