//! What the membership needs from the transport and the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use thiserror::Error;
use weald_peers::PeerInfo;
use weald_storage::NodeId;

/// Why nobody was reached at a seed's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{why}")]
pub struct DialError {
    /// For people.
    pub why: String,
    /// Set when a member refused this node as evicted.
    pub evicted_by: Option<NodeId>,
}

/// Makes connections.
pub trait Connector: Send + Sync + 'static {
    /// Keeps connections with these, and ends those with others. Never waits.
    fn want(&self, peers: BTreeMap<NodeId, Vec<String>>);

    /// Connects to whoever is at one of these addresses, and stays connected for a while.
    fn dial_seed(&self, addresses: Vec<String>) -> BoxFuture<'static, Result<PeerInfo, DialError>>;
}

/// Gives this node a new incarnation, so that it can come back after an eviction.
pub trait Renew: Send + Sync + 'static {
    /// Takes an incarnation above this one and returns it; handshakes tell it from then on.
    fn renew(&self, above: u32) -> BoxFuture<'static, Result<u32, String>>;
}

/// A [`Connector`] as it is shared.
pub type ConnectorHandle = Arc<dyn Connector>;
/// A [`Renew`] as it is shared.
pub type RenewHandle = Arc<dyn Renew>;
