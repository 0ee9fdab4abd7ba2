//! PUBLISH.

use std::sync::Arc;

use weald_wamp::message::{MatchPolicy, Publish, Published as Acknowledged, RequestType};
use weald_wamp::roles::Features;
use weald_wamp::{Message, PublicationId, RequestId, uri};

use super::publication::Publication;
use crate::auth::{Action, Disclosure};
use crate::dealer::{Refusal, disclose};
use crate::error;
use crate::realm::Realm;
use crate::session::handle::Handle;
use crate::session::testament::Testament;
use crate::session::{Violation, Work, reply};

/// How a publication goes on.
#[derive(Debug)]
pub(crate) enum Published {
    /// It is on its way.
    Done,
    /// It is to be kept first; see [`keep`].
    Keep(Box<Kept>),
}

/// A publication that is to be kept for later subscribers.
#[derive(Debug)]
pub(crate) struct Kept {
    publication: Publication,
    acknowledge: Option<RequestId>,
}

/// Takes a PUBLISH.
pub(crate) fn publish(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    message: Publish,
) -> Result<Published, Violation> {
    let features = session.roles().publisher.unwrap_or_default();
    if message.options.ppt.is_some() && !features.contains(Features::PAYLOAD_PASSTHRU_MODE) {
        let what = "PUBLISH uses payload_passthru_mode, which the publisher did not announce";
        return Err(Violation(what.to_owned()));
    }
    let request = message.request;
    let acknowledge = message.options.acknowledge.then_some(request);
    let retain = message.options.retain;
    let publication = match publication(realm, work, session, message) {
        Ok(publication) => publication,
        Err(refusal) => {
            // Without acknowledgement there is never an answer.
            if acknowledge.is_some() {
                reply::error(realm, work, session, RequestType::Publish, request, &refusal);
            }
            return Ok(Published::Done);
        }
    };
    if retain {
        return Ok(Published::Keep(Box::new(Kept { publication, acknowledge })));
    }
    realm.publish(&publication, work);
    acknowledged(work, session, acknowledge, publication.id);
    Ok(Published::Done)
}

/// Keeps a publication, publishes it, and acknowledges it. A store that does not take it is no error to the publisher
/// (advanced profile, event retention: best effort).
pub(crate) async fn keep(realm: &Arc<Realm>, work: &mut Work, session: &Handle, kept: Box<Kept>) {
    let Kept { publication, acknowledge } = *kept;
    realm.retain(&publication).await;
    realm.publish(&publication, work);
    acknowledged(work, session, acknowledge, publication.id);
}

/// Publishes what a session that is gone has left. What it may not publish is dropped.
pub(crate) fn testament(realm: &Arc<Realm>, work: &mut Work, session: &Handle, left: Testament) {
    let Testament { topic, mut options, payload } = left;
    options.acknowledge = false;
    let retain = options.retain;
    let message = Publish { request: RequestId::FIRST, options, topic, payload };
    let Ok(publication) = publication(realm, work, session, message) else { return };
    if retain {
        realm.retain_later(publication.clone());
    }
    realm.publish(&publication, work);
}

fn publication(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    message: Publish,
) -> Result<Publication, Refusal> {
    let Publish { options, topic, payload, .. } = message;
    if uri::check(&topic, realm.uri_rules(), MatchPolicy::Exact).is_err() {
        return Err(Refusal::new(error::INVALID_URI, format!("{topic:?} is no topic")));
    }
    if uri::is_reserved(&topic) {
        return Err(Refusal::new(error::INVALID_URI, format!("{topic} is the router's own")));
    }
    let wants = options.disclose_me == Some(true);
    let decision = realm.decide(session, Action::Publish, &topic, MatchPolicy::Exact)?;
    let (is_disclosed, trustlevel) = match decision {
        (Disclosure::Never, _) if wants => {
            let message = "publishers are not disclosed here";
            return Err(Refusal::new(error::DISCLOSE_ME_DISALLOWED, message));
        }
        (Disclosure::Never, level) => (false, level),
        (Disclosure::Always, level) => (true, level),
        (Disclosure::OnRequest, level) => (wants, level),
    };
    Ok(Publication {
        id: new_id(work),
        topic,
        without: (options.exclude_me != Some(false)).then(|| session.id()),
        receivers: options.receivers,
        publisher: is_disclosed.then(|| disclose(session)),
        trustlevel,
        retained: false,
        ppt: options.ppt,
        payload,
        lane: session.id().get(),
    })
}

fn acknowledged(
    work: &mut Work,
    session: &Handle,
    acknowledge: Option<RequestId>,
    publication: PublicationId,
) {
    let Some(request) = acknowledge else { return };
    let message = Message::Published(Acknowledged { request, publication });
    session.send(&message, &mut work.flushes);
}

/// A new id: random, uniform, below the numbers that lose precision elsewhere.
pub(crate) fn new_id(work: &mut Work) -> PublicationId {
    loop {
        if let Some(id) = PublicationId::new(work.rng.u64(1..1 << 53)) {
            return id;
        }
    }
}
