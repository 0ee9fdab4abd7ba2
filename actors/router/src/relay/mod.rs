//! Routing between nodes.

use std::sync::Arc;

use futures::future::BoxFuture;
use weald_storage::NodeId;
use weald_wamp::message::CancelMode;
use weald_wamp::{ByteString, RegistrationId};

use crate::broker::publication::Publication;
use crate::dealer::Request;
use crate::meta::query::{Part, Query};
use crate::realm::Realm;
use crate::registry::InterestChange;

pub mod frames;
pub(crate) mod incoming;

pub use frames::CallKey;

/// Why a message did not leave for another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// The node is not connected, or does not keep up.
    Unreachable,
    /// The message is larger than what nodes exchange.
    TooLarge,
}

/// The way to other nodes.
#[derive(Debug)]
pub struct Relay {
    own: NodeId,
}

impl Relay {
    /// Of a node that is alone.
    #[must_use]
    pub fn alone(own: NodeId) -> Arc<Self> {
        Arc::new(Self { own })
    }

    pub(crate) fn own(&self) -> NodeId {
        self.own
    }

    pub(crate) fn interest_of_history(&self, _realm: &Arc<Realm>) {}
    pub(crate) fn interest_changed(&self, _realm: &Arc<Realm>, _rows: &[InterestChange]) {}
    pub(crate) fn publish(
        &self,
        _nodes: &[NodeId],
        _realm: &ByteString,
        _publication: &Publication,
    ) {
    }
    pub(crate) fn call(
        &self,
        _node: NodeId,
        _realm: &ByteString,
        _key: CallKey,
        _registration: RegistrationId,
        _request: &Request,
    ) -> Result<(), NotSent> {
        Err(NotSent::Unreachable)
    }
    pub(crate) fn chunk(
        &self,
        _node: NodeId,
        _realm: &ByteString,
        _key: CallKey,
        _request: &Request,
    ) {
    }
    pub(crate) fn cancel(
        &self,
        _node: NodeId,
        _realm: &ByteString,
        _key: CallKey,
        _mode: CancelMode,
    ) {
    }
    pub(crate) fn revoke(
        &self,
        _node: NodeId,
        _realm: &ByteString,
        _policy: weald_wamp::message::MatchPolicy,
        _procedure: &str,
    ) {
    }
    pub(crate) fn ask(
        &self,
        _realm: &ByteString,
        _query: &Query,
    ) -> Option<BoxFuture<'static, Vec<Part>>> {
        None
    }
}
