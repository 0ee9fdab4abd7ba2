//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use weald_wamp::message::{
    MatchPolicy, RequestType, Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};
use weald_wamp::roles::Features;
use weald_wamp::{ByteString, Dict, Message, RequestId, SessionId, SubscriptionId, uri};

use super::publication::Fanout;
use crate::auth::Action;
use crate::dealer::Refusal;
use crate::error;
use crate::realm::{Readers, Realm};
use crate::registry::PatternTooLong;
use crate::session::handle::Handle;
use crate::session::{Violation, Work, reply};

/// Takes a SUBSCRIBE.
pub(crate) fn subscribe(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    message: Subscribe,
) -> Result<(), Violation> {
    let Subscribe { request, options, topic } = message;
    let policy = options
        .match_policy
        .get()
        .map_err(|unknown| Violation(format!("SUBSCRIBE option match: {unknown}")))?;
    match begin(realm, work, session, request, &topic, policy) {
        Ok(id) if options.get_retained => {
            send_retained(realm, work, session, &topic, policy, id);
        }
        Ok(_) => {}
        Err(refusal) => {
            reply::error(realm, work, session, RequestType::Subscribe, request, &refusal);
        }
    }
    Ok(())
}

fn begin(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    topic: &ByteString,
    policy: MatchPolicy,
) -> Result<SubscriptionId, Refusal> {
    if uri::check(topic, realm.uri_rules(), policy).is_err() {
        let message = format!("{topic:?} is no topic for match {}", policy.name());
        return Err(Refusal::new(error::INVALID_URI, message));
    }
    realm.decide(session, Action::Subscribe, topic, policy)?;
    let now_ms = realm.wall_ms();
    let subscriptions_max = realm.settings().session.subscriptions;
    let (subscribed, _) = realm.change(work, |tables, work, effects| {
        if tables.owned(session.id()).0 >= subscriptions_max {
            let message = format!("a session has at most {subscriptions_max} subscriptions");
            return Err(Refusal::new(error::LIMIT_EXCEEDED, message));
        }
        let subscribed = tables
            .subscribe(session, topic, policy, now_ms, effects)
            .map_err(|error: PatternTooLong| Refusal::new(error::INVALID_URI, error.to_string()))?;
        let message = Message::Subscribed(Subscribed { request, subscription: subscribed.id });
        session.send(&message, &mut work.flushes);
        Ok(subscribed.id)
    });
    subscribed
}

/// Sends the newest kept event of each topic that matches, as far as the session would have received it.
fn send_retained(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    topic: &ByteString,
    policy: MatchPolicy,
    id: SubscriptionId,
) {
    realm.retained().matching(topic, policy, |publication| {
        if !publication.is_for(session) {
            return false;
        }
        Fanout::new(publication, realm.limits()).deliver(id, policy, [session], &mut work.flushes);
        true
    });
}

/// Takes an UNSUBSCRIBE, and waits until nobody sends events of it any more.
pub(crate) async fn unsubscribe(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    message: Unsubscribe,
) {
    let Unsubscribe { request, subscription } = message;
    let (removed, readers) = realm
        .change(work, |tables, _, effects| tables.unsubscribe(session.id(), subscription, effects));
    if removed.is_err() {
        let message = format!("the session is not on subscription {subscription}");
        let refusal = Refusal::new(error::NO_SUCH_SUBSCRIPTION, message);
        reply::error(realm, work, session, RequestType::Unsubscribe, request, &refusal);
        return;
    }
    work.flushes.flush();
    readers.done().await;
    let message = Message::Unsubscribed(Unsubscribed { request: Some(request), revocation: None });
    session.send(&message, &mut work.flushes);
}

/// Tells a subscriber that a subscription was taken from it, once nobody sends events of it any more; not one that did not
/// announce subscription revocation (advanced profile).
pub(crate) fn told_revoked(
    realm: &Arc<Realm>,
    subscription: SubscriptionId,
    subscriber: SessionId,
    reason: Option<&str>,
    readers: Readers,
) {
    let Some(subscriber) = realm.session(subscriber) else { return };
    let features = subscriber.roles().subscriber.unwrap_or_default();
    if !features.contains(Features::SUBSCRIPTION_REVOCATION) {
        return;
    }
    let mut details = Dict::new().with("subscription", subscription.get());
    if let Some(reason) = reason {
        details.insert("reason", reason);
    }
    // Not run, the node stops: the session hears of that anyway.
    realm.run("tell-revoked", async move {
        readers.done().await;
        let message =
            Message::Unsubscribed(Unsubscribed { request: None, revocation: Some(details) });
        subscriber.send(&message, &mut Work::new().flushes);
    });
}
