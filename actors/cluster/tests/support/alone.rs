//! The answers of a node without the parts of a cluster: it is the one member, and there is nobody to exchange with.

use std::sync::{Arc, Mutex};
use tokio::time::Instant;
use weald_cluster::gate::cluster::{Answer, ClusterOps, Force};
use weald_cluster::gate::consistency::{Consistency, Place};
use weald_cluster::gate::events::Feed;
use weald_cluster::node;
use weald_cluster::service::BoxFuture;
use weald_cluster::store::StoreHandle;
use weald_proto::cluster::{AaeStatus, ClusterStatus, Member, Members};
use weald_proto::request::ClusterChanges;
use weald_proto::{ErrorCode, Reply, WireError};
use weald_storage::{Dot, VersionVector};

/// The answers of a node without cluster parts: it is the one member, and there is nobody to exchange with.
#[derive(Debug, Clone)]
pub(crate) struct Alone {
    /// Name of its cluster.
    cluster: String,
    /// Its name.
    name: String,
    /// Its node id.
    node: String,
    /// Its incarnation.
    incarnation: u32,
    /// Where it listens.
    addresses: Vec<String>,
    /// Why it takes no writes.
    refusal: Arc<Mutex<Option<String>>>,
}

impl Alone {
    fn me(&self) -> Member {
        Member {
            name: self.name.clone(),
            node: self.node.clone(),
            incarnation: self.incarnation,
            addresses: self.addresses.clone(),
            status: "joined".to_owned(),
            liveness: "up".to_owned(),
            seen_ms: node::wall_ms(),
            ..Member::default()
        }
    }

    fn no_cluster<T: Send + 'static>() -> Answer<T> {
        let text = "this node runs without the parts of a cluster";
        Box::pin(std::future::ready(Err(WireError::new(ErrorCode::Unsupported, text))))
    }

    fn no_peer<T: Send + 'static>(&self, peer: &str) -> Answer<T> {
        let text = if peer == self.name || peer == self.node {
            format!("{peer:?} is this node itself, the only member")
        } else {
            format!("there is no member {peer:?}; `weald cluster members` lists them")
        };
        Box::pin(std::future::ready(Err(WireError::new(ErrorCode::NotFound, text))))
    }
}

fn json<T: serde::Serialize>(value: &T) -> Answer<String> {
    let text = serde_json::to_string(value);
    let text = text.map_err(|e| WireError::new(ErrorCode::Internal, e.to_string()));
    Box::pin(std::future::ready(text))
}

impl ClusterOps for Alone {
    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap().clone()
    }

    fn members(&self) -> Answer<String> {
        let (cluster, own) = (self.cluster.clone(), self.node.clone());
        json(&Members { cluster, own, members: vec![self.me()], ..Members::default() })
    }

    fn join(&self, _addresses: Vec<String>, _deadline: Instant) -> Answer<String> {
        Self::no_cluster()
    }

    fn leave(&self, _deadline: Instant) -> Answer<String> {
        Self::no_cluster()
    }

    fn forget(&self, member: String, _force: Force) -> Answer<String> {
        self.no_peer(&member)
    }

    fn status(&self) -> Answer<String> {
        json(&ClusterStatus {
            cluster: self.cluster.clone(),
            name: self.name.clone(),
            node: self.node.clone(),
            members: 1,
            up: 1,
            ..ClusterStatus::default()
        })
    }

    fn events(
        &self,
        position: Option<Vec<u8>>,
        limit: usize,
        deadline: Instant,
    ) -> Answer<ClusterChanges> {
        // Nothing is ever noted in it: the wait is all there is.
        Feed::new().follow(position, limit, deadline)
    }

    fn aae_status(&self) -> Answer<String> {
        json(&AaeStatus::default())
    }

    fn aae_run(&self, peer: String, _deadline: Instant) -> Answer<String> {
        self.no_peer(&peer)
    }

    fn aae_diff(&self, peer: String, _deadline: Instant) -> Answer<String> {
        self.no_peer(&peer)
    }
}

/// Both seams of a node without cluster parts; what `refusal` holds is why it takes no writes.
pub(crate) fn alone(
    store: &StoreHandle,
    refusal: Arc<Mutex<Option<String>>>,
) -> (Arc<dyn ClusterOps>, Arc<dyn Consistency>) {
    let ops = Alone {
        cluster: "test".to_owned(),
        name: "test".to_owned(),
        node: store.store().node_id().to_string(),
        incarnation: store.store().incarnation(),
        addresses: Vec::new(),
        refusal,
    };
    (Arc::new(ops), Arc::new(Sessions::new(store)))
}

/// Sessions of a node that has no cluster parts: it is the only one that could serve them.
///
/// # Shape
/// A token is a version byte and the node's id. What a session has seen here is here, so that is all there is to say.
#[derive(Debug, Clone)]
struct Sessions {
    token: Vec<u8>,
}

impl Sessions {
    /// Version byte of a token: none that a cluster uses.
    const VERSION: u8 = 0;

    /// For the node with this store.
    fn new(store: &StoreHandle) -> Self {
        let mut token = vec![Self::VERSION];
        token.extend_from_slice(&store.store().node_id().0);
        Self { token }
    }
}

impl Consistency for Sessions {
    fn is_caught_up(&self, token: &[u8]) -> Reply<bool> {
        if token == self.token {
            return Ok(true);
        }
        Err(WireError::new(
            ErrorCode::Invalid,
            "the session token is not of this node, which is in no cluster: begin a new session",
        ))
    }

    fn caught_up(&self, token: Vec<u8>, _deadline: Instant) -> BoxFuture<'static, Reply<()>> {
        Box::pin(std::future::ready(self.is_caught_up(&token).map(|_always| ())))
    }

    fn observe(
        &self,
        token: Option<&[u8]>,
        _place: Place,
        _seen: &VersionVector,
    ) -> Reply<Vec<u8>> {
        if let Some(token) = token {
            self.is_caught_up(token)?;
        }
        Ok(self.token.clone())
    }

    fn acked(
        &self,
        _place: Place,
        _dots: Vec<Dot>,
        _members: u8,
        _deadline: Instant,
    ) -> BoxFuture<'static, u8> {
        // Nobody will ever have it: there is nothing to wait for.
        Box::pin(std::future::ready(0))
    }
}
