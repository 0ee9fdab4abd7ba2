//! One publication on its way to the sessions of this node.
//!
//! Guarantees: a session gets at most one EVENT for each of its subscriptions that match; what is sent to many is encoded
//! once for each way of writing it, and shared. Refuses: to wait for a slow subscriber, or to look into the payload.

use bytes::Bytes;
use bytestring::ByteString;
use weald_transports::{Class, Flushes, Framing};
use weald_wamp::message::{Discloser, Event, EventDetails, MatchPolicy, Ppt, Receivers};
use weald_wamp::{Limits, Message, Payload, PublicationId, Serializer, SessionId, SubscriptionId};

use crate::session::handle::{Handle, encode};

/// What is published.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// Its id.
    pub(crate) id: PublicationId,
    /// Where to.
    pub(crate) topic: ByteString,
    /// The session that does not get it: its publisher, unless that wants it.
    pub(crate) without: Option<SessionId>,
    /// Who else gets it, and who does not.
    pub(crate) receivers: Option<Box<Receivers>>,
    /// Who published it, if that is disclosed.
    pub(crate) publisher: Option<Discloser>,
    /// How far the router trusts its publisher.
    pub(crate) trustlevel: Option<u64>,
    /// Whether it is an old one that was kept.
    pub(crate) retained: bool,
    /// How the payload is wrapped, if it is.
    pub(crate) ppt: Option<Box<Ppt>>,
    /// What.
    pub(crate) payload: Payload,
    /// What has the same number arrives in order on other nodes: a number of its publisher.
    pub(crate) lane: u64,
}

impl Publication {
    /// For all who want it, of nobody in particular.
    pub(crate) fn for_all(
        id: PublicationId,
        topic: ByteString,
        payload: Payload,
        lane: u64,
    ) -> Self {
        Self {
            id,
            topic,
            without: None,
            receivers: None,
            publisher: None,
            trustlevel: None,
            retained: false,
            ppt: None,
            payload,
            lane,
        }
    }

    /// The same, in memory of its own: what is kept must not keep what came with it from the same socket.
    pub(crate) fn in_memory_of_its_own(&self) -> Self {
        let raw = Bytes::copy_from_slice(self.payload.raw());
        let payload =
            Payload::from_raw_trusted(self.payload.serializer(), self.payload.parts(), raw);
        let topic = ByteString::from(&*self.topic);
        Self { topic, payload, ..self.clone() }
    }

    /// Whether a session is among the receivers.
    pub(crate) fn is_for(&self, session: &Handle) -> bool {
        if self.without == Some(session.id()) {
            return false;
        }
        let principal = session.principal();
        self.receivers.as_deref().is_none_or(|receivers| {
            is_receiver(receivers, session.id(), &principal.authid, &principal.authrole)
        })
    }

    fn event(
        &self,
        subscription: SubscriptionId,
        policy: MatchPolicy,
        payload: Payload,
    ) -> Message {
        let topic = (policy != MatchPolicy::Exact).then(|| self.topic.clone());
        Message::Event(Event {
            subscription,
            publication: self.id,
            details: EventDetails {
                publisher: self.publisher.clone(),
                topic,
                trustlevel: self.trustlevel,
                retained: self.retained,
                ppt: self.ppt.clone(),
            },
            payload,
        })
    }
}

/// A session receives what it is eligible for by every list there is, and excluded from by none. A list that is empty names
/// nobody.
pub(crate) fn is_receiver(
    receivers: &Receivers,
    session: SessionId,
    authid: &ByteString,
    authrole: &ByteString,
) -> bool {
    let Receivers {
        exclude,
        exclude_authid,
        exclude_authrole,
        eligible,
        eligible_authid,
        eligible_authrole,
    } = receivers;
    let names =
        |list: &Option<Vec<ByteString>>, name| list.as_ref().map(|list| list.contains(name));
    let ids = |list: &Option<Vec<SessionId>>| list.as_ref().map(|list| list.contains(&session));
    ids(eligible) != Some(false)
        && names(eligible_authid, authid) != Some(false)
        && names(eligible_authrole, authrole) != Some(false)
        && ids(exclude) != Some(true)
        && names(exclude_authid, authid) != Some(true)
        && names(exclude_authrole, authrole) != Some(true)
}

/// What was encoded for one publication so far.
pub(crate) struct Fanout<'a> {
    publication: &'a Publication,
    limits: &'a Limits,
    /// None: it cannot be said in that serializer.
    payloads: Vec<(Serializer, Option<Payload>)>,
    /// Of one subscription.
    encoded: Vec<(Serializer, Framing, Option<Bytes>)>,
}

impl<'a> Fanout<'a> {
    pub(crate) fn new(publication: &'a Publication, limits: &'a Limits) -> Self {
        Self { publication, limits, payloads: Vec::new(), encoded: Vec::new() }
    }

    /// Sends it to those of a subscription who receive it.
    pub(crate) fn deliver<'s>(
        &mut self,
        subscription: SubscriptionId,
        policy: MatchPolicy,
        sessions: impl IntoIterator<Item = &'s Handle>,
        flushes: &mut Flushes,
    ) {
        self.encoded.clear();
        for session in sessions {
            if !self.publication.is_for(session) {
                continue;
            }
            if let Some(framed) = self.encoded_for(subscription, policy, session) {
                // Too large for this client, or lost: at most once is what events are delivered.
                session.send_framed(framed, Class::Event, flushes);
            }
        }
    }

    fn encoded_for(
        &mut self,
        subscription: SubscriptionId,
        policy: MatchPolicy,
        session: &Handle,
    ) -> Option<Bytes> {
        let (serializer, framing) = (session.serializer(), session.framing());
        let known = self.encoded.iter().find(|known| known.0 == serializer && known.1 == framing);
        if let Some((_, _, framed)) = known {
            return framed.clone();
        }
        let framed = self.payload_in(serializer).and_then(|payload| {
            let event = self.publication.event(subscription, policy, payload);
            encode(&event, serializer, framing)
        });
        self.encoded.push((serializer, framing, framed.clone()));
        framed
    }

    fn payload_in(&mut self, serializer: Serializer) -> Option<Payload> {
        if let Some((_, payload)) = self.payloads.iter().find(|(known, _)| *known == serializer) {
            return payload.clone();
        }
        let payload = self.publication.payload.to(serializer, self.limits);
        if let Err(error) = &payload {
            tracing::debug!(event = "event_untranslatable", %serializer, %error, "an event cannot be said in another serializer");
        }
        let payload = payload.ok();
        self.payloads.push((serializer, payload.clone()));
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_in_every_eligible_list_and_in_no_excluded_one() {
        let me = SessionId::new(7).unwrap();
        let other = SessionId::new(8).unwrap();
        let (joe, staff) = (ByteString::from_static("joe"), ByteString::from_static("staff"));
        let none = || Some(Vec::new());
        for (receivers, expected) in [
            (Receivers::default(), true),
            (Receivers { eligible: Some(vec![me]), ..Receivers::default() }, true),
            (Receivers { eligible: Some(vec![other]), ..Receivers::default() }, false),
            (Receivers { eligible: Some(Vec::new()), ..Receivers::default() }, false),
            (Receivers { eligible_authid: none(), ..Receivers::default() }, false),
            (Receivers { exclude: Some(Vec::new()), ..Receivers::default() }, true),
            (Receivers { exclude: Some(vec![me]), ..Receivers::default() }, false),
            (Receivers { exclude_authid: Some(vec![joe.clone()]), ..Receivers::default() }, false),
            (
                Receivers { exclude_authrole: Some(vec![staff.clone()]), ..Receivers::default() },
                false,
            ),
            (
                Receivers {
                    eligible: Some(vec![me]),
                    eligible_authrole: Some(vec![staff.clone()]),
                    exclude_authid: Some(vec![ByteString::from_static("ann")]),
                    ..Receivers::default()
                },
                true,
            ),
            (
                Receivers {
                    eligible: Some(vec![me]),
                    exclude: Some(vec![me]),
                    ..Receivers::default()
                },
                false,
            ),
        ] {
            assert_eq!(is_receiver(&receivers, me, &joe, &staff), expected, "{receivers:?}");
        }
    }
}
