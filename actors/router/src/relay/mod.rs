//! Routing between nodes: what one node's sessions want of another's.
//!
//! What it is: [`Relay`] sends calls, events, answers and questions over the `relay` channel, and takes those of others in.
//! Interest says where events and calls go; see [`crate::interest`].
//!
//! What it guarantees: messages of one session to another node arrive in their order, and are dealt with in it; a call whose
//! node is lost ends at once; what a lost node's sessions have called here is interrupted. A publication costs one message
//! for each interested node, a call one each way.
//! What it refuses: to queue for a node that does not keep up, or in a full mesh is not connected: events are lost then, calls
//! go elsewhere or fail. Where not all nodes are connected the network connects those that have something to say to each other,
//! and gives back what it could not send.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use arc_swap::ArcSwap;
use weald_peers::{Channel, Network, SendError};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_wamp::message::{CancelMode, MatchPolicy};
use weald_wamp::{ByteString, RegistrationId};

use crate::broker::publication::Publication;
use crate::dealer::Request;
use crate::dealer::answer::Reply;
use crate::interest::{InterestHandle, change_of};
use crate::realm::Realm;
use crate::registry::{InterestChange, Kind};
use crate::router::Router;

mod asking;
pub mod frames;
mod inbox;
pub(crate) mod incoming;
mod routes;

pub use frames::CallKey;

use asking::Asks;
use frames::{Disclosure, Message};
use incoming::Incoming;

/// Why a message did not leave for another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// The node is not connected, or does not keep up.
    Unreachable,
    /// The message is larger than what nodes exchange.
    TooLarge,
}

/// What relaying has done since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages handed to connections.
    pub sent: u64,
    /// Messages that were not taken: a node is gone or does not keep up.
    pub lost: u64,
    /// Messages of other nodes.
    pub received: u64,
    /// Messages of other nodes that could not be read.
    pub malformed: u64,
}

#[derive(Debug, Default)]
struct Totals {
    sent: AtomicU64,
    lost: AtomicU64,
    received: AtomicU64,
    malformed: AtomicU64,
}

/// The way to other nodes.
pub struct Relay {
    own: NodeId,
    network: Option<Arc<dyn Network>>,
    interest: OnceLock<InterestHandle>,
    router: OnceLock<Weak<Router>>,
    connected: ArcSwap<BTreeSet<NodeId>>,
    /// Nodes whose rows are in use, which need not be connected.
    known: ArcSwap<BTreeSet<NodeId>>,
    incoming: Incoming,
    asks: Asks,
    flushes: Mutex<BTreeMap<NodeId, weald_transports::Flushes>>,
    totals: Totals,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Relay {
    /// The relay of a node that may have others. [`Self::complete`] completes it.
    #[must_use]
    pub fn new(own: NodeId, network: Option<Arc<dyn Network>>) -> Arc<Self> {
        Arc::new(Self {
            own,
            network,
            interest: OnceLock::new(),
            router: OnceLock::new(),
            connected: ArcSwap::default(),
            known: ArcSwap::default(),
            incoming: Incoming::default(),
            asks: Asks::default(),
            flushes: Mutex::default(),
            totals: Totals::default(),
        })
    }

    /// Says whose messages these are, and who tells other nodes what is wanted here. Once; later calls are ignored.
    pub fn complete(&self, router: &Arc<Router>, interest: InterestHandle) {
        // The first ones hold.
        self.router.set(Arc::downgrade(router)).ok();
        self.interest.set(interest).ok();
        for realm in router.realms() {
            self.interest_changed(realm, &realm.history_rows());
        }
    }

    pub(crate) fn own(&self) -> NodeId {
        self.own
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            sent: get(&self.totals.sent),
            lost: get(&self.totals.lost),
            received: get(&self.totals.received),
            malformed: get(&self.totals.malformed),
        }
    }

    fn router(&self) -> Option<Arc<Router>> {
        self.router.get().and_then(Weak::upgrade)
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn send(&self, node: NodeId, lane: u64, message: &Message) -> Result<(), NotSent> {
        let frame = message.encode().map_err(|error| {
            tracing::debug!(event = "relay_not_encoded", %error, "a message for another node has no encoding");
            NotSent::TooLarge
        })?;
        self.send_frame(node, lane, &frame)
    }

    fn send_frame(&self, node: NodeId, lane: u64, frame: &Frame) -> Result<(), NotSent> {
        let Some(network) = &self.network else { return Err(NotSent::Unreachable) };
        match network.send(node, Channel::Relay, lane, frame) {
            Ok(()) => {
                Self::count(&self.totals.sent);
                Ok(())
            }
            Err(error) => {
                Self::count(&self.totals.lost);
                tracing::debug!(event = "relay_not_sent", peer = %node, %error, "a message for another node was not taken");
                Err(match error {
                    SendError::Frame(_) => NotSent::TooLarge,
                    _ => NotSent::Unreachable,
                })
            }
        }
    }

    /// Sends an event to the nodes that want it. What is not taken is lost, and counted: events are delivered at most once.
    pub(crate) fn publish(&self, nodes: &[NodeId], realm: &ByteString, publication: &Publication) {
        if nodes.is_empty() {
            return;
        }
        let message = Message::Publish(frames::Publish {
            realm: realm.clone(),
            publication: publication.id,
            topic: publication.topic.clone(),
            without: publication.without,
            receivers: publication.receivers.clone(),
            publisher: publication.publisher.clone(),
            trustlevel: publication.trustlevel,
            retain: false,
            retained: false,
            ppt: publication.ppt.clone(),
            payload: publication.payload.clone(),
        });
        let frame = match message.encode() {
            Ok(frame) => frame,
            Err(error) => {
                Self::count(&self.totals.lost);
                tracing::debug!(event = "event_not_relayed", %error, "an event has no encoding for other nodes");
                return;
            }
        };
        for node in nodes {
            // Counted where it fails.
            let _lost_or_sent = self.send_frame(*node, publication.lane, &frame);
        }
    }

    /// Sends a call to a node with a callee.
    pub(crate) fn call(
        &self,
        node: NodeId,
        realm: &ByteString,
        key: CallKey,
        registration: RegistrationId,
        request: &Request,
    ) -> Result<(), NotSent> {
        let call = call_frame(realm, key, registration, request);
        self.send(node, key.session.get(), &Message::Call(call))
    }

    /// Sends another chunk of a call. A node that does not take it is about to be lost, and the call with it.
    pub(crate) fn chunk(
        &self,
        node: NodeId,
        realm: &ByteString,
        key: CallKey,
        registration: RegistrationId,
        request: &Request,
    ) {
        let call = call_frame(realm, key, registration, request);
        let _lost_or_sent = self.send(node, key.session.get(), &Message::Chunk(call));
    }

    /// Tells a node that a caller wants no more of a call.
    pub(crate) fn cancel(&self, node: NodeId, realm: &ByteString, key: CallKey, mode: CancelMode) {
        let message = Message::Cancel { realm: realm.clone(), key, mode };
        let _lost_or_sent = self.send(node, key.session.get(), &message);
    }

    /// Sends an answer to the node of the caller; answers of one callee keep their order.
    fn answer(
        &self,
        node: NodeId,
        lane: u64,
        realm: &ByteString,
        key: CallKey,
        reply: &Reply,
    ) -> Result<(), NotSent> {
        let realm = realm.clone();
        let message = match reply.clone() {
            Reply::Result { progress, ppt, payload } => {
                Message::Answer { realm, key, progress, ppt, payload }
            }
            Reply::Error { details, error, payload } => {
                Message::Failure { realm, key, error, details, payload }
            }
        };
        self.send(node, lane, &message)
    }

    /// Tells a node that its callees of a registration are replaced.
    pub(crate) fn revoke(
        &self,
        node: NodeId,
        realm: &ByteString,
        policy: MatchPolicy,
        procedure: &ByteString,
        reason: &'static str,
    ) {
        let message = Message::Revoke {
            realm: realm.clone(),
            kind: Kind::Registration,
            policy,
            uri: procedure.clone(),
            session: None,
            reason: Some(ByteString::from_static(reason)),
        };
        let _lost_or_sent = self.send(node, 0, &message);
    }

    /// Tells other nodes what this node wants in a realm.
    pub(crate) fn interest_changed(&self, realm: &Realm, rows: &[InterestChange]) {
        if rows.is_empty() {
            return;
        }
        if let Some(interest) = self.interest.get() {
            let name: Arc<str> = Arc::from(&**realm.name());
            let rows =
                rows.iter().filter(|change| change.row.is_some() || !realm.keeps(&change.key));
            interest.changed(rows.map(|change| change_of(&name, change)));
        }
    }
}

fn call_frame(
    realm: &ByteString,
    key: CallKey,
    registration: RegistrationId,
    request: &Request,
) -> frames::Call {
    frames::Call {
        realm: realm.clone(),
        key,
        registration,
        procedure: request.procedure.clone(),
        caller: request.identity.clone(),
        disclosure: match (&request.caller, request.is_secret) {
            (Some(_), _) => Disclosure::Always,
            (None, true) => Disclosure::Never,
            (None, false) => Disclosure::Asked,
        },
        trustlevel: request.trustlevel,
        receive_progress: request.receive_progress,
        progress: request.progress,
        timeout_ms: request.timeout_ms,
        ppt: request.ppt.clone(),
        payload: request.payload.clone(),
    }
}

impl From<frames::Call> for Request {
    fn from(call: frames::Call) -> Self {
        let identity = call.caller;
        Self {
            procedure: call.procedure,
            caller: (call.disclosure == Disclosure::Always).then(|| identity.clone()),
            identity,
            is_secret: call.disclosure == Disclosure::Never,
            trustlevel: call.trustlevel,
            receive_progress: call.receive_progress,
            progress: call.progress,
            timeout_ms: call.timeout_ms,
            ppt: call.ppt,
            payload: call.payload,
        }
    }
}
