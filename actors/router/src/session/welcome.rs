//! What the router says of itself and of the client in WELCOME.

use std::net::IpAddr;

use weald_transports::{Address, ConnectionInfo};
use weald_wamp::message::Welcome;
use weald_wamp::roles::{Features, Roles};
use weald_wamp::{Dict, Message, SessionId};

use crate::auth::{Authorizer, Principal};
use crate::realm::{Realm, Settings};

/// What the router calls itself.
const AGENT: &str = concat!("Weald/", env!("CARGO_PKG_VERSION"));

/// What the broker can do, however the realm is configured; [`roles`] adds what it depends on that.
const BROKER: Features = Features::PUBLISHER_EXCLUSION
    .with(Features::SUBSCRIBER_BLACKWHITE_LISTING)
    .with(Features::PATTERN_BASED_SUBSCRIPTION)
    .with(Features::SUBSCRIPTION_META_API)
    .with(Features::SUBSCRIPTION_REVOCATION)
    .with(Features::SESSION_META_API)
    .with(Features::PAYLOAD_PASSTHRU_MODE);

/// What the dealer can do, however the realm is configured.
const DEALER: Features = Features::CALL_CANCELING
    .with(Features::CALL_TIMEOUT)
    .with(Features::CALL_REROUTE)
    .with(Features::PROGRESSIVE_CALL_RESULTS)
    .with(Features::PROGRESSIVE_CALL_INVOCATIONS)
    .with(Features::PATTERN_BASED_REGISTRATION)
    .with(Features::SHARED_REGISTRATION)
    .with(Features::REGISTRATION_META_API)
    .with(Features::REGISTRATION_REVOCATION)
    .with(Features::SESSION_META_API)
    .with(Features::TESTAMENT_META_API)
    .with(Features::PAYLOAD_PASSTHRU_MODE);

/// What a realm can do as it is configured. Nothing is named that does not work, or is switched off.
pub(crate) fn roles(settings: &Settings, authorizer: &dyn Authorizer) -> Roles {
    let (mut broker, mut dealer) = (BROKER, DEALER);
    if authorizer.discloses() {
        broker = broker.with(Features::PUBLISHER_IDENTIFICATION);
        dealer = dealer.with(Features::CALLER_IDENTIFICATION);
    }
    if authorizer.gives_trustlevels() {
        broker = broker.with(Features::PUBLICATION_TRUSTLEVELS);
        dealer = dealer.with(Features::CALL_TRUSTLEVELS);
    }
    if settings.retention.topics_max > 0 {
        broker = broker.with(Features::EVENT_RETENTION);
    }
    if !settings.history.is_empty() {
        broker = broker.with(Features::EVENT_HISTORY);
    }
    Roles { broker: Some(broker), dealer: Some(dealer), ..Roles::default() }
}

/// How a session is connected, for others to see.
pub(crate) fn transport(info: &ConnectionInfo) -> Dict {
    let mut transport = Dict::new()
        .with("type", info.kind.name())
        .with("serializer", info.serializer.name())
        .with("peer", info.peer.to_string())
        .with("is_secure", info.tls.is_some());
    if let Some(agent) = info.http.as_ref().and_then(|http| http.user_agent.as_deref()) {
        transport.insert("user_agent", agent);
    }
    transport
}

/// The address of the client's machine. None: a Unix socket, which is this machine.
pub(crate) fn address(info: &ConnectionInfo) -> Option<IpAddr> {
    match &info.peer {
        Address::Ip(address) => Some(address.ip()),
        Address::Unix(_) => None,
    }
}

/// WELCOME.
pub(crate) fn welcome(session: SessionId, realm: &Realm, principal: &Principal) -> Message {
    let roles = realm.roles();
    let mut details = Dict::new()
        .with("realm", realm.name().clone())
        .with("authid", principal.authid.clone())
        .with("authrole", principal.authrole.clone())
        .with("authmethod", principal.authmethod.clone())
        .with("authprovider", principal.authprovider.clone())
        .with("agent", AGENT)
        .with("roles", roles.to_dict());
    if let Some(extra) = &principal.authextra {
        details.insert("authextra", extra.clone());
    }
    Message::Welcome(Welcome { session, details })
}
