//! What membership, broadcast and exchange are given by the store and the transport.

use super::StoreSink;
use super::standing::Standing;
use crate::store::StoreHandle;
use crate::transport::{Admission, DialFailure, RefusedBy, Transport};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use weald_broadcast::{Behind, Merging};
use weald_exchange::{ExchangeHandle, Lives, MergeFailure};
use weald_membership::{Connector, DialError, MembershipHandle, Refusal, Renew};
use weald_peers::{Liveness, PeerInfo};
use weald_proto::hello::Refused;
use weald_storage::{Delta, Evidence, NodeId, Space};

impl weald_exchange::Sink for StoreSink {
    fn merge(
        &self,
        partition: u16,
        space: Space,
        items: Vec<(Delta, Evidence)>,
    ) -> BoxFuture<'static, Vec<Result<bool, MergeFailure>>> {
        self.take(partition, space, items).boxed()
    }
}

/// What the broadcast merges into.
#[derive(Debug, Clone)]
pub(super) struct BroadcastSink {
    pub(super) sink: StoreSink,
    pub(super) life: Arc<Life>,
}

impl weald_broadcast::Sink for BroadcastSink {
    fn merge(&self, partition: u16, space: Space, deltas: Vec<Delta>) -> Merging {
        let items = deltas.into_iter().map(|delta| (delta, Evidence::Own)).collect();
        let merging = self.sink.take(partition, space, items);
        let life = Arc::clone(&self.life);
        async move {
            let mut results = Vec::new();
            for outcome in merging.await {
                results.push(match outcome {
                    Ok(fresh) => Ok(fresh),
                    Err(failure) => {
                        if let MergeFailure::OwnEventUnknown { highest } = failure {
                            life.renew_soon(highest);
                        }
                        let reason = failure.to_string();
                        Err(weald_broadcast::MergeFailure::Refused { reason })
                    }
                });
            }
            results
        }
        .boxed()
    }
}

/// An exchange makes up for what a broadcast dropped.
#[derive(Debug, Clone)]
pub(super) struct Makeup(pub(super) ExchangeHandle);

impl Behind for Makeup {
    fn behind(&self, peer: NodeId) {
        self.0.behind(peer);
    }
}

/// The lives of this node: the store begins them, and everybody who tells of them follows.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) store: StoreHandle,
    pub(super) transport: Transport,
    pub(super) membership: MembershipHandle,
}

impl Life {
    /// Goes on above `highest`, which may be an incarnation of the durable or of the memory tables, unless it does already.
    /// Blocks.
    fn go_on(&self, highest: u32) -> Result<u32, String> {
        let store = self.store.store();
        let now = store.incarnation();
        if store.is_above(highest) {
            return Ok(now);
        }
        let actor = store.renew_incarnation(highest).map_err(|e| e.to_string())?;
        tracing::warn!(
            event = "incarnation_renewed",
            from = now,
            to = actor.incarnation,
            "this node goes on as a new incarnation"
        );
        self.transport.set_incarnation(actor.incarnation);
        self.membership.renewed(actor.incarnation);
        Ok(actor.incarnation)
    }

    fn renew_soon(self: &Arc<Self>, highest: u32) {
        if self.store.store().is_above(highest) {
            return;
        }
        let life = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || life.renew(highest)));
    }
}

impl Lives for Life {
    fn renew(&self, highest: u32) {
        if let Err(error) = self.go_on(highest) {
            // The next object of a peer asks for it again.
            tracing::error!(
                event = "incarnation_not_renewed",
                error,
                "a new incarnation could not be written"
            );
        }
    }
}

/// [`Life`] for the membership, which waits for it.
#[derive(Debug, Clone)]
pub(super) struct Renewal(pub(super) Arc<Life>);

impl Renew for Renewal {
    fn renew(&self, above: u32) -> BoxFuture<'static, Result<u32, String>> {
        let life = Arc::clone(&self.0);
        async move {
            let renewing = tokio::task::spawn_blocking(move || life.go_on(above));
            renewing.await.map_err(|e| e.to_string())?
        }
        .boxed()
    }
}

/// The transport, as the membership directs it.
#[derive(Debug, Clone)]
pub(super) struct Links {
    pub(super) transport: Transport,
    pub(super) membership: MembershipHandle,
    pub(super) standing: Arc<Standing>,
}

impl Connector for Links {
    fn want(&self, peers: BTreeMap<NodeId, Vec<String>>) {
        self.transport.want(peers);
    }

    fn dial_seed(&self, addresses: Vec<String>) -> BoxFuture<'static, Result<PeerInfo, DialError>> {
        let this = self.clone();
        async move {
            this.transport.dial_seed(addresses).await.map_err(|failure| {
                if let DialFailure::Refused { refused, name, by: RefusedBy::Peer, .. } = &failure {
                    let (peer, cluster) =
                        (name.as_deref().unwrap_or_default(), this.membership.cluster());
                    this.standing.refused_by(peer, refused, &cluster);
                }
                dial_error(&failure)
            })
        }
        .boxed()
    }
}

fn dial_error(failure: &DialFailure) -> DialError {
    let evicted_by = match failure {
        DialFailure::Refused { refused: Refused::Evicted(by), .. } => by.parse().ok(),
        _ => None,
    };
    DialError { why: failure.to_string(), evicted_by }
}

/// The membership says who may connect.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) membership: MembershipHandle,
    pub(super) standing: Arc<Standing>,
}

impl Admission for Door {
    fn admit(&self, peer: &PeerInfo) -> Result<(), Refused> {
        let own = self.membership.cluster().own;
        self.membership.admit(peer).map_err(|refusal| match refusal {
            // Who refuses is told, so that the evicted node can note by whom.
            Refusal::Evicted => Refused::Evicted(own.to_string()),
            Refusal::NameTaken { name, .. } => Refused::NameTaken(name),
            Refusal::Itself => Refused::Clone(own.to_string()),
            _ => Refused::NotServing,
        })
    }

    fn refused_by(&self, peer: NodeId, why: &Refused) {
        if matches!(why, Refused::Evicted(_)) {
            self.membership.evicted_by(peer);
        }
        let cluster = self.membership.cluster();
        if let Some(member) = cluster.members.get(&peer) {
            self.standing.refused_by(&member.name, why, &cluster);
        }
    }

    fn way_to(&self, node: NodeId) -> Option<Vec<String>> {
        let cluster = self.membership.cluster();
        let is_partial = !cluster.is_full_mesh;
        let member = cluster.members.get(&node).filter(|_| is_partial && node != cluster.own)?;
        let answers = member.status.is_member() && member.liveness != Liveness::Down;
        answers.then(|| member.addresses.clone())
    }
}
