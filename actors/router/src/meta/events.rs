//! What the router publishes of itself: who comes and goes, and what they want.
//!
//! Events of the sessions of a node are published by that node, to all; no node repeats what another has said.

use std::sync::Arc;

use weald_wamp::{ByteString, Dict, Serializer, Value};

use super::query::details_dict;
use crate::broker::publication::Publication;
use crate::broker::publish::new_id;
use crate::realm::Realm;
use crate::registry::{MetaChange, MetaEvent};
use crate::session::handle::Handle;
use crate::session::{Work, reply};

/// What others may know of a session.
pub(crate) fn session_details(session: &Handle) -> Dict {
    let principal = session.principal();
    Dict::new()
        .with("session", session.id().get())
        .with("authid", principal.authid.clone())
        .with("authrole", principal.authrole.clone())
        .with("authmethod", principal.authmethod.clone())
        .with("authprovider", principal.authprovider.clone())
        .with("transport", session.transport().clone())
}

/// `wamp.session.on_join`.
pub(crate) fn joined(realm: &Arc<Realm>, work: &mut Work, session: &Handle) {
    publish(realm, work, session.id().get(), "wamp.session.on_join", true, || {
        vec![Value::Map(session_details(session))]
    });
}

/// `wamp.session.on_leave`.
pub(crate) fn left(realm: &Arc<Realm>, work: &mut Work, session: &Handle) {
    let principal = session.principal();
    publish(realm, work, session.id().get(), "wamp.session.on_leave", true, || {
        vec![
            Value::from(session.id().get()),
            Value::from(principal.authid.clone()),
            Value::from(principal.authrole.clone()),
        ]
    });
}

/// `wamp.subscription.on_*` and `wamp.registration.on_*`.
pub(crate) fn registry(realm: &Arc<Realm>, work: &mut Work, events: &[MetaEvent]) {
    for event in events {
        // What came or went with a node every node sees by itself.
        let to_all = event.session.is_some();
        let session = event.session.map_or(Value::Null, |session| Value::from(session.get()));
        publish(realm, work, event.id.get(), event.topic(), to_all, || match &event.change {
            MetaChange::Created(details) => vec![session, Value::Map(details_dict(details))],
            MetaChange::Joined | MetaChange::Left | MetaChange::Deleted => {
                vec![session, Value::from(event.id.get())]
            }
        });
    }
}

fn publish(
    realm: &Arc<Realm>,
    work: &mut Work,
    lane: u64,
    topic: &'static str,
    to_all: bool,
    args: impl FnOnce() -> Vec<Value>,
) {
    let is_wanted = {
        let snapshot = realm.snapshot();
        let found = snapshot.subscriptions(topic);
        !found.rows.is_empty() || !found.nodes.is_empty()
    };
    if !is_wanted && realm.history().is_empty() {
        return;
    }
    let payload = reply::values(Serializer::MsgPack, &args(), &Dict::new());
    let topic = ByteString::from_static(topic);
    let publication = Publication::for_all(new_id(work), topic, payload, lane);
    if to_all {
        realm.publish(&publication, work);
    } else {
        realm.publish_here(&publication, work);
    }
}
