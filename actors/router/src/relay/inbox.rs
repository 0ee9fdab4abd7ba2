//! What comes from other nodes.
//!
//! Called by the actors of connections: everything here is done at once, in the order of arrival, and waits for nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use weald_peers::{Channel, Inbox, PeerEvent};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_transports::Flushes;

use super::frames::{self, CallKey, Message, pack, unpack};
use super::{Relay, incoming};
use crate::broker::publication::Publication;
use crate::dealer::answer::{Reply, deliver, reroute};
use crate::dealer::{Refusal, Tried, call, register};
use crate::error;
use crate::interest::wire::is_interest;
use crate::meta::query::{self, Part};
use crate::realm::Realm;
use crate::registry::Kind;
use crate::router::Router;
use crate::session::Work;
use crate::session::handle::Handle;

impl Inbox for Relay {
    fn frame(&self, from: NodeId, channel: Channel, frame: Frame) {
        if is_interest(frame.kind) {
            if let Some(interest) = self.interest.get() {
                interest.frame(from, channel, frame);
            }
            return;
        }
        Self::count(&self.totals.received);
        let Some(router) = self.router() else { return };
        let message = match Message::decode(frame, router.limits()) {
            Ok(message) => message,
            Err(malformed) => return self.malformed(from, &malformed),
        };
        let mut work = Work::new();
        self.taken(&router, &mut work, from, message);
        self.later(from, work.flushes);
    }

    fn peer(&self, event: &PeerEvent) {
        if let Some(interest) = self.interest.get() {
            interest.peer(event);
        }
        match event {
            PeerEvent::Up(info) => set(&self.connected, info.node, true),
            PeerEvent::Down { node, is_agreed, .. } => {
                set(&self.connected, *node, false);
                if !is_agreed {
                    self.lost(*node);
                }
            }
        }
    }

    fn needs(&self, peer: NodeId) -> bool {
        let Some(router) = self.router() else { return false };
        let calls_there = |realm: &Arc<Realm>| {
            realm.sessions().values().any(|session| session.calls().is_anything_at(peer))
        };
        self.asks.is_asked(peer)
            || self.incoming.is_any_of(peer)
            || router.realms().any(calls_there)
    }

    fn unsent(&self, to: NodeId, frame: Frame) {
        Self::count(&self.totals.lost);
        let Some(router) = self.router() else { return };
        // It is this node's own, and was readable.
        let Ok(message) = Message::decode(frame, router.limits()) else { return };
        let mut work = Work::new();
        match message {
            Message::Call(call) => {
                if let Some((realm, session)) = caller(&router, &call) {
                    let tried = Tried::Unreached(to);
                    reroute(&realm, &mut work, &session, call.key.request, tried, false);
                }
            }
            Message::Chunk(chunk) => {
                if let Some((realm, session)) = caller(&router, &chunk) {
                    let request = chunk.key.request;
                    call::chunk_again(&realm, &mut work, &session, request, &chunk.into());
                }
            }
            Message::Ask { ask, .. } => self.asks.told(to, ask, Part::Nothing),
            // Events, answers to a node that cannot be reached, what belongs to a call that was not sent either.
            Message::Publish(_)
            | Message::Cancel { .. }
            | Message::Answer { .. }
            | Message::Failure { .. }
            | Message::NotThere { .. }
            | Message::Taken { .. }
            | Message::Revoke { .. }
            | Message::Reply { .. } => {}
        }
    }

    fn batch_end(&self, from: NodeId, _: Channel) {
        let flushes = self.flushes_of().remove(&from);
        // Flushed where it is dropped, without the lock.
        drop(flushes);
    }
}

impl Relay {
    fn flushes_of(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<NodeId, Flushes>> {
        self.flushes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Connections that were written to are flushed when the batch is done.
    fn later(&self, from: NodeId, mut flushes: Flushes) {
        self.flushes_of().entry(from).or_default().append(&mut flushes);
    }

    fn malformed(&self, from: NodeId, why: &dyn std::fmt::Display) {
        Self::count(&self.totals.malformed);
        tracing::debug!(event = "relay_malformed", peer = %from, why = %why, "a message of a node could not be read");
    }

    /// A node is lost: its calls here are stopped, calls of this node's sessions there fail.
    fn lost(&self, node: NodeId) {
        let mut work = Work::new();
        self.asks.lost(node);
        self.incoming.lost(node, &mut work);
        let Some(router) = self.router() else { return };
        for realm in router.realms() {
            for session in realm.sessions().values() {
                let requests = session.calls().node_lost(node);
                for request in requests {
                    let refusal = Refusal::new(error::CANCELED, "the node of the callee is lost");
                    call::refuse(realm, &mut work, session, request, &refusal);
                }
            }
        }
    }
}

impl Relay {
    fn taken(&self, router: &Arc<Router>, work: &mut Work, from: NodeId, message: Message) {
        let name = match &message {
            Message::Reply { ask, body } => {
                match unpack(body) {
                    Ok(part) => self.asks.told(from, *ask, part),
                    Err(malformed) => {
                        self.malformed(from, &malformed);
                        self.asks.told(from, *ask, Part::Nothing);
                    }
                }
                return;
            }
            Message::Publish(frames::Publish { realm, .. })
            | Message::Call(frames::Call { realm, .. })
            | Message::Chunk(frames::Call { realm, .. })
            | Message::Cancel { realm, .. }
            | Message::Answer { realm, .. }
            | Message::Failure { realm, .. }
            | Message::NotThere { realm, .. }
            | Message::Taken { realm, .. }
            | Message::Revoke { realm, .. }
            | Message::Ask { realm, .. } => realm,
        };
        if let Some(realm) = router.realm(name) {
            self.routed(&realm, work, from, message);
        } else if let Message::Ask { ask, .. } = message {
            // A realm that this node does not have (yet) has no sessions here; but the asking node waits.
            self.reply(from, ask, &Part::Nothing);
        }
    }

    fn routed(&self, realm: &Arc<Realm>, work: &mut Work, from: NodeId, message: Message) {
        match message {
            Message::Publish(publish) => realm.publish_here(&publish.into(), work),
            Message::Call(call) => {
                let (key, registration) = (call.key, call.registration);
                incoming::call(realm, work, from, key, registration, call.into());
            }
            Message::Chunk(call) => {
                let key = call.key;
                incoming::chunk(realm, work, from, key, &call.into());
            }
            Message::Cancel { key, mode, .. } => incoming::cancelled(realm, work, from, key, mode),
            Message::Answer { key, progress, ppt, payload, .. } => {
                answered(realm, work, from, key, Reply::Result { progress, ppt, payload });
            }
            Message::Failure { key, error, details, payload, .. } => {
                answered(realm, work, from, key, Reply::Error { details, error, payload });
            }
            Message::NotThere { key, .. } => {
                if let Some(session) = realm.session(key.session) {
                    reroute(realm, work, &session, key.request, Tried::Node(from), false);
                }
            }
            Message::Taken { key, keeps_time, .. } => {
                let keeps_time = keeps_time && realm.settings().calls.max.is_none();
                if let Some(session) = realm.session(key.session).filter(|_| keeps_time) {
                    session.calls().unlimit(key.request);
                }
            }
            Message::Revoke { kind: Kind::Registration, policy, uri, reason, .. } => {
                register::revoked(realm, work, policy, &uri, u64::MAX, reason.as_deref());
            }
            // Nobody sends these.
            Message::Revoke { kind: Kind::Subscription, .. } | Message::Reply { .. } => {}
            Message::Ask { ask, body, .. } => match unpack(&body) {
                Ok(query) => self.reply(from, ask, &query::answer(realm, &query)),
                Err(malformed) => {
                    self.malformed(from, &malformed);
                    self.reply(from, ask, &Part::Nothing);
                }
            },
        }
    }

    fn reply(&self, node: NodeId, ask: u64, part: &Part) {
        let Ok(body) = pack(part) else { return };
        let _lost_or_sent = self.send(node, ask, &Message::Reply { ask, body });
    }
}

/// Puts a node into a set, or takes it out.
pub(super) fn set(nodes: &ArcSwap<BTreeSet<NodeId>>, node: NodeId, is_in: bool) {
    if nodes.load().contains(&node) == is_in {
        return;
    }
    nodes.rcu(|nodes| {
        let mut nodes = BTreeSet::clone(nodes);
        if is_in {
            nodes.insert(node);
        } else {
            nodes.remove(&node);
        }
        nodes
    });
}

/// The session whose call it is.
fn caller(router: &Arc<Router>, call: &frames::Call) -> Option<(Arc<Realm>, Handle)> {
    let realm = router.realm(&call.realm)?;
    let session = realm.session(call.key.session)?;
    Some((realm, session))
}

fn answered(realm: &Arc<Realm>, work: &mut Work, from: NodeId, key: CallKey, reply: Reply) {
    let Some(session) = realm.session(key.session) else { return };
    if reply.is_unavailable() {
        reroute(realm, work, &session, key.request, Tried::Node(from), true);
    } else {
        deliver(realm, work, &session, key.request, reply);
    }
}

impl From<frames::Publish> for Publication {
    fn from(publish: frames::Publish) -> Self {
        Self {
            id: publish.publication,
            topic: publish.topic,
            without: publish.without,
            receivers: publish.receivers,
            publisher: publish.publisher,
            trustlevel: publish.trustlevel,
            retained: publish.retained,
            ppt: publish.ppt,
            payload: publish.payload,
            lane: 0,
        }
    }
}
